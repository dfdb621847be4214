//! Finds where the log ends, and whether it may end there. Reads only.
//!
//! 1. The walk starts in the segment that holds the durable mark of the newest segment's first
//!    group: everything before that mark was durable when the group was written.
//! 2. The walk follows group headers along the chain to the break: the first place without a
//!    successor.
//! 3. After the break, the search looks for headers that count as evidence (docs/format.md) and
//!    takes their highest durable mark. It looks at every block of that segment and of each later
//!    segment, except for blocks that stamps prove to be untouched. It searches in the same way the
//!    rest of a segment that the chain left for the next one.
//! 4. If a mark lies above the break, durable data is damaged there: `Corruption`. Otherwise all
//!    groups from the highest mark on are checked in full. The log ends before the first bad one. A
//!    bad group without a predecessor is `Corruption` too.

use std::collections::VecDeque;
use std::sync::Arc;

use super::report::RecoveryCase;
use super::scan::{MISSING, states_oldest};
use super::walk::Walker;
use crate::error::{Error, Result};
use crate::format::{EpochId, Flags, GroupHeader, GroupInvalid, Link, SegmentHeader, is_stamp};
use crate::io::fs::{Access, AlignedBuf, Dir, File, read_full};
use crate::segment::Names;

/// Bytes of a read where every block is searched.
const CHUNK: usize = 1 << 20;
/// A search of more bytes than this skips the holes that the filesystem reports. A shorter one
/// reads every block and does not rely on the filesystem.
const VAST: u64 = 1 << 30;

#[derive(Debug)]
pub(crate) struct FoundEnd {
    pub(crate) case: RecoveryCase,
    /// Where the next group goes, if it still fits in that segment.
    pub(crate) end: u64,
    /// Index of the segment that contains `end` or ends at it.
    pub(crate) active: usize,
    pub(crate) link: Link,
    /// The highest epoch counter found. The next epoch's counter must exceed it.
    pub(crate) highest_epoch: u64,
    pub(crate) clean: bool,
    pub(crate) discarded: u64,
    /// The highest durable mark. Bytes below it need no further sync.
    pub(crate) proven: u64,
    /// The oldest LSN that the last group states.
    pub(crate) stated_oldest: u64,
    /// The last group on the chain.
    pub(crate) last: Option<GroupHeader>,
}

impl FoundEnd {
    /// The end of a log whose first segment has just been prepared.
    pub(crate) fn new_log(first: &SegmentHeader) -> Self {
        FoundEnd {
            case: RecoveryCase::New,
            end: first.first_group(),
            active: 0,
            link: Link::START,
            highest_epoch: 0,
            clean: false,
            discarded: 0,
            proven: 0,
            stated_oldest: first.base,
            last: None,
        }
    }
}

pub(super) struct EndFinder<'a> {
    pub(super) dir: &'a dyn Dir,
    pub(super) names: &'a Names,
    pub(super) segments: &'a [SegmentHeader],
}

/// The chain, as far as headers go.
struct Chain {
    /// The groups from the last one that begins at or before the highest mark: those that may be
    /// torn, and the one that the log would then end with. Empty if there is no chain.
    tail: VecDeque<GroupHeader>,
    /// The break.
    end: u64,
    /// Index of the segment that the break lies in.
    segment: usize,
    /// The highest durable mark of the chain.
    mark: u64,
}

impl Chain {
    fn push(&mut self, group: GroupHeader) {
        self.mark = self.mark.max(group.durable_end);
        self.tail.push_back(group);
        while self.tail.get(1).is_some_and(|second| second.lsn < self.mark) {
            self.tail.pop_front();
        }
    }
}

/// Finds the end in the segments that `scan` has accepted. There is at least one.
pub(crate) fn find_end(
    dir: &dyn Dir,
    names: &Names,
    segments: &[SegmentHeader],
) -> Result<FoundEnd> {
    let finder = EndFinder { dir, names, segments };
    let end_found = finder.run()?;
    finder.check_front(&end_found)?;
    Ok(end_found)
}

