//! Where the log ends, and whether that is where it may end. Reads only.
//!
//! 1. The walk starts in the segment of the durable mark of the newest segment's first group: what
//!    lies before it was durable when that group was written.
//! 2. It follows headers along the chain to the break: the first place without a successor.
//! 3. It looks at every block behind the break for headers that count as evidence (docs/format.md)
//!    and takes the highest durable mark of all.
//! 4. A mark above the break: durable data is damaged there, `Corruption`. Otherwise groups from
//!    the highest mark on are checked in full; the first bad one is where the log is cut, unless a
//!    mark lies above it.

use std::sync::Arc;

use super::report::RecoveryCase;
use super::walk::Walker;
use crate::error::{Error, Result};
use crate::format::{Flags, GroupHeader, Link, SegmentHeader};
use crate::lsn::Lsn;
use crate::segment::Names;
use crate::storage::{Access, Dir, File};

/// Read at once while judging: large enough for the device's speed.
const CHUNK: usize = 1 << 20;
/// And while only headers are looked at, far apart.
const HOP: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) case: RecoveryCase,
    /// Where the next group goes, if it still fits in that segment.
    pub(crate) end: u64,
    /// Index of the segment that `end` lies in, or at whose end it lies.
    pub(crate) active: usize,
    pub(crate) link: Link,
    /// What the epoch's counter must exceed.
    pub(crate) highest_epoch: u64,
    pub(crate) clean: bool,
    pub(crate) discarded: u64,
    /// The highest durable mark: what lies below it need not be synced again.
    pub(crate) proven: u64,
    /// The oldest LSN that the last group states.
    pub(crate) stated_oldest: u64,
}

impl Judgement {
    /// A log whose first segment has just been prepared.
    pub(crate) fn new_log(first: &SegmentHeader) -> Self {
        Judgement {
            case: RecoveryCase::New,
            end: first.first_group(),
            active: 0,
            link: Link::START,
            highest_epoch: 0,
            clean: false,
            discarded: 0,
            proven: 0,
            stated_oldest: first.base,
        }
    }
}

struct Judge<'a> {
    dir: &'a dyn Dir,
    names: &'a Names,
    segments: &'a [SegmentHeader],
}

/// A group on the chain, as the walk saw it.
struct Seen {
    header: GroupHeader,
    segment: usize,
}

struct Chain {
    last: Option<Seen>,
    /// The break, and the segment that it lies in.
    end: u64,
    segment: usize,
    mark: u64,
}

/// Judges segments that `scan` has found sound. There is at least one.
pub(crate) fn judge(dir: &dyn Dir, names: &Names, segments: &[SegmentHeader]) -> Result<Judgement> {
    Judge { dir, names, segments }.run()
}

