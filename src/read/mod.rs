//! Reading records back: in order, or one by its position.
//!
//! 1. Nothing at or above the durable end is ever returned.
//! 2. A group is verified as a whole before its first record is returned.
//! 3. The segment being read is pinned: retention removes it only after the reader has left it. It is not for a
//!    consumer, nor once the log is closed: what goes wrong in reading is then looked at twice (`LogView::explain`).
//! 4. Of a follower's groups those that are still in memory are taken from there (`tail`).
//! 5. A group that does not follow its predecessor below the durable end is read once more, and is
//!    then `Corruption`: it never ends the log.

mod backward;
pub(crate) mod consumer;
mod cursor;
pub(crate) mod follow;
mod live;
mod one;
pub(crate) mod outside;
mod record;

use std::sync::Arc;

pub use backward::BackwardReader;
pub(crate) use one::{cut_point, read_one};
pub use record::{Record, RecordRef, Records};

use crate::engine::log_view::LogView;
use crate::error::{Error, Result};
use crate::format::{GROUP_HEADER, GroupHeader, Link, SegmentHeader};
use crate::io::fs::{Access, File};
use crate::lsn::Lsn;
use crate::recovery::Walker;
use crate::segment::recent::{GroupCopy, Seat};
use crate::segment::window::ByteWindow;
use crate::segment::{Found, Pin};
use cursor::{Cursor, Span};

/// Bytes read at once.
const CHUNK: usize = 512 << 10;

/// Reads durable records in order, from [`Wal::reader`](crate::Wal::reader).
///
/// It ends at the end that was durable when it was made. While it is in a segment, retention leaves
/// that segment and later ones alone: drop readers that are done with. After an error it ends.
#[derive(Debug)]
pub struct Reader {
    view: Arc<LogView>,
    from: u64,
    end: u64,
    state: State,
    place: Option<Place>,
    /// Retention waits for it.
    holds: bool,
    /// It follows the log's end.
    seat: Option<Seat>,
    /// Found and not given out yet.
    peeked: Option<Span>,
    /// Until there is a place: the segment to start in.
    start: Option<Pin>,
    /// Cuts that it knows of.
    cuts: u64,
    /// No record above this was delivered by [`Reader::next_below`] and [`Reader::next_run`].
    delivered: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unopened,
    Reading,
    Ended,
}

/// Where the reader is: in a verified group of a pinned segment.
#[derive(Debug)]
struct Place {
    pin: Pin,
    walker: Walker,
    /// The group that the place is in, if that is not read from the file.
    copy: Option<Arc<GroupCopy>>,
    /// Address of the next group.
    next_group: u64,
    link: Option<Link>,
    cursor: Cursor,
    /// Where the last record or batch ends that was passed on the way to the first one that is wanted.
    passed: u64,
}

impl Reader {
    pub(crate) fn new(view: Arc<LogView>, from: u64, end: u64) -> Self {
        let cuts = view.cuts.count();
        Reader {
            view,
            cuts,
            delivered: 0,
            from,
            end,
            state: State::Unopened,
            place: None,
            holds: true,
            seat: None,
            peeked: None,
            start: None,
        }
    }

