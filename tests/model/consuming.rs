//! Named consumers beside the model: the committed position of each, attached or not, across lives.

use std::collections::BTreeMap;

use ringwal::{Consumer, Error, Lsn, Wal};

use super::following::Cursor;
use super::subject::{Checked, Subject, wrong};

#[derive(Default)]
pub(crate) struct Consumers {
    /// The position of each existing consumer.
    known: BTreeMap<u8, u64>,
    attached: BTreeMap<u8, Attached>,
    /// The consumer whose change was in progress when the power failed, and its possible results.
    unsettled: Option<(u8, Fate)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Made,
    Moved(u64),
    Anywhere,
    Removed,
}

struct Attached {
    consumer: Consumer,
    /// Where the consumer is in the model, from its first delivery on.
    cursor: Option<Cursor>,
}

fn name(number: u8) -> String {
    format!("consumer-{number}")
}

impl Consumers {
    pub(crate) fn settled(&mut self) {
        self.unsettled = None;
    }

    pub(crate) fn detach_all(&mut self) {
        self.attached.clear();
    }

    /// Checks that retention removed no record above a consumer's position, unless it was removed
    /// before.
    pub(crate) fn held(&self, before: u64, oldest: u64) -> Checked {
        match self.known.iter().find(|(_, at)| (before..oldest).contains(*at)) {
            // A new consumer starts at the oldest position, which is never zero for it.
            Some((n, at)) if *at > 1 || oldest > 1 => {
                let unsettled = self.unsettled.is_some_and(|(other, _)| other == *n);
                if unsettled { Ok(()) } else { Err(format!("{n} is at {at}, kept from {oldest}")) }
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn beyond(&self, lsn: u64) -> bool {
        self.known.values().any(|at| *at > lsn)
    }

    pub(crate) fn is_at(&self, named: &str, position: Lsn) -> bool {
        self.known.iter().any(|(n, at)| name(*n) == named && *at == position.as_u64())
    }

    pub(crate) fn cut(&mut self, model: &super::reference::Reference, lsn: u64) {
        let cursors = self.attached.values_mut().filter_map(|a| a.cursor.as_mut());
        cursors.for_each(|cursor| cursor.cut(model, lsn));
    }

    /// Checks after an open that every consumer exists, at its position.
    pub(crate) fn compare(&mut self, wal: &Wal) -> Checked {
        let found: BTreeMap<String, u64> =
            wal.consumers().into_iter().map(|c| (c.name, c.position.as_u64())).collect();
        for n in 0..2 {
            let (was, is) = (self.known.get(&n).copied(), found.get(&name(n)).copied());
            let fate = self.unsettled.filter(|(other, _)| *other == n).map(|(_, fate)| fate);
            let may = match fate {
                None => is == was,
                Some(Fate::Made) => is == was || was.is_none(),
                Some(Fate::Moved(to)) => is == was || is == Some(to),
                Some(Fate::Anywhere) => is.is_some(),
                Some(Fate::Removed) => is == was || is.is_none(),
            };
            if !may {
                return Err(format!("consumer {n} was at {was:?}, {fate:?}, and is at {is:?}"));
            }
            match is {
                Some(at) => self.known.insert(n, at),
                None => self.known.remove(&n),
            };
        }
        self.unsettled = None;
        Ok(())
    }
}

impl Subject {
    pub(crate) fn attach(&mut self, n: u8) -> Checked {
        let wal = self.wal();
        let known = self.consumers.known.get(&n).copied();
        if known.is_none() {
            self.consumers.unsettled = Some((n, Fate::Made));
        }
        match wal.consumer(&name(n)) {
            Ok(_) if self.consumers.attached.contains_key(&n) => Err("attached twice".into()),
            Ok(consumer) => {
                let position = consumer.position().as_u64();
                let expected = known.unwrap_or(wal.oldest_lsn().as_u64().max(1));
                // Retention may remove segments between the two checks, but none that is held.
                if position > expected
                    || (position < expected && (known.is_some() || !self.by_itself()))
                {
                    return Err(format!("attached at {position} instead of {expected}"));
                }
                self.consumers.known.insert(n, position);
                self.consumers.attached.insert(n, Attached { consumer, cursor: None });
                Ok(())
            }
            Err(Error::ConsumerInUse { .. }) if self.consumers.attached.contains_key(&n) => Ok(()),
            Err(Error::Io { .. }) if self.full && known.is_none() => Ok(()),
            Err(e) => Err(format!("{e:?}")),
        }
    }

    pub(crate) fn consume(&mut self, n: u8, most: u8) -> Checked {
        let limited = self.by_itself() || self.truncate_to > 0;
        let durable = self.wal().durable_end().as_u64();
        let Some(Attached { consumer, cursor }) = self.consumers.attached.get_mut(&n) else {
            return Ok(());
        };
        let position = consumer.position();
        let overtaken = |oldest: Lsn| oldest > position;
        let lax =
            self.config.is_some_and(|c| c.consumer_limit) || overtaken(Lsn::new(self.model.oldest));
        if cursor.is_some_and(|c| c.cut) {
            let taken = consumer.records().and_then(|f| f.try_next().map(|r| r.map(|r| r.lsn)));
            if !matches!(taken, Err(Error::Truncated { .. })) {
                return wrong(&taken);
            }
            *cursor = None;
            // The consumer continues from its position.
            return match consumer.seek(position) {
                Ok(()) => Ok(()),
                Err(Error::Pruned { oldest }) if lax && overtaken(oldest) => Ok(()),
                Err(e) => Err(format!("consumer: {e:?}")),
            };
        }
        let records = match consumer.records() {
            Ok(records) => records,
            Err(Error::Pruned { oldest }) if lax && overtaken(oldest) => return Ok(()),
            Err(e) => return Err(format!("consumer: {e:?}")),
        };
        // The cursor starts at the first delivery. A commit before that moves it.
        let at = cursor.get_or_insert_with(|| Cursor::new(&self.model, position.as_u64()));
        for _ in 0..most {
            match records.try_next() {
                Ok(Some(record)) => {
                    let delivered = at.deliver(&self.model, record.lsn.as_u64(), record.payload);
                    delivered.map_err(|e| format!("consumer: {e}"))?;
                }
                Ok(None) => {
                    return at.stops(&self.model, durable).map_err(|e| format!("consumer: {e}"));
                }
                Err(Error::Pruned { oldest }) if lax && limited && overtaken(oldest) => {
                    self.consumers.attached.remove(&n);
                    return Ok(());
                }
                Err(e) => return Err(format!("consumer: {e:?}")),
            }
        }
        Ok(())
    }

    /// Commits the last delivered record, or a given position.
    pub(crate) fn commit(&mut self, n: u8, at: Option<u64>) -> Checked {
        let wal = self.wal();
        let Some(Attached { consumer, cursor }) = self.consumers.attached.get_mut(&n) else {
            return Ok(());
        };
        let lsn = match at.or(cursor.filter(|c| !c.cut).and_then(|c| c.last)) {
            Some(lsn) => lsn,
            None => return Ok(()),
        };
        let before = consumer.position().as_u64();
        self.consumers.unsettled = Some((n, Fate::Moved(lsn + 1)));
        match consumer.commit(Lsn::new(lsn)) {
            Ok(())
                if lsn + 1 >= before
                    && lsn < wal.durable_end().as_u64()
                    && (lsn + 1 == before
                        || self.model.is_record(lsn)
                        || lsn < wal.oldest_lsn().as_u64()) =>
            {
                self.consumers.known.insert(n, lsn + 1);
                // A commit above the last delivered record skips the records between.
                if cursor.is_some_and(|c| c.last.is_none_or(|last| last < lsn)) {
                    *cursor = None;
                }
                Ok(())
            }
            Err(Error::ConsumerBackwards { .. }) if lsn + 1 < before => Ok(()),
            Err(Error::NotDurable { durable_end, .. }) if lsn >= durable_end.as_u64() => Ok(()),
            Err(Error::NotAppended { end, .. }) if lsn >= end.as_u64() => Ok(()),
            Err(Error::NoRecord { .. }) if !self.model.is_record(lsn) => Ok(()),
            Err(Error::Truncated { .. }) if self.model.may_be_void(lsn) => Ok(()),
            other => Err(format!("{lsn}, at {before}: got {other:?}")),
        }
    }

    pub(crate) fn seek(&mut self, n: u8, lsn: u64) -> Checked {
        let oldest = self.wal().oldest_lsn().as_u64();
        let by_itself = self.by_itself();
        let Some(Attached { consumer, cursor }) = self.consumers.attached.get_mut(&n) else {
            return Ok(());
        };
        let to = if lsn == 0 { oldest.max(1) } else { lsn };
        let before = consumer.position().as_u64();
        let fate = if lsn == 0 { Fate::Anywhere } else { Fate::Moved(to) };
        self.consumers.unsettled = Some((n, fate));
        match consumer.seek(Lsn::new(lsn)) {
            Ok(()) => {
                let at = consumer.position().as_u64();
                let expected = (at == to || (lsn == 0 && by_itself && at > to))
                    && (to == before || !self.model.is_surely_inside(to));
                *cursor = None;
                self.consumers.known.insert(n, at);
                if expected { Ok(()) } else { Err(format!("sought {to}, and is at {at}")) }
            }
            Err(Error::Pruned { oldest }) if lsn != 0 && lsn < oldest.as_u64() => Ok(()),
            Err(Error::NotDurable { durable_end, .. }) if to > durable_end.as_u64() => Ok(()),
            Err(Error::NotAppended { end, .. }) if to > end.as_u64() => Ok(()),
            Err(Error::NoRecord { .. })
                if !self.model.is_record(to) && !self.model.is_record(to - 1) =>
            {
                Ok(())
            }
            Err(Error::Truncated { .. }) if self.model.may_be_void(to) => Ok(()),
            other => Err(format!("{lsn}: got {other:?}")),
        }
    }

    pub(crate) fn detach(&mut self, n: u8) {
        self.consumers.attached.remove(&n);
    }

    pub(crate) fn remove_consumer(&mut self, n: u8) -> Checked {
        let consumers = &mut self.consumers;
        let (known, attached) =
            (consumers.known.contains_key(&n), consumers.attached.contains_key(&n));
        if known && !attached {
            consumers.unsettled = Some((n, Fate::Removed));
        }
        match self.wal().remove_consumer(&name(n)) {
            Ok(()) if known && !attached => {
                self.consumers.known.remove(&n);
                Ok(())
            }
            Err(Error::NoConsumer { .. }) if !known => Ok(()),
            Err(Error::ConsumerInUse { .. }) if attached => Ok(()),
            other => wrong(&other),
        }
    }
}
