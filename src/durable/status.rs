//! Whether the log runs, in one word that a child of fork() sees as zero.

#[cfg(not(linux_unmodelled))]
use crate::sys::fork;
use crate::sys::sync::{AtomicU32, Ordering};

/// The status word. Where Linux can, it lies in a page that a child of fork() sees as zeros.
/// Elsewhere it belongs to the process that made it, and reads as 0 in any other.
#[derive(Debug)]
pub(crate) struct Status {
    #[cfg(not(linux_unmodelled))]
    word: AtomicU32,
    #[cfg(not(linux_unmodelled))]
    process: u32,
    #[cfg(linux_unmodelled)]
    page: std::ptr::NonNull<AtomicU32>,
    #[cfg(linux_unmodelled)]
    layout: std::alloc::Layout,
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
mod wiped {
    use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
    use std::ptr::NonNull;

    use nix::libc;

    use super::{AtomicU32, Ordering, Status};
    use crate::sys::pages::{page, whole_pages, wipe_in_children};

    // SAFETY: the page holds one atomic word, which may be used from every thread.
    unsafe impl Send for Status {}
    // SAFETY: as above.
    unsafe impl Sync for Status {}

    impl Status {
        pub(crate) fn new(value: u32) -> Self {
            // A power of two is a valid layout: there is no other case.
            let layout = whole_pages(1, page()).unwrap_or(Layout::new::<[u64; 512]>());
            // SAFETY: the layout's size is not zero.
            let page = unsafe { alloc_zeroed(layout) };
            let Some(page) = NonNull::new(page) else { handle_alloc_error(layout) };
            // SAFETY: the range is one page of ours, whole and aligned. A refusal (kernels before
            // 4.14) only loses the check for fork.
            unsafe { wipe_in_children(page, layout.size()) };
            let status = Status { page: page.cast(), layout };
            status.word().store(value, Ordering::SeqCst);
            status
        }

        pub(crate) fn load(&self) -> u32 {
            self.word().load(Ordering::SeqCst)
        }

        #[inline]
        pub(super) fn word(&self) -> &AtomicU32 {
            // SAFETY: page-aligned, initialised as zeros, freed only in drop.
            unsafe { self.page.as_ref() }
        }
    }

    impl Drop for Status {
        fn drop(&mut self) {
            // SAFETY: as in new(): our page, allocated with this layout, and this is its last user.
            unsafe {
                libc::madvise(self.page.as_ptr().cast(), self.layout.size(), libc::MADV_KEEPONFORK);
                dealloc(self.page.as_ptr().cast(), self.layout);
            }
        }
    }
}
