//! A durable work queue: jobs are records of the log, and each named worker gets every job at least
//! once.
//!
//! `cargo run --example work_queue -- DIRECTORY push JOB...`, `work WORKER`, `lag`.
//!
//! Workers are subscribers: every worker gets every job, and has a position of its own. A worker
//! that dies between a job and its commit gets that job again. The log keeps the jobs that the
//! slowest worker has not committed.
#![allow(clippy::print_stdout, reason = "a program")]

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use ringwal::{Consumer, Wal};

type Failure = Box<dyn Error>;

fn open(dir: &Path) -> Result<Wal, Failure> {
    Ok(Wal::builder(dir).segment_size(1 << 20).max_segments(8).open()?)
}

fn push(wal: &Wal, jobs: &[&str]) -> Result<(), Failure> {
    for job in jobs {
        wal.append(job.as_bytes())?;
    }
    // One wait makes all jobs durable.
    wal.sync()?;
    println!("{} jobs pushed", jobs.len());
    Ok(())
}

/// Works until no job has come for a while.
fn work(mut worker: Consumer, patience: Duration) -> Result<(), Failure> {
    loop {
        let Some(job) = worker.records()?.next_timeout(patience)? else { return Ok(()) };
        let lsn = job.lsn;
        // The work, which must be idempotent.
        println!("{}", String::from_utf8_lossy(job.payload));
        // Commit after each job, because jobs are slow. Commit fast jobs several at a time.
        worker.commit(lsn)?;
    }
}

fn lag(wal: &Wal) {
    for consumer in wal.consumers() {
        println!("{} is {} bytes behind", consumer.name, consumer.lag_bytes);
    }
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let patience = Duration::from_millis(100);
    match words[..] {
        [dir, "push", ref jobs @ ..] => push(&open(Path::new(dir))?, jobs),
        [dir, "work", name] => {
            let wal = open(Path::new(dir))?;
            work(wal.consumer(name)?, patience)?;
            Ok(wal.close()?)
        }
        [dir, "lag"] => {
            lag(&open(Path::new(dir))?);
            Ok(())
        }
        // A short demonstration in a temporary directory.
        [] => {
            let dir = std::env::temp_dir().join(format!("ringwal-queue-{}", std::process::id()));
            let wal = open(&dir)?;
            push(&wal, &["boil water", "grind coffee", "pour"])?;
            work(wal.consumer("barista")?, patience)?;
            lag(&wal);
            wal.close()?;
            Ok(std::fs::remove_dir_all(dir)?)
        }
        _ => Err("DIRECTORY push JOB... | work WORKER | lag".into()),
    }
}
