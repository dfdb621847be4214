//! The world of a simulation: a disk, a clock, an oracle, and the lives of a log on them.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::oracle::{Oracle, Records};
use super::tags;
use super::tally::Tally;
use crate::engine::append::Appender;
use crate::engine::assemble::{Engine, Opened, ReadyBackend, assemble};
use crate::engine::batch::BatchRecords;
use crate::engine::baton::CommitLoop;
use crate::engine::io_thread::IoLoop;
use crate::engine::recover::{RecoveredLog, recover};
use crate::engine::segment_keeper::{KeeperStep, PATIENCE, SegmentKeeper};
use crate::engine::state::LogState;
use crate::error::Error;
use crate::format::TAG_BLOCK;
use crate::io::backend::sim::{Sabotage, SimBackend};
use crate::io::backend::{ChosenMethod, Method, MethodReason};
use crate::io::fs::sim::SimDisk;
use crate::lsn::Lsn;
use crate::options::{Durability, Options};
use crate::read::follow::Follow;
use crate::read::{BackwardReader, Reader, cut_point, read_one};
use crate::segment::Names;
use crate::sys::clock::Clock;
use crate::testing::SimClock;

pub(super) struct World {
    pub(super) disk: SimDisk,
    pub(super) rng: Rng,
    pub(super) clock: Arc<SimClock>,
    pub(super) options: Options,
    pub(super) method: Method,
    sabotage: Sabotage,
    pub(super) oracle: Oracle,
    /// Number of images that are checked at each crash.
    pub(super) images: usize,
    pub(super) tally: Tally,
}

/// One life: an open log, and the parts that move it.
pub(super) struct Life {
    pub(super) appender: Appender,
    pub(super) state: Arc<LogState>,
    pub(super) io: IoLoop,
    pub(super) keeper: SegmentKeeper,
    /// The log was opened without an epoch group.
    pub(super) epoch_waits: bool,
    /// The log was opened after a torn tail.
    pub(super) is_torn: bool,
    /// The ring refused the last append. Nothing changes until the log is stepped.
    full: bool,
    /// A follower, and the position after the last record that it delivered.
    follower: Option<(Follow, u64)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Closed,
    /// The machine is off, or the log poisoned.
    Stopped,
}

/// Longer than all lives of a seed together, so retention by age removes nothing, whatever the wall
/// clock is set to.
const OLD: Duration = Duration::from_secs(3600);
/// Number of files that a log may have beyond its limit: one while a rotation would block, and
/// those with marks after the newest record.
pub(super) const BEYOND: usize = 4;
/// Duration of one step of a close.
const CLOSE_STEP: Duration = Duration::from_micros(100);
/// Number of steps of a close at most. A close waits as long as appends do for a segment that
/// cannot be prepared.
const CLOSE_STEPS: u64 = 10_000 + PATIENCE / CLOSE_STEP.as_nanos() as u64;

fn options(rng: &mut Rng) -> Options {
    let durability = match rng.u8(0..4) {
        0 => Durability::Interval(Duration::from_millis(5)),
        1 => Durability::Manual,
        _ => Durability::EveryGroup,
    };
    Options {
        segment_size: [16 << 10, 32 << 10, 64 << 10][rng.usize(..3)],
        ring_capacity: Some([8 << 10, 32 << 10, 64 << 10][rng.usize(..3)]),
        depth: rng.usize(1..=5),
        durability,
        idle_seal: Duration::from_millis(1),
        max_segments: [None, Some(2), Some(3), Some(6)][rng.usize(..4)],
        max_age: (rng.u8(0..4) == 0).then_some(OLD),
        ..Options::default()
    }
}

pub(super) fn chosen(method: Method, parallel: bool) -> ChosenMethod {
    ChosenMethod {
        method,
        alone: method,
        reason: MethodReason::Pinned,
        parallel,
        detail: String::new(),
    }
}

/// Returns `None` for an open during which the machine failed. Damage is an error.
fn opened(recovered: Result<RecoveredLog, Error>) -> Result<Option<RecoveredLog>, String> {
    match recovered {
        Ok(recovered) => Ok(Some(recovered)),
        Err(Error::Io { .. } | Error::NoSpace) => Ok(None),
        Err(e) => Err(format!("open: {e}")),
    }
}

