//! The tip: the end of the chain of groups, as a reader finds it without the end file.
//!
//! 1. Advancing the tip reads the last group's header and the place of the next group, however long
//!    the log is.
//! 2. If the last group is gone, a writer has begun a new chain before it: the tip is lost.
//! 3. A group's durable mark is true whether or not the group itself is durable.

use std::sync::Arc;

use crate::engine::log_view::LogView;
use crate::error::{Error, Result};
use crate::format::{Link, SegmentHeader};
use crate::io::fs::{Access, File};
use crate::recovery::{FoundEnd, Walker, is_gone, read_header};

#[derive(Debug)]
pub(super) struct Tip {
    file: Arc<dyn File>,
    walker: Walker,
    link: Link,
    /// Address of the next group, if the segment has room for it.
    end: u64,
    /// The highest durable mark.
    mark: u64,
    pub(super) basis: TipBasis,
}

/// What proves the groups below a tip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TipBasis {
    /// The log had no writer, and opening it would find the same end.
    Recovery,
    /// Durable marks only: the log may have a writer.
    DurableMarks,
}

/// How the chain has changed since the tip was advanced last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TipChange {
    Unchanged,
    Extended,
    /// The tip is no longer part of the log.
    Lost,
}

impl Tip {
    pub(super) fn new(
        view: &LogView,
        segment: SegmentHeader,
        judgement: &FoundEnd,
        basis: TipBasis,
    ) -> Result<Self> {
        let (file, walker) = open(view, segment)?;
        let FoundEnd { link, end, proven, .. } = *judgement;
        Ok(Tip { file, walker, link, end, mark: proven, basis })
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn mark(&self) -> u64 {
        self.mark
    }

    pub(super) fn last_cut(&self) -> u64 {
        self.link.last_cut
    }

    /// Moves the tip past the groups that were written since.
    pub(super) fn advance(&mut self, view: &LogView) -> Result<TipChange> {
        if !self.is_there(view)? {
            return Ok(TipChange::Lost);
        }
        let mut change = TipChange::Unchanged;
        while self.step(view)? {
            change = TipChange::Extended;
        }
        Ok(change)
    }

    fn is_there(&mut self, view: &LogView) -> Result<bool> {
        self.walker.forget();
        if !self.file.links().is_ok_and(|links| links > 0) {
            return Ok(false);
        }
        if self.link == Link::START {
            return Ok(true);
        }
        let group = self.walker.group(self.link.lsn).map_err(|e| self.read_error(view, e))?;
        Ok(group.is_ok_and(|group| group.link() == self.link))
    }

    fn step(&mut self, view: &LogView) -> Result<bool> {
        let here = self.walker.group(self.end).map_err(|e| self.read_error(view, e))?;
        let mut next = here.ok().filter(|group| group.follows(&self.link));
        if next.is_none() {
            let name = view.names.segment(self.walker.header.end());
            let header = match read_header(&*view.dir, &name) {
                Ok(Ok(header)) => header,
                Ok(Err(_)) => return Ok(false),
                Err(e) if is_gone(&e) => return Ok(false),
                Err(e) => return Err(e),
            };
            let (file, mut walker) = match open(view, header) {
                Err(e) if is_gone(&e) => return Ok(false),
                opened => opened?,
            };
            let first = walker.group(header.first_group());
            let first = first.map_err(|e| self.read_error(view, e))?;
            next = first.ok().filter(|group| group.follows(&self.link));
            if next.is_some() {
                (self.file, self.walker) = (file, walker);
            }
        }
        let Some(group) = next else { return Ok(false) };
        self.link = group.link();
        self.end = group.padded_end(self.walker.header.block);
        self.mark = self.mark.max(group.durable_end);
        Ok(true)
    }

    fn read_error(&self, view: &LogView, e: std::io::Error) -> Error {
        view.segment_error("read", self.walker.header.base, e)
    }
}

fn open(view: &LogView, segment: SegmentHeader) -> Result<(Arc<dyn File>, Walker)> {
    let file = view.open_segment(segment.base, Access::Read)?;
    let walker = Walker::with_chunk(Arc::clone(&file), segment, segment.block as usize);
    Ok((file, walker))
}
