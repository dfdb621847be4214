//! The program that is crashed: appends tagged records, and reports every acknowledgement with the
//! disk's sequence number at its receipt.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use ringwal::{BackendChoice, CommitMethod, Durability, Error, Lsn, Wal, WalBuilder};

/// The settings of a log that a seed chooses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Config {
    pub(crate) backend: BackendChoice,
    pub(crate) method: CommitMethod,
    pub(crate) durability: Durability,
    pub(crate) max_segments: Option<usize>,
    pub(crate) threads: u32,
    pub(crate) lives: u32,
    /// Milliseconds of each life.
    pub(crate) life: u64,
}

impl Config {
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0xC0FF_EE00);
        Config {
            backend: [BackendChoice::Auto, BackendChoice::Auto, BackendChoice::Std][rng.usize(..3)],
            method: [CommitMethod::LinkedFsync, CommitMethod::Dsync][rng.usize(..2)],
            durability: match rng.u8(..5) {
                0 => Durability::Interval(Duration::from_millis(rng.u64(1..10))),
                1 => Durability::Manual,
                _ => Durability::EveryGroup,
            },
            max_segments: [None, Some(3), Some(5)][rng.usize(..3)],
            threads: rng.u32(1..6),
            lives: rng.u32(1..4),
            life: rng.u64(60..250),
        }
    }

    pub(crate) fn builder(&self, mount: &Path) -> WalBuilder {
        let builder = Wal::builder(mount.join("log"))
            .segment_size(256 << 10)
            .backend(self.backend)
            .commit_method(self.method)
            .durability(self.durability);
        match self.max_segments {
            Some(n) => builder.max_segments(n),
            None => builder,
        }
    }
}

/// The tag of a record: its thread, its number in the thread, and its place in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) thread: u32,
    pub(crate) n: u32,
    pub(crate) batch: u32,
    pub(crate) index: u32,
}

const TAG: usize = 16;

pub(crate) fn payload(tag: Tag) -> Vec<u8> {
    let Tag { thread, n, batch, index } = tag;
    let mut bytes = Vec::new();
    for word in [thread, n, batch, index] {
        bytes.extend(word.to_le_bytes());
    }
    let mut rng = Rng::with_seed(u64::from(thread) << 32 | u64::from(n));
    let len = match rng.u8(..10) {
        0 => 0,
        9 => rng.usize(..20_000),
        _ => rng.usize(..400),
    };
    bytes.extend(std::iter::repeat_with(|| rng.u8(..)).take(if batch > 1 {
        len % 500
    } else {
        len
    }));
    bytes
}

/// Returns the tag of a payload with intact content.
pub(crate) fn tag(bytes: &[u8]) -> Option<Tag> {
    let mut words =
        bytes.get(..TAG)?.chunks(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
    let tag =
        Tag { thread: words.next()?, n: words.next()?, batch: words.next()?, index: words.next()? };
    (payload(tag) == bytes).then_some(tag)
}

/// One line of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    /// The disk's sequence number: every earlier event of the disk has a lower one.
    pub(crate) sequence: u64,
    pub(crate) thread: u32,
    pub(crate) n: u32,
    pub(crate) lsn: u64,
}

impl Ack {
    pub(crate) fn parse(line: &str) -> Option<Ack> {
        let mut parts = line.strip_prefix("ack ")?.split(' ').map(str::parse::<u64>);
        let mut next = || parts.next()?.ok();
        Some(Ack { sequence: next()?, thread: next()? as u32, n: next()? as u32, lsn: next()? })
    }
}

struct Reporter {
    sequence: memmap2::MmapRaw,
    out: Mutex<io::Stdout>,
}

impl Reporter {
    fn sequence(&self) -> u64 {
        // SAFETY: the mapping is one page, aligned, and lives as long as self; both processes use
        // this word as an atomic only.
        unsafe { AtomicU64::from_ptr(self.sequence.as_mut_ptr().cast()) }.load(Ordering::SeqCst)
    }

