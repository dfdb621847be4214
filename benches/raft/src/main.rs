//! Log stores for openraft beside ringwal-openraft, on one disk.
//!
//! `writes`: durable entries per second through openraft's storage interface, of one group with
//! several clients, and of 1,000 groups with one client each. A client appends one entry, and waits
//! for the callback. A group has as many appends on their way as it has clients.
//!
//! `open`: the time to open a log with many entries.

mod memory;
mod raft_log;
#[cfg(feature = "rocksdb")]
mod rocks;
mod types;

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use std::path::{Path, PathBuf};
use std::task::Poll;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use nix::sys::resource::{UsageWho, getrusage};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use ringwal_openraft::RaftLogs;
use tokio::sync::Mutex;

use crate::types::{Stored, Types, entry};

/// Bytes of an entry's payload.
const PAYLOAD: usize = 100;

const GROUPS: u64 = 1000;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Durable entries per second of each store
    Writes {
        /// A directory on the disk to measure
        #[arg(long)]
        dir: PathBuf,
        /// Rounds; each has every store and every load once
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds for each measurement
        #[arg(long, default_value_t = 0.5)]
        seconds: f64,
        /// Only the stores whose names contain this
        #[arg(long, default_value = "")]
        store: String,
        /// Only the load with this number, from 0 on
        #[arg(long)]
        load: Option<usize>,
    },
    /// The time to open a log
    Open {
        /// A directory on the disk to measure
        #[arg(long)]
        dir: PathBuf,
        /// Entries of the log
        #[arg(long, default_value_t = 10_000_000)]
        entries: u64,
        /// Openings
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
}

/// What was measured once.
#[derive(Debug, Clone, Copy)]
struct Figure {
    per_second: f64,
    /// Microseconds of CPU time of all threads, for each entry.
    cpu_micros: f64,
}

/// The loads: groups, and clients of each.
const LOADS: [(u64, usize); 4] = [(1, 1), (1, 64), (1, 256), (GROUPS, 1)];

const STORES: [&str; 5] = ["memory", "plain ringwal", "ringwal-openraft", "RocksDB", "raft-log"];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    match Arguments::parse().command {
        Command::Writes { dir, rounds, seconds, store, load } => {
            let is_chosen =
                |name: &str, at| name.contains(&store) && load.is_none_or(|load| load == at);
            writes(&dir, rounds, Duration::from_secs_f64(seconds), is_chosen).await
        }
        Command::Open { dir, entries, rounds } => open(&dir, entries, rounds).await,
    }
}

fn cpu() -> Result<Duration, Box<dyn Error>> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000)
    };
    Ok(micros(usage.user_time()) + micros(usage.system_time()))
}

/// Runs a load: clients that call `append` with the number of their group until the time is over.
async fn load<F, Fut>(
    clients: (u64, usize),
    time: Duration,
    append: F,
) -> Result<Figure, Box<dyn Error>>
where
    F: Fn(u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(), String>> + Send,
{
    let done = Arc::new(AtomicU64::new(0));
    let (began, cpu_before) = (Instant::now(), cpu()?);
    let client = |group: u64| {
        let (append, done) = (append.clone(), Arc::clone(&done));
        async move {
            while began.elapsed() < time {
                append(group).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), String>(())
        }
    };
    let of_group = |group| (0..clients.1).map(move |_| group);
    let tasks: Vec<_> =
        (0..clients.0).flat_map(of_group).map(|g| tokio::spawn(client(g))).collect();
    for task in tasks {
        task.await??;
    }
    let (entries, seconds) = (done.load(Ordering::Relaxed) as f64, began.elapsed().as_secs_f64());
    let cpu_micros = (cpu()? - cpu_before).as_micros() as f64 / entries.max(1.0);
    Ok(Figure { per_second: entries / seconds, cpu_micros })
}

/// Runs a load through openraft's interface.
async fn through<S: RaftLogStorage<Types> + Clone>(
    clients: (u64, usize),
    time: Duration,
    log: impl Fn(u64) -> Result<S, Box<dyn Error>>,
) -> Result<Figure, Box<dyn Error>> {
    let log = |group| Ok::<_, Box<dyn Error>>((log(group)?, Mutex::new(1)));
    let logs: Result<Vec<(S, Mutex<u64>)>, _> = (0..clients.0).map(log).collect();
    let logs = Arc::new(logs?);
    let append = move |group: u64| {
        let logs = Arc::clone(&logs);
        async move {
            let (log, next) = &logs[group as usize];
            append_in_order(log.clone(), next).await.map_err(|e| e.to_string())
        }
    };
    load(clients, time, append).await
}

/// Appends the next entry of a group. Entries are handed to the store in order; they become durable
/// together.
async fn append_in_order<S: RaftLogStorage<Types>>(mut log: S, next: &Mutex<u64>) -> Stored<()> {
    let mut index = next.lock().await;
    let mut append = pin!(log.blocking_append([entry(*index, PAYLOAD)]));
    *index += 1;
    // The first poll hands it over.
    let first = std::future::poll_fn(|context| Poll::Ready(append.as_mut().poll(context))).await;
    drop(index);
    match first {
        Poll::Ready(result) => result,
        Poll::Pending => append.await,
    }
}

async fn measure(
    store: &str,
    clients: (u64, usize),
    dir: &Path,
    time: Duration,
) -> Result<Option<Figure>, Box<dyn Error>> {
    let figure = match store {
        "memory" => through(clients, time, |_| Ok(memory::Memory::default())).await?,
        "plain ringwal" => {
            let wal = ringwal::Wal::open(dir)?;
            let append = |wal: ringwal::Wal| async move {
                let record = [b'x'; PAYLOAD + 16];
                let lsn = wal.append_async(&record).await.map_err(|e| e.to_string())?;
                wal.when_durable(lsn).await.map_err(|e| e.to_string())
            };
            let handle = wal.clone();
            let figure = load(clients, time, move |_| append(handle.clone())).await?;
            wal.close()?;
            figure
        }
        "ringwal-openraft" => {
            let logs = RaftLogs::open(ringwal::Wal::builder(dir))?;
            let figure = through(clients, time, |group| Ok(logs.group::<Types>(group))).await?;
            logs.close()?;
            figure
        }
        #[cfg(feature = "rocksdb")]
        "RocksDB" => {
            let rocks = rocks::Rocks::open(dir)?;
            through(clients, time, |group| Ok(rocks.group(group))).await?
        }
        // It has a directory and a thread for each group.
        "raft-log" => {
            let open = |group: u64| Ok(raft_log::RaftLog::open(&dir.join(group.to_string()))?);
            through(clients, time, open).await?
        }
        _ => return Ok(None),
    };
    Ok(Some(figure))
}

fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(0.0);
    (at(values.len() / 2), at(0), at(values.len().saturating_sub(1)))
}

