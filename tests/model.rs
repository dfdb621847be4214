//! Random sequences of operations on a real log, held against a model of it: a list of records.
//!
//! After each operation everything that its documentation says of it is compared. A sequence that fails is
//! made shorter while it still fails, and printed with the command that runs it again.
//!
//! `RINGWAL_MODEL_SEQUENCES=n` and `RINGWAL_MODEL_FIRST=m` say how many sequences, and from which seed
//! on. They run in memory where the machine has a tmpfs: what is tested here is not the disk.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they did")]

mod support;

#[path = "model/operations.rs"]
mod operations;
#[path = "model/reference.rs"]
mod reference;
#[path = "model/subject.rs"]
mod subject;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use operations::{Op, sequence};
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

/// Runs a sequence in a directory of its own. The error says after which operation what was wrong.
fn run(ops: &[Op], dir: &Path, uring: bool) -> Result<(), String> {
    let _ = std::fs::remove_dir_all(dir);
    let ran = std::panic::catch_unwind(|| {
        let mut subject = Subject::new(dir, uring)?;
        for (n, op) in ops.iter().enumerate() {
            subject.step(op).map_err(|e| format!("operation {n}, {op:?}: {e}"))?;
        }
        subject.end()
    });
    let _ = std::fs::remove_dir_all(dir);
    ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

/// Leaves out as much as can be left out so that it still fails.
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

#[test]
fn a_log_does_what_a_list_of_records_does() {
    let uring = backends().len() == 2;
    let first = number("RINGWAL_MODEL_FIRST").unwrap_or(0);
    let count = number("RINGWAL_MODEL_SEQUENCES").unwrap_or(if long() { 100_000 } else { 1_000 });
    let next = AtomicU64::new(first);
    let operations = AtomicU64::new(0);
    let begun = Instant::now();
    let failed = std::thread::scope(|scope| {
        let worker = |n: usize| {
            let dir = root().join(format!("ringwal-model-{}-{n}", std::process::id()));
            loop {
                let seed = next.fetch_add(1, Ordering::SeqCst);
                if seed >= first + count {
                    return None;
                }
                let ops = sequence(seed);
                operations.fetch_add(ops.len() as u64, Ordering::Relaxed);
                if let Err(e) = run(&ops, &dir, uring) {
                    next.store(u64::MAX / 2, Ordering::SeqCst);
                    let few = shrink(ops, |ops| run(ops, &dir, uring).is_err());
                    let again = run(&few, &dir, uring);
                    return Some(format!(
                        "{e}\nshorter, {again:?}:\n{few:#?}\nagain: RINGWAL_MODEL_FIRST={seed} \
                         RINGWAL_MODEL_SEQUENCES=1 cargo test --test model"
                    ));
                }
            }
        };
        let workers: Vec<_> = (0..3).map(|n| scope.spawn(move || worker(n))).collect();
        workers.into_iter().filter_map(|w| w.join().unwrap()).next()
    });
    if let Some(failure) = failed {
        panic!("{failure}");
    }
    let (operations, seconds) = (operations.into_inner(), begun.elapsed().as_secs_f64());
    println!("{count} sequences from {first} on, {operations} operations, {seconds:.1} s");
}

/// The shrinker leaves what it takes, and nothing else.
#[test]
fn a_failing_sequence_becomes_as_short_as_it_can() {
    let ops = sequence(7);
    let wanted = [ops[3].clone(), ops[ops.len() - 2].clone()];
    let fails = |ops: &[Op]| wanted.iter().all(|w| ops.contains(w));
    let few = shrink(ops, fails);
    assert!(fails(&few) && few.len() == 2, "{few:?}");
}