impl World {
    pub(super) fn new(seed: u64, sabotage: Sabotage) -> Self {
        super::keep_freed_memory();
        let mut rng = Rng::with_seed(seed);
        let options = options(&mut rng);
        let method = if rng.bool() { Method::Linked } else { Method::Dsync };
        World {
            disk: SimDisk::new(),
            clock: Arc::new(SimClock::default()),
            options,
            method,
            sabotage,
            oracle: Oracle::default(),
            images: 0,
            tally: Tally::default(),
            rng,
        }
    }

    /// Gives the next life other settings now and then. The last segment may not fit them.
    pub(super) fn refit(&mut self) {
        if self.rng.u8(0..4) == 0 {
            self.options = options(&mut self.rng);
        }
    }

    /// Opens the log and compares its records. `None`: the machine went off meanwhile.
    pub(super) fn open(&mut self) -> Result<Option<Life>, String> {
        let names = Names::new(&self.options.prefix);
        let random = std::array::from_fn(|_| self.rng.u8(..));
        let recovered = recover(&self.disk.dir(), &names, &self.options, &*self.clock, random);
        let Some(recovered) = opened(recovered)? else { return Ok(None) };
        if self.options.max_segments.is_some() {
            let wanted = recovered.state.retention.wanted();
            self.oracle.may_be_gone = self.oracle.may_be_gone.max(wanted);
        }
        let method = chosen(self.method, self.rng.bool());
        let backend = Box::new(SimBackend::new(self.rng.u64(..), self.sabotage));
        let depth = self.options.depth;
        let ready = ReadyBackend { backend, method, depth, end_file: None, parks: true };
        let clock: Arc<dyn Clock> = Arc::<SimClock>::clone(&self.clock);
        let engine = assemble(recovered, &self.options, &clock, |io| io.begin(ready));
        let Engine { state, mut io, keeper, opened, .. } = engine.map_err(|e| e.to_string())?;
        let appender = opened.appender(&state);
        let Opened { report, epoch_group, .. } = opened;
        let epoch_waits = epoch_group.is_none();
        if self.rng.bool() {
            io.gather_always();
        }
        while epoch_group.is_some_and(|lsn| state.durable.end() <= lsn) {
            if io.step().finished {
                return Ok(None);
            }
            io.wait(None);
        }
        let Some(found) = read_all(&state)? else { return Ok(None) };
        read_back(&state, &found)?;
        if self.rng.u8(0..4) == 0 {
            tags::check(&state, &self.oracle, self.rng.u64(..tags::TAGS))?;
        }
        self.oracle.adopt(&found, &report, &state.view.cuts)?;
        let is_torn = report.cut;
        let life =
            Life { appender, state, io, keeper, epoch_waits, is_torn, full: false, follower: None };
        // Every record that an open finds is durable.
        self.note(&life);
        self.tally.lives += 1;
        Ok(Some(life))
    }

    /// Turns the machine off and on again. Checks images of the crash first: each must open and
    /// hold what it must.
    pub(super) fn crash(&mut self) -> Result<(), String> {
        let names = Names::new(&self.options.prefix);
        for _ in 0..self.images {
            let image = self.disk.image(&mut self.rng);
            let recovered = recover(&image.dir(), &names, &self.options, &*self.clock, [7; 24]);
            let recovered = opened(recovered)?.ok_or("an image cannot be opened")?;
            let found = read_all(&recovered.state)?.ok_or("an image cannot be read")?;
            if self.rng.u8(0..4) == 0 {
                tags::check(&recovered.state, &self.oracle, self.rng.u64(..tags::TAGS))?;
            }
            self.oracle.compare(&found, &recovered.report, &recovered.state.view.cuts)?;
        }
        self.tally.images += self.images as u64 + 1;
        self.tally.crashes += 1;
        self.disk.crash(&mut self.rng);
        Ok(())
    }

