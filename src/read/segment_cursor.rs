//! The place of a cursor: in a verified group of a segment.

use std::sync::Arc;

use super::group_cursor::{GroupCursor, RecordSpan};
use crate::format::Link;
use crate::recovery::Walker;
use crate::segment::SegmentRef;
use crate::segment::recent::GroupCopy;
use crate::segment::window::ByteWindow;

/// The place of a cursor: in a verified group of a segment.
#[derive(Debug)]
pub(super) struct SegmentCursor {
    pub(super) segment: SegmentRef,
    pub(super) walker: Walker,
    /// The group's copy in memory, if the cursor does not read it from the file.
    pub(super) copy: Option<Arc<GroupCopy>>,
    /// Address of the next group.
    pub(super) next_group: u64,
    /// Of the last group.
    pub(super) link: Option<Link>,
    pub(super) group: GroupCursor,
    /// The end of the last record or batch that lies below the first one wanted.
    pub(super) skipped_to: u64,
}

impl SegmentCursor {
    /// A cursor before the segment's first group.
    pub(super) fn new(segment: SegmentRef, walker: Walker) -> Self {
        let next_group = segment.header.first_group();
        SegmentCursor {
            segment,
            walker,
            copy: None,
            next_group,
            link: None,
            group: GroupCursor::NOTHING,
            skipped_to: 0,
        }
    }

    /// The bytes in memory, which hold the whole group.
    #[inline]
    pub(super) fn window(&self) -> ByteWindow<'_> {
        match &self.copy {
            None => self.walker.held(),
            Some(copy) => copy.held(),
        }
    }

    /// The next record of the group, which has been verified.
    #[inline]
    pub(super) fn next_in_group(&mut self) -> Option<RecordSpan> {
        let mut group = self.group;
        let found = group.next(self.window());
        self.group = group;
        found
    }

    /// Takes the rest of the group, and moves past it.
    pub(super) fn take_group(&mut self) -> GroupCursor {
        std::mem::replace(&mut self.group, GroupCursor::NOTHING)
    }
}
