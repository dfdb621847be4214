//! A follower beside the model.

use ringwal::{Error, Follow, Lsn};

use super::reference::Reference;
use super::subject::{Checked, Subject, wrong};

pub(crate) struct Following {
    pub(crate) follow: Follow,
    pub(crate) cursor: Cursor,
}

/// The place in the model of a reader that gets one record after the other.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cursor {
    /// Index in the model of the next record.
    next: usize,
    /// The position that the reader started from.
    from: u64,
    /// The last delivered record.
    pub(crate) last: Option<u64>,
    pub(crate) cut: bool,
}

impl Cursor {
    pub(crate) fn new(model: &Reference, from: u64) -> Self {
        Cursor { next: model.index(from), from, last: None, cut: false }
    }

    /// Handles a cut of every record from `lsn` on.
    pub(crate) fn cut(&mut self, model: &Reference, lsn: u64) {
        self.cut |= self.last.is_some_and(|last| last >= lsn);
        self.next = model.index(self.last.map_or(self.from, |last| last + 1));
    }

    /// Checks a delivered record: it must be the next one.
    pub(crate) fn deliver(&mut self, model: &Reference, lsn: u64, payload: &[u8]) -> Checked {
        if self.last.is_none() && model.records.get(self.next).is_some_and(|r| r.0 < lsn) {
            // Retention removed these records before the reader started.
            let at = model.index(lsn);
            if model.records[self.next..at].iter().any(|(lsn, _)| *lsn >= model.oldest) {
                return Err(format!("what lies before {lsn} was left out"));
            }
            self.next = at;
        }
        match model.records.get(self.next) {
            Some((at, bytes)) if *at == lsn && bytes == payload => {
                self.next += 1;
                self.last = Some(lsn);
                Ok(())
            }
            other => Err(format!("delivered {lsn} instead of {:?}", other.map(|r| r.0))),
        }
    }

    /// Checks that no further record is durable, because none was delivered.
    pub(crate) fn stops(&self, model: &Reference, durable: u64) -> Checked {
        // Records removed before the reader started are not delivered.
        let next =
            if self.last.is_none() { self.next.max(model.index(model.oldest)) } else { self.next };
        match model.records.get(next) {
            Some((lsn, _)) if *lsn < durable => Err(format!("it stops before {lsn}")),
            _ => Ok(()),
        }
    }
}

impl Subject {
    pub(crate) fn follow(&mut self, from: u64) -> Checked {
        let wal = self.wal();
        match wal.follow(Lsn::new(from)) {
            Ok(follow) => {
                // From zero, retention may have removed records by now. The first delivery shows
                // it.
                self.follower = Some(Following { follow, cursor: Cursor::new(&self.model, from) });
                if self.surely_appended(from) == Some(false) {
                    return Err("followed from a place behind the end".into());
                }
                Ok(())
            }
            Err(Error::Pruned { oldest }) if from != 0 && oldest.as_u64() > from => Ok(()),
            Err(Error::NotAppended { .. }) if self.surely_appended(from) != Some(true) => Ok(()),
            Err(e) => Err(e.to_string()),
        }
    }

    pub(crate) fn take(&mut self) -> Checked {
        let Some(Following { follow, cursor }) = &mut self.follower else { return Ok(()) };
        let durable = self.wal.as_ref().map_or(0, |w| w.durable_end().as_u64());
        if cursor.cut {
            let taken = follow.try_next().map(|r| r.map(|r| r.lsn));
            self.follower = None;
            return match taken {
                Err(Error::Truncated { .. }) => Ok(()),
                other => wrong(&other),
            };
        }
        while let Some(record) = follow.try_next().map_err(|e| format!("follower: {e}"))? {
            let end = self.wal.as_ref().map_or(u64::MAX, |w| w.durable_end().as_u64());
            if record.lsn.as_u64() >= end {
                return Err(format!("the follower has {}, durable to {end}", record.lsn));
            }
            let delivered = cursor.deliver(&self.model, record.lsn.as_u64(), record.payload);
            delivered.map_err(|e| format!("follower: {e}"))?;
        }
        cursor.stops(&self.model, durable).map_err(|e| format!("follower: {e}"))
    }
}
