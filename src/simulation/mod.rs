//! The whole engine on a simulated disk, on one thread, from a seed.
//!
//! A *life* opens the log, works, and ends: by a close, by a crash at some operation, by the death of
//! the process alone, or by an injected error and one of these. After each, the oracle compares what is read back with what was
//! appended: exact content and positions, every acknowledged record, no gap, nothing resurrected,
//! whole batches. A seed that fails is replayed with
//! `RINGWAL_SIM_SEED=<seed> cargo test --lib simulation::replay_one_seed -- --nocapture`.

mod damage;
mod faults;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;

use crate::backend::sim::{Sabotage, SimBackend};
use crate::backend::{Chosen, Method, MethodReason};
use crate::core::Core;
use crate::error::Error;
use crate::helper::{Helper, Next};
use crate::io_loop::{Clock, IoLoop, Setup};
use crate::lsn::Lsn;
use crate::open::{Recovered, recover};
use crate::options::{Durability, Options};
use crate::reader::{Reader, read_one};
use crate::recovery::RecoveryReport;
use crate::segment::Names;
use crate::shared::Shared;
use crate::storage::sim::{Fault, SimDisk};

/// Records as the oracle keeps them: position and payload.
type Records = Vec<(u64, Vec<u8>)>;

#[derive(Debug, Default)]
struct SimClock(AtomicU64);

impl SimClock {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn wall(&self) -> u64 {
        1 << 60 | self.now()
    }
}

/// What was appended, in order, as far as it may still be there.
#[derive(Debug, Default)]
struct Oracle {
    records: Records,
    /// Positions at which a batch goes on: the log may not end before one of them.
    inside_batch: Vec<u64>,
    /// Everything below was acknowledged.
    acknowledged: u64,
    /// Retention may have removed what lies below.
    may_be_gone: u64,
}

impl Oracle {
    fn check(&mut self, found: Records, report: &RecoveryReport) -> Result<(), String> {
        let oldest = report.oldest.as_u64();
        if oldest > self.may_be_gone {
            return Err(format!("removed up to {oldest}, allowed {}", self.may_be_gone));
        }
        self.records.retain(|(lsn, _)| *lsn >= oldest);
        for (i, record) in found.iter().enumerate() {
            match self.records.get(i) {
                None => return Err(format!("resurrected at {}", record.0)),
                Some(expected) if expected != record => {
                    return Err(format!("record {i}: {} instead of {}", record.0, expected.0));
                }
                Some(_) => {}
            }
        }
        if let Some((lost, _)) = self.records.get(found.len()) {
            if *lost < self.acknowledged {
                let end = report.durable_end;
                return Err(format!("acknowledged record {lost} lost, the log ends at {end}"));
            }
            if self.inside_batch.contains(lost) {
                return Err(format!("the batch was split at {lost}"));
            }
        }
        self.records.truncate(found.len());
        // Positions behind the cut may be given out again.
        let end = report.durable_end.as_u64();
        self.inside_batch.retain(|lsn| *lsn < end);
        Ok(())
    }
}

struct World {
    disk: SimDisk,
    rng: Rng,
    clock: Arc<SimClock>,
    options: Options,
    method: Method,
    sabotage: Sabotage,
    oracle: Oracle,
}

struct Life {
    core: Core,
    shared: Arc<Shared>,
    io: IoLoop,
    helper: Helper,
}

#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Closed,
    /// The machine is off, or the log poisoned.
    Stopped,
}

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
        ..Options::default()
    }
}

fn chosen(method: Method, parallel: bool) -> Chosen {
    Chosen { method, reason: MethodReason::Pinned, parallel, detail: String::new() }
}

