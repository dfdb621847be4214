//! Reading backwards: each group names the one before it.

use std::sync::Arc;

use super::CHUNK;
use super::cursor::Cursor;
use super::record::Record;
use crate::engine::log_view::LogView;
use crate::error::{Error, Result};
use crate::format::{GROUP_HEADER, GroupHeader};
use crate::io::fs::Access;
use crate::lsn::Lsn;
use crate::recovery::Walker;
use crate::segment::{Found, Pin};

/// Reads durable records from the newest to the oldest, from
/// [`Wal::reader_back`](crate::Wal::reader_back).
///
/// It ends at the oldest record that is kept when it gets there: the segment that it is in stays, older
/// ones may go. To begin below the oldest is `Pruned`. After an error it ends. Holds the records of one group; allocates for each record.
#[derive(Debug)]
pub struct BackwardReader {
    view: Arc<LogView>,
    /// Only records below this.
    before: u64,
    /// The group to be read next; `None` until it was looked for.
    group: Option<u64>,
    place: Option<(Pin, Walker)>,
    /// Of the last group, ascending.
    records: Vec<Record>,
    ended: bool,
}

impl BackwardReader {
    /// `before` is at most the durable end.
    pub(crate) fn new(view: Arc<LogView>, before: u64) -> Self {
        BackwardReader { view, before, group: None, place: None, records: Vec::new(), ended: false }
    }

    fn advance(&mut self) -> Result<Option<Record>> {
        while !self.ended {
            if let Some(record) = self.records.pop() {
                return Ok(Some(record));
            }
            self.view.check_not_forked()?;
            let group = match self.group {
                Some(group) => Some(group),
                None => {
                    let newest = self.newest_below()?;
                    let oldest = self.view.table.oldest();
                    if newest.is_none() && (1..oldest).contains(&self.before) {
                        return Err(Error::Pruned { oldest: Lsn::new(oldest) });
                    }
                    newest
                }
            };
            match group {
                // The log's first group has none before it.
                Some(group) if group != 0 && self.enter(group)? => self.read_group(group)?,
                _ => self.ended = true,
            }
        }
        Ok(None)
    }

    /// An error that means that the place has gone is the end: what lies before it has too.
    fn explain(&self, e: Error) -> Result<Option<Record>> {
        let place = self.group.or(self.place.as_ref().map(|(pin, _)| pin.header.base));
        match self.view.explain(e, place.unwrap_or(self.before)) {
            Error::Pruned { .. } if self.group.is_some() => Ok(None),
            e => Err(e),
        }
    }

    /// The segment that `lsn` lies in. False: it is not kept any more.
    fn enter(&mut self, lsn: u64) -> Result<bool> {
        if self.place.as_ref().is_some_and(|(pin, _)| pin.header.base <= lsn) {
            return Ok(true);
        }
        let pin = match self.view.table.pin(lsn) {
            Ok(pin) => pin,
            Err(Found::Pruned(_)) => return Ok(false),
            Err(_) => return Err(Error::NoRecord { lsn: Lsn::new(lsn) }),
        };
        let name = self.view.names.segment(pin.header.base);
        let opened = self.view.dir.open(&name, Access::Read);
        let file = opened.map_err(|e| Error::io("open", self.view.dir.path_of(&name), e))?;
        let walker = Walker::with_chunk(file, pin.header, CHUNK);
        self.place = Some((pin, walker));
        Ok(true)
    }

    /// The last group that begins below `before`.
    fn newest_below(&mut self) -> Result<Option<u64>> {
        let mut below = self.before;
        loop {
            let Some(last) = below.checked_sub(1) else { return Ok(None) };
            if !self.enter(last)? {
                return Ok(None);
            }
            let Some((pin, _)) = &self.place else { return Ok(None) };
            let header = pin.header;
            let (mut at, mut found) = (header.first_group(), None);
            while at < below {
                let group = self.header(at)?;
                found = Some(at);
                at = group.padded_end(header.block);
                // What is left of a segment holds nothing: its successor tells where it was left.
                if at >= below || !self.follows(&group)? {
                    break;
                }
            }
            if found.is_some() {
                return Ok(found);
            }
            below = header.base;
        }
    }

    /// Whether the successor of a group stands behind it in the same segment.
    fn follows(&mut self, group: &GroupHeader) -> Result<bool> {
        let Some((pin, walker)) = &mut self.place else { return Ok(false) };
        let at = group.padded_end(pin.header.block);
        let name = self.view.names.segment(pin.header.base);
        let read = walker.group(at);
        let next = read.map_err(|e| Error::io("read", self.view.dir.path_of(&name), e))?;
        Ok(next.is_ok_and(|next| next.follows(&group.link())))
    }

    fn header(&mut self, lsn: u64) -> Result<GroupHeader> {
        let Some((pin, walker)) = &mut self.place else { return Err(Error::Closed) };
        let base = pin.header.base;
        let name = self.view.names.segment(base);
        let read = walker.group(lsn);
        let group = read.map_err(|e| Error::io("read", self.view.dir.path_of(&name), e))?;
        group.map_err(|e| corruption(name, base, lsn, e.reason()))
    }

    /// Takes the records of a group, and goes on to the one before it.
    fn read_group(&mut self, lsn: u64) -> Result<()> {
        let group = self.header(lsn)?;
        let Some((pin, walker)) = &mut self.place else { return Ok(()) };
        let mut cursor = Cursor::of(&group);
        cursor.cut(&self.view.cuts, lsn);
        // As forward: a group whose records are all void is not verified, and its damage concerns nobody.
        if group.used > GROUP_HEADER && !cursor.is_at_end() {
            let name = self.view.names.segment(pin.header.base);
            let verdict = walker.verify(&group);
            verdict
                .map_err(|e| Error::io("read", self.view.dir.path_of(&name), e))?
                .map_err(|(at, e)| corruption(name, pin.header.base, at, e.reason()))?;
            let held = walker.held();
            while let Some(span) = cursor.next(held) {
                if span.lsn >= self.before {
                    break;
                }
                if let Some(payload) = held.sub(span.payload, span.len) {
                    self.records
                        .push(Record { lsn: Lsn::new(span.lsn), payload: payload.to_vec() });
                }
            }
        }
        self.group = Some(group.prev);
        Ok(())
    }
}

fn corruption(segment: String, base: u64, lsn: u64, reason: &'static str) -> Error {
    Error::Corruption { segment, offset: lsn.saturating_sub(base), lsn: Lsn::new(lsn), reason }
}

impl Iterator for BackwardReader {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().or_else(|e| self.explain(e));
        self.ended |= !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}
