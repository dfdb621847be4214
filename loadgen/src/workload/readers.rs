//! Readers beside the writers: followers and consumers, their delivery latency, and their time to
//! catch up.
//!
//! 1. The position of a record alone decides if it is timed. So writers and readers agree without
//!    communication.
//! 2. A record counts as durable when the log calls back for it, before the log wakes any waiter.
//!    It counts as delivered when its reader has it.
//! 3. A follower that retention overtook continues at the oldest record and counts the event.
//!    Retention waits for consumers.
//! 4. With several logs, each has these followers and consumers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringwal::{Lsn, Wal};
use serde_json::{Value, json};

use crate::engine::Position;
use crate::error::Error;
use crate::logs::{Logs, place, position};
use crate::measure::latency::Latencies;
use crate::stop::lock;

/// One of this many records is timed.
const STRIDE: u64 = 64;
/// Timed records of each reader at most.
const MOST: usize = 1 << 20;
/// Interval at which a consumer commits, and a reader checks if the writers are done.
const COMMIT: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(20);
/// Time that readers have to catch up.
const LONGEST: Duration = Duration::from_secs(120);

fn is_timed(at: Position) -> bool {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).is_multiple_of(STRIDE)
}

/// The times at which records became durable.
#[derive(Debug)]
pub struct Deliveries {
    logs: Logs,
    durable: Arc<Mutex<Vec<(Position, Instant)>>>,
}

impl Deliveries {
    /// Creates an empty table for these logs.
    #[must_use]
    pub fn new(logs: &Logs) -> Self {
        Deliveries { logs: logs.clone(), durable: Arc::default() }
    }

    /// Notes an appended record. Producers call it for each one.
    #[inline]
    pub fn appended(&self, at: Position) {
        if is_timed(at) {
            self.call_back(at);
        }
    }

    #[cold]
    fn call_back(&self, at: Position) {
        let durable = Arc::clone(&self.durable);
        let (log, lsn) = place(at);
        self.logs.all()[log].on_durable(lsn, move |done| {
            let now = Instant::now();
            let mut durable = lock(&durable);
            if done.is_ok() && durable.len() < MOST {
                durable.push((at, now));
            }
        });
    }
}

/// The results of all readers.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Followers and consumers: the number of each.
    pub followers: usize,
    /// Readers that commit.
    pub consumers: usize,
    /// Delivered records, over all readers.
    pub records: u64,
    /// Latencies from durable to delivered.
    pub latencies: Latencies,
    /// Time from the end of the run until the last reader had everything. `None` if a reader did
    /// not catch up.
    pub catch_up: Option<Duration>,
    /// Number of times that retention overtook a follower.
    pub overtaken: u64,
}

#[derive(Debug, Default)]
struct Read {
    records: u64,
    delivered: Vec<(Position, Instant)>,
    overtaken: u64,
    last: Option<Instant>,
    caught_up: bool,
    seen_over: bool,
    since: Option<Instant>,
}

/// The running readers.
#[derive(Debug)]
pub struct Readers {
    threads: Vec<JoinHandle<Result<Read, Error>>>,
    over: Arc<AtomicBool>,
    deliveries: Arc<Deliveries>,
    counts: [usize; 2],
    names: Vec<String>,
}

impl Readers {
    /// Starts followers and consumers at the end of each log.
    ///
    /// # Errors
    ///
    /// Those of the log, and of starting threads.
    pub fn start(
        logs: &Logs,
        followers: usize,
        consumers: usize,
        deliveries: &Arc<Deliveries>,
    ) -> Result<Readers, Error> {
        let over = Arc::new(AtomicBool::new(false));
        let mut readers = Readers {
            threads: Vec::new(),
            over,
            deliveries: Arc::clone(deliveries),
            counts: [followers, consumers],
            names: Vec::new(),
        };
        // The name contains the process id: another run may have consumers in the same log.
        let name = |n| format!("loadgen-{}-{n}", std::process::id());
        readers.names.extend((0..consumers).map(name));
        for (log, wal) in logs.all().iter().enumerate() {
            let from = wal.durable_end();
            for n in 0..followers {
                let (wal, over) = (wal.clone(), Arc::clone(&readers.over));
                let body = move || follow(&wal, log, from, &over);
                readers.spawn(format!("follower-{n}"), body)?;
            }
            for n in 0..consumers {
                let (wal, over) = (wal.clone(), Arc::clone(&readers.over));
                let name = name(n);
                let body = move || consume(&wal, &name, log, from, &over);
                readers.spawn(format!("consumer-{n}"), body)?;
            }
        }
        Ok(readers)
    }

    fn spawn(
        &mut self,
        name: String,
        body: impl FnOnce() -> Result<Read, Error> + Send + 'static,
    ) -> Result<(), Error> {
        let spawned = std::thread::Builder::new().name(name).spawn(body);
        let wrong = |source| Error::System { what: "start a reader", source };
        self.threads.push(spawned.map_err(wrong)?);
        Ok(())
    }