impl Judge<'_> {
    fn run(&self) -> Result<Judgement> {
        let Some((newest, first_group)) = self.newest_written()? else {
            return self.unwritten();
        };
        // The mark is an end: what is durable lies before it, perhaps in the segment before.
        let from = self.segment_of(first_group.durable_end.saturating_sub(1)).min(newest);
        let chain = self.follow(from, newest)?;
        let Some(last) = &chain.last else {
            return Err(self.corruption(chain.end, chain.segment, "no group header"));
        };
        let evidence = self.evidence(&chain, last.header.epoch)?;
        let mark = chain.mark.max(evidence.mark);
        if mark > chain.end {
            return Err(self.corruption(chain.end, chain.segment, "no group header"));
        }
        let judgement = self.check_tail(&chain, &evidence, mark)?;
        let oldest = self.segments[0].base;
        if oldest > judgement.stated_oldest {
            let reason = "the segment is missing";
            return Err(self.corruption_in(judgement.stated_oldest, reason));
        }
        Ok(judgement)
    }

    fn segment_of(&self, lsn: u64) -> usize {
        self.segments.partition_point(|s| s.end() <= lsn).min(self.segments.len() - 1)
    }

    /// The newest segment whose first group has a valid header.
    fn newest_written(&self) -> Result<Option<(usize, GroupHeader)>> {
        for (at, header) in self.segments.iter().enumerate().rev() {
            let mut walker = self.walker(at, header.block as usize)?;
            if let Ok(group) = self.read(at, walker.group(header.first_group()))? {
                return Ok(Some((at, group)));
            }
        }
        Ok(None)
    }

    /// No first group anywhere. If any other group claims that something was durable, it was.
    fn unwritten(&self) -> Result<Judgement> {
        let first = self.segments[0].first_group();
        let chain = Chain { last: None, end: first, segment: 0, mark: 0 };
        let evidence = self.evidence(&chain, Default::default())?;
        if evidence.mark > first {
            return Err(self.corruption(first, 0, "no group header"));
        }
        Ok(Judgement {
            case: RecoveryCase::Unwritten,
            end: first,
            active: 0,
            link: Link::START,
            highest_epoch: evidence.highest_epoch,
            clean: false,
            discarded: evidence.reach.saturating_sub(first),
            proven: 0,
            stated_oldest: self.segments[0].base,
        })
    }

    /// Follows headers from the first group of segment `from` to the break.
    fn follow(&self, from: usize, newest: usize) -> Result<Chain> {
        let mut at = from;
        let mut walker = self.walker(at, HOP)?;
        let start = self.segments[at].first_group();
        let mut chain = Chain { last: None, end: start, segment: at, mark: 0 };
        let Ok(first) = self.read(at, walker.group(start))? else {
            // `newest` has a first group whose mark lies at or behind this segment.
            debug_assert!(from < newest);
            return Ok(chain);
        };
        let mut group = first;
        loop {
            chain.mark = chain.mark.max(group.durable_end);
            chain.end = group.padded_end(self.segments[at].block);
            chain.segment = at;
            let link = group.link();
            chain.last = Some(Seen { header: group, segment: at });
            if let Ok(next) = self.read(at, walker.group(chain.end))?
                && next.follows(&link)
            {
                group = next;
                continue;
            }
            let Some(following) = self.segments.get(at + 1) else { return Ok(chain) };
            let mut ahead = self.walker(at + 1, HOP)?;
            match self.read(at + 1, ahead.group(following.first_group()))? {
                Ok(next) if next.follows(&link) => {
                    at += 1;
                    walker = ahead;
                    group = next;
                }
                _ => return Ok(chain),
            }
        }
    }

    /// What valid headers behind the break tell.
    fn evidence(&self, chain: &Chain, last: crate::format::EpochId) -> Result<Evidence> {
        let mut found = Evidence { mark: 0, highest_epoch: last.counter, reach: 0 };
        for (at, header) in self.segments.iter().enumerate().skip(chain.segment) {
            let block = u64::from(header.block);
            let mut lsn = if at == chain.segment { chain.end } else { header.first_group() };
            let mut walker = self.walker(at, CHUNK)?;
            while lsn < header.end() {
                if let Ok(group) = self.read(at, walker.group(lsn))? {
                    found.highest_epoch = found.highest_epoch.max(group.epoch.counter);
                    if group.epoch == last || group.epoch.counter > last.counter {
                        found.mark = found.mark.max(group.durable_end);
                        found.reach = found.reach.max(group.padded_end(header.block));
                    }
                }
                lsn += block;
            }
        }
        Ok(found)
    }

    /// Checks in full what no mark proves, and finds the cut.
    fn check_tail(&self, chain: &Chain, evidence: &Evidence, mark: u64) -> Result<Judgement> {
        let mut verdict = None;
        let mut before: Option<Seen> = None;
        // The walk again, from the segment of the mark on: at most two are unsynced.
        let mut at = self.segment_of(mark).min(chain.segment);
        if at > 0 && self.segments[at].first_group() >= mark {
            // The predecessor of the segment's first group may be what is cut back to.
            at -= 1;
        }
        let mut walker = self.walker(at, CHUNK)?;
        let mut lsn = self.segments[at].first_group();
        while lsn < chain.end || at < chain.segment {
            let group = match self.read(at, walker.group(lsn))? {
                Ok(group) if before.as_ref().is_none_or(|b| group.follows(&b.header.link())) => {
                    group
                }
                _ if at < chain.segment => {
                    at += 1;
                    lsn = self.segments[at].first_group();
                    walker.move_to(self.open(at)?, self.segments[at]);
                    continue;
                }
                _ => break,
            };
            if group.lsn >= mark
                && let Err((bad, reason)) = self.read(at, walker.verify(&group))?
            {
                verdict = Some((group.lsn, bad, reason));
                break;
            }
            lsn = group.padded_end(self.segments[at].block);
            before = Some(Seen { header: group, segment: at });
        }
        let (end, torn) = match verdict {
            // Checked from the mark on, so that nothing durable lies behind the cut.
            Some((cut, _, _)) => (cut, true),
            None => (chain.end, evidence.reach > chain.end),
        };
        let Some(last) = before.or(if verdict.is_none() {
            chain.last.as_ref().map(|s| Seen { header: s.header, segment: s.segment })
        } else {
            None
        }) else {
            // The very first group, the epoch group, was torn: it holds no records to be torn in.
            let (lsn, segment) = (end, self.segment_of(end));
            return Err(self.corruption(lsn, segment, "no group before the cut"));
        };
        let link = last.header.link();
        let end_segment = last.segment;
        let end_lsn = last.header.padded_end(self.segments[end_segment].block);
        let marked = !torn && last.header.flags.has(Flags(Flags::IDLE_SEAL.0 | Flags::CLEAN_CLOSE.0));
        Ok(Judgement {
            case: match (torn, marked) {
                (true, _) => RecoveryCase::Torn,
                (false, true) => RecoveryCase::Marked,
                (false, false) => RecoveryCase::Whole,
            },
            end: end_lsn,
            active: end_segment,
            link,
            highest_epoch: evidence.highest_epoch,
            clean: !torn && last.header.flags.has(Flags::CLEAN_CLOSE),
            discarded: if torn { evidence.reach.max(chain.end).saturating_sub(end) } else { 0 },
            proven: mark,
            stated_oldest: last.header.oldest,
        })
    }

    fn walker(&self, at: usize, chunk: usize) -> Result<Walker> {
        Ok(Walker::new(self.open(at)?, self.segments[at], chunk))
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
        let base = self.segments[segment].base;
        Error::Corruption {
            segment: self.names.segment(base),
            offset: lsn - base,
            lsn: Lsn::new(lsn),
            reason,
        }
    }

    /// A segment that should begin at or before `lsn` is not there.
    fn corruption_in(&self, lsn: u64, reason: &'static str) -> Error {
        Error::Corruption {
            segment: self.names.segment(lsn),
            offset: 0,
            lsn: Lsn::new(lsn),
            reason,
        }
    }
}

struct Evidence {
    mark: u64,
    highest_epoch: u64,
    /// End of the last group that was written behind the break.
    reach: u64,
}
