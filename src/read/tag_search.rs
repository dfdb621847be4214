//! Where the next record of some tags is: what a reader of these tags still has to deliver.
//!
//! 1. Each part of the log is searched once, and again only after a cut or a step backwards.

use std::sync::Arc;

use super::cursor::Cursor;
use crate::engine::state::LogState;
use crate::error::Result;
use crate::format::TagFilter;
use crate::segment::Pinning;
use crate::sys::sync::{Mutex, lock};

/// Searches for records with a set of tags.
#[derive(Debug)]
pub(crate) struct TagSearch {
    wanted: TagFilter,
    searched: Mutex<Searched>,
}

/// No record of the tags lies in `[from, to)`.
#[derive(Debug, Default)]
struct Searched {
    from: u64,
    to: u64,
    /// One lies at `to`.
    found: bool,
    /// Number of cuts when this was found out.
    cuts: u64,
}

impl TagSearch {
    pub(crate) fn new(wanted: TagFilter) -> Self {
        TagSearch { wanted, searched: Mutex::new(Searched::default()) }
    }

    pub(crate) fn wanted(&self) -> &TagFilter {
        &self.wanted
    }

    /// The lowest address at or above `position` at which a durable record of the tags lies, and
    /// true; or the durable end, or `position` above it, and false.
    pub(crate) fn next(&self, state: &LogState, position: u64) -> Result<(u64, bool)> {
        // The cuts first: one that comes meanwhile makes the result be found again.
        let cuts = state.view.cuts.count();
        let end = state.durable.end();
        let mut known = lock(&self.searched);
        if known.cuts != cuts || !(known.from..=known.to).contains(&position) {
            *known = Searched { from: position, to: position, found: false, cuts };
        }
        if !known.found && known.to < end {
            let view = Arc::clone(&state.view);
            let mut cursor = Cursor::new(view, known.to, end, Pinning::Pinned);
            let _ = cursor.want(self.wanted.clone());
            let next = cursor.advance()?;
            (known.to, known.found) = next.map_or((end, false), |span| (span.lsn, true));
        }
        Ok((known.to, known.found))
    }

    /// Bytes from `reached` to the durable end. 0 if no durable record of the tags lies at or above
    /// `position`. If the log cannot be read, it counts the bytes.
    pub(crate) fn lag(&self, state: &LogState, reached: u64, position: u64) -> u64 {
        let lag = state.durable.end().saturating_sub(reached);
        if lag == 0 || state.durable.is_forked() {
            return lag;
        }
        match self.next(state, position) {
            Ok((_, false)) => 0,
            _ => lag,
        }
    }
}