impl World {
    fn new(seed: u64, sabotage: Sabotage) -> Self {
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
            rng,
        }
    }

    /// Opens the log and compares what is in it. `None`: the machine went off meanwhile.
    fn open(&mut self) -> Result<Option<Life>, String> {
        let names = Names::new(&self.options.prefix);
        let random = std::array::from_fn(|_| self.rng.u8(..));
        let recovered = recover(&self.disk.dir(), &names, &self.options, &*self.clock, random);
        let Recovered { shared, policy, report, start, geometry } = match recovered {
            Ok(recovered) => recovered,
            Err(Error::Io { .. } | Error::NoSpace) => return Ok(None),
            Err(e) => return Err(format!("open: {e}")),
        };
        let core = Core::new(Arc::clone(&shared), &start.log_id, report.epoch, geometry.max_record);
        let setup = Setup {
            log_id: start.log_id,
            epoch: start.epoch,
            link: start.link,
            active: start.active,
            active_file: start.active_file,
            oldest: start.oldest,
            block: geometry.block,
            depth: self.options.depth,
            durability: self.options.durability,
            commit_delay: self.options.commit_delay,
            idle_seal: self.options.idle_seal,
        };
        shared.commit.set(chosen(self.method, self.rng.bool()));
        let backend = Box::new(SimBackend::new(self.rng.u64(..), self.sabotage));
        let clock: Arc<dyn Clock> = Arc::<SimClock>::clone(&self.clock);
        let mut io = IoLoop::new(Arc::clone(&shared), Arc::clone(&clock), backend, setup)
            .map_err(|e| e.to_string())?;
        let helper = Helper::new(Arc::clone(&shared), clock, policy);
        let epoch_group = report.durable_end.as_u64();
        while shared.durable.end() <= epoch_group {
            if io.step().finished {
                return Ok(None);
            }
            io.wait(None);
        }
        let found = read_all(&shared)?;
        let life = Life { core, shared, io, helper };
        match found {
            Some(found) => self.oracle.check(found, &report)?,
            None => return Ok(None),
        }
        // What open returns is durable.
        self.note(&life);
        Ok(Some(life))
    }

    fn act(&mut self, life: &mut Life) -> Result<(), String> {
        match self.rng.u8(0..20) {
            0..8 => self.append(life),
            8 => self.append_batch(life),
            9..14 => {
                life.io.step();
                life.io.wait(None);
            }
            14..17 => {
                if life.helper.step() == Next::Finished && !life.shared.durable.is_poisoned() {
                    return Err("the helper ended".into());
                }
            }
            17 => {
                self.clock.advance(Duration::from_micros(self.rng.u64(1..2000)));
                // As when the methods have been timed meanwhile.
                if self.rng.u8(0..4) == 0 {
                    self.method = if self.rng.bool() { Method::Linked } else { Method::Dsync };
                    life.shared.commit.set(chosen(self.method, self.rng.bool()));
                }
            }
            18 => {
                if let Some((last, _)) = self.oracle.records.last() {
                    let _ = life.core.ask_durable(*last);
                }
            }
            _ => self.read_or_truncate(life)?,
        }
        self.note(life);
        Ok(())
    }

    fn payload(&mut self, max: usize) -> Vec<u8> {
        let len = match self.rng.u8(0..10) {
            0 => 0,
            1..7 => self.rng.usize(1..200),
            7 => max,
            _ => self.rng.usize(..=max),
        };
        let byte = self.rng.u8(..);
        (0..len).map(|i| byte ^ i as u8).collect()
    }

    fn append(&mut self, life: &Life) {
        let max = life.core.max_record();
        let payload = self.payload(max);
        if let Ok(lsn) = life.core.try_append(&payload) {
            self.oracle.records.push((lsn.as_u64(), payload));
        }
    }

    fn append_batch(&mut self, life: &Life) {
        let n = self.rng.usize(1..6);
        let each = life.core.max_record() / 6 - 20;
        let items: Vec<Vec<u8>> = (0..n).map(|_| self.payload(each)).collect();
        if let Ok(first) = life.core.append_batch(&items, false) {
            let mut at = first.as_u64();
            for (i, item) in items.into_iter().enumerate() {
                if i > 0 {
                    self.oracle.inside_batch.push(at);
                }
                let next = at + crate::format::item_size(item.len()) as u64;
                self.oracle.records.push((at, item));
                at = next;
            }
        }
    }

    fn read_or_truncate(&mut self, life: &Life) -> Result<(), String> {
        if self.oracle.records.is_empty() {
            return Ok(());
        }
        let at = self.rng.usize(..self.oracle.records.len());
        let (lsn, payload) = &self.oracle.records[at];
        if self.rng.u8(0..8) == 0 {
            life.shared.truncate_to.fetch_max(*lsn, Ordering::SeqCst);
            self.oracle.may_be_gone = self.oracle.may_be_gone.max(*lsn);
        } else if *lsn < life.shared.durable.end() {
            match read_one(&life.shared, *lsn) {
                Ok(record) if record.payload == *payload => {}
                Err(Error::Pruned { oldest }) if oldest.as_u64() <= self.oracle.may_be_gone => {}
                Err(Error::Io { .. }) => {}
                other => return Err(format!("read of {lsn}: {other:?}")),
            }
        }
        Ok(())
    }

    /// Takes down what is acknowledged now, and what retention may remove.
    fn note(&mut self, life: &Life) {
        let end = life.shared.durable.end();
        self.oracle.acknowledged = self.oracle.acknowledged.max(end);
        if self.options.max_segments.is_some() {
            self.oracle.may_be_gone = self.oracle.may_be_gone.max(life.shared.retire_wanted());
        }
    }

    fn live(&mut self, actions: usize) -> Result<Ending, String> {
        let Some(mut life) = self.open()? else { return Ok(Ending::Stopped) };
        for _ in 0..actions {
            self.act(&mut life)?;
            if life.shared.durable.is_poisoned() {
                // Nothing goes on after a failure.
                let end = life.shared.durable.end();
                for _ in 0..50 {
                    self.act(&mut life)?;
                }
                if life.shared.durable.end() != end || life.core.try_append(b"x").is_ok() {
                    return Err("the log went on after a failure".into());
                }
                return Ok(Ending::Stopped);
            }
        }
        if self.rng.bool() {
            return Ok(Ending::Stopped);
        }
        life.shared.begin_close();
        for _ in 0..10_000 {
            if life.io.step().finished {
                let all =
                    self.oracle.records.last().is_none_or(|r| r.0 < life.shared.durable.end());
                self.note(&life);
                if !life.shared.durable.is_poisoned() && !all {
                    return Err("closed, but not durable".into());
                }
                let poisoned = life.shared.durable.is_poisoned();
                return Ok(if poisoned { Ending::Stopped } else { Ending::Closed });
            }
            life.io.wait(None);
            if self.rng.u8(0..4) == 0 {
                life.helper.step();
            }
            self.clock.advance(Duration::from_micros(100));
        }
        Err("close hangs".into())
    }

    /// Several lives, each ended in one of the ways there are.
    fn run(&mut self, lives: usize) -> Result<(), String> {
        for _ in 0..lives {
            let actions = self.rng.usize(10..400);
            let now = self.disk.operations();
            match self.rng.u8(0..5) {
                0 => {}
                1 => {
                    let fault = [Fault::Eio, Fault::NoSpace, Fault::Short][self.rng.usize(..3)];
                    self.disk.fault(now + self.rng.u64(..150), fault, self.rng.bool());
                }
                _ => self.disk.crash_at(now + self.rng.u64(..300)),
            }
            let ending = self.live(actions)?;
            if ending == Ending::Stopped && !self.disk.is_off() && self.rng.bool() {
                // Only the process: what it wrote and did not sync is still there, for a while.
                self.disk.kill(&mut self.rng);
            } else if ending == Ending::Stopped || self.rng.bool() {
                self.disk.crash(&mut self.rng);
            }
            self.disk.heal();
            self.disk.crash_at(u64::MAX);
        }
        // And at last it can be opened, and holds what it must.
        match self.open()? {
            Some(_) => Ok(()),
            None => Err("the last open failed".into()),
        }
    }
}

