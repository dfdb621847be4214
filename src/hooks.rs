//! User code that a log calls: its arguments, and how the settings hold it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::lsn::Lsn;
use crate::sys::sync::Mutex;

/// The operation for which a stalled log waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StallKind {
    /// The write of a group.
    Write,
    /// The sync of one or more groups.
    Sync,
    /// The preparation or removal of a segment file. Appends continue while another segment is
    /// prepared.
    Segment,
}

impl fmt::Display for StallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StallKind::Write => "a write",
            StallKind::Sync => "a sync",
            StallKind::Segment => "a segment file",
        })
    }
}

/// An operation that takes longer than
/// [`WalBuilder::stall_threshold`](crate::WalBuilder::stall_threshold).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stall {
    /// The operation for which the log waits.
    pub kind: StallKind,
    /// The least time of the stall so far. The true time is up to a quarter of the threshold
    /// longer.
    pub lasted: Duration,
    /// Whether the operation has ended. If it failed, the log is poisoned now or soon.
    pub over: bool,
}

/// The function given to the builder's `on_stall`.
#[derive(Clone)]
pub(crate) struct OnStall(pub(crate) Arc<dyn Fn(&Stall) + Send + Sync>);

impl fmt::Debug for OnStall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnStall(..)")
    }
}

/// A segment that the log has left, for [`WalBuilder::on_sealed`](crate::WalBuilder::on_sealed).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SealedSegment {
    /// The path of the segment file. The hook may copy the file and must not change or move it.
    pub path: PathBuf,
    /// The first position in the segment.
    pub base: Lsn,
    /// The first position after the segment: the base of the next one.
    pub end: Lsn,
}

/// The error that a failed hook returns.
pub(crate) type HookError = Box<dyn std::error::Error + Send + Sync>;
type Hook = Box<dyn FnMut(&SealedSegment) -> std::result::Result<(), HookError> + Send>;

/// The hook as the builder holds it: a builder can be cloned, the hook cannot.
#[derive(Clone)]
pub(crate) struct OnSealed(pub(crate) Arc<Mutex<Hook>>);

impl OnSealed {
    pub(crate) fn new(
        hook: impl FnMut(&SealedSegment) -> std::result::Result<(), HookError> + Send + 'static,
    ) -> Self {
        OnSealed(Arc::new(Mutex::new(Box::new(hook))))
    }
}

impl fmt::Debug for OnSealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnSealed(..)")
    }
}
