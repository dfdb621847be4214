//! The process that is killed: opens the log and writes until the kill.
//!
//! Three threads append: single records with a wait for every third, batches of three, and records
//! filled in place. A line on standard error acknowledges a record after it is durable.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use ringwal::{BackendChoice, CommitMethod, Durability, Error, Lsn, Wal};

pub(crate) const THREADS: u32 = 3;
/// The thread that writes batches.
pub(crate) const BATCHES: u32 = 1;
/// Number of records in a batch.
pub(crate) const BATCH: u32 = 3;

/// The settings of an open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Config {
    /// 0: io_uring with the linked sync, 1: io_uring with DSYNC, 2: std.
    backend: u32,
    mode: u32,
    retention: bool,
}

impl Config {
    pub(crate) fn random(rng: &mut fastrand::Rng, retention: bool, both: bool) -> Self {
        let backend = if both { rng.u32(..3) } else { 2 };
        Config { backend, mode: rng.u32(..3), retention }
    }

    pub(crate) fn number(self) -> u32 {
        self.backend + 3 * self.mode + 9 * u32::from(self.retention)
    }

    fn of(number: u32) -> Self {
        Config { backend: number % 3, mode: number / 3 % 3, retention: number >= 9 }
    }

    pub(crate) fn open(self, dir: &Path) -> Result<Wal, Error> {
        let backend = if self.backend == 2 { BackendChoice::Std } else { BackendChoice::IoUring };
        let method =
            if self.backend == 1 { CommitMethod::Dsync } else { CommitMethod::LinkedFsync };
        let durability = match self.mode {
            0 => Durability::EveryGroup,
            1 => Durability::Interval(Duration::from_millis(2)),
            _ => Durability::Manual,
        };
        // A small ring: even short lives fill it and wait for room, and they start quickly.
        let builder = Wal::builder(dir)
            .segment_size(64 << 10)
            .max_record_size(4 << 10)
            .ring_capacity(64 << 10)
            .backend(backend)
            .commit_method(method)
            .durability(durability);
        if self.retention { builder.max_segments(5).open() } else { builder.open() }
    }
}

/// The payload of a record: its round, thread and number, and bytes derived from them.
pub(crate) fn payload(round: u32, thread: u32, n: u32) -> Vec<u8> {
    let len = (n as usize * 37 + round as usize * 11) % 900;
    let mut bytes = format!("{round} {thread} {n} ").into_bytes();
    bytes.extend((0..len).map(|i| (i as u32 ^ n ^ thread ^ round) as u8));
    bytes
}

pub(crate) fn parse(payload: &[u8]) -> (u32, u32, u32) {
    let mut parts = payload.splitn(4, |&b| b == b' ');
    let mut number = || std::str::from_utf8(parts.next().unwrap()).unwrap().parse().unwrap();
    (number(), number(), number())
}

/// Writes one short line with one call, so that it arrives whole or not at all.
fn say(line: &str) {
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

fn acknowledge(thread: u32, n: u32, lsn: Lsn) {
    say(&format!("ack {thread} {n} {}\n", lsn.as_u64()));
}

fn write(wal: &Wal, round: u32, thread: u32) {
    let mut n = 0;
    loop {
        if thread == BATCHES {
            let records: Vec<_> = (n..n + BATCH).map(|n| payload(round, thread, n)).collect();
            let lsn = wal.append_batch(&records).unwrap();
            if n % 2 == 0 {
                wal.wait_durable(lsn).unwrap();
                acknowledge(thread, n, lsn);
            }
            n += BATCH;
            continue;
        }
        let bytes = payload(round, thread, n);
        let lsn = match (thread, n % 4) {
            (0, _) => wal.append(&bytes).unwrap(),
            (_, 0) => wal.append_durable(&bytes).unwrap(),
            _ => wal.append_with(bytes.len(), |room| room.copy_from_slice(&bytes)).unwrap(),
        };
        if thread == 0 && n % 3 == 0 {
            wal.wait_durable(lsn).unwrap();
            acknowledge(thread, n, lsn);
        } else if thread == 2 && n % 4 == 0 {
            acknowledge(thread, n, lsn);
        }
        n += 1;
    }
}

/// Does nothing unless [`super::life`] has started this process.
pub(crate) fn run() {
    let Ok(dir) = std::env::var("RINGWAL_KILL_DIR") else { return };
    let number = |name| std::env::var(name).unwrap().parse::<u32>().unwrap();
    let (round, config) = (number("RINGWAL_KILL_ROUND"), number("RINGWAL_KILL_CONFIG"));
    say("opening\n");
    let wal = Config::of(config).open(Path::new(&dir)).unwrap();
    say("open\n");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let wal = &wal;
            scope.spawn(move || write(wal, round, thread));
        }
    });
}
