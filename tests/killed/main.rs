//! Kills writing processes with SIGKILL at random moments, repeatedly over the same logs: while
//! they start, recover or write. The next open finds every acknowledged record, in order, without a
//! gap, with whole batches, and no record that was not appended.
//!
//! The writer is this test binary. Its acknowledgements go through a pipe to the parent, which
//! outlives it. A log goes through every backend, commit method and mode in random order, and
//! through several kills between two checks. Half of the checks use a copy, so that the original
//! keeps its torn end. One writer at a time works on the disk, and one on tmpfs if there is one. A
//! killed process loses no data that the kernel has, so both show the same, and tmpfs is faster.
//!
//! `RINGWAL_KILLS=n` sets the number of kills.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they did")]

#[path = "../support/mod.rs"]
mod support;

mod check;
mod life;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use check::Log;
use support::{backends, copy_dir, long};
use writer::Config;

/// Bytes of a log after which a new log is started, so that checks stay cheap.
const LARGEST: u64 = 1 << 20;
/// Number of kills after which a new log is started, if retention keeps the log small.
const LONGEST: u32 = 60;

/// The writing process: see [`writer::run`].
#[test]
fn writer_process() {
    writer::run();
}

#[derive(Debug, Default)]
struct Tally {
    kills: u64,
    before_open: u64,
    before_acknowledgement: u64,
    acknowledgements: u64,
    records_found: u64,
    looks: u64,
    logs: u64,
    cases: BTreeMap<String, u64>,
    configs: BTreeMap<u32, u64>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.kills += other.kills;
        self.before_open += other.before_open;
        self.before_acknowledgement += other.before_acknowledgement;
        self.acknowledgements += other.acknowledgements;
        self.records_found += other.records_found;
        self.looks += other.looks;
        self.logs += other.logs;
        for (case, n) in other.cases {
            *self.cases.entry(case).or_default() += n;
        }
        for (config, n) in other.configs {
            *self.configs.entry(config).or_default() += n;
        }
    }
}

/// A directory that is removed if the test passes, and kept and printed if it fails.
struct Kept(PathBuf);

impl Drop for Kept {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("left for inspection: {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Kills writers of one log after the other under `root` until all `left` kills are done.
fn soak(root: &Path, left: &AtomicU64, both_backends: bool, seed: u64) -> Tally {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut tally = Tally::default();
    let take = || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
    let mut more = true;
    while more {
        let home =
            Kept(root.join(format!("ringwal-kills-{}-{seed}-{}", std::process::id(), tally.logs)));
        let dir = home.0.join("log");
        std::fs::create_dir_all(&home.0).unwrap();
        tally.logs += 1;
        let retention = rng.bool();
        let config = |rng: &mut fastrand::Rng| Config::random(rng, retention, both_backends);
        let mut log = Log::new(retention);
        let mut round = 0;
        while round < LONGEST && log.size() < LARGEST && more {
            for _ in 0..rng.u32(1..=4) {
                if take().is_err() {
                    more = false;
                    break;
                }
                let config = config(&mut rng);
                let life = life::live_and_die(&dir, round, config, &mut rng);
                *tally.configs.entry(config.number()).or_default() += 1;
                tally.kills += 1;
                tally.before_open += u64::from(!life.open);
                tally.before_acknowledgement += u64::from(life.open && life.acknowledged == 0);
                tally.acknowledgements += life.acknowledged;
                log.lived(round, life);
                round += 1;
            }
            // A writer killed before it created a file leaves nothing to copy.
            let copied = rng.bool() && dir.exists();
            let place = if copied { home.0.join("copy") } else { dir.clone() };
            if copied {
                copy_dir(&dir, &place);
            }
            let (case, found) = log.check(&place, config(&mut rng), copied);
            *tally.cases.entry(case).or_default() += 1;
            tally.looks += 1;
            tally.records_found += found;
            if copied {
                std::fs::remove_dir_all(&place).unwrap();
            }
        }
    }
    tally
}

#[test]
fn every_acknowledged_record_survives_sigkill() {
    let wanted = std::env::var("RINGWAL_KILLS").ok().map(|n| n.parse().expect("a number"));
    let wanted = wanted.unwrap_or(if long() { 5_000 } else { 150 });
    let both = backends().len() == 2;
    let left = AtomicU64::new(wanted);
    let mut roots = vec![std::env::temp_dir()];
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() && std::fs::File::create(memory.join("ringwal-kills-probe")).is_ok() {
        let _ = std::fs::remove_file(memory.join("ringwal-kills-probe"));
        roots.push(memory);
    }
    let begun = Instant::now();
    let mut total = Tally::default();
    std::thread::scope(|scope| {
        let left = &left;
        let workers: Vec<_> = roots
            .iter()
            .map(|root| {
                let seed = fastrand::u64(..) >> 32;
                scope.spawn(move || soak(root, left, both, seed))
            })
            .collect();
        for (worker, root) in workers.into_iter().zip(&roots) {
            let tally = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            println!("{} kills in {}", tally.kills, root.display());
            total.add(tally);
        }
    });
    assert_eq!(total.kills, wanted);
    if wanted >= 100 {
        assert!(total.acknowledgements > wanted, "next to nothing was acknowledged: {total:?}");
        assert!(total.before_acknowledgement > 0, "none was killed in recovery: {total:?}");
    }
    let rate = total.kills as f64 / begun.elapsed().as_secs_f64();
    println!(
        "{} kills ({rate:.0} a second) of {} logs: {} before the log was touched, {} while it was opened or before the \
         first acknowledgement; {} acknowledgements, all found; {} looks, {} records read; {:?}; {} configurations",
        total.kills,
        total.logs,
        total.before_open,
        total.before_acknowledgement,
        total.acknowledgements,
        total.looks,
        total.records_found,
        total.cases,
        total.configs.len(),
    );
}