    fn say(&self, line: &str) {
        let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Writes one line with one call. If the parent has gone, the workload continues.
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}

/// Time for which a killed predecessor may keep the log locked.
const LOCKED: Duration = Duration::from_secs(60);

fn open(config: &Config, mount: &Path) -> Result<Wal, Error> {
    let until = Instant::now() + LOCKED;
    loop {
        match config.builder(mount).open() {
            Err(Error::Locked { .. }) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened,
        }
    }
}

/// Runs the workload of a seed, with threads numbered from `first_thread`. Returns after its lives,
/// or after the log has failed and refused every further call.
///
/// # Errors
///
/// A violation: something that the log must not do.
pub(crate) fn run(
    mount: &Path,
    seed: u64,
    sequence: &Path,
    first_thread: u32,
) -> Result<(), String> {
    let config = Config::of(seed);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(sequence);
    let file = file.map_err(|e| format!("{}: {e}", sequence.display()))?;
    let sequence =
        memmap2::MmapOptions::new().len(4096).map_raw(&file).map_err(|e| e.to_string())?;
    let reporter = Arc::new(Reporter { sequence, out: Mutex::new(io::stdout()) });
    let mut counters = vec![0_u32; config.threads as usize];
    for life in 0..config.lives {
        let wal = match open(&config, mount) {
            Ok(wal) => wal,
            Err(e @ (Error::Io { .. } | Error::Poisoned { .. } | Error::NoSpace)) => {
                reporter.say(&format!("failed open: {e}\n"));
                return Ok(());
            }
            Err(e) => return Err(format!("open: {e}")),
        };
        let until = Instant::now() + Duration::from_millis(config.life);
        let threads: Vec<_> = (0..config.threads)
            .map(|thread| {
                let (wal, reporter) = (wal.clone(), Arc::clone(&reporter));
                let first = counters[thread as usize];
                let thread = first_thread + thread;
                let seed = seed ^ u64::from(life) << 40 ^ u64::from(thread) << 50;
                std::thread::spawn(move || produce(&wal, &reporter, thread, first, seed, until))
            })
            .collect();
        let mut failed = None;
        for (counter, thread) in counters.iter_mut().zip(threads) {
            let (next, error) = thread.join().map_err(|_| "a producer panicked".to_owned())?;
            *counter = next;
            failed = failed.or(error);
        }
        if let Some(e) = failed {
            reporter.say(&format!("failed: {e}\n"));
            return refuses(&wal, &e);
        }
        match wal.close() {
            Ok(()) => {}
            Err(e @ Error::Poisoned { .. }) => {
                reporter.say(&format!("failed close: {e}\n"));
                return Ok(());
            }
            Err(e) => return Err(format!("close: {e}")),
        }
    }
    reporter.say("done\n");
    Ok(())
}

/// Appends until the time is over. Returns the next number, and the error that ended the loop.
fn produce(
    wal: &Wal,
    reporter: &Reporter,
    thread: u32,
    first: u32,
    seed: u64,
    until: Instant,
) -> (u32, Option<Error>) {
    let mut rng = Rng::with_seed(seed);
    let mut n = first;
    while Instant::now() < until {
        let batch = if rng.u8(..8) == 0 { rng.u32(2..6) } else { 1 };
        let payloads: Vec<_> =
            (0..batch).map(|index| payload(Tag { thread, n: n + index, batch, index })).collect();
        let appended = match &payloads[..] {
            [one] => wal.append(one),
            many => wal.append_batch(many),
        };
        let lsn = match appended {
            Ok(lsn) => lsn,
            Err(e) => return (n, Some(e)),
        };
        n += batch;
        // The first record of a batch stands for the batch.
        let acknowledged = n - batch;
        if rng.u8(..3) == 0 {
            match wal.wait_durable(lsn) {
                Ok(()) => {
                    let sequence = reporter.sequence();
                    let lsn = lsn.as_u64();
                    reporter.say(&format!("ack {sequence} {thread} {acknowledged} {lsn}\n"));
                }
                Err(e) => return (n, Some(e)),
            }
        } else if rng.u8(..16) == 0 {
            std::thread::sleep(Duration::from_micros(rng.u64(..2000)));
        }
    }
    (n, None)
}

/// Checks that a failed log accepts and acknowledges no further record.
fn refuses(wal: &Wal, why: &Error) -> Result<(), String> {
    if !matches!(why, Error::Poisoned { .. }) {
        return Err(format!("not the error of a failed log: {why}"));
    }
    let end = wal.durable_end();
    for _ in 0..50 {
        match wal.append_durable(b"more") {
            Err(Error::Poisoned { .. }) => {}
            other => return Err(format!("an append after the failure: {other:?}")),
        }
    }
    if wal.durable_end() != end || wal.wait_durable(Lsn::new(end.as_u64())).is_ok() {
        return Err("the durable end moved after the failure".into());
    }
    match wal.close() {
        Err(Error::Poisoned { .. }) => Ok(()),
        other => Err(format!("close after the failure: {other:?}")),
    }
}
