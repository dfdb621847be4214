//! The records of one verified group.

use crate::format::{
    BATCH_HEADER, FLAG_TAGGED, GROUP_HEADER, GroupHeader, ITEM_HEADER, KIND_BATCH, KIND_DATA,
    RECORD_HEADER, TAG_BLOCK, item_size, stored_size, u64_at,
};
use crate::segment::cuts::Cuts;
use crate::segment::window::ByteWindow;

/// The place of the next record of a verified group.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupCursor {
    /// Address of the next record, or of the next item while it is below `batch_end`.
    pub(super) at: u64,
    pub(super) records_end: u64,
    pub(super) batch_end: u64,
    /// The items of the batch have tags.
    items_have_tags: bool,
    /// Ordinal of the next record.
    ordinal: u64,
    /// When the group was written: nanoseconds since 1970.
    wall: u64,
}

/// The place of a record in a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordSpan {
    pub(super) lsn: u64,
    /// Index of the payload's first byte in the window.
    pub(super) payload: usize,
    /// Bytes of the payload.
    pub(super) len: usize,
    pub(super) tag: Option<u64>,
    pub(super) ordinal: u64,
    /// When the record's group was written: nanoseconds since 1970.
    pub(super) wall: u64,
}

impl GroupCursor {
    pub(super) const NOTHING: GroupCursor = GroupCursor {
        at: 0,
        records_end: 0,
        batch_end: 0,
        items_have_tags: false,
        ordinal: 0,
        wall: 0,
    };

    pub(super) fn new(group: &GroupHeader) -> Self {
        GroupCursor {
            at: group.lsn + u64::from(GROUP_HEADER),
            records_end: group.lsn + u64::from(group.used),
            ordinal: group.first_ordinal,
            wall: group.wall,
            ..GroupCursor::NOTHING
        }
    }

    /// Counts the record at `lsn`.
    #[inline]
    fn span(&mut self, lsn: u64, payload: usize, len: usize) -> RecordSpan {
        let (ordinal, wall) = (self.ordinal, self.wall);
        let span = RecordSpan { lsn, payload, len, tag: None, ordinal, wall };
        // A group's header is valid only if its ordinals do not overflow.
        self.ordinal = self.ordinal.wrapping_add(1);
        span
    }

    /// Counts the record at `lsn` whose tag block stands at `block`.
    fn tagged_span(
        &mut self,
        window: ByteWindow<'_>,
        lsn: u64,
        block: usize,
        len: usize,
    ) -> Option<RecordSpan> {
        let tag = u64_at(window.sub(block, TAG_BLOCK)?, 4);
        let span = self.span(lsn, block + TAG_BLOCK, len.checked_sub(TAG_BLOCK)?);
        Some(RecordSpan { tag: Some(tag), ..span })
    }

    /// Ends the group at `group` where a cut begins. Cuts begin between records.
    pub(super) fn apply_cuts(&mut self, cuts: &Cuts, group: u64) {
        let from = if cuts.at(group).is_some() { Some(group) } else { cuts.next_from(group) };
        if let Some(from) = from {
            self.records_end = self.records_end.min(from);
            if self.at >= from {
                self.batch_end = 0;
            }
        }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.records_end && self.at >= self.batch_end
    }

    /// The next record of the group, which lies in `window`.
    #[inline]
    pub(super) fn next(&mut self, window: ByteWindow<'_>) -> Option<RecordSpan> {
        loop {
            let at = self.at;
            if at < self.batch_end {
                let (from, head) = window.at(at, ITEM_HEADER)?;
                let len = u32::from_le_bytes(*head.first_chunk()?) as usize;
                self.at = at + item_size(len);
                if self.items_have_tags {
                    return self.tagged_span(window, at, from + ITEM_HEADER, len);
                }
                return Some(self.span(at, from + ITEM_HEADER, len));
            }
            if at >= self.records_end {
                return None;
            }
            let (from, head) = window.at(at, RECORD_HEADER)?;
            let len = u32::from_le_bytes(*head.first_chunk()?) as usize;
            let end = at + stored_size(len);
            match (head[8], head[9]) {
                (KIND_DATA, 0) => {
                    self.at = end;
                    return Some(self.span(at, from + RECORD_HEADER, len));
                }
                (KIND_DATA, _) => {
                    self.at = end;
                    return self.tagged_span(window, at, from + RECORD_HEADER, len);
                }
                (KIND_BATCH, flags) => {
                    self.items_have_tags = flags == FLAG_TAGGED;
                    self.at = at + BATCH_HEADER as u64;
                    // A damaged cut may begin inside a batch.
                    self.batch_end = end.min(self.records_end);
                }
                _ => self.at = end,
            }
        }
    }
}