    pub(super) fn act(&mut self, life: &mut Life) -> Result<(), String> {
        match self.rng.u8(0..20) {
            // An append that is refused repeatedly takes time and shows nothing new.
            0..8 if life.full && self.rng.u8(0..8) != 0 => life.run(),
            0..8 => self.append(life),
            8 => self.append_batch(life),
            9..14 => life.run(),
            14..17 => {
                if life.keeper.step() == KeeperStep::Finished && !life.state.durable.is_poisoned() {
                    return Err("the segment keeper ended".into());
                }
            }
            17 => {
                self.clock.advance(Duration::from_micros(self.rng.u64(1..2000)));
                if self.rng.u8(0..8) == 0 {
                    self.step_wall();
                }
                // As if calibration had chosen a method meanwhile.
                if self.rng.u8(0..4) == 0 {
                    self.method = if self.rng.bool() { Method::Linked } else { Method::Dsync };
                    life.state.commit.set(chosen(self.method, self.rng.bool()));
                }
            }
            18 => {
                if let Some((last, _)) = self.oracle.records.last() {
                    let _ = life.appender.ask_durable(*last);
                }
            }
            _ if self.rng.bool() => self.read_or_truncate(life)?,
            _ => self.follow(life)?,
        }
        self.note(life);
        Ok(())
    }

    /// Sets the wall clock seconds, days or years ahead or back.
    pub(super) fn step_wall(&mut self) {
        let by = [2, 24 * 3600, 10 * 365 * 24 * 3600][self.rng.usize(..3)];
        self.clock.step_wall(if self.rng.bool() { by } else { -by });
    }

    fn payload(&mut self, max: usize) -> Vec<u8> {
        let len = match self.rng.u8(0..10) {
            0 => 0,
            1..7 => self.rng.usize(1..200),
            7 => max,
            _ => self.rng.usize(..=max),
        };
        let byte = self.rng.u8(..);
        let pattern: Vec<u8> = (0..len.min(256)).map(|i| byte ^ i as u8).collect();
        let mut payload = pattern.repeat(len.div_ceil(256));
        payload.truncate(len);
        payload
    }

    pub(super) fn append(&mut self, life: &mut Life) {
        let tag = tags::some(&mut self.rng);
        let max = life.appender.max_record() - tag.map_or(0, |_| TAG_BLOCK);
        let payload = self.payload(max);
        let appended = match tag {
            None => life.appender.try_append(&payload),
            Some(tag) => life.appender.try_append_tagged(tag, &payload),
        };
        life.full = appended.is_err();
        if let Ok(lsn) = appended {
            self.oracle.set_tag(lsn.as_u64(), tag);
            self.oracle.records.push((lsn.as_u64(), payload));
            self.tally.records += 1;
            // A committer that finds the loop at rest steps it, until its record is durable.
            if life.io.may_park() && self.rng.u8(0..4) == 0 {
                life.state.durable.demand(lsn.as_u64() + 1);
                let left = life.io.commit(lsn.as_u64());
                let is_durable = life.state.durable.end() > lsn.as_u64();
                assert!(is_durable || left.work || left.records, "{left:?}");
            }
        }
    }

    pub(super) fn append_batch(&mut self, life: &Life) {
        let n = self.rng.usize(1..6);
        let each = life.appender.max_record() / 6 - 20 - TAG_BLOCK;
        let has_tags = self.rng.bool();
        let items: Vec<(u64, Vec<u8>)> =
            (0..n).map(|_| (self.rng.u64(..tags::TAGS), self.payload(each))).collect();
        let payloads: Vec<&[u8]> = items.iter().map(|(_, payload)| &payload[..]).collect();
        let records = match has_tags {
            true => BatchRecords::tagged(&items),
            false => BatchRecords::new(None, &payloads),
        };
        if let Ok(lsns) = life.appender.try_append_batch(records) {
            for (i, (lsn, (tag, item))) in lsns.zip(&items).enumerate() {
                let at = lsn.as_u64();
                if i > 0 {
                    self.oracle.inside_batch.push(at);
                }
                self.oracle.set_tag(at, has_tags.then_some(*tag));
                self.oracle.records.push((at, item.clone()));
                self.tally.records += 1;
            }
        }
    }