    /// Waits until all readers have every record, and removes the consumers.
    ///
    /// # Errors
    ///
    /// Those of the log.
    pub fn finish(mut self) -> Result<Report, Error> {
        let ended = Instant::now();
        self.over.store(true, Ordering::Relaxed);
        let [followers, consumers] = self.counts;
        let mut report = Report { followers, consumers, ..Report::default() };
        let (mut last, mut all, mut failed) = (ended, true, None);
        let mut delivered = Vec::new();
        for thread in self.threads.drain(..) {
            match thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
                Ok(read) => {
                    report.records += read.records;
                    report.overtaken += read.overtaken;
                    last = last.max(read.last.unwrap_or(ended));
                    all &= read.caught_up;
                    delivered.push(read.delivered);
                }
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        for wal in self.deliveries.logs.all() {
            for name in &self.names {
                // A consumer that is already removed needs no removal.
                let _ = wal.remove_consumer(name);
            }
        }
        if let Some(e) = failed {
            return Err(e);
        }
        let durable: HashMap<Position, Instant> =
            lock(&self.deliveries.durable).iter().copied().collect();
        for (at, when) in delivered.iter().flatten() {
            if let Some(durable) = durable.get(at) {
                report.latencies.record(when.saturating_duration_since(*durable));
            }
        }
        report.catch_up = all.then(|| last.duration_since(ended));
        Ok(report)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        // After an error elsewhere, the results of the readers are discarded.
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Read {
    fn note(&mut self, at: Position, over: &AtomicBool) {
        self.records += 1;
        let timed = is_timed(at) && self.delivered.len() < MOST;
        if timed || over.load(Ordering::Relaxed) {
            let now = Instant::now();
            self.last = Some(now);
            if timed {
                self.delivered.push((at, now));
            }
        }
    }

    /// Checks after an idle wait if the reader is done. If the writers ended before the wait, the
    /// reader has everything.
    fn is_done(&mut self, over: &AtomicBool) -> bool {
        let seen = std::mem::replace(&mut self.seen_over, over.load(Ordering::Relaxed));
        self.caught_up = seen;
        seen
    }

    /// True if the reader exceeded its time after the end of the writers.
    fn is_late(&mut self, over: &AtomicBool) -> bool {
        if !self.records.is_multiple_of(1024) || !over.load(Ordering::Relaxed) {
            return false;
        }
        self.since.get_or_insert_with(Instant::now).elapsed() > LONGEST
    }
}

fn follow(wal: &Wal, log: usize, from: Lsn, over: &AtomicBool) -> Result<Read, Error> {
    let mut read = Read::default();
    let mut follower = wal.follow(from)?;
    loop {
        match follower.next_timeout(LOOK) {
            Ok(Some(record)) => {
                read.note(position(log, record.lsn), over);
                if read.is_late(over) {
                    return Ok(read);
                }
            }
            Ok(None) if read.is_done(over) => return Ok(read),
            Ok(None) => {}
            Err(ringwal::Error::Pruned { oldest }) => {
                read.overtaken += 1;
                follower = wal.follow(oldest)?;
            }
            Err(e) => return Err(e.into()),
        }
    }
}

fn consume(wal: &Wal, name: &str, log: usize, from: Lsn, over: &AtomicBool) -> Result<Read, Error> {
    let mut read = Read::default();
    let mut consumer = wal.consumer(name)?;
    consumer.seek(from)?;
    let (mut committed, mut done) = (Instant::now(), None);
    loop {
        let waited = match consumer.records()?.next_timeout(LOOK)? {
            Some(record) => {
                read.note(position(log, record.lsn), over);
                done = Some(record.lsn);
                false
            }
            None => true,
        };
        if let Some(lsn) = done.filter(|_| waited || committed.elapsed() > COMMIT) {
            consumer.commit(lsn)?;
            (committed, done) = (Instant::now(), None);
        }
        if (waited && read.is_done(over)) || read.is_late(over) {
            return Ok(read);
        }
    }
}

impl Report {
    /// Returns the report as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let us = |quantile| self.latencies.quantile_ns(quantile) as f64 / 1000.0;
        json!({
            "followers": self.followers,
            "consumers": self.consumers,
            "records": self.records,
            "overtaken": self.overtaken,
            "catch_up_s": self.catch_up.map(|time| time.as_secs_f64()),
            "latency_us": {
                "p50": us(0.5),
                "p99": us(0.99),
                "p99_9": us(0.999),
                "max": self.latencies.max_ns() as f64 / 1000.0,
                "count": self.latencies.count(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_receive_every_record_and_measure_latencies() {
        let dir = std::env::temp_dir().join(format!("loadgen-readers-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let wal = Wal::builder(&dir).segment_size(1 << 20).open().unwrap();
        wal.append_durable(b"before").unwrap();
        let logs = Logs::from(wal.clone());
        let deliveries = Arc::new(Deliveries::new(&logs));
        let readers = Readers::start(&logs, 2, 1, &deliveries).unwrap();
        for _ in 0..3000 {
            deliveries.appended(wal.append(b"record").unwrap().as_u64());
        }
        wal.sync().unwrap();
        let report = readers.finish().unwrap();
        assert_eq!((report.records, report.overtaken), (9000, 0));
        assert!(report.catch_up.is_some());
        assert!((3 * 20..3 * 100).contains(&report.latencies.count()), "{report:?}");
        assert!(wal.consumers().is_empty(), "they are removed");
        drop((deliveries, logs));
        wal.close().unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