/// `None`: the machine went off meanwhile.
fn read_all(shared: &Arc<Shared>) -> Result<Option<Records>, String> {
    let reader = Reader::new(Arc::clone(shared), Lsn::ZERO.as_u64(), shared.durable.end());
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

fn run_seed(seed: u64, sabotage: Sabotage) -> Result<(), String> {
    let run = std::panic::AssertUnwindSafe(|| World::new(seed, sabotage).run(6));
    std::panic::catch_unwind(run).unwrap_or_else(|_| Err("it panicked".into()))
}

/// Seeds to run: 1,000, or `RINGWAL_SIM_SEEDS` from `RINGWAL_SIM_FIRST` on.
fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|s| s.parse::<u64>().ok());
    let first = number("RINGWAL_SIM_FIRST").unwrap_or(0);
    first..first + number("RINGWAL_SIM_SEEDS").unwrap_or(1000)
}

#[test]
fn no_seed_loses_or_resurrects_a_record() {
    for seed in seeds() {
        if let Err(e) = run_seed(seed, Sabotage::None) {
            panic!("seed {seed}: {e}");
        }
    }
}

#[test]
fn replay_one_seed() {
    let seed = std::env::var("RINGWAL_SIM_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    assert_eq!(run_seed(seed, Sabotage::None), Ok(()));
}

#[test]
fn a_crash_at_every_operation_of_a_workload_is_survived() {
    for seed in 0..4 {
        let operations = {
            let mut world = World::new(seed, Sabotage::None);
            world.live(150).unwrap();
            world.disk.operations()
        };
        for at in 0..operations {
            let mut world = World::new(seed, Sabotage::None);
            world.disk.crash_at(at);
            let survived = world.live(150).and_then(|_| {
                world.disk.crash(&mut world.rng);
                // Again in the middle of recovery, three times over.
                for deep in 0..3 {
                    let now = world.disk.operations();
                    world.disk.crash_at(now + (at + deep) % 8);
                    world.live(5)?;
                    world.disk.crash(&mut world.rng);
                }
                world.run(1)
            });
            assert_eq!(survived, Ok(()), "seed {seed}, operation {at} of {operations}");
        }
    }
}

#[test]
fn the_oracle_finds_syncs_that_do_nothing() {
    let found = (0..300).find(|&seed| run_seed(seed, Sabotage::SyncsDoNothing).is_err());
    assert!(found.is_some());
}

#[test]
fn the_oracle_finds_a_sync_that_does_not_wait_for_its_write() {
    let found = (0..300).find(|&seed| run_seed(seed, Sabotage::SyncDoesNotWait).is_err());
    assert!(found.is_some());
}

/// Steps until everything appended is durable.
fn settle(life: &mut Life) {
    for _ in 0..10_000 {
        life.io.step();
        life.io.wait(None);
        life.helper.step();
        if life.shared.durable.end() >= life.shared.ring.reserved_end() {
            return;
        }
    }
    panic!("it does not settle");
}