    fn read_or_truncate(&mut self, life: &Life) -> Result<(), String> {
        if self.oracle.records.is_empty() {
            return Ok(());
        }
        let at = self.rng.usize(..self.oracle.records.len());
        let (lsn, payload) = &self.oracle.records[at];
        if self.rng.u8(0..12) == 0 {
            return self.truncate_from(life, *lsn);
        }
        if self.rng.u8(0..8) == 0 {
            life.state.retention.ask_truncation(*lsn);
            self.oracle.may_be_gone = self.oracle.may_be_gone.max(*lsn);
        } else if *lsn < life.state.durable.end() {
            match read_one(&life.state.view, *lsn, life.state.durable.end()) {
                Ok(record) if record.payload == *payload => {}
                Err(Error::Pruned { oldest }) if oldest.as_u64() <= self.oracle.may_be_gone => {}
                Err(Error::Io { .. }) => {}
                other => return Err(format!("read of {lsn}: {other:?}")),
            }
        }
        Ok(())
    }

    /// Requests a cut, as [`Wal::truncate_from`](crate::Wal::truncate_from) does.
    pub(super) fn truncate_from(&mut self, life: &Life, from: u64) -> Result<(), String> {
        let (files, end) = (&life.state.view, life.state.durable.end());
        if self.oracle.cutting.is_some() || from >= end || self.oracle.inside_batch.contains(&from)
        {
            return Ok(());
        }
        match cut_point(files, from, end) {
            Ok(Some(point)) => {
                self.oracle.cutting = Some(point);
                life.state.want_cut(point);
                self.tally.cuts += 1;
                Ok(())
            }
            Ok(None) => Err(format!("nothing to cut at {from}")),
            Err(Error::Pruned { oldest }) if oldest.as_u64() <= self.oracle.may_be_gone => Ok(()),
            Err(Error::Io { .. }) => Ok(()),
            Err(e) => Err(format!("cut at {from}: {e}")),
        }
    }

    /// Follows the log. A follower delivers every durable record in order, and no other.
    fn follow(&mut self, life: &mut Life) -> Result<(), String> {
        let (follower, from) = match &mut life.follower {
            Some((follower, from)) => (follower, from),
            none => {
                let durable = life.state.durable.end();
                let from = if self.rng.bool() { life.state.view.table.oldest() } else { durable };
                let follower =
                    Follow::new(Arc::clone(&life.state), from).map_err(|e| e.to_string())?;
                let (follower, from) = none.insert((follower, from));
                (follower, from)
            }
        };
        for _ in 0..self.rng.usize(..20) {
            let at = self.oracle.records.partition_point(|(lsn, _)| lsn < from);
            let expected = self.oracle.records.get(at);
            match follower.try_next() {
                Ok(Some(record)) => {
                    let same = expected.is_some_and(|(lsn, payload)| {
                        *lsn == record.lsn.as_u64() && payload == record.payload
                    });
                    if !same || record.lsn.as_u64() >= life.state.durable.end() {
                        return Err(format!("followed {} instead of {from}", record.lsn));
                    }
                    *from = record.lsn.as_u64() + 1;
                }
                Ok(None) => {
                    let end = life.state.durable.end();
                    return match expected {
                        Some((lsn, _)) if *lsn < end => Err(format!("{lsn} was not followed")),
                        _ => Ok(()),
                    };
                }
                Err(Error::Io { .. }) => {
                    life.follower = None;
                    return Ok(());
                }
                // The follower had delivered records that the cut made void.
                Err(Error::Truncated { to, .. })
                    if *from < to.as_u64() && life.state.view.cuts.at(*from - 1).is_some() =>
                {
                    life.follower = None;
                    return Ok(());
                }
                Err(e) => return Err(format!("follow: {e}")),
            }
        }
        if self.rng.u8(0..8) == 0 {
            life.follower = None;
        }
        Ok(())
    }

