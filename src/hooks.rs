//! The user's code that a log calls: what it is told, and how the settings hold it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::lsn::Lsn;
use crate::sys::sync::Mutex;

/// What a stalled log waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StallKind {
    /// The write of a group.
    Write,
    /// The sync of one or more groups.
    Sync,
    /// Preparing or removing a segment file. Appends go on while there is another one.
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

/// An operation that takes longer than [`WalBuilder::stall_threshold`](crate::WalBuilder::stall_threshold).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stall {
    /// What the log waits for.
    pub kind: StallKind,
    /// How long it has waited at least: the true time is up to a quarter of the threshold more.
    pub lasted: Duration,
    /// The operation has ended, well or not. If not, the log is poisoned by now or soon.
    pub over: bool,
}

/// What the builder's `on_stall` was given.
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
    /// The file. Copy it: it is not to be changed or moved.
    pub path: PathBuf,
    /// The first position in it.
    pub base: Lsn,
    /// The first position behind it: the base of the next.
    pub end: Lsn,
}

/// What the hook says when it fails.
pub(crate) type HookError = Box<dyn std::error::Error + Send + Sync>;
type Hook = Box<dyn FnMut(&SealedSegment) -> std::result::Result<(), HookError> + Send>;

/// As the builder holds it: builders can be cloned, the hook cannot.
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
