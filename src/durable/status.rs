//! Whether the log runs, in one word that a child of fork() sees as zero.

#[cfg(not(linux_unmodelled))]
use crate::sys::fork;
use crate::sys::sync::{AtomicU32, Ordering};
#[cfg(linux_unmodelled)]
use crate::sys::wiped::WipedWord;

/// The status word. On Linux with the feature `uring`, a child of fork() finds it wiped.
/// Elsewhere it belongs to the process that made it, and reads as 0 in any other.
#[derive(Debug)]
pub(crate) struct Status {
    #[cfg(not(linux_unmodelled))]
    word: AtomicU32,
    #[cfg(not(linux_unmodelled))]
    process: u32,
    #[cfg(linux_unmodelled)]
    word: WipedWord,
}

impl Status {
    pub(crate) fn store(&self, value: u32) {
        self.word().store(value, Ordering::SeqCst);
    }

    pub(crate) fn change(&self, from: u32, to: u32) {
        let _ = self.word().compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
    }
}

#[cfg(not(linux_unmodelled))]
impl Status {
    pub(crate) fn new(value: u32) -> Self {
        Status { word: AtomicU32::new(value), process: fork::generation() }
    }

    #[inline]
    pub(crate) fn load(&self) -> u32 {
        match self.process == fork::generation() {
            true => self.word.load(Ordering::SeqCst),
            false => 0,
        }
    }

    fn word(&self) -> &AtomicU32 {
        &self.word
    }
}

#[cfg(linux_unmodelled)]
impl Status {
    pub(crate) fn new(value: u32) -> Self {
        let status = Status { word: WipedWord::new() };
        status.word().store(value, Ordering::SeqCst);
        status
    }

    pub(crate) fn load(&self) -> u32 {
        self.word().load(Ordering::SeqCst)
    }

    #[inline]
    fn word(&self) -> &AtomicU32 {
        self.word.get()
    }
}
