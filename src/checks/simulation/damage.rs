//! Damages reference logs exhaustively: bits, sectors, blocks and whole tails that differ from what
//! was written.
//!
//! The rule: a damaged log is refused, or holds exactly what it held, or ends early. It may end
//! early only at or above the newest durable mark that survives on the damaged disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::long;
use super::oracle::Records;
use super::world::World;
use crate::engine::log_view::LogView;
use crate::engine::recover::{Examined, examine, recover};
use crate::error::Error;
use crate::format::{Flags, GroupHeader, SEGMENT_HEADER, STAMP, SegmentHeader, stamp};
use crate::io::backend::sim::Sabotage;
use crate::io::fs::sim::SimDisk;
use crate::options::Options;
use crate::read::Reader;
use crate::segment::recent::RecentGroups;
use crate::segment::{Names, SegmentTable};
use crate::testing::SimClock;

const SECTOR: usize = 512;
const BLOCK: usize = 4096;

/// Contents of files by name.
pub(super) type Contents = BTreeMap<String, Vec<u8>>;

/// The result of opening and reading a damaged log.
pub(super) enum Seen {
    /// The log opens: its records, its oldest position and its end.
    Records { found: Records, oldest: u64, end: u64 },
    /// `Corruption`, or another typed refusal to open.
    Refused,
}

/// A log, its records, and the contents of its files before they were recycled.
pub(super) struct Reference {
    pub(super) disk: SimDisk,
    pub(super) options: Options,
    pub(super) records: Records,
    /// The records, and before them those that the last group states as removed but whose segments
    /// are still there. Opening removes them. They return if that group is lost.
    all: Records,
    stale: Vec<Vec<u8>>,
    /// The directory's files at earlier times.
    pub(super) earlier: Vec<Contents>,
    pub(super) segments: Vec<(String, Vec<u8>)>,
    pub(super) looks: u64,
    pub(super) refused: u64,
    pub(super) cut: u64,
}

impl Reference {
    /// Creates a log of small segments, some of them recycled, with two epochs, batches and a cut.
    /// It is closed or abandoned.
    pub(super) fn new(seed: u64, close: bool, segment_size: u64) -> Self {
        let mut world = World::new(seed, Sabotage::None);
        world.options = Options {
            segment_size,
            ring_capacity: Some(2 * segment_size as usize),
            max_segments: Some(7),
            idle_seal: Duration::from_secs(1),
            ..Options::default()
        };
        let mut earlier: Vec<Contents> = Vec::new();
        for recycled in [3, 8] {
            let mut life = world.open().unwrap().unwrap();
            let mut cut = recycled == 3;
            while life.state.counters.read().segments_recycled < recycled {
                for _ in 0..world.rng.usize(1..8) {
                    world.append(&mut life);
                }
                if world.rng.u8(0..3) == 0 {
                    world.append_batch(&life);
                }
                life.make_durable();
                world.note(&life);
                // The cut lies some segments before the end, because no open can notice the loss of
                // a cut at the end.
                if !cut {
                    let at = world.oracle.records.len() - 3;
                    let from = world.oracle.records[at].0;
                    world.truncate_from(&life, from).unwrap();
                    while world.oracle.cutting.is_some() {
                        life.make_durable();
                        life.run();
                        world.note(&life);
                    }
                    cut = world.tally.cuts > 0;
                }
                earlier.push(contents(&world.disk));
            }
            if close {
                life.close();
            }
        }
        let now = contents(&world.disk);
        let former: Contents =
            earlier.iter().flatten().map(|(n, c)| (n.clone(), c.clone())).collect();
        let stale = former.into_iter().filter(|(n, _)| !now.contains_key(n)).map(|(_, c)| c);
        let mut reference = Reference {
            stale: stale.collect(),
            segments: now.into_iter().collect(),
            earlier,
            disk: world.disk,
            options: world.options,
            records: Vec::new(),
            all: Vec::new(),
            looks: 0,
            refused: 0,
            cut: 0,
        };
        reference.take_down();
        let records = &reference.records;
        assert!(world.tally.cuts == 1, "a cut is in it");
        assert!(records.len() > 8, "{} records", records.len());
        assert!(world.oracle.records.ends_with(&reference.all));
        assert!(reference.stale.len() >= 3);
        reference
    }

