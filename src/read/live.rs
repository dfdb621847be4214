//! What followers ask of a reader: it goes on as the durable end rises, and heeds what is cut meanwhile.

use std::sync::Arc;

use super::record::{RecordRef, Records};
use super::{Reader, State};
use crate::engine::log_view::LogView;
use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::segment::recent::Seat;

impl Reader {
    /// One that goes on, and keeps what it has not read from its first moment on.
    pub(crate) fn live(view: Arc<LogView>, from: u64, durable_end: u64) -> Result<Self> {
        Reader::new(view, from, 0).follow(durable_end)
    }

    /// The same, for whom retention does not wait.
    pub(crate) fn live_unheld(view: Arc<LogView>, from: u64, durable_end: u64) -> Result<Self> {
        Reader { holds: false, ..Reader::new(view, from, 0) }.follow(durable_end)
    }

    fn follow(mut self, durable_end: u64) -> Result<Self> {
        self.view.check_not_forked()?;
        self.seat = Some(Seat::new(&self.view.tail));
        loop {
            let oldest = self.view.table.oldest();
            if self.from != 0 && self.from < oldest {
                return Err(Error::Pruned { oldest: Lsn::new(oldest) });
            }
            // What comes next may be behind the last durable byte, in a segment that is not begun.
            let last = durable_end - 1;
            match self.pin(self.from.min(last).max(oldest)) {
                // Retention has just removed it.
                Err(Error::Pruned { .. }) if self.from == 0 => {}
                pin => {
                    self.start = Some(pin?);
                    return Ok(self);
                }
            }
        }
    }

    /// Whether there is a next record below `end`, which only rises. None does not end the reader.
    pub(crate) fn peek_below(&mut self, end: u64) -> Result<bool> {
        self.view.check_not_forked()?;
        self.heed_cuts()?;
        if self.peeked.is_some() {
            return Ok(true);
        }
        if end > self.end {
            self.end = end;
            if self.place.is_none() && self.state == State::Reading {
                self.state = State::Unopened;
            }
        }
        match self.advance() {
            Ok(found) => {
                self.peeked = found;
                Ok(found.is_some())
            }
            Err(e) => {
                self.finish();
                Err(e)
            }
        }
    }

    /// That record.
    pub(crate) fn next_below(&mut self, end: u64) -> Result<Option<RecordRef<'_>>> {
        self.peek_below(end)?;
        let Some(span) = self.peeked.take() else { return Ok(None) };
        self.delivered = span.lsn;
        self.record(span).map(Some)
    }

    /// The durable end that it was told of last.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// No record above this was delivered to a follower.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// The last record that was delivered to a follower, or else where it began.
    pub(crate) fn reached(&self) -> u64 {
        self.delivered.max(self.from)
    }

    /// Drops what was cut since the last look. What was delivered and cut is an error.
    fn heed_cuts(&mut self) -> Result<()> {
        let count = self.view.cuts.count();
        if count == self.cuts {
            return Ok(());
        }
        self.cuts = count;
        if let Err(e) = self.view.cuts.check(self.delivered) {
            self.finish();
            return Err(e);
        }
        self.peeked = self.peeked.filter(|span| self.view.cuts.at(span.lsn).is_none());
        if let Some(place) = &mut self.place
            && let Some(link) = place.link
        {
            place.cursor.cut(&self.view.cuts, link.lsn);
        }
        Ok(())
    }

    /// The next records that are in memory together: at least one, unless there is none.
    pub(crate) fn next_run(&mut self, end: u64) -> Result<Option<Records<'_>>> {
        self.peek_below(end)?;
        let Some(place) = &mut self.place else { return Ok(None) };
        let Some(first) = self.peeked.take() else { return Ok(None) };
        let cursor = &place.cursor;
        self.delivered = cursor.records_end.max(cursor.batch_end).max(first.lsn + 1) - 1;
        Ok(Some(place.run(first)))
    }
}