    /// Notes which records are acknowledged now, and which retention may remove.
    pub(super) fn note(&mut self, life: &Life) {
        let end = life.state.durable.end();
        self.oracle.acknowledged = self.oracle.acknowledged.max(end);
        if let Some(from) = self.oracle.cutting
            && let Some(cut) = life.state.view.cuts.at(from)
        {
            self.oracle.cut(from, cut.to);
            self.oracle.cutting = None;
        }
        if self.options.max_segments.is_some() {
            self.oracle.may_be_gone = self.oracle.may_be_gone.max(life.state.retention.wanted());
        }
    }

    pub(super) fn live(&mut self, actions: usize) -> Result<Ending, String> {
        let Some(mut life) = self.open()? else { return Ok(Ending::Stopped) };
        for _ in 0..actions {
            self.act(&mut life)?;
            if life.state.durable.is_poisoned() {
                // After a failure the log makes no progress.
                let end = life.state.durable.end();
                for _ in 0..50 {
                    self.act(&mut life)?;
                }
                if life.state.durable.end() != end || life.appender.try_append(b"x").is_ok() {
                    return Err("the log went on after a failure".into());
                }
                return Ok(Ending::Stopped);
            }
        }
        if self.rng.bool() {
            return Ok(Ending::Stopped);
        }
        self.close(life)
    }

    /// Closes the log, whatever the disk does meanwhile.
    pub(super) fn close(&mut self, mut life: Life) -> Result<Ending, String> {
        life.state.begin_close();
        for _ in 0..CLOSE_STEPS {
            if life.io.step().finished {
                let all = self.oracle.records.last().is_none_or(|r| r.0 < life.state.durable.end());
                self.note(&life);
                if !life.state.durable.is_poisoned() && !all {
                    return Err("closed, but not durable".into());
                }
                let poisoned = life.state.durable.is_poisoned();
                return Ok(if poisoned { Ending::Stopped } else { Ending::Closed });
            }
            life.io.wait(None);
            if self.rng.u8(0..4) == 0 {
                life.keeper.step();
            }
            self.clock.advance(CLOSE_STEP);
        }
        Err("close hangs".into())
    }
}

impl Life {
    pub(super) fn run(&mut self) {
        self.io.step();
        self.io.wait(None);
        self.full = false;
    }

    /// Closes the log cleanly.
    pub(super) fn close(&mut self) {
        self.state.begin_close();
        for _ in 0..10_000 {
            if self.io.step().finished {
                return;
            }
            self.io.wait(None);
            self.keeper.step();
        }
        panic!("it does not close");
    }

    /// Steps until everything appended is durable.
    pub(super) fn make_durable(&mut self) {
        for _ in 0..10_000 {
            self.run();
            self.keeper.step();
            if self.state.durable.end() >= self.state.ring.reserved_end() {
                return;
            }
        }
        panic!("it does not settle");
    }
}

/// Reads every record. `None`: the machine went off meanwhile.
pub(super) fn read_all(state: &Arc<LogState>) -> Result<Option<Records>, String> {
    let reader = Reader::new(Arc::clone(&state.view), Lsn::ZERO.as_u64(), state.durable.end());
    let mut found = Vec::new();
    for record in reader {
        match record {
            Ok(record) => found.push((record.lsn.as_u64(), record.payload)),
            Err(Error::Io { .. }) => return Ok(None),
            Err(e) => return Err(format!("replay: {e}")),
        }
    }
    Ok(Some(found))
}

/// Reads the records backwards and compares them, unless a read fails or retention removes them
/// meanwhile.
fn read_back(state: &Arc<LogState>, found: &Records) -> Result<(), String> {
    let mut expected = found.iter().rev();
    for record in BackwardReader::new(Arc::clone(&state.view), state.durable.end()) {
        let record = match record {
            Ok(record) => record,
            Err(Error::Io { .. }) => return Ok(()),
            Err(e) => return Err(format!("backwards: {e}")),
        };
        match expected.next() {
            Some((lsn, payload)) if *lsn == record.lsn.as_u64() && *payload == record.payload => {}
            other => return Err(format!("backwards: {} instead of {other:?}", record.lsn)),
        }
    }
    match expected.next() {
        Some((lsn, _)) if *lsn >= state.view.table.oldest() => {
            Err(format!("backwards: {lsn} is missing"))
        }
        _ => Ok(()),
    }
}
