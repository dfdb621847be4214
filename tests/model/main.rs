//! Runs random sequences of operations on a log and compares it with a model: a list of records.
//!
//! After each operation, everything that the operation's documentation promises is compared. A
//! sequence that fails is shortened while it still fails, and printed with the command that replays
//! it.
//!
//! Sequences run on files, with threads and both backends. The files are on tmpfs if there is one,
//! because the disk is not under test. Sequences also run on a simulated disk without threads.
//! There the power fails at any operation, the process dies, and the disk is full; a thousand
//! sequences take a second.
//!
//! `RINGWAL_MODEL_SEQUENCES=n` and `RINGWAL_MODEL_FIRST=m` set the number of sequences and the
//! first seed. `sequences_by_the_ledger` continues after `tests/ledgers/model.tsv`, for
//! `RINGWAL_MODEL_MINUTES`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they did")]

#[path = "../support/mod.rs"]
mod support;

mod acts;
mod consuming;
mod following;
mod ledger;
mod operations;
mod reference;
mod subject;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ledger::Ledger;
use operations::{Op, Scale, sequence};
use subject::Subject;
use support::{backends, long};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn root() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let probe = memory.join(format!("ringwal-model-probe-{}", std::process::id()));
    if std::fs::create_dir(&probe).is_ok() {
        let _ = std::fs::remove_dir(&probe);
        return memory.into();
    }
    std::env::temp_dir()
}

/// Runs a sequence. The error names the operation and what was wrong after it.
fn run(ops: &[Op], mut subject: Subject) -> Result<(), String> {
    let at = Cell::new(0);
    let show = std::env::var_os("RINGWAL_MODEL_SHOW").is_some();
    let steps = || {
        for (n, op) in ops.iter().enumerate() {
            at.set(n);
            if show {
                eprintln!("{n}: {op:?}");
            }
            subject.step(op).map_err(|e| format!("operation {n}, {op:?}: {e}"))?;
        }
        at.set(ops.len());
        subject.end()
    };
    catch_unwind(AssertUnwindSafe(steps)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        let n = at.get();
        Err(format!("operation {n}, {:?}: panic: {}", ops.get(n), text.unwrap_or_default()))
    })
}

/// Ends the process if a sequence hangs. On a simulated disk no other thread could move the log.
struct Watch {
    /// Seed plus one of each thread's sequence, and its start.
    busy: Vec<Mutex<(u64, Instant)>>,
}

const LONGEST: Duration = Duration::from_secs(30);

impl Watch {
    fn new(threads: usize) -> Self {
        Watch { busy: (0..threads).map(|_| Mutex::new((0, Instant::now()))).collect() }
    }

    fn begin(&self, n: usize, seed: u64) {
        *self.busy[n].lock().unwrap() = (seed + 1, Instant::now());
    }

    fn end(&self, n: usize) {
        self.busy[n].lock().unwrap().0 = 0;
    }

    fn look(&self, scale: Scale) {
        // Files may lie on a slow disk.
        let longest = match scale {
            Scale::Simulated => LONGEST,
            Scale::Files => 10 * LONGEST,
        };
        for busy in &self.busy {
            let (seed, since) = *busy.lock().unwrap();
            if seed > 0 && since.elapsed() > longest {
                let (seed, ops) = (seed - 1, sequence(seed - 1, scale));
                eprintln!("a sequence hangs: {ops:#?}\nagain: RINGWAL_MODEL_FIRST={seed}");
                std::process::abort();
            }
        }
    }
}

fn run_on_files(ops: &[Op], dir: &Path, uring: bool) -> Result<(), String> {
    let _ = std::fs::remove_dir_all(dir);
    let ran = run(ops, Subject::files(dir, uring));
    let _ = std::fs::remove_dir_all(dir);
    ran
}

/// Removes as many operations as possible while the sequence still fails.
fn shrink(mut ops: Vec<Op>, fails: impl Fn(&[Op]) -> bool) -> Vec<Op> {
    let mut piece = ops.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + piece).min(ops.len()));
            if fails(&fewer) {
                ops = fewer;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    ops
}

#[derive(Debug, Clone, Copy)]
struct Done {
    sequences: u64,
    operations: u64,
}

