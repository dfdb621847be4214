//! Walks over every group of every segment, across damage.
//!
//! 1. Up to the durable end, if that can be established, everything must be a chain of intact
//!    groups; anything else is damage. Otherwise the chain ends with the last intact group that is
//!    not older than those before it.
//! 2. After damage the walk continues with the first intact group of this position and log whose
//!    epoch and ordinal do not decrease. So groups of a former life of the file do not count.
//! 3. The numbers of records before and after tell how many were lost.
//! 4. Damage in a group whose records `truncate_from` made void does not count: no reader returns
//!    them.
//! 5. Retention removed a segment that is gone when it is read again: neither it nor anything found
//!    in it is damage.

use std::sync::Arc;

use super::files::{ListedSegment, Wrong, damage, is_still_there, list, medium_errors};
use super::medium_errors::{MediumErrors, UNREADABLE};
use super::view::View;
use super::{Damage, Finding, IntactRecord, Progress, Remedy, Segment, Survey, Watch};
use crate::error::{Error, Result};
use crate::format::{Flags, GROUP_HEADER, GroupHeader, Link, RecordInvalid, SegmentHeader};
use crate::io::fs::File;
use crate::lsn::Lsn;
use crate::recovery::Walker;
use crate::segment::cuts::{Cut, Cuts};

/// Takes a record. False: it wants no more.
pub(super) type EachRecord<'a> = dyn FnMut(IntactRecord<'_>) -> bool + 'a;

/// Bytes read at once.
const CHUNK: usize = 1 << 20;

pub(super) fn walk(
    log: &View,
    each: &mut EachRecord<'_>,
    void: &[(Lsn, Lsn)],
    limit: Option<u64>,
    watch: &mut Watch<'_>,
) -> Result<Survey> {
    let files = list(log)?;
    let total = files.iter().map(|file| file.header.size).fold(0, u64::saturating_add);
    let cuts = Cuts::new();
    void.iter().for_each(|(from, to)| cuts.add(Cut { from: from.as_u64(), to: to.as_u64() }));
    let mut walk = Walk {
        log,
        each,
        cuts,
        watch,
        at: Progress { done: 0, total, records: 0, damaged_places: 0 },
        limit,
        survey: Survey { limit, ..Survey::default() },
        link: None,
        from_the_start: files.first().is_some_and(|file| file.header.base == 0),
        open: None,
        left: false,
        given_up: None,
        stopped: false,
        before: None,
    };
    walk.all(&files)?;
    Ok(walk.survey)
}

struct Walk<'a> {
    log: &'a View,
    each: &'a mut EachRecord<'a>,
    cuts: Cuts,
    watch: &'a mut Watch<'a>,
    at: Progress,
    /// The durable end, if it could be established.
    limit: Option<u64>,
    survey: Survey,
    link: Option<Link>,
    /// The log's first segment is there: what is missing before the first group is known.
    from_the_start: bool,
    /// Damage after which no intact group was found yet.
    open: Option<Damage>,
    /// The only damage is that the chain continues neither here nor in the next segment: the log
    /// may end here.
    left: bool,
    /// Such damage of an earlier segment, until a group shows that the log continues.
    given_up: Option<Damage>,
    /// The caller wants no more records.
    stopped: bool,
    /// Of the segment before: the next one goes on reading ahead.
    before: Option<Walker>,
}

