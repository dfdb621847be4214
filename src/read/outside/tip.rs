//! The end of the chain of groups, as a reader has found it without a writer's word, and what has come to it since.
//!
//! 1. A look costs the last group's header and the place of the next one, however long the log is.
//! 2. If the last group is not there any more, a writer has begun anew before it: the tip says nothing.
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
    /// Where the next group goes, if it still fits in the segment.
    end: u64,
    /// The highest durable mark.
    mark: u64,
    /// What lies below the end was found while there was no writer: as opening would find it.
    pub(super) judged: bool,
}

/// What has come since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    Nothing,
    Groups,
    /// The tip is no part of the log any more.
    Lost,
}

impl Tip {
    pub(super) fn new(
        view: &LogView,
        segment: SegmentHeader,
        judgement: &FoundEnd,
        judged: bool,
    ) -> Result<Self> {
        let (file, walker) = open(view, segment)?;
        let FoundEnd { link, end, proven, .. } = *judgement;
        Ok(Tip { file, walker, link, end, mark: proven, judged })
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

    /// Follows the groups that have come.
    pub(super) fn advance(&mut self, view: &LogView) -> Result<News> {
        if !self.is_there(view)? {
            return Ok(News::Lost);
        }
        let mut news = News::Nothing;
        while self.step(view)? {
            news = News::Groups;
        }
        Ok(news)
    }

    fn is_there(&mut self, view: &LogView) -> Result<bool> {
        self.walker.forget();
        if !self.file.links().is_ok_and(|links| links > 0) {
            return Ok(false);
        }
        if self.link == Link::START {
            return Ok(true);
        }
        let group = self.walker.group(self.link.lsn).map_err(|e| self.io(view, e))?;
        Ok(group.is_ok_and(|group| group.link() == self.link))
    }

    fn step(&mut self, view: &LogView) -> Result<bool> {
        let here = self.walker.group(self.end).map_err(|e| self.io(view, e))?;
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
            let first = walker.group(header.first_group()).map_err(|e| self.io(view, e))?;
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

    fn io(&self, view: &LogView, e: std::io::Error) -> Error {
        let name = view.names.segment(self.walker.header.base);
        Error::io("read", view.dir.path_of(&name), e)
    }
}

fn open(view: &LogView, segment: SegmentHeader) -> Result<(Arc<dyn File>, Walker)> {
    let name = view.names.segment(segment.base);
    let file = view.dir.open(&name, Access::Read);
    let file = file.map_err(|e| Error::io("open", view.dir.path_of(&name), e))?;
    let walker = Walker::with_chunk(Arc::clone(&file), segment, segment.block as usize);
    Ok((file, walker))
}