    /// The next record, in place. `None` at the end. Costs no allocation and no copy.
    ///
    /// # Errors
    ///
    /// As the iterator's.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-ref-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// wal.append_durable(b"in place")?;
    /// let mut reader = wal.reader(ringwal::Lsn::ZERO);
    /// let mut bytes = 0;
    /// while let Some(record) = reader.next_ref()? {
    ///     bytes += record.payload.len();
    /// }
    /// assert_eq!(bytes, 8);
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    pub fn next_ref(&mut self) -> Result<Option<RecordRef<'_>>> {
        let found = self.advance();
        let span = match found {
            Ok(Some(span)) => span,
            Ok(None) => {
                self.finish();
                return Ok(None);
            }
            Err(e) => {
                self.finish();
                return Err(e);
            }
        };
        Ok(Some(self.record(span)?))
    }

    /// The next records that lie in memory together, at least one. `None` at the end. Costs no allocation, no copy
    /// and no call for each. What is not taken from the iterator is skipped.
    ///
    /// # Errors
    ///
    /// As the iterator's.
    pub fn next_records(&mut self) -> Result<Option<Records<'_>>> {
        match self.advance() {
            Ok(Some(first)) => {
                let Some(place) = &mut self.place else { return Err(Error::Closed) };
                Ok(Some(place.run(first)))
            }
            ended => {
                self.finish();
                ended.map(|_| None)
            }
        }
    }

    #[inline(always)]
    fn record(&self, span: Span) -> Result<RecordRef<'_>> {
        let Some(place) = &self.place else { return Err(Error::Closed) };
        match place.held().sub(span.payload, span.len) {
            Some(payload) => Ok(RecordRef { lsn: Lsn::new(span.lsn), payload }),
            None => Err(self.corruption(&place.pin.header, span.lsn, "record length")),
        }
    }

    fn finish(&mut self) {
        self.state = State::Ended;
        self.place = None;
        self.peeked = None;
        self.start = None;
    }

    #[inline(always)]
    fn advance(&mut self) -> Result<Option<Span>> {
        // Most records lie in the same group as the one before.
        if let Some(place) = &mut self.place
            && let Some(span) = place.next_in_group()
            && span.lsn >= self.from
        {
            return Ok(Some(span));
        }
        self.advance_far()
    }

    #[cold]
    fn advance_far(&mut self) -> Result<Option<Span>> {
        self.search().map_err(|e| match &self.place {
            // The last group seen, in or behind which it went wrong.
            Some(place) => {
                self.view.explain(e, place.link.map_or(place.next_group, |link| link.lsn))
            }
            None => e,
        })
    }

    fn search(&mut self) -> Result<Option<Span>> {
        if self.state == State::Ended {
            return Ok(None);
        }
        self.view.check_not_forked()?;
        if self.state == State::Unopened {
            self.state = State::Reading;
            self.open()?;
        }
        loop {
            let Some(place) = &mut self.place else { return Ok(None) };
            if let Some(span) = place.next_in_group() {
                if span.lsn >= self.from {
                    return Ok(Some(span));
                }
                place.passed = place.cursor.at.max(place.cursor.batch_end);
            } else if !self.next_group()? {
                return Ok(None);
            }
        }
    }

    fn open(&mut self) -> Result<()> {
        let pin = loop {
            let oldest = self.view.table.oldest();
            let from = if self.from == 0 { oldest } else { self.from };
            if from >= self.end {
                return if from < oldest {
                    Err(Error::Pruned { oldest: Lsn::new(oldest) })
                } else {
                    Ok(())
                };
            }
            match self.view.table.place(from, self.holds) {
                Ok(pin) => break pin,
                // Whatever is the oldest was asked for, and retention has just removed what was.
                Err(Found::Pruned(_)) if self.from == 0 => {}
                Err(Found::Pruned(oldest)) => {
                    return Err(Error::Pruned { oldest: Lsn::new(oldest) });
                }
                Err(_) => return Ok(()),
            }
        };
        let opened = self.open_segment(&pin.header);
        let file = opened.map_err(|e| self.view.explain(e, pin.header.base))?;
        let walker = Walker::with_chunk(file, pin.header, CHUNK);
        let first = pin.header.first_group();
        self.place = Some(Place {
            pin,
            walker,
            copy: None,
            next_group: first,
            link: None,
            cursor: Cursor::NOTHING,
            passed: 0,
        });
        self.start = None;
        Ok(())
    }

    fn pin(&self, lsn: u64) -> Result<Pin> {
        self.view.table.place(lsn, self.holds).map_err(|found| match found {
            Found::Pruned(oldest) => Error::Pruned { oldest: Lsn::new(oldest) },
            _ => Error::NoRecord { lsn: Lsn::new(lsn) },
        })
    }

    fn open_segment(&self, header: &SegmentHeader) -> Result<Arc<dyn File>> {
        let name = self.view.names.segment(header.base);
        // The pages around what a follower reads in a segment that is being written would be read too, and are
        // written next, past the page cache.
        let unfinished = self.seat.is_some() && header.end() > self.end;
        let access = if unfinished { Access::ReadDevice } else { Access::Read };
        let opened = self.view.dir.open(&name, access);
        opened.map_err(|e| Error::io("open", self.view.dir.path_of(&name), e))
    }

    /// Goes on to the next group that holds anything at or after `from`. False: the end.
    fn next_group(&mut self) -> Result<bool> {
        loop {
            let Some(place) = &mut self.place else { return Ok(false) };
            if place.next_group >= self.end {
                return Ok(false);
            }
            let copy = match (place.link, &mut self.seat) {
                (Some(link), Some(seat)) => seat.after(&link),
                _ => None,
            };
            let group = match &copy {
                Some(copy) => copy.header,
                None => {
                    // Groups end on a block: nothing that is written later is in the window.
                    place.walker.read_below(self.end);
                    if !place.holds_next_group() {
                        self.move_to_next_group()?;
                    }
                    match self.find_group()? {
                        Some(group) => group,
                        None => return Ok(false),
                    }
                }
            };
            if let Some(place) = &self.place
                && group.lsn >= place.pin.header.end()
            {
                // Pinned before the old pin goes, which protects what is above it.
                let pin = self.pin(group.lsn)?;
                if let Some(place) = &mut self.place {
                    place.pin = pin;
                }
            }
            let Some(place) = &mut self.place else { return Ok(false) };
            let header = place.pin.header;
            let end = group.padded_end(header.block);
            place.link = Some(group.link());
            place.next_group = end;
            let in_memory = copy.is_some();
            place.copy = copy;
            if end <= self.from || group.used == GROUP_HEADER {
                continue;
            }
            place.cursor = Cursor::of(&group);
            place.cursor.cut(&self.view.cuts, group.lsn);
            if place.cursor.is_at_end() {
                continue;
            }
            if in_memory {
                return Ok(true);
            }
            for again in [true, false] {
                let read = place.walker.verify(&group);
                let name = || self.view.names.segment(header.base);
                let verdict =
                    read.map_err(|e| Error::io("read", self.view.dir.path_of(&name()), e))?;
                match verdict {
                    Ok(()) => break,
                    Err(_) if again => place.walker.forget(),
                    Err((lsn, e)) => return Err(self.corruption(&header, lsn, e.reason())),
                }
            }
            return Ok(true);
        }
    }

    /// After copies of groups of later segments: pins the segment to be read on from.
    fn move_to_next_group(&mut self) -> Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        let (next_group, link) = (place.next_group, place.link);
        // The last group's segment: the next group is there, or in the one behind it.
        let last = link.map_or(next_group, |link| link.lsn);
        let pin = self.pin(last)?;
        let walker = Walker::with_chunk(self.open_segment(&pin.header)?, pin.header, CHUNK);
        if let Some(place) = &mut self.place {
            place.pin = pin;
            place.walker = walker;
        }
        Ok(())
    }

    /// The header of the next group: here, or at the start of the next segment.
    fn find_group(&mut self) -> Result<Option<GroupHeader>> {
        for again in [true, false] {
            // Where the group is missing, to be told: where the segment is full, in the next one.
            let mut missing = None;
            let Some(place) = &mut self.place else { return Ok(None) };
            let (header, at) = (place.walker.header, place.next_group);
            let name = self.view.names.segment(header.base);
            let read = place.walker.group(at);
            let here = read.map_err(|e| Error::io("read", self.view.dir.path_of(&name), e))?;
            let link = place.link;
            let follows = |g: &GroupHeader| link.is_none_or(|l| g.follows(&l));
            if let Ok(group) = here
                && follows(&group)
            {
                return Ok(Some(group));
            }
            if link.is_some() && header.end() < self.end {
                // The writer may have left this segment here. Pinned before the old pin goes.
                if let Ok(pin) = self.view.table.place(header.end(), self.holds) {
                    let next = pin.header;
                    let mut walker = Walker::with_chunk(self.open_segment(&next)?, next, CHUNK);
                    walker.read_below(self.end);
                    let name = self.view.names.segment(next.base);
                    let there = walker
                        .group(next.first_group())
                        .map_err(|e| Error::io("read", self.view.dir.path_of(&name), e))?;
                    if let Ok(group) = there
                        && follows(&group)
                        && let Some(place) = &mut self.place
                    {
                        place.pin = pin;
                        place.walker = walker;
                        return Ok(Some(group));
                    }
                    let is_left = header.end().saturating_sub(at) < u64::from(header.max_group);
                    if at >= header.end() || (is_left && here.is_err() && there.is_err()) {
                        missing = Some((next, there));
                    }
                }
            } else if at + u64::from(header.block) > header.end() && header.end() >= self.end {
                return Ok(None);
            }
            if again {
                if let Some(place) = &mut self.place {
                    place.walker.forget();
                }
            } else {
                let (header, at, found) = match missing {
                    Some((next, there)) => (next, next.first_group(), there),
                    None => (header, at, here),
                };
                let reason = found.err().map_or("a group that does not follow", |e| e.reason());
                return Err(self.corruption(&header, at, reason));
            }
        }
        Ok(None)
    }

    fn corruption(&self, header: &SegmentHeader, lsn: u64, reason: &'static str) -> Error {
        Error::Corruption {
            segment: self.view.names.segment(header.base),
            offset: lsn.saturating_sub(header.base),
            lsn: Lsn::new(lsn),
            reason,
        }
    }
}

impl Place {
    #[inline]
    fn held(&self) -> ByteWindow<'_> {
        match &self.copy {
            None => self.walker.held(),
            Some(copy) => copy.held(),
        }
    }

    /// The next record of the group, which has been verified.
    #[inline]
    fn next_in_group(&mut self) -> Option<Span> {
        let mut cursor = self.cursor;
        let found = cursor.next(self.held());
        self.cursor = cursor;
        found
    }

    /// `first`, and what is behind it in its group.
    fn run(&mut self, first: Span) -> Records<'_> {
        let cursor = std::mem::replace(&mut self.cursor, Cursor::NOTHING);
        Records { place: self, next: Some(first), cursor }
    }

    /// Whether the walker's segment is the last group's, behind which the next one is looked for.
    fn holds_next_group(&self) -> bool {
        let header = &self.walker.header;
        self.link.is_none_or(|link| (header.base..header.end()).contains(&link.lsn))
    }
}

impl Iterator for Reader {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_ref() {
            Ok(Some(record)) => Some(Ok(record.to_record())),
            Ok(None) => None,
            Err(e) => Some(Err(e)),
        }
    }
}