/// As [`find_end`], while a writer may go on. Its retention may have removed segments after their
/// names were listed. The group that states this is then in a segment that the list lacks.
pub(crate) fn find_end_beside_a_writer(
    dir: &dyn Dir,
    names: &Names,
    segments: &[SegmentHeader],
) -> Result<FoundEnd> {
    let finder = EndFinder { dir, names, segments };
    let end_found = finder.run()?;
    match finder.check_front(&end_found) {
        Err(e) if !states_oldest(dir, names, segments[0].base)? => Err(e),
        _ => Ok(end_found),
    }
}

/// Finds the end of a log whose first segments a repair removed: no group states the oldest
/// position that is left.
pub(crate) fn find_end_of_rest(
    dir: &dyn Dir,
    names: &Names,
    segments: &[SegmentHeader],
) -> Result<FoundEnd> {
    EndFinder { dir, names, segments }.run()
}

impl EndFinder<'_> {
    fn run(&self) -> Result<FoundEnd> {
        let Some((newest, first_group)) = self.newest_written()? else {
            return self.unwritten();
        };
        // The mark is an end: the last durable byte lies before it, perhaps in the segment before.
        let from = self.segment_of(first_group.durable_end.saturating_sub(1)).min(newest);
        let chain = self.follow(from)?;
        let Some(last) = chain.tail.back() else {
            return Err(self.corruption(chain.end, chain.segment, "no group header"));
        };
        let evidence = self.evidence(chain.end, chain.segment, last.epoch)?;
        let mark = chain.mark.max(evidence.mark);
        if mark > chain.end {
            return Err(self.damage_at_break(&chain, evidence.first)?);
        }
        self.check_tail(&chain, &evidence, mark)
    }

    /// Checks that no segment before the first of the list is missing.
    fn check_front(&self, found: &FoundEnd) -> Result<()> {
        let first = self.segments[0].base;
        if first > found.stated_oldest {
            return Err(self.corruption_in(found.stated_oldest, MISSING));
        }
        // A log begins at 0, and retention removes a segment only after a group in a later one is
        // durable.
        if found.case == RecoveryCase::Unwritten && first > 0 {
            let reason = "no group in the oldest segment, and those before it are missing";
            return Err(self.corruption(found.end, 0, reason));
        }
        Ok(())
    }

    fn segment_of(&self, lsn: u64) -> usize {
        self.segments.partition_point(|s| s.end() <= lsn).min(self.segments.len() - 1)
    }

    /// The newest segment whose first group has a valid header.
    fn newest_written(&self) -> Result<Option<(usize, GroupHeader)>> {
        for (at, header) in self.segments.iter().enumerate().rev() {
            let mut walker = self.walker(at)?;
            if let Ok(group) = self.read(at, walker.group(header.first_group()))? {
                return Ok(Some((at, group)));
            }
        }
        Ok(None)
    }

    /// Decides when no segment has a first group. If any other group states a mark above the start,
    /// durable data is missing.
    fn unwritten(&self) -> Result<FoundEnd> {
        let first = self.segments[0].first_group();
        let evidence = self.evidence(first, 0, EpochId::default())?;
        if evidence.mark > first {
            return Err(self.corruption(first, 0, "no group header"));
        }
        Ok(FoundEnd {
            case: RecoveryCase::Unwritten,
            end: first,
            active: 0,
            link: Link::START,
            highest_epoch: evidence.highest_epoch,
            clean: false,
            discarded: evidence.reach.saturating_sub(first),
            proven: 0,
            stated_oldest: self.segments[0].base,
            last: None,
        })
    }

    /// Follows headers from the first group of segment `from` to the break.
    fn follow(&self, from: usize) -> Result<Chain> {
        let mut at = from;
        let mut walker = self.walker(at)?;
        let start = self.segments[at].first_group();
        let mut chain = Chain { tail: VecDeque::new(), end: start, segment: at, mark: 0 };
        let Ok(mut group) = self.read(at, walker.group(start))? else {
            // A mark lies in this segment or after it.
            return Ok(chain);
        };
        loop {
            let link = group.link();
            chain.end = group.padded_end(self.segments[at].block);
            chain.segment = at;
            chain.push(group);
            if let Ok(next) = self.read(at, walker.group(chain.end))?
                && next.follows(&link)
            {
                group = next;
                continue;
            }
            let Some(following) = self.segments.get(at + 1) else { return Ok(chain) };
            let mut ahead = self.walker(at + 1)?;
            ahead.go_on_from(&mut walker);
            match self.read(at + 1, ahead.group(following.first_group()))? {
                Ok(next) if next.follows(&link) => {
                    self.check_left(&chain, link.epoch)?;
                    at += 1;
                    walker = ahead;
                    group = next;
                }
                _ => return Ok(chain),
            }
        }
    }

    /// Checks the rest of a segment that the chain leaves for the next one. If the group at
    /// `chain.end` is damaged, the next segment may begin with a torn group that once competed for
    /// the same predecessor. Then marks of groups after the damaged one show that the chain went on
    /// here.
    fn check_left(&self, chain: &Chain, last: EpochId) -> Result<()> {
        let mut found = Evidence::new(last);
        self.look_through(chain.segment, chain.end, last, &mut found)?;
        if found.mark > chain.end {
            return Err(self.corruption(chain.end, chain.segment, "no group header"));
        }
        Ok(())
    }

    /// Collects the evidence of valid headers after the break at `end`. `last` is the epoch of the
    /// last group before the break.
    fn evidence(&self, end: u64, segment: usize, last: EpochId) -> Result<Evidence> {
        let mut found = Evidence::new(last);
        self.look_through(segment, end, last, &mut found)?;
        for (at, header) in self.segments.iter().enumerate().skip(segment + 1) {
            self.look_through(at, header.first_group(), last, &mut found)?;
        }
        Ok(found)
    }

    /// Adds the evidence of one segment, from `lsn` on, to `found`.
    fn look_through(
        &self,
        at: usize,
        mut lsn: u64,
        last: EpochId,
        found: &mut Evidence,
    ) -> Result<()> {
        let header = &self.segments[at];
        let stop = self.written_end(at, lsn)?;
        let file = self.open(at)?;
        let mut walker = Walker::ahead_with_chunk(Arc::clone(&file), *header, CHUNK);
        walker.read_below(stop);
        let mut ask_at = if stop - lsn.min(stop) > VAST { lsn } else { stop };
        while lsn < stop {
            if lsn >= ask_at {
                let Some(data) = file.next_data(lsn - header.base) else { break };
                let data = header.base + data / u64::from(header.block) * u64::from(header.block);
                lsn = lsn.max(data);
                ask_at = lsn + VAST;
                continue;
            }
            // Groups of one epoch do not overlap. A discarded one may overlap others.
            lsn = match self.read(at, walker.group(lsn))? {
                Ok(group) if found.add(&group, header, last) => group.padded_end(header.block),
                _ => lsn + u64::from(header.block),
            };
        }
        Ok(())
    }

    /// Names the damaged place at a break. The chain could have gone on in this segment or at the
    /// start of the next one; `proof` is the first group that proves that it did. The damage is in
    /// the next segment if no group was begun in this one.
    fn damage_at_break(&self, chain: &Chain, proof: u64) -> Result<Error> {
        let (at, end) = (chain.segment, chain.end);
        let here = self.read(at, self.walker(at)?.group(end))?;
        Ok(match self.segments.get(at + 1) {
            Some(next) if proof > next.first_group() && here == Err(GroupInvalid::NoHeader) => {
                self.corruption(next.first_group(), at + 1, "no group header")
            }
            _ => self.corruption(end, at, "no group header"),
        })
    }

    /// Returns the end of the blocks, from `from` on, that may hold groups. The segment's stamps
    /// decide.
    ///
    /// Stamps that are intact up to the segment's end prove that no group after the first of them
    /// was ever durable. But a group that the device lost leaves the stamps that it should have
    /// replaced. So the search goes on for the length of the largest group and one stride between
    /// stamps.
    pub(super) fn written_end(&self, at: usize, from: u64) -> Result<u64> {
        let header = &self.segments[at];
        let file = self.open(at)?;
        let mut block = AlignedBuf::new(header.block as usize);
        let mut end = header.end();
        for lsn in header.stamps_from_the_end().take_while(|&lsn| lsn >= from) {
            let n = self.read(at, read_full(&*file, &mut block, lsn - header.base))?;
            if !is_stamp(&block[..n], lsn, &header.log_id) {
                break;
            }
            end = lsn;
        }
        let lost = u64::from(header.max_group) + header.stamp_stride();
        Ok((end + lost).min(header.end()))
    }

    /// Checks in full every group that no mark proves, and finds the end.
    fn check_tail(&self, chain: &Chain, evidence: &Evidence, mark: u64) -> Result<FoundEnd> {
        let mut last: Option<&GroupHeader> = None;
        let mut torn = evidence.reach > chain.end;
        let mut walker: Option<(usize, Walker)> = None;
        for group in &chain.tail {
            if group.lsn >= mark {
                let at = self.segment_of(group.lsn);
                let walker = match &mut walker {
                    Some((open, walker)) if *open == at => walker,
                    other => &mut other.insert((at, self.walker(at)?)).1,
                };
                if self.read(at, walker.verify(group))?.is_err() {
                    torn = true;
                    break;
                }
            }
            last = Some(group);
        }
        let Some(last) = last else {
            // This is the oldest group. Its predecessor was removed because it was durable.
            let segment = chain.segment;
            return Err(self.corruption(self.segments[segment].first_group(), segment, "records"));
        };
        let active = self.segment_of(last.lsn);
        let end = last.padded_end(self.segments[active].block);
        let marked = last.flags.has(Flags::IDLE_SEAL) || last.flags.has(Flags::CLEAN_CLOSE);
        Ok(FoundEnd {
            case: match (torn, marked) {
                (true, _) => RecoveryCase::Torn,
                (false, true) => RecoveryCase::Marked,
                (false, false) => RecoveryCase::Whole,
            },
            end,
            active,
            link: last.link(),
            highest_epoch: evidence.highest_epoch,
            clean: !torn && last.flags.has(Flags::CLEAN_CLOSE),
            discarded: evidence.reach.max(chain.end).saturating_sub(end),
            proven: mark,
            stated_oldest: last.oldest,
            last: Some(*last),
        })
    }

    fn walker(&self, at: usize) -> Result<Walker> {
        Ok(Walker::ahead(self.open(at)?, self.segments[at]))
    }

    fn open(&self, at: usize) -> Result<Arc<dyn File>> {
        let name = self.names.segment(self.segments[at].base);
        let opened = self.dir.open(&name, Access::ReadDevice);
        opened.map_err(|e| Error::io("open", self.dir.path_of(&name), e))
    }

    fn read<T>(&self, at: usize, result: std::io::Result<T>) -> Result<T> {
        result.map_err(|e| {
            let name = self.names.segment(self.segments[at].base);
            Error::io("read", self.dir.path_of(&name), e)
        })
    }

    fn corruption(&self, lsn: u64, segment: usize, reason: &'static str) -> Error {
        self.names.corruption(self.segments[segment].base, lsn, reason)
    }

    /// The error for a missing segment, which should begin at or before `lsn`.
    fn corruption_in(&self, lsn: u64, reason: &'static str) -> Error {
        self.names.corruption(lsn, lsn, reason)
    }
}

/// Evidence after a break.
struct Evidence {
    /// The highest durable mark.
    mark: u64,
    highest_epoch: u64,
    /// End of the last group written after the break.
    reach: u64,
    /// LSN of the first group that counts; 0 if there is none.
    first: u64,
}

impl Evidence {
    fn new(last: EpochId) -> Self {
        Evidence { mark: 0, highest_epoch: last.counter, reach: 0, first: 0 }
    }

    /// Adds a group. Returns true if it counts as evidence.
    fn add(&mut self, group: &GroupHeader, header: &SegmentHeader, last: EpochId) -> bool {
        self.highest_epoch = self.highest_epoch.max(group.epoch.counter);
        let counts = group.epoch == last || group.epoch.counter > last.counter;
        if counts {
            self.mark = self.mark.max(group.durable_end);
            self.reach = self.reach.max(group.padded_end(header.block));
            if self.first == 0 {
                self.first = group.lsn;
            }
        }
        counts
    }
}
