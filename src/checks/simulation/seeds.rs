//! Whole histories from seeds: several lives of one log, which end by a close, a kill, a crash or a
//! fault.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::number;
use super::tally::Tally;
use super::world::{Ending, World};
use crate::io::backend::sim::Sabotage;
use crate::io::fs::sim::Fault;
use crate::sys::sync::lock;

impl World {
    /// Runs several lives. Then the log must open and hold what it must.
    pub(super) fn run(&mut self, lives: usize) -> Result<(), String> {
        let chained = self.rng.usize(..lives);
        for life in 0..lives {
            let actions = self.rng.usize(10..400);
            self.refit();
            self.plan();
            if self.rng.u8(0..4) == 0 {
                self.step_wall();
            }
            let ending = self.live(actions)?;
            if ending == Ending::Stopped && !self.disk.is_off() && self.rng.bool() {
                // Only the process dies. Its unsynced writes are still in the page cache.
                self.disk.kill(&mut self.rng);
                self.tally.crashes += 1;
            } else if ending == Ending::Stopped || self.rng.bool() {
                self.crash()?;
            }
            self.disk.heal();
            if life == chained {
                let depth = self.rng.usize(6..=10);
                self.crash_recoveries(depth)?;
            }
        }
        let opened = self.open()?;
        self.tally.faults += self.disk.failed();
        opened.map(drop).ok_or_else(|| "the last open failed".into())
    }

    /// Plans a fault or a crash of the next life.
    fn plan(&mut self) {
        let now = self.disk.operations();
        match self.rng.u8(0..10) {
            0 | 1 => {}
            2 | 3 => {
                let fault = Fault::ALL[self.rng.usize(..Fault::ALL.len())];
                self.disk.fault(now + self.rng.u64(..150), fault, self.rng.bool());
            }
            4 => {
                let fault = Fault::ALL[self.rng.usize(..Fault::ALL.len())];
                let at = self.disk.reads() + self.rng.u64(..60);
                self.disk.read_fault(at, fault, self.rng.bool());
            }
            _ => self.disk.crash_at(now + self.rng.u64(..300)),
        }
    }

    /// Crashes during recovery, `depth` times in a row.
    pub(super) fn crash_recoveries(&mut self, depth: usize) -> Result<(), String> {
        let mut crashed = 0;
        for _ in 0..depth {
            let now = self.disk.operations();
            self.disk.crash_at(now + self.rng.u64(..8));
            self.refit();
            let actions = self.rng.usize(..6);
            self.live(actions)?;
            crashed += u32::from(self.disk.is_off());
            self.crash()?;
        }
        self.tally.chains += u64::from(crashed >= 5);
        Ok(())
    }
}

/// Runs one seed, with `images` images at each crash.
fn run_seed(seed: u64, images: usize, sabotage: Sabotage) -> Result<Tally, String> {
    let run = std::panic::AssertUnwindSafe(|| {
        let mut world = World::new(seed, sabotage);
        world.images = images;
        world.run(6).map(|()| world.tally)
    });
    std::panic::catch_unwind(run).unwrap_or_else(|_| Err("it panicked".into()))
}

/// Runs the seeds from `first` on, in two threads, until `count` are done or the time is over.
/// Returns the number done.
fn run_seeds(first: u64, count: u64, images: usize, until: Option<Instant>) -> (u64, Tally) {
    let next = AtomicU64::new(first);
    let total = Arc::new(Mutex::new(Tally::default()));
    let work = || {
        loop {
            if until.is_some_and(|until| Instant::now() >= until) {
                return;
            }
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed - first >= count {
                return;
            }
            match run_seed(seed, images, Sabotage::None) {
                Ok(tally) => *lock(&total) += tally,
                Err(e) => panic!(
                    "{e}\nreplay it: RINGWAL_SIM_SEED={seed} RINGWAL_SIM_IMAGES={images} \
                     cargo test --lib simulation::seeds::replay_one_seed -- --nocapture"
                ),
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let done = (next.into_inner() - first).min(count);
    (done, *lock(&total))
}

fn images() -> usize {
    number("RINGWAL_SIM_IMAGES").unwrap_or(4) as usize
}

/// Runs 400 seeds, or `RINGWAL_SIM_SEEDS` of them from `RINGWAL_SIM_FIRST` on.
#[test]
fn no_seed_loses_or_resurrects_a_record() {
    let first = number("RINGWAL_SIM_FIRST").unwrap_or(0);
    let count = number("RINGWAL_SIM_SEEDS").unwrap_or(400);
    let (done, tally) = run_seeds(first, count, images(), None);
    assert_eq!(done, count);
    assert!(tally.images >= tally.crashes / 2 && tally.chains > count / 2 && tally.faults > 0);
    println!("{done} seeds: {tally}");
}

#[test]
fn replay_one_seed() {
    let seed = number("RINGWAL_SIM_SEED").unwrap_or(0);
    run_seed(seed, images(), Sabotage::None).unwrap();
}

#[test]
fn the_oracle_finds_syncs_that_do_nothing() {
    let found = (0..300).find(|&seed| run_seed(seed, 0, Sabotage::SyncsDoNothing).is_err());
    assert!(found.is_some());
}

#[test]
fn the_oracle_finds_a_sync_that_does_not_wait_for_its_write() {
    let found = (0..300).find(|&seed| run_seed(seed, 0, Sabotage::SyncDoesNotWait).is_err());
    assert!(found.is_some());
}

/// Runs seeds after the ledger's last one, for `RINGWAL_SIM_MINUTES`, and adds the results to it.
#[test]
#[ignore = "for hours: RINGWAL_SIM_MINUTES=60 cargo test --release --lib seeds_by_the_ledger -- --ignored --nocapture"]
fn seeds_by_the_ledger() {
    let minutes = number("RINGWAL_SIM_MINUTES").unwrap_or(1);
    let ledger = super::ledger::Ledger::open("simulation");
    let start = Instant::now();
    let until = start + Duration::from_secs(60 * minutes);
    while Instant::now() < until {
        let first = ledger.next();
        let begun = Instant::now();
        let stop = until.min(begun + Duration::from_secs(300));
        let (done, tally) = run_seeds(first, u64::MAX, images(), Some(stop));
        ledger.enter(first, done, begun.elapsed(), &tally);
    }
}