    /// Takes the log that a world's lives have left.
    pub(super) fn of(world: World) -> Self {
        let mut reference = Reference {
            segments: contents(&world.disk).into_iter().collect(),
            stale: Vec::new(),
            earlier: Vec::new(),
            disk: world.disk,
            options: world.options,
            records: Vec::new(),
            all: Vec::new(),
            looks: 0,
            refused: 0,
            cut: 0,
        };
        reference.take_down();
        reference
    }

    /// Stores the records of the sound log, before and after an open removes retired segments.
    fn take_down(&mut self) {
        let Seen::Records { found, .. } = self.look() else { panic!("it is sound") };
        self.records = found;
        let (dir, names) = (self.disk.copy().dir(), Names::new(&self.options.prefix));
        let Examined { scan, end, cuts, .. } = examine(&*dir, &names, false).unwrap();
        let Some(found) = end else { return };
        let live = scan.segments[..=found.active].iter().map(|header| (*header, None));
        let files =
            LogView::new(SegmentTable::new(live, []), &dir, &names, RecentGroups::new(0), cuts);
        let all = Reader::new(Arc::new(files), 0, found.end).map(Result::unwrap);
        self.all = all.map(|record| (record.lsn.as_u64(), record.payload)).collect();
        assert!(self.all.ends_with(&self.records));
    }

    /// Opens and reads the log without writing to it.
    pub(super) fn look(&mut self) -> Seen {
        self.looks += 1;
        let names = Names::new(&self.options.prefix);
        let clock = SimClock::default();
        // Opening syncs and may remove spares, so open a copy.
        let disk = self.disk.copy();
        let (state, oldest) = match recover(&disk.dir(), &names, &self.options, &clock, [1; 24]) {
            Ok(recovered) => (recovered.state, recovered.report.oldest.as_u64()),
            Err(
                Error::Corruption { .. } | Error::Unsupported { .. } | Error::ForeignSegment { .. },
            ) => return Seen::Refused,
            Err(e) => panic!("{e}"),
        };
        let end = state.durable.end();
        let mut found = Vec::new();
        for record in Reader::new(Arc::clone(&state.view), 0, end) {
            match record {
                Ok(record) => found.push((record.lsn.as_u64(), record.payload)),
                Err(Error::Corruption { .. }) => return Seen::Refused,
                Err(e) => panic!("{e}"),
            }
        }
        Seen::Records { found, oldest, end }
    }

    /// The newest durable mark of all valid group headers on the disk.
    pub(super) fn newest_mark(&self) -> u64 {
        self.groups().iter().map(|group| group.durable_end).max().unwrap_or(0)
    }

    /// The base of the damaged disk's first segment, and the position of its first group.
    pub(super) fn front(&self) -> (u64, u64) {
        let names = segment_names(&self.disk);
        let first = names.first().and_then(|name| self.disk.content(name));
        let first = first.and_then(|bytes| SegmentHeader::decode(&bytes).ok());
        first.map_or((0, 0), |header| (header.base, header.first_group()))
    }

    /// Whether these records, from `oldest` to `end`, are a prefix of the log's records. Retired
    /// records may lack at the front if a group on the disk states them as removed. Opening removes
    /// segments only if a group of the log does.
    pub(super) fn is_prefix(&self, found: &Records, oldest: u64, end: u64) -> bool {
        let groups = self.groups();
        let stated = |below: u64| {
            let those = groups.iter().filter(|group| group.lsn < below);
            those.map(|group| group.oldest).max().unwrap_or(0)
        };
        let gone = if oldest <= stated(u64::MAX) { oldest } else { 0 };
        let kept = self.all.partition_point(|(lsn, _)| *lsn < gone);
        let removed = oldest > self.front().0;
        self.all[kept..].starts_with(found) && (!removed || oldest <= stated(end))
    }

