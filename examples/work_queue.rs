//! A durable work queue: jobs are records of the log, and each job goes to one of the workers of a
//! queue.
//!
//! `cargo run --example work_queue -- DIRECTORY push JOB...`, `work QUEUE [WORKERS]`, `lag`.
//!
//! Queues are subscribers: every queue gets every job, and has a position of its own. The workers
//! of one queue compete for its jobs. A job whose worker dies, or takes longer than its lease, goes
//! to another worker. The log keeps the jobs that the slowest queue has not done.
#![allow(clippy::print_stdout, reason = "a program")]

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use ringwal::{Wal, WorkQueue, WorkQueueOptions};

type Failure = Box<dyn Error + Send + Sync>;

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

/// The work, which must be idempotent: a job may come again.
fn perform(job: &str) -> Result<(), Failure> {
    println!("{job}");
    Ok(())
}

/// Works until no job has come for a while.
fn worker(queue: &WorkQueue, patience: Duration) -> Result<(), Failure> {
    while let Some(job) = queue.take(patience)? {
        match perform(&String::from_utf8_lossy(job.payload())) {
            // Durable: the job does not come again.
            Ok(()) => job.done()?,
            Err(_) => job.retry_after(Duration::from_secs(1)),
        }
    }
    Ok(())
}

fn work(wal: &Wal, name: &str, workers: usize, patience: Duration) -> Result<(), Failure> {
    let options = WorkQueueOptions::default()
        .lease(Duration::from_secs(60))
        // A job that has failed five times needs a person.
        .dead_letters(5, |job| {
            println!("given up: {}", String::from_utf8_lossy(job.payload));
            Ok::<(), Failure>(())
        });
    let queue = wal.work_queue(name, options)?;
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..workers).map(|_| scope.spawn(|| worker(&queue, patience))).collect();
        let ended = workers.into_iter().map(|worker| worker.join());
        ended.collect::<Result<Vec<_>, _>>().map_err(|_| "a worker panicked")?.into_iter().collect()
    })
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
        [dir, "work", name, ref workers @ ..] => {
            let workers = workers.first().map_or(Ok(1), |n| n.parse())?;
            let wal = open(Path::new(dir))?;
            work(&wal, name, workers, patience)?;
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
            work(&wal, "baristas", 2, patience)?;
            lag(&wal);
            wal.close()?;
            Ok(std::fs::remove_dir_all(dir)?)
        }
        _ => Err("DIRECTORY push JOB... | work QUEUE [WORKERS] | lag".into()),
    }
}