/// Runs the sequences from `first` on in several threads, until `count` are done or the time is
/// over.
fn run_all(
    (first, count): (u64, u64),
    until: Option<Instant>,
    threads: usize,
    scale: Scale,
    run_one: impl Fn(usize, u64, &[Op]) -> Result<(), String> + Sync,
) -> Done {
    let next = AtomicU64::new(first);
    let (sequences, operations) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = AtomicBool::new(false);
    let watch = Watch::new(threads);
    let worker = |n: usize| {
        while until.is_none_or(|until| Instant::now() < until) && !failed.load(Ordering::SeqCst) {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= first.saturating_add(count) {
                break;
            }
            watch.begin(n, seed);
            let ops = sequence(seed, scale);
            operations.fetch_add(ops.len() as u64, Ordering::Relaxed);
            if let Err(e) = run_one(n, seed, &ops) {
                failed.store(true, Ordering::SeqCst);
                // Printed at once, because a shorter sequence might hang.
                eprintln!("sequence {seed}: {e}");
                let few = shrink(ops, |ops| {
                    watch.begin(n, seed);
                    run_one(n, seed, ops).is_err()
                });
                let again = run_one(n, seed, &few);
                watch.end(n);
                return Some(format!(
                    "{e}\nshorter, {again:?}:\n{few:#?}\nagain: RINGWAL_MODEL_FIRST={seed} \
                     RINGWAL_MODEL_SEQUENCES=1 cargo test --test model"
                ));
            }
            sequences.fetch_add(1, Ordering::Relaxed);
        }
        watch.end(n);
        None
    };
    let failure = std::thread::scope(|scope| {
        let worker = &worker;
        let workers: Vec<_> = (0..threads).map(|n| scope.spawn(move || worker(n))).collect();
        while workers.iter().any(|w| !w.is_finished()) {
            watch.look(scale);
            std::thread::sleep(Duration::from_millis(10));
        }
        workers.into_iter().filter_map(|w| w.join().unwrap()).next()
    });
    if let Some(failure) = failure {
        panic!("{failure}");
    }
    Done { sequences: sequences.into_inner(), operations: operations.into_inner() }
}

fn asked_for(short: u64, more: u64) -> (u64, u64) {
    let first = number("RINGWAL_MODEL_FIRST").unwrap_or(0);
    (first, number("RINGWAL_MODEL_SEQUENCES").unwrap_or(if long() { more } else { short }))
}

fn say(first: u64, done: Done, begun: Instant) {
    let Done { sequences, operations } = done;
    let seconds = begun.elapsed().as_secs_f64();
    println!("{sequences} sequences from {first} on, {operations} operations, {seconds:.1} s");
}

#[test]
fn random_operations_on_files_agree_with_the_model() {
    let uring = backends().len() == 2;
    let (range, begun) = (asked_for(600, 100_000), Instant::now());
    let done = run_all(range, None, 3, Scale::Files, |n, _, ops| {
        let dir = root().join(format!("ringwal-model-{}-{n}", std::process::id()));
        run_on_files(ops, &dir, uring)
    });
    assert_eq!(done.sequences, range.1);
    say(range.0, done, begun);
}

/// Keeps the allocator from returning memory to the kernel. Each sequence allocates and frees the
/// same buffers; zeroing pages would take most of the time.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep_freed_memory() {
    use nix::libc::{M_MMAP_THRESHOLD, M_TOP_PAD, M_TRIM_THRESHOLD, mallopt};
    // SAFETY: the calls set thresholds of the allocator, under its own lock. If it refuses one, the
    // default stays.
    unsafe {
        mallopt(M_MMAP_THRESHOLD, 1 << 30);
        mallopt(M_TRIM_THRESHOLD, 1 << 30);
        mallopt(M_TOP_PAD, 64 << 20);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn keep_freed_memory() {}

fn on_a_simulated_disk(seed: u64, ops: &[Op]) -> Result<(), String> {
    run(ops, Subject::simulated(seed))
}

#[test]
fn random_operations_on_a_failing_simulated_disk_agree_with_the_model() {
    keep_freed_memory();
    let (range, begun) = (asked_for(1_000, 1_000_000), Instant::now());
    let done =
        run_all(range, None, 2, Scale::Simulated, |_, seed, ops| on_a_simulated_disk(seed, ops));
    assert_eq!(done.sequences, range.1);
    say(range.0, done, begun);
}

/// Runs sequences after the ledger's last one, for `RINGWAL_MODEL_MINUTES`, and adds the results to
/// it.
#[test]
#[ignore = "for hours: RINGWAL_MODEL_MINUTES=60 cargo test --release --test model -- --ignored --nocapture"]
fn sequences_by_the_ledger() {
    let minutes = number("RINGWAL_MODEL_MINUTES").unwrap_or(1);
    let threads = number("RINGWAL_MODEL_THREADS").unwrap_or(2) as usize;
    keep_freed_memory();
    let ledger = Ledger::open();
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    while Instant::now() < until {
        let (first, begun) = (ledger.next(), Instant::now());
        let stop = until.min(begun + Duration::from_secs(300));
        let range = (first, u64::MAX);
        let done = run_all(range, Some(stop), threads, Scale::Simulated, |_, seed, ops| {
            on_a_simulated_disk(seed, ops)
        });
        ledger.enter(first, done.sequences, done.operations, begun.elapsed());
        say(first, done, begun);
    }
}

/// Tests the shrinker: it keeps the operations that the failure needs, and no others.
#[test]
fn failing_sequence_shrinks_to_the_operations_it_needs() {
    let ops = sequence(7, Scale::Files);
    let wanted = [ops[3].clone(), ops[ops.len() - 2].clone()];
    let fails = |ops: &[Op]| wanted.iter().all(|w| ops.contains(w));
    let few = shrink(ops, fails);
    assert!(fails(&few) && few.len() == 2, "{few:?}");
}