    /// Position of the last group that makes a cut, before any damage.
    pub(super) fn newest_cut(&self) -> u64 {
        let groups = groups(self.segments.iter().map(|(_, content)| content.clone()));
        let cuts = groups.iter().filter(|group| group.flags.has(Flags::CUT));
        cuts.map(|group| group.lsn).max().unwrap_or(0)
    }

    fn groups(&self) -> Vec<GroupHeader> {
        groups(segment_names(&self.disk).iter().map(|name| self.disk.content(name).unwrap()))
    }

    /// Damages segment `segment` in one way, checks the log, and restores the segment.
    fn damage(&mut self, segment: usize, what: &str, change: impl FnOnce(&mut [u8])) {
        let (name, sound) = self.segments[segment].clone();
        let mut damaged = sound.clone();
        change(&mut damaged);
        if damaged == sound {
            return;
        }
        self.disk.damage(&name, |bytes| *bytes = damaged);
        match self.look() {
            Seen::Refused => self.refused += 1,
            Seen::Records { found, .. } if found == self.records => {}
            Seen::Records { found, oldest, end } => {
                assert!(self.is_prefix(&found, oldest, end), "{name}, {what}: not a prefix");
                let mark = self.newest_mark();
                assert!(end >= mark, "{name}, {what}: cut at {end}, below the mark {mark}");
                self.cut += 1;
            }
        }
        self.disk.damage(&name, |bytes| *bytes = sound);
    }

