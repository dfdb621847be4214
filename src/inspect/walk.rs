//! Every group of every segment, across damage.
//!
//! 1. Up to the durable end, where that can be established, everything must be a chain of intact groups: what is not
//!    is damage. Where it cannot, the chain ends with the last intact group that is not older than those before it.
//! 2. Behind damage the walk goes on with the first intact group of this place and log whose number of records, epoch
//!    and ordinal do not go back: so groups of a former life of the file do not count.
//! 3. The numbers of records before and after tell how many were lost.
//! 4. A segment that has gone meanwhile was removed by retention and is no damage.

use super::files::{SegmentFile, damage, is_still_there, list, open};
use super::{Damage, Directory, Progress, Segment, Survey};
use crate::cuts::{Cut, Cuts};
use crate::error::{Error, Result};
use crate::format::{Flags, GROUP_HEADER, GroupHeader, Link, RecordInvalid};
use crate::lsn::Lsn;
use crate::read_only::ReadOnlyWal;
use crate::recovery::Walker;

/// Bytes read at once.
const CHUNK: usize = 1 << 20;

pub(super) fn walk(
    log: &Directory,
    each: &mut dyn FnMut(Lsn, &[u8]) -> bool,
    void: &[(Lsn, Lsn)],
    progress: &mut dyn FnMut(Progress),
) -> Result<Survey> {
    // First: what is durable now lies in the segments that are listed then.
    let end = ReadOnlyWal::open_with_prefix(log.dir.path(), log.names.prefix())
        .and_then(|log| log.durable_end());
    let files = list(log)?;
    let total = files.iter().map(|file| file.header.size).sum();
    let cuts = Cuts::new();
    void.iter().for_each(|(from, to)| cuts.add(Cut { from: from.as_u64(), to: to.as_u64() }));
    let mut walk = Walk {
        log,
        each,
        cuts,
        progress,
        at: Progress { done: 0, total },
        limit: end.as_ref().ok().map(|end| end.as_u64()),
        survey: Survey::default(),
        link: None,
        open: None,
        left: false,
        stopped: false,
    };
    walk.all(&files)?;
    let mut survey = walk.survey;
    if let Err(e) = end
        && survey.damage.is_empty()
        && survey.removed_meanwhile == 0
    {
        // Nothing is wrong but where the log ends.
        match e {
            Error::Corruption { segment, offset, lsn, reason } => {
                let expected = "a group that a later one says was durable".into();
                let base = lsn.as_u64().saturating_sub(offset);
                let mut place = damage(&segment, base, lsn.as_u64(), reason, expected);
                place.records_before = survey.records;
                survey.enter(place);
            }
            e => return Err(e),
        }
    }
    let all = survey.records;
    for place in &mut survey.damage {
        place.records_after = all - place.records_before;
    }
    Ok(survey)
}

struct Walk<'a> {
    log: &'a Directory,
    each: &'a mut dyn FnMut(Lsn, &[u8]) -> bool,
    cuts: Cuts,
    progress: &'a mut dyn FnMut(Progress),
    at: Progress,
    /// The durable end, if it could be established.
    limit: Option<u64>,
    survey: Survey,
    link: Option<Link>,
    /// Damage that no intact group has followed yet.
    open: Option<Damage>,
    /// The open damage is only that the chain goes on neither here nor in the next segment.
    left: bool,
    /// Nobody wants more records.
    stopped: bool,
}

