//! Where the next record of a group is.

use crate::format::{
    BATCH_HEADER, GROUP_HEADER, GroupHeader, ITEM_HEADER, KIND_BATCH, KIND_DATA, RECORD_HEADER,
    item_size, stored_size,
};
use crate::segment::cuts::Cuts;
use crate::segment::window::ByteWindow;

/// Where the next record of a verified group is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor {
    /// Address of the next record, or of the next item while `batch_end` is ahead of it.
    pub(super) at: u64,
    pub(super) records_end: u64,
    pub(super) batch_end: u64,
}

/// A record found: its address, where its payload begins among the bytes held, and how long it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) lsn: u64,
    pub(super) payload: usize,
    pub(super) len: usize,
}

impl Cursor {
    pub(super) const NOTHING: Cursor = Cursor { at: 0, records_end: 0, batch_end: 0 };

    pub(super) fn of(group: &GroupHeader) -> Self {
        Cursor {
            at: group.lsn + u64::from(GROUP_HEADER),
            records_end: group.lsn + u64::from(group.used),
            batch_end: 0,
        }
    }

    /// Leaves out what is void of the group at `group`. Cuts begin between records.
    pub(super) fn cut(&mut self, cuts: &Cuts, group: u64) {
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

    /// The next record of the group, whose bytes are held.
    #[inline]
    pub(super) fn next(&mut self, held: ByteWindow<'_>) -> Option<Span> {
        loop {
            let at = self.at;
            if at < self.batch_end {
                let (from, head) = held.at(at, ITEM_HEADER)?;
                let len = u32::from_le_bytes(*head.first_chunk()?) as usize;
                self.at = at + item_size(len);
                return Some(Span { lsn: at, payload: from + ITEM_HEADER, len });
            }
            if at >= self.records_end {
                return None;
            }
            let (from, head) = held.at(at, RECORD_HEADER)?;
            let len = u32::from_le_bytes(*head.first_chunk()?) as usize;
            let kind = head[8];
            let end = at + stored_size(len);
            match kind {
                KIND_DATA => {
                    self.at = end;
                    return Some(Span { lsn: at, payload: from + RECORD_HEADER, len });
                }
                KIND_BATCH => {
                    self.at = at + BATCH_HEADER as u64;
                    // A damaged cut may begin inside a batch.
                    self.batch_end = end.min(self.records_end);
                }
                _ => self.at = end,
            }
        }
    }
}