    fn every_bit(&mut self) {
        let stride = if long() { 1 } else { 61 };
        for segment in 0..self.segments.len() {
            for bit in (0..self.segments[segment].1.len() * 8).step_by(stride) {
                let what = format!("bit {bit}");
                self.damage(segment, &what, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            }
        }
    }

    /// Replaces every unit of so many bytes with zeros, with ones, with every other unit of the
    /// log, and with every unit of the files before they were recycled.
    fn every(&mut self, unit: usize) {
        let sources: Vec<Vec<u8>> = {
            let all = self.segments.iter().map(|(_, content)| content).chain(&self.stale);
            let mut units: Vec<Vec<u8>> =
                all.flat_map(|content| content.chunks(unit).map(<[u8]>::to_vec)).collect();
            units.push(vec![0; unit]);
            units.push(vec![0xFF; unit]);
            units.sort_unstable();
            units.dedup();
            units
        };
        let stride = if long() { 1 } else { 7 };
        for segment in 0..self.segments.len() {
            for at in (0..self.segments[segment].1.len()).step_by(unit) {
                for (n, source) in
                    sources.iter().enumerate().skip(at / unit % stride).step_by(stride)
                {
                    let what = format!("{unit} bytes at {at}, source {n}");
                    self.damage(segment, &what, |b| b[at..at + unit].copy_from_slice(source));
                }
            }
        }
    }

    /// Swaps every two units of a segment.
    fn every_swap(&mut self, unit: usize) {
        for segment in 0..self.segments.len() {
            let units = self.segments[segment].1.len() / unit;
            for (a, b) in (0..units).flat_map(|a| (0..a).map(move |b| (a, b))) {
                self.damage(segment, &format!("units {a} and {b} of {unit}"), |bytes| {
                    let (low, high) = bytes.split_at_mut(a * unit);
                    low[b * unit..(b + 1) * unit].swap_with_slice(&mut high[..unit]);
                });
            }
        }
    }

    /// Restores a file's content before it was recycled, or zeroes it: from every sector on, and
    /// from the first group to every sector.
    fn every_end(&mut self) {
        for segment in 0..self.segments.len() {
            for source in 0..=self.stale.len() {
                let len = self.segments[segment].1.len();
                let source = self.stale.get(source).cloned().unwrap_or_else(|| vec![0; len]);
                let step = if long() { SECTOR } else { len / 64 / SECTOR * SECTOR };
                for at in (0..len).step_by(step.max(SECTOR)) {
                    let what = format!("the tail from {at}");
                    self.damage(segment, &what, |b| b[at..].copy_from_slice(&source[at..]));
                    let front = BLOCK.min(at)..at;
                    let what = format!("the groups up to {at}");
                    self.damage(segment, &what, |b| {
                        b[front.clone()].copy_from_slice(&source[front.clone()]);
                    });
                }
            }
        }
    }

    /// Loses acknowledged writes: so many blocks hold what preparation left there.
    fn every_lost_write(&mut self) {
        for segment in 0..self.segments.len() {
            let (name, sound) = self.segments[segment].clone();
            let header = SegmentHeader::decode(&sound[..SEGMENT_HEADER]).unwrap();
            let mut untouched = vec![0; sound.len()];
            for lsn in header.stamps_from_the_end() {
                let at = (lsn - header.base) as usize;
                untouched[at..at + STAMP].copy_from_slice(&stamp(lsn, &header.log_id));
            }
            let blocks = sound.len() / BLOCK;
            let runs = (1..blocks).flat_map(|a| (a + 1..=blocks).map(move |b| (a, b)));
            for (from, to) in runs.filter(|(a, b)| long() || blocks < 16 || (a + b) % 3 == 0) {
                let lost = from * BLOCK..to * BLOCK;
                // The stamps can detect only the loss of one group at a time.
                if (lost.end - lost.start) as u64 <= u64::from(header.max_group) {
                    let what = format!("{name}: blocks {from} to {to} lost");
                    self.damage(segment, &what, |b| {
                        b[lost.clone()].copy_from_slice(&untouched[lost.clone()]);
                    });
                }
            }
        }
    }

    fn everything(mut self, what: &str) {
        self.every_bit();
        self.every(SECTOR);
        self.every(BLOCK);
        self.every_swap(SECTOR);
        self.every_swap(BLOCK);
        self.end(what);
    }

    fn end(mut self, what: &str) {
        self.every_end();
        self.every_lost_write();
        let Reference { looks, refused, cut, .. } = self;
        assert!(refused > looks / 20, "{refused} of {looks}");
        println!("{what}: damaged in {looks} ways, {refused} refused, {cut} cut above every mark");
        let Seen::Records { found, .. } = self.look() else { panic!("sound again") };
        assert!(found == self.records);
    }
}

/// Decodes every valid group header of these segments.
fn groups(segments: impl Iterator<Item = Vec<u8>>) -> Vec<GroupHeader> {
    let mut found = Vec::new();
    for content in segments {
        let Ok(header) = SegmentHeader::decode(&content) else { continue };
        for at in (BLOCK..content.len()).step_by(BLOCK) {
            let lsn = header.base + at as u64;
            found.extend(GroupHeader::decode(&content[at..], lsn, &header));
        }
    }
    found
}

fn contents(disk: &SimDisk) -> Contents {
    segment_names(disk).into_iter().map(|n| (n.clone(), disk.content(&n).unwrap())).collect()
}

fn segment_names(disk: &SimDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.ends_with(".wal")).collect()
}

#[test]
fn damage_never_shortens_a_closed_log() {
    for seed in if long() { 5..9 } else { 5..6 } {
        let reference = Reference::new(seed, true, 16 << 10);
        let end = reference.newest_mark();
        assert!(reference.records.last().unwrap().0 < end, "the close's mark covers everything");
        reference.everything("a closed log");
    }
}

#[test]
fn damage_shortens_an_abandoned_log_only_above_every_mark() {
    for seed in if long() { 5..9 } else { 6..7 } {
        Reference::new(seed, false, 16 << 10).everything("an abandoned log");
    }
}

/// The segments have enough blocks for several groups between two stamps.
#[test]
fn lost_writes_and_tails_shorten_a_log_of_larger_segments_only_above_every_mark() {
    for seed in if long() { 5..25 } else { 5..7 } {
        Reference::new(seed, seed % 2 == 0, 256 << 10).end("a log of larger segments");
    }
}