impl Walk<'_> {
    fn all(&mut self, files: &[SegmentFile]) -> Result<()> {
        let sound = files.iter().find(|file| file.wrong.is_none());
        self.survey.log_id = sound.map(|file| file.header.log_id);
        self.survey.application_version = sound.map_or(0, |file| file.header.app_version);
        let mut before: Option<u64> = None;
        for (at, file) in files.iter().enumerate() {
            let base = file.header.base;
            if self.is_behind(base) {
                break;
            }
            if let Some(end) = before.filter(|end| *end < base) {
                let name = self.log.names.segment(end);
                self.begin(damage(&name, end, end, "the segment is missing", name.clone()), end);
            }
            if let Some(wrong) = file.wrong {
                let expected = format!("the header of the segment at {base}");
                self.begin(damage(&file.name, base, base, wrong, expected), base);
            }
            before = Some(file.header.end());
            let records = self.survey.records;
            match self.segment(file, files.get(at + 1)) {
                Ok(segment) => self.survey.segments.push(segment),
                Err(_) if !is_still_there(self.log, file) => {
                    self.survey.records = records;
                    self.survey.removed_meanwhile += 1;
                    (self.link, self.open) = (None, None);
                }
                Err(e) => return Err(e),
            }
            if self.stopped {
                return Ok(());
            }
            self.at.done += file.header.size;
            (self.progress)(self.at);
        }
        if let (Some(mut place), Some(limit)) = (self.open.take(), self.limit) {
            place.bytes = limit.saturating_sub(place.lsn.as_u64());
            self.survey.enter(place);
        } else if let Some(place) = self.open.take().filter(|place| place.offset == 0) {
            // A header or a file that is gone is damage whether or not something follows.
            self.survey.enter(place);
        }
        Ok(())
    }

    fn is_behind(&self, lsn: u64) -> bool {
        self.limit.is_some_and(|limit| lsn >= limit)
    }

    /// Begins damage, unless there is some already that goes on.
    fn begin(&mut self, mut place: Damage, cut: u64) {
        if self.open.is_none() {
            place.records_before = self.survey.records;
            place.cut = cut;
            self.open = Some(place);
            self.left = false;
        }
    }

    /// The group at `lsn` is intact: what was lost lies before it.
    fn resume(&mut self, lsn: u64, ordinal: u64) {
        self.left = false;
        if let Some(mut place) = self.open.take() {
            place.bytes = lsn.saturating_sub(place.lsn.as_u64());
            place.records_lost = self.link.map(|link| ordinal.saturating_sub(link.next_ordinal));
            self.survey.enter(place);
        }
    }

    /// Whether a valid header is that of the next group.
    fn fits(&self, group: &GroupHeader) -> bool {
        match &self.link {
            None => true,
            Some(link) if self.open.is_none() => group.follows(link),
            Some(link) => {
                group.first_ordinal >= link.next_ordinal
                    && group.epoch.counter >= link.epoch.counter
            }
        }
    }

    fn segment(&mut self, file: &SegmentFile, next: Option<&SegmentFile>) -> Result<Segment> {
        let header = file.header;
        let io = |e| Error::io("read", self.log.dir.path().join(&file.name), e);
        let mut walker = Walker::with_chunk(open(self.log, &file.name)?, header, CHUNK);
        if let Some(limit) = self.limit {
            walker.read_below(limit);
        }
        let mut segment = Segment {
            name: file.name.clone(),
            base: Lsn::new(header.base),
            size: header.size,
            block: header.block,
            ..Segment::default()
        };
        let mut lsn = header.first_group();
        let (start, mut told) = (self.at.done, 0);
        while lsn < header.end() && !self.is_behind(lsn) && !self.stopped {
            match walker.group(lsn).map_err(io)? {
                Ok(group) if self.fits(&group) => {
                    self.resume(lsn, group.first_ordinal);
                    self.group(&mut walker, file, &group, &mut segment)?;
                    lsn = group.padded_end(header.block);
                }
                other => {
                    if self.open.is_none() {
                        if self.goes_on_in(next)? {
                            break;
                        }
                        if !is_still_there(self.log, file) {
                            return Err(io(std::io::ErrorKind::NotFound.into()));
                        }
                        let found = match other {
                            Ok(_) => "a group that does not follow",
                            Err(e) => e.reason(),
                        };
                        let expected = match &self.link {
                            Some(link) => format!(
                                "the group behind the one at {}, with record {}",
                                link.lsn, link.next_ordinal
                            ),
                            None => "a group".into(),
                        };
                        self.begin(damage(&file.name, header.base, lsn, found, expected), lsn);
                        self.left = true;
                    }
                    lsn += u64::from(header.block);
                }
            }
            if lsn - header.base > told + CHUNK as u64 {
                told = lsn - header.base;
                (self.progress)(Progress { done: start + told, ..self.at });
            }
        }
        if self.left
            && let Some(next) = next
        {
            // Nothing of the log was found here any more, so that it was left for the next segment. If that does not
            // begin with a group of the log, the damage is there, and is found there.
            let first = self.first_group(next)?.filter(|group| self.fits(group));
            if next.header.base != header.end() || first.is_none() {
                self.open = None;
            }
        }
        Ok(segment)
    }

    /// Whether the log has left the segment here for the next one.
    fn goes_on_in(&self, next: Option<&SegmentFile>) -> Result<bool> {
        let (Some(next), Some(link)) = (next, &self.link) else { return Ok(false) };
        Ok(self.first_group(next)?.is_some_and(|group| group.follows(link)))
    }

    fn first_group(&self, file: &SegmentFile) -> Result<Option<GroupHeader>> {
        let io = |e| Error::io("read", self.log.dir.path().join(&file.name), e);
        let Ok(opened) = open(self.log, &file.name) else { return Ok(None) };
        let group = Walker::new(opened, file.header).group(file.header.first_group());
        Ok(group.map_err(io)?.ok())
    }

    /// Verifies the records of a group that is in its place, and hands them out.
    fn group(
        &mut self,
        walker: &mut Walker,
        file: &SegmentFile,
        group: &GroupHeader,
        segment: &mut Segment,
    ) -> Result<()> {
        let base = file.header.base;
        let io = |e| Error::io("read", self.log.dir.path().join(&file.name), e);
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
                if wanted && !(self.each)(Lsn::new(item.lsn), item.payload) {
                    self.stopped = true;
                }
            }
        }
        if intact != u64::from(group.records) && wrong.is_none() {
            wrong = Some((group.lsn, RecordInvalid::Fields));
        }
        if let Some((lsn, wrong)) = wrong {
            let expected = format!("one of {} records", group.records);
            let mut place = damage(&file.name, base, lsn, wrong.reason(), expected);
            place.bytes = group.padded_end(file.header.block).saturating_sub(lsn);
            place.records_before = self.survey.records + intact;
            place.records_lost = Some(u64::from(group.records).saturating_sub(intact));
            place.cut = group.lsn;
            self.survey.enter(place);
        }
        self.survey.records += intact;
        self.survey.end = Lsn::new(group.padded_end(file.header.block));
        if group.flags.has(Flags::CUT) {
            let cut = (Lsn::new(group.cut_from), Lsn::new(group.lsn));
            self.survey.cuts.push(cut);
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
