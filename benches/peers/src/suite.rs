//! All measurements, in rounds: a disturbance of the machine affects every peer.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use loadgen::raw::{self, Method, Request};

use crate::device::{Flushes, between};
use crate::peer::{ALL, Entry, Result, find};
use crate::workload::{Figures, Task, Times};
use crate::{Args, Choice, cell};

/// Threads and sizes of the relaxed workload.
const RELAXED: [(u64, usize); 4] = [(1, 100), (8, 100), (1, 1024), (8, 1024)];
const RECOVERY_RECORD: usize = 1024;

/// Bytes of a write to the raw device.
const BLOCK: usize = 4096;
/// Bytes of the raw device that are overwritten in turn.
const AREA: u64 = 64 << 20;
/// Time of the measurement of the raw device.
const RAW_TIME: Duration = Duration::from_millis(500);

/// Time before each round in which the flushes of other processes are counted.
const IDLE_TIME: Duration = Duration::from_millis(500);

/// Everything that was measured.
pub struct Suite {
    /// The disk, in words.
    pub device: String,
    /// Times of each measurement.
    pub times: Times,
    /// Flushes per second before each round, while the suite is idle: those of other processes,
    /// which disturb the flush check.
    pub idle_flushes_per_s: Vec<f64>,
    /// The raw device, once a round.
    pub raw: Vec<std::result::Result<Raw, String>>,
    /// The tasks, in order.
    pub tasks: Vec<Task>,
    /// Every peer with every task.
    pub rows: Vec<Row>,
}

/// The raw device: the better of two methods.
pub struct Raw {
    /// Name of the method.
    pub method: &'static str,
    /// Durable writes per second.
    pub writes_per_s: f64,
    /// Median time of one write, in nanoseconds.
    pub p50_ns: u64,
    pub p999_ns: u64,
}

/// A peer with a task.
pub struct Row {
    /// The peer.
    pub entry: &'static Entry,
    /// The task.
    pub task: Task,
    /// The result of each round.
    pub rounds: Vec<std::result::Result<Figures, String>>,
}

/// A directory that is removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn create(path: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&path)?;
        // The path to remove later must not depend on the current directory.
        Ok(Scratch(path.canonicalize()?))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs what `args` ask for.
pub fn run(args: &Args) -> Result<Suite> {
    let peers = chosen(&args.only)?;
    let times = Times {
        run: Duration::from_secs_f64(args.seconds),
        warm_up: Duration::from_secs_f64(args.warm_up),
    };
    let tasks = tasks(args)?;
    let scratch = Scratch::create(args.dir.join(format!("ringwal-peers-{}", std::process::id())))?;
    let flushes = Flushes::under(&scratch.0);
    let mut rows: Vec<Row> = Vec::new();
    for &task in &tasks {
        rows.extend(peers.iter().map(|&entry| Row { entry, task, rounds: Vec::new() }));
    }
    let (mut raw, mut idle_flushes_per_s) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        idle_flushes_per_s.extend(idle_flushes(&flushes));
        raw.push(measure_raw(&scratch.0).map_err(|e| e.to_string()));
        for row in &mut rows {
            let result = measure(row, &scratch.0, times).map_err(|e| e.to_string());
            progress(round, args.rounds, row, &result);
            row.rounds.push(result);
        }
    }
    let device = flushes.describe();
    Ok(Suite { device, times, idle_flushes_per_s, raw, tasks, rows })
}

fn idle_flushes(flushes: &Flushes) -> Option<f64> {
    let before = flushes.read();
    std::thread::sleep(IDLE_TIME);
    let flushes = between(before, flushes.read())?;
    Some(flushes as f64 / IDLE_TIME.as_secs_f64())
}

fn chosen(only: &[String]) -> Result<Vec<&'static Entry>> {
    if only.is_empty() {
        return Ok(ALL.iter().collect());
    }
    let find = |name: &String| find(name).ok_or_else(|| format!("no peer {name:?}; see --list"));
    Ok(only.iter().map(find).collect::<std::result::Result<_, _>>()?)
}

fn tasks(args: &Args) -> Result<Vec<Task>> {
    let wants = |choice| args.workload == choice || args.workload == Choice::All;
    let mut tasks = Vec::new();
    if wants(Choice::Blocking) {
        for &size in &args.size {
            let size = usize::try_from(size)?;
            tasks.extend(args.threads.iter().map(|&threads| Task::Blocking { threads, size }));
        }
    }
    if wants(Choice::Relaxed) {
        tasks.extend(RELAXED.map(|(threads, size)| Task::Relaxed { threads, size }));
    }
    if wants(Choice::Recovery) {
        tasks.push(Task::Replay { size: RECOVERY_RECORD, bytes: args.recovery_mib << 20 });
    }
    Ok(tasks)
}

fn measure(row: &Row, scratch: &Path, times: Times) -> Result<Figures> {
    let dir = Scratch::create(scratch.join(row.entry.name))?;
    if let Task::Replay { size, bytes } = row.task {
        cell::run(row.entry, &dir.0, Task::Fill { size, bytes }, times)?;
    }
    cell::run(row.entry, &dir.0, row.task, times)
}

fn measure_raw(dir: &Path) -> Result<Raw> {
    let mut best: Option<Raw> = None;
    for method in [Method::LinkedFsync, Method::Dsync] {
        let request = Request {
            method,
            group: BLOCK,
            depth: 1,
            direct: true,
            block: BLOCK,
            time: RAW_TIME,
            area: AREA,
        };
        let found = raw::measure(dir, &request)?;
        if best.as_ref().is_none_or(|best| found.groups_per_s > best.writes_per_s) {
            best = Some(Raw {
                method: found.method.name(),
                writes_per_s: found.groups_per_s,
                p50_ns: found.latencies.quantile_ns(0.5),
                p999_ns: found.latencies.quantile_ns(0.999),
            });
        }
    }
    best.ok_or_else(|| "nothing was measured".into())
}

fn progress(round: u64, rounds: u64, row: &Row, result: &std::result::Result<Figures, String>) {
    let found = match result {
        Ok(figures) => format!("{:.0} records/s", figures.records_per_s),
        Err(e) => format!("failed: {e}"),
    };
    let line = format!("round {round}/{rounds}: {:?}: {}: {found}\n", row.task, row.entry.name);
    // Progress is only for a reader of the terminal.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
