//! A follower beside the model.

use ringwal::{Error, Follow, Lsn};

use super::reference::Reference;
use super::subject::{Checked, Subject, wrong};

pub(crate) struct Following {
    pub(crate) follow: Follow,
    pub(crate) cursor: Cursor,
}

/// Where somebody is in the model who is delivered one record after the other.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cursor {
    /// The next record's index in the model.
    next: usize,
    /// Where it began.
    from: u64,
    /// The last record that was delivered, and whether that was cut since.
    pub(crate) last: Option<u64>,
    pub(crate) cut: bool,
}

impl Cursor {
    pub(crate) fn new(model: &Reference, from: u64) -> Self {
        Cursor { next: model.index(from), from, last: None, cut: false }
    }

    /// Everything from `lsn` on was cut.
    pub(crate) fn cut(&mut self, model: &Reference, lsn: u64) {
        self.cut |= self.last.is_some_and(|last| last >= lsn);
        self.next = model.index(self.last.map_or(self.from, |last| last + 1));
    }

    /// A record is delivered: it must be the next one.
    pub(crate) fn deliver(&mut self, model: &Reference, lsn: u64, payload: &[u8]) -> Checked {
        if self.last.is_none() && model.records.get(self.next).is_some_and(|r| r.0 < lsn) {
            // Removed before it began.
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

    /// Nothing more is delivered now: so nothing more is durable.
    pub(crate) fn stops(&self, model: &Reference, durable: u64) -> Checked {
        // What was removed before it began is not delivered.
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
                // From zero on retention may have taken records by now: the first tells.
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
