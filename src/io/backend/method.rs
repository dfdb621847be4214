//! How a write is made durable, and which way a log uses at the moment.

use std::fmt;

use crate::sys::sync::{AtomicU32, Mutex, Ordering, lock};

/// How a write is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// Not by itself: a sync of its own follows at some time.
    Plain,
    /// By a linked sync of the file's data.
    Linked,
    /// By the write's own flag.
    Dsync,
}

/// Why groups are made durable the way they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MethodReason {
    /// The backend has no other.
    #[default]
    OnlyOne,
    /// Chosen by [`WalBuilder::commit_method`](crate::WalBuilder::commit_method).
    Pinned,
    /// The default, while the methods are being timed.
    Measuring,
    /// The default, as the methods could not be timed or do not matter in this mode.
    Default,
    /// Timed on this device since the log was opened.
    Measured,
    /// Timed on this device and kernel at an earlier time.
    Remembered,
}

impl fmt::Display for MethodReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MethodReason::OnlyOne => "the only one",
            MethodReason::Pinned => "chosen by option",
            MethodReason::Measuring => "being measured",
            MethodReason::Default => "default",
            MethodReason::Measured => "measured",
            MethodReason::Remembered => "remembered",
        })
    }
}

/// A method with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChosenMethod {
    pub(crate) method: Method,
    /// The method of a committer that steps the loop on its own thread, without the ring.
    pub(crate) alone: Method,
    pub(crate) reason: MethodReason,
    /// Whether several syncs at a time take less time than one after the other.
    pub(crate) parallel: bool,
    /// The reason in words, with figures.
    pub(crate) detail: String,
}

/// The method that the I/O thread takes for its next group. Any thread may change it at any time:
/// each group is whole in one method, and one loop serves all of them.
#[derive(Debug)]
pub(crate) struct CommitState {
    dsync: AtomicU32,
    dsync_alone: AtomicU32,
    parallel: AtomicU32,
    chosen: Mutex<ChosenMethod>,
}

impl CommitState {
    pub(crate) fn new() -> Self {
        let chosen = ChosenMethod {
            method: Method::Linked,
            alone: Method::Linked,
            reason: MethodReason::Default,
            parallel: true,
            detail: "the log has not begun".into(),
        };
        CommitState {
            dsync: AtomicU32::new(0),
            dsync_alone: AtomicU32::new(0),
            parallel: AtomicU32::new(1),
            chosen: Mutex::new(chosen),
        }
    }

    pub(crate) fn set(&self, chosen: ChosenMethod) {
        let mut now = lock(&self.chosen);
        self.dsync.store(u32::from(chosen.method == Method::Dsync), Ordering::Relaxed);
        self.dsync_alone.store(u32::from(chosen.alone == Method::Dsync), Ordering::Relaxed);
        self.parallel.store(u32::from(chosen.parallel), Ordering::Relaxed);
        *now = chosen;
    }

    pub(crate) fn method(&self) -> Method {
        if self.dsync.load(Ordering::Relaxed) == 0 { Method::Linked } else { Method::Dsync }
    }

    /// The method of a committer that steps the loop.
    pub(crate) fn method_alone(&self) -> Method {
        if self.dsync_alone.load(Ordering::Relaxed) == 0 { Method::Linked } else { Method::Dsync }
    }

    pub(crate) fn is_parallel(&self) -> bool {
        self.parallel.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn chosen(&self) -> ChosenMethod {
        lock(&self.chosen).clone()
    }
}