impl Walk<'_> {
    fn all(&mut self, files: &[ListedSegment]) -> Result<()> {
        let sound = files.iter().find(|file| file.wrong.is_none()).or(files.first());
        self.survey.log_id = sound.map(|file| file.header.log_id);
        self.survey.application_version = sound.map_or(0, |file| file.header.app_version);
        let mut before: Option<u64> = None;
        for (at, file) in files.iter().enumerate() {
            let base = file.header.base;
            if self.is_behind(base) {
                break;
            }
            if before.is_some_and(|end| base < end) {
                // It overlaps an existing segment.
                self.stray(file);
                continue;
            }
            if let Some(end) = before.filter(|end| *end < base) {
                let name = self.log.names.segment(end);
                self.begin(damage(&name, end, end, "the segment is missing", name.clone()), end);
            }
            if let Some(wrong) = file.wrong.filter(|wrong| *wrong != Wrong::Length) {
                let expected = format!("the header of the segment at {base}");
                let mut place = damage(&file.name, base, base, wrong.reason(), expected);
                if file.walkable {
                    place.remedy = Remedy::Rebuild;
                }
                self.begin(place, base);
            }
            before = Some(file.header.end());
            let so_far = self.survey.so_far();
            let next = files[at + 1..].iter().find(|next| next.header.base >= file.header.end());
            match self.segment(file, next) {
                Ok(segment) => self.survey.segments.push(segment),
                Err(_) if !is_still_there(self.log, file) => {
                    // Anything found in it does not count.
                    self.survey.back_to(&so_far);
                    self.survey.removed_meanwhile += 1;
                    // Retention removes the oldest first: the next segment may be missing from the
                    // list.
                    before = None;
                    (self.link, self.open, self.from_the_start) = (None, None, false);
                }
                Err(e) => return Err(e),
            }
            self.survey.report(self.watch);
            self.stopped |= self.survey.interrupted;
            if self.stopped {
                return Ok(());
            }
            self.at.done += file.header.size;
            self.tell(self.at);
        }
        // Groups must lead up to the durable end.
        let short = self.limit.is_some_and(|limit| self.survey.end.as_u64() < limit);
        let open = self.open.take().or(self.given_up.take().filter(|_| short));
        match (open, self.limit) {
            (Some(mut place), Some(limit)) => {
                place.bytes = limit.saturating_sub(place.lsn.as_u64());
                self.lost(place);
            }
            // A missing header or file is damage whether or not a group follows.
            (Some(place), None) if !self.left => self.lost(place),
            _ => {}
        }
        Ok(())
    }

    fn tell(&mut self, at: Progress) {
        let Survey { records, damaged_places, .. } = self.survey;
        let at = Progress { records, damaged_places, ..at };
        if (self.watch)(Finding::Progress(at)).is_break() {
            (self.stopped, self.survey.interrupted) = (true, true);
        }
    }

    /// Enters damage that no intact group follows.
    fn lost(&mut self, mut place: Damage) {
        place.remedy = Remedy::Cut;
        self.survey.enter(place);
    }

    /// Enters a file that overlaps others.
    fn stray(&mut self, file: &ListedSegment) {
        let base = file.header.base;
        let wrong = file.wrong.map_or("a segment across another", Wrong::reason);
        let expected = "no file of that name: its place is another segment's".into();
        let mut place = damage(&file.name, base, base, wrong, expected);
        place.bytes = file.len;
        place.records_lost = Some(0);
        place.records_before = self.survey.records;
        place.remedy = Remedy::Remove;
        self.survey.enter(place);
    }

    fn is_behind(&self, lsn: u64) -> bool {
        self.limit.is_some_and(|limit| lsn >= limit)
    }

    /// Opens damage, unless some is open already.
    fn begin(&mut self, mut place: Damage, cut: u64) {
        if self.open.is_none() {
            (place.records_before, place.kept) = (self.survey.records, self.survey.records);
            place.cut = cut;
            self.open = Some(place);
            self.left = false;
        }
    }

    /// Closes the open damage: the group at `lsn` is intact.
    fn resume(&mut self, header: &SegmentHeader, lsn: u64, ordinal: u64) {
        self.left = false;
        let Some(mut place) = self.open.take() else { return };
        place.bytes = lsn.saturating_sub(place.lsn.as_u64());
        let only_the_header = place.lsn.as_u64() == header.base && lsn == header.first_group();
        place.records_lost = match &self.link {
            Some(link) => Some(ordinal.saturating_sub(link.next_ordinal)),
            None if self.from_the_start => Some(ordinal),
            // Retention removed the records before.
            None if only_the_header => Some(0),
            None => None,
        };
        let in_place = only_the_header || place.found == Wrong::Length.reason();
        if place.records_lost != Some(0) || !in_place {
            place.remedy = Remedy::Cut;
        }
        self.survey.enter(place);
    }

    /// Whether a valid header is that of the next group.
    fn fits(&self, group: &GroupHeader) -> bool {
        match &self.link {
            None => true,
            Some(link) if self.open.is_none() => group.follows(link),
            Some(link) => {
                group.first_ordinal >= link.next_ordinal
                    && group.epoch.counter >= link.epoch.counter
                    && group.prev >= link.lsn
            }
        }
    }

    fn segment(&mut self, file: &ListedSegment, next: Option<&ListedSegment>) -> Result<Segment> {
        let header = file.header;
        let io = |e| Error::io("read", self.log.dir.path_of(&file.name), e);
        let mut segment = Segment {
            name: file.name.clone(),
            base: Lsn::new(header.base),
            size: file.len,
            block: header.block,
            ..Segment::default()
        };
        if !file.walkable {
            return Ok(segment);
        }
        let opened = medium_errors(self.log, &file.name)?;
        let file_to_walk = Arc::clone(&opened) as Arc<dyn File>;
        let mut walker = Walker::ahead_with_chunk(file_to_walk, header, CHUNK);
        if let Some(before) = &mut self.before {
            walker.go_on_from(before);
        }
        if let Some(limit) = self.limit {
            walker.read_below(limit);
        }
        let mut lsn = header.first_group();
        // Where the log continues if no later group is kept.
        let mut chained = header.base;
        let (start, mut told) = (self.at.done, 0);
        let end = header.end().min(header.base.saturating_add(file.len));
        while lsn < end && !self.is_behind(lsn) && !self.stopped {
            match walker.group(lsn).map_err(io)? {
                Ok(group) if self.fits(&group) => {
                    // A log begins in its oldest segment: what was there, and was no group, is
                    // missing.
                    if self.link.is_none() && self.open.is_none() {
                        self.open = self.given_up.take();
                    }
                    self.resume(&header, lsn, group.first_ordinal);
                    self.group(&mut walker, file, &opened, &group, &mut segment)?;
                    lsn = group.padded_end(header.block);
                    chained = lsn;
                }
                other => {
                    if self.open.is_none() {
                        // Only a segment that holds a group can have been left.
                        if lsn > header.first_group() && self.goes_on_in(next)? {
                            break;
                        }
                        if !is_still_there(self.log, file) {
                            return Err(io(std::io::ErrorKind::NotFound.into()));
                        }
                        let at = lsn - header.base;
                        let found = match other {
                            Ok(_) => "a group that does not follow",
                            Err(_) if opened.has_lost(at..at + u64::from(GROUP_HEADER)) => {
                                UNREADABLE
                            }
                            Err(e) => e.reason(),
                        };
                        let expected = match &self.link {
                            Some(link) => format!(
                                "the group after the one at {}, with record {}",
                                link.lsn, link.next_ordinal
                            ),
                            None => "a group".into(),
                        };
                        self.begin(damage(&file.name, header.base, lsn, found, expected), lsn);
                        // What is there and cannot be read would have to be seen to be nothing.
                        self.left = found != UNREADABLE;
                    }
                    lsn += u64::from(header.block);
                }
            }
            if lsn - header.base > told + CHUNK as u64 {
                told = lsn - header.base;
                self.tell(Progress { done: start + told, ..self.at });
            }
        }
        if self.left
            && let Some(next) = next
        {
            // No further group was found here, so the walk continued in the next segment. If that
            // does not begin with a group of the log, the damage is there, and is found there.
            let first = self.first_group(next)?.filter(|group| self.fits(group));
            if next.header.base != header.end() || first.is_none() {
                // Once: after a segment without any group the log does not continue.
                if self.given_up.is_none() {
                    self.given_up = self.open.take();
                }
            }
        }
        if let Some(lost) = opened.first_lost().filter(|_| self.survey.unreadable.is_none()) {
            let at = header.base.saturating_add(lost.start);
            let expected = "a group, or nothing".into();
            let mut place = damage(&file.name, header.base, at, UNREADABLE, expected);
            place.bytes = lost.end - lost.start;
            self.survey.unreadable = Some(place);
        }
        // Of a file whose header is damaged too, the length is what its neighbours say.
        let cut_short = file.wrong.is_some() && file.len < header.size;
        if (cut_short || file.wrong == Some(Wrong::Length)) && !self.stopped {
            self.wrong_length(file, chained);
        }
        self.before = Some(walker);
        Ok(segment)
    }

    /// What the end of a file is that has another length than its header says.
    fn wrong_length(&mut self, file: &ListedSegment, chained: u64) {
        let SegmentHeader { base, size, .. } = file.header;
        let at = base + file.len.min(size);
        let expected = format!("a file of {size} bytes, not of {}", file.len);
        let mut place = damage(&file.name, base, at, Wrong::Length.reason(), expected);
        place.remedy = Remedy::Rebuild;
        if file.len > size {
            // Nothing is missing.
            (place.bytes, place.records_lost) = (file.len - size, Some(0));
            (place.records_before, place.kept) = (self.survey.records, self.survey.records);
            self.survey.enter(place);
            return;
        }
        if std::mem::take(&mut self.left) {
            self.open = None;
        }
        self.begin(place, chained.min(at));
    }

    /// Whether the log has left the segment here for the next one.
    fn goes_on_in(&self, next: Option<&ListedSegment>) -> Result<bool> {
        let (Some(next), Some(link)) = (next, &self.link) else { return Ok(false) };
        Ok(self.first_group(next)?.is_some_and(|group| group.follows(link)))
    }

    fn first_group(&self, file: &ListedSegment) -> Result<Option<GroupHeader>> {
        let io = |e| Error::io("read", self.log.dir.path_of(&file.name), e);
        let opened = if file.walkable { medium_errors(self.log, &file.name).ok() } else { None };
        let Some(opened) = opened else { return Ok(None) };
        let group = Walker::new(opened, file.header).group(file.header.first_group());
        Ok(group.map_err(io)?.ok())
    }

    /// Verifies the records of a group that is in its place, and hands them out.
    fn group(
        &mut self,
        walker: &mut Walker,
        file: &ListedSegment,
        opened: &MediumErrors,
        group: &GroupHeader,
        segment: &mut Segment,
    ) -> Result<()> {
        let base = file.header.base;
        let io = |e| Error::io("read", self.log.dir.path_of(&file.name), e);
        let (mut intact, mut wrong) = (0, None);
        'records: for record in walker.records(group).map_err(io)? {
            let record = match record {
                Ok(record) => record,
                Err(e) => {
                    wrong = Some(e);
                    break;
                }
            };
            for item in record.items() {
                let item = match item {
                    Ok(item) => item,
                    Err(e) => {
                        wrong = Some((record.lsn, e));
                        break 'records;
                    }
                };
                intact += 1;
                let wanted = !self.stopped && self.cuts.at(item.lsn).is_none();
                let (tag, payload) = (item.tag, item.payload);
                let record = IntactRecord { lsn: Lsn::new(item.lsn), tag, payload };
                if wanted && !(self.each)(record) {
                    self.stopped = true;
                }
            }
        }
        if intact != u64::from(group.records) && wrong.is_none() {
            wrong = Some((group.lsn, RecordInvalid::Fields));
        }
        if let Some((lsn, wrong)) = wrong {
            // Recycled while it was read: its bytes are another segment's.
            if !is_still_there(self.log, file) {
                return Err(io(std::io::ErrorKind::NotFound.into()));
            }
            let expected = format!("one of {} records", group.records);
            let end = group.padded_end(file.header.block);
            let found = match opened.has_lost(lsn - base..end - base) {
                true => UNREADABLE,
                false => wrong.reason(),
            };
            let mut place = damage(&file.name, base, lsn, found, expected);
            place.records_of = Some(group.lsn);
            place.bytes = end.saturating_sub(lsn);
            place.records_before = self.survey.records + intact;
            place.records_lost = Some(u64::from(group.records).saturating_sub(intact));
            (place.cut, place.kept) = (group.lsn, self.survey.records);
            self.survey.enter(place);
        }
        self.given_up = None;
        self.survey.records += intact;
        self.survey.stated_oldest = self.survey.stated_oldest.max(group.oldest);
        self.survey.first_ordinal.get_or_insert(group.first_ordinal);
        self.survey.end = Lsn::new(group.padded_end(file.header.block));
        if group.flags.has(Flags::CUT) {
            let cut = (Lsn::new(group.cut_from), Lsn::new(group.lsn));
            self.survey.cuts.push(cut);
            self.survey.forgive_void(group.cut_from, group.lsn, self.watch);
        }
        let new_epoch = self.link.is_none_or(|link| link.epoch != group.epoch);
        segment.epochs += u64::from(new_epoch);
        let control = group.used == GROUP_HEADER;
        segment.control_groups += u64::from(control);
        segment.groups += u64::from(!control);
        segment.records += intact;
        segment.group_bytes += group.padded_end(file.header.block) - group.lsn;
        segment.record_bytes += u64::from(group.used - GROUP_HEADER);
        if segment.first_written == 0 {
            segment.first_written = group.wall;
        }
        segment.last_written = group.wall;
        self.link = Some(group.link());
        Ok(())
    }
}
