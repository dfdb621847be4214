//! What carries the I/O thread's writes and syncs to the files.
//!
//! 1. Operations are pushed, then submitted together; each ends in one completion for each part.
//! 2. Completions come in any order and are reaped by the I/O thread only.
//! 3. A sync that is linked to a write starts after that write has ended in full; if it did not,
//!    the sync fails as cancelled.
//! 4. No operation is retried here.

mod choose;
#[cfg(feature = "discard")]
mod discard;
mod method;
#[cfg(simulated)]
pub(crate) mod sim;
mod std_fs;
#[cfg(all(test, not(ringwal_loom)))]
mod std_tests;
#[cfg(linux_calls)]
mod uring;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) use choose::{BackendRequest, choose};
pub use method::MethodReason;
pub(crate) use method::{ChosenMethod, CommitState, Method};
pub(crate) use std_fs::StdBackend;
#[cfg(linux_calls)]
pub(crate) use uring::UringBackend;

use crate::io::fs::File;
use crate::ring::Wake;

/// The writer's lock, as a backend sees it.
///
/// A backend that ends while the kernel may still write for it says so with [`Hold::keep`]. The
/// lock's owner then closes its descriptor without unlocking: the lock ends with the last
/// operation, as the kernel holds the description until then.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    #[cfg_attr(not(linux_calls), allow(dead_code, reason = "registered with io_uring"))]
    fd: i32,
    kept: Arc<AtomicBool>,
}

impl Hold {
    /// `fd`: the lock file's descriptor, open while the lock's owner lives; -1 where there is none.
    pub(crate) fn new(fd: i32) -> Self {
        Hold { fd, kept: Arc::new(AtomicBool::new(false)) }
    }

    #[cfg_attr(not(linux_calls), allow(dead_code, reason = "registered with io_uring"))]
    pub(crate) fn fd(&self) -> i32 {
        self.fd
    }

    /// Operations are in flight that no thread waits for any more.
    #[cfg_attr(not(linux_calls), allow(dead_code, reason = "std waits for each call"))]
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::SeqCst)
    }
}

/// Files that can be attached at a time: at most two segments are unsynced, one is being left.
pub(crate) const SLOTS: usize = 4;

#[derive(Debug, Clone, Copy)]
pub(crate) struct WriteRequest {
    /// Comes back in the completions. Below 2^61.
    pub(crate) token: u64,
    pub(crate) slot: usize,
    pub(crate) offset: u64,
    pub(crate) start: *const u8,
    pub(crate) len: u32,
    /// Which of the ring's buffers `start` lies in.
    #[cfg_attr(not(linux_calls), allow(dead_code, reason = "for registered buffers"))]
    pub(crate) buffer: usize,
    pub(crate) method: Method,
}

// SAFETY: the pointer is only an address here. The code that reads through it has the promise of
// `Backend::write`, on whatever thread: initialised memory that no thread writes to meanwhile.
unsafe impl Send for WriteRequest {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Write,
    Sync,
}

#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) token: u64,
    pub(crate) part: Part,
    /// Bytes written; 0 for a sync.
    pub(crate) result: io::Result<u32>,
}

pub(crate) trait Backend: Send {
    /// Makes the file known as `slot`. The slot is free.
    fn attach(&mut self, slot: usize, file: &Arc<dyn File>) -> io::Result<()>;
    /// Forgets the slot's file and unlocks it. No operation on it is in flight.
    fn detach(&mut self, slot: usize);
    /// Queues a write.
    ///
    /// # Safety
    ///
    /// - `start..start + len` is initialised memory inside ring buffer `buffer`;
    /// - no thread writes to it and it is not freed until the write's completion has been reaped,
    ///   or the backend has been dropped.
    unsafe fn write(&mut self, write: WriteRequest);
    /// Queues a sync of the slot's data: it covers every write that completed before.
    fn sync(&mut self, token: u64, slot: usize);
    /// Hands what is queued to the system, without waiting for it if the system allows.
    fn submit(&mut self) -> io::Result<()>;
    /// Submits, and sleeps until there is a completion, the waker is called, or the time is over.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;
    fn reap(&mut self) -> Option<Completion>;
    fn waker(&self) -> Box<dyn Wake>;
}

/// Which backend runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendKind {
    /// io_uring.
    IoUring,
    /// `std::fs`.
    Std,
    /// None: nothing is written.
    #[cfg(feature = "discard")]
    Discard,
    /// A simulated disk's.
    #[cfg(simulated)]
    Simulated,
}

impl BackendKind {
    /// Whether what it calls durable is.
    pub(crate) fn is_durable(self) -> bool {
        match self {
            BackendKind::IoUring | BackendKind::Std => true,
            #[cfg(feature = "discard")]
            BackendKind::Discard => false,
            // Durable as far as it goes: there is no other process to tell.
            #[cfg(simulated)]
            BackendKind::Simulated => false,
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BackendKind::IoUring => "io_uring",
            BackendKind::Std => "std",
            #[cfg(feature = "discard")]
            BackendKind::Discard => "discard",
            #[cfg(simulated)]
            BackendKind::Simulated => "simulated",
        })
    }
}

/// The name of the commit method, as `BackendInfo` has it.
pub(crate) fn method_name(kind: BackendKind, method: Method) -> &'static str {
    match (kind, method) {
        #[cfg(feature = "discard")]
        (BackendKind::Discard, _) => "none",
        #[cfg(simulated)]
        (BackendKind::Simulated, Method::Dsync) => "dsync",
        #[cfg(simulated)]
        (BackendKind::Simulated, _) => "linked-fsync",
        (BackendKind::Std, _) => "write-fsync",
        (BackendKind::IoUring, Method::Dsync) => "dsync",
        (BackendKind::IoUring, _) => "linked-fsync",
    }
}

/// What does a log's I/O, and why that.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BackendInfo {
    /// The backend.
    pub kind: BackendKind,
    /// Why this one; for the fallback, what to do about it.
    pub reason: String,
    /// How a group is made durable at the moment: `linked-fsync`, `dsync` or `write-fsync`. With
    /// [`CommitMethod::Auto`](crate::CommitMethod::Auto) it may change while the log is open.
    pub commit_method: &'static str,
    /// Why that one.
    pub commit_method_reason: MethodReason,
    /// The same in words, with the times that were measured.
    pub commit_method_detail: String,
    /// Whether writes go past the page cache. False also where the filesystem accepts direct I/O
    /// and caches all the same, as tmpfs, ext4 with `data=journal` and btrfs with checksums do.
    pub direct_io: bool,
    /// Whether the ring's buffers are registered with the kernel.
    pub registered_buffers: bool,
    /// Bytes that groups are aligned to.
    pub block_size: u32,
    /// Groups in flight at most.
    pub depth: usize,
    /// Bytes of the ring.
    pub ring_bytes: usize,
    /// Why the log's filesystem does not keep what it has synced, for instance because it is a
    /// tmpfs. `None`: nothing of the kind is known. Opening a log on such a filesystem also emits a
    /// `tracing` event.
    pub volatility: Option<&'static str>,
}

impl fmt::Display for BackendInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}), {} ({}: {}), {}, {} buffers, block {}, depth {}",
            self.kind,
            self.reason,
            self.commit_method,
            self.commit_method_reason,
            self.commit_method_detail,
            if self.direct_io { "direct I/O" } else { "buffered I/O" },
            if self.registered_buffers { "registered" } else { "plain" },
            self.block_size,
            self.depth,
        )?;
        match self.volatility {
            None => Ok(()),
            Some(reason) => write!(f, "; {reason}"),
        }
    }
}
