//! Finds every group's entries and state in the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringwal::{Lsn, Wal};

use crate::error::{LogError, Result};
use crate::group::{Group, Known};
use crate::record::{self, Item};

#[derive(Default)]
struct Rebuilt {
    known: Known,
    /// Entries that were moved, and whose first record is gone: they come before `known`.
    moved: BTreeMap<u64, Lsn>,
}

/// Reads the log once, from the oldest record to the newest.
pub(crate) fn rebuild(wal: &Wal) -> Result<BTreeMap<u64, Arc<Group>>> {
    let mut groups: BTreeMap<u64, Rebuilt> = BTreeMap::new();
    let mut reader = wal.reader(wal.oldest_lsn());
    while let Some(record) = reader.next_ref()? {
        let lsn = record.lsn();
        let id = record.tag().ok_or(LogError::ForeignRecord { lsn })?;
        let item = record::decode(lsn, record.payload())?;
        groups.entry(id).or_default().take(id, lsn, item)?;
    }
    let whole = |(id, group): (u64, Rebuilt)| Ok((id, Arc::new(Group::new(id, group.finish(id)?))));
    groups.into_iter().map(whole).collect()
}

impl Rebuilt {
    fn take(&mut self, group: u64, lsn: Lsn, item: Item) -> Result<()> {
        match item {
            Item::Entry { index } => {
                self.moved.split_off(&index);
                let next = self.known.range().end;
                self.known.push(group, index, lsn, None).map_err(|_| LogError::MissingEntries {
                    group,
                    first_missing: next,
                    next: index,
                })
            }
            Item::Moved { index } => {
                if self.known.range().contains(&index) {
                    self.known.moved(index, lsn);
                } else {
                    self.moved.insert(index, lsn);
                }
                Ok(())
            }
            Item::Truncation { from } => {
                self.moved.split_off(&from);
                self.known.truncate(from);
                Ok(())
            }
            Item::State(state) => {
                if let Some(index) = state.purged_index {
                    self.moved = self.moved.split_off(&index.saturating_add(1));
                }
                self.known.set_state(state, lsn);
                Ok(())
            }
            Item::Removal => {
                self.moved.clear();
                self.known.clear();
                Ok(())
            }
        }
    }

    fn finish(mut self, group: u64) -> Result<Known> {
        for (index, lsn) in self.moved.into_iter().rev() {
            let range = self.known.range();
            if !range.is_empty() && index.checked_add(1) != Some(range.start) {
                let (first_missing, next) = (index.saturating_add(1), range.start);
                return Err(LogError::MissingEntries { group, first_missing, next });
            }
            self.known.prepend(index, lsn);
        }
        let range = self.known.range();
        let first = self.known.state.purged_index.map_or(0, |index| index.saturating_add(1));
        // A group may begin at 1: a log id with the index 0 is openraft's own.
        if !range.is_empty() && range.start > first.max(1) {
            return Err(LogError::MissingEntries {
                group,
                first_missing: first,
                next: range.start,
            });
        }
        Ok(self.known)
    }
}