async fn writes(
    dir: &Path,
    rounds: usize,
    time: Duration,
    is_chosen: impl Fn(&str, usize) -> bool,
) -> Result<(), Box<dyn Error>> {
    let work = dir.join(format!("raft-bench-{}", std::process::id()));
    let mut figures = vec![Vec::new(); STORES.len() * LOADS.len()];
    for _ in 0..rounds {
        for (at, load) in LOADS.iter().enumerate() {
            for (number, store) in STORES.iter().enumerate() {
                if !is_chosen(store, at) {
                    continue;
                }
                std::fs::create_dir_all(&work)?;
                let figure = measure(store, *load, &work, time).await?;
                figures[number * LOADS.len() + at].extend(figure);
                std::fs::remove_dir_all(&work)?;
            }
        }
    }
    println!(
        "Durable entries per second, {PAYLOAD} bytes, medians of {rounds} rounds (least - greatest); CPU time of the process for each entry\n"
    );
    println!("| store | one group, 1 client | 64 clients | 256 clients | {GROUPS} groups |");
    println!("|---|---|---|---|---|");
    for (store, cells) in STORES.iter().zip(figures.chunks(LOADS.len())) {
        let cell = |figures: &Vec<Figure>| {
            let (rate, least, most) = median(figures.iter().map(|f| f.per_second).collect());
            let (cpu, ..) = median(figures.iter().map(|f| f.cpu_micros).collect());
            match figures.len() {
                0 => "-".to_owned(),
                _ => format!("{rate:.0} ({least:.0} - {most:.0}), {cpu:.1} us"),
            }
        };
        println!("| {store} | {} |", cells.iter().map(cell).collect::<Vec<_>>().join(" | "));
    }
    Ok(())
}

async fn open(dir: &Path, entries: u64, rounds: usize) -> Result<(), Box<dyn Error>> {
    const BATCH: u64 = 1000;
    let work = dir.join(format!("raft-bench-{}", std::process::id()));
    let logs = RaftLogs::open(ringwal::Wal::builder(&work))?;
    let mut log = logs.group::<Types>(1);
    let (began, cpu_before) = (Instant::now(), cpu()?);
    let mut index = 1;
    while index <= entries {
        let batch: Vec<_> = (index..index + BATCH).map(|index| entry(index, PAYLOAD)).collect();
        log.blocking_append(batch).await?;
        index += BATCH;
    }
    let micros = (cpu()? - cpu_before).as_micros() as f64 / entries as f64;
    println!(
        "{entries} entries in batches of {BATCH}: {:?}, {micros:.2} us of CPU time for each",
        began.elapsed()
    );
    logs.close()?;
    drop((log, logs));
    let mut seconds = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        let logs = RaftLogs::open(ringwal::Wal::builder(&work))?;
        seconds.push(began.elapsed().as_secs_f64());
        logs.close()?;
    }
    let (middle, least, most) = median(seconds);
    println!("opening: {middle:.2} s ({least:.2} - {most:.2}), {rounds} times");
    std::fs::remove_dir_all(&work)?;
    Ok(())
}
