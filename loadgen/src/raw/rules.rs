//! The rules that systems publish for their disks, measured as published: sequential writes into a
//! file, each followed by a timed `fdatasync`.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::error::Error;
use crate::measure::latency::Latencies;
use crate::random::SplitMix;
use crate::raw::write_all_at;
use crate::stop::Stop;
use crate::units::nanos;

/// A system with a published rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum System {
    /// p99 of fdatasync under 10 ms, of writes of 2300 bytes
    Etcd,
    /// The rule of etcd, as the platform's own check measures it
    Openshift,
    /// p99 of fdatasync under 10 ms, of writes of 8 KiB as pg_test_fsync makes them
    Postgres,
    /// p99 of fdatasync under 20 ms, the broadcast time of the paper, of writes of 4 KiB
    Raft,
    /// p99 of fdatasync under 50 ms, of writes of 1 MiB
    Kafka,
}

/// A rule: the measurement and its bound.
#[derive(Debug, Clone, Copy)]
struct Rule {
    bytes: usize,
    /// Latencies of all writes.
    total: u64,
    bound: Duration,
    says: &'static str,
    source: &'static str,
}

/// The result of a rule.
#[derive(Debug, Clone)]
pub struct Verdict {
    system: System,
    bytes: usize,
    latencies: Latencies,
    /// True if the disk meets the rule.
    pub passes: bool,
}

/// Ten samples beyond the 99th percentile.
const LEAST: u64 = 1000;
/// A disk that needs longer for them fails.
const LONGEST: Duration = Duration::from_secs(120);
const QUANTILE: f64 = 0.99;

impl System {
    /// Returns the name that `--for` accepts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            System::Etcd => "etcd",
            System::Openshift => "openshift",
            System::Postgres => "postgres",
            System::Raft => "raft",
            System::Kafka => "kafka",
        }
    }

    fn rule(self) -> Rule {
        let ms = Duration::from_millis;
        match self {
            System::Etcd => Rule {
                bytes: 2300,
                total: 22 << 20,
                bound: ms(10),
                says: "the 99th percentile of fdatasync is less than 10 ms",
                source: "etcd's documentation of wal_fsync_duration_seconds; fio --rw=write --ioengine=sync --fdatasync=1 --size=22m --bs=2300",
            },
            System::Openshift => Rule {
                says: "the 99th percentile of fsync is less than 10 ms, as its etcd-perf image measures it",
                source: "OpenShift's recommended etcd practices",
                ..System::Etcd.rule()
            },
            System::Postgres => Rule {
                bytes: 8192,
                total: 16 << 20,
                bound: ms(10),
                says: "one write of 8 kB with fdatasync, as pg_test_fsync makes it; PostgreSQL publishes no bound, and that of etcd is taken",
                source: "PostgreSQL's documentation of pg_test_fsync",
            },
            System::Raft => Rule {
                bytes: 4096,
                total: 16 << 20,
                bound: ms(20),
                says: "a broadcast with its write to stable storage takes 0.5 to 20 ms, well below the election timeout",
                source: "In Search of an Understandable Consensus Algorithm, section 5.6",
            },
            System::Kafka => Rule {
                bytes: 1 << 20,
                total: 1 << 30,
                bound: ms(50),
                says: "the 99th percentile of LogFlushRateAndTimeMs stays below 50 ms on an SSD; Kafka itself publishes no bound",
                source: "operators' guides to the metric kafka.log:type=LogFlushStats",
            },
        }
    }

    /// Measures by the rule, with writes of `size` bytes if given. `None` after an interruption.
    pub(crate) fn judge(
        self,
        dir: &Path,
        size: Option<u64>,
        stop: &Stop,
    ) -> Result<Option<Verdict>, Error> {
        let rule = self.rule();
        let bytes = size.map_or(rule.bytes, |size| size as usize);
        let writes = (rule.total / bytes as u64).max(LEAST);
        let failed = |e: io::Error| Error::Baseline(e.to_string());
        let latencies = fdatasyncs(dir, bytes, writes, stop).map_err(failed)?;
        if stop.was_signalled() {
            return Ok(None);
        }
        let enough = latencies.count() >= LEAST.min(writes);
        let passes = enough && u128::from(latencies.quantile_ns(QUANTILE)) < rule.bound.as_nanos();
        Ok(Some(Verdict { system: self, bytes, latencies, passes }))
    }
}

/// Times `fdatasync` after each of this many writes, through the page cache.
fn fdatasyncs(dir: &Path, bytes: usize, writes: u64, stop: &Stop) -> io::Result<Latencies> {
    /// Offset at which the file wraps.
    const LARGEST: u64 = 256 << 20;
    let path = dir.join(format!("fdatasync-{}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    // The file is unlinked, so that nothing remains of it.
    std::fs::remove_file(&path)?;
    let length = (writes * bytes as u64).min(LARGEST).max(bytes as u64);
    allocate(&file, length)?;
    file.sync_all()?;
    let mut random = SplitMix(1);
    let content: Vec<u8> = (0..bytes).map(|_| random.next() as u8).collect();
    let (begun, mut latencies, mut at) = (Instant::now(), Latencies::new(), 0);
    for _ in 0..writes {
        if stop.was_signalled() || begun.elapsed() > LONGEST {
            break;
        }
        if at + bytes as u64 > length {
            at = 0;
        }
        write_all_at(&file, &content, at)?;
        at += bytes as u64;
        let written = Instant::now();
        file.sync_data()?;
        latencies.record(written.elapsed());
    }
    Ok(latencies)
}

/// Allocates the blocks of the file, as `fio` and `etcd` do, if the filesystem supports it.
fn allocate(file: &std::fs::File, length: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use nix::fcntl::{FallocateFlags, fallocate};
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        if fallocate(file, FallocateFlags::empty(), 0, length).is_ok() {
            return Ok(());
        }
    }
    file.set_len(length)
}

impl Verdict {
    /// Returns a line for the table: `etcd: PASS: ...`.
    #[must_use]
    pub fn line(&self) -> String {
        let rule = self.system.rule();
        let q = |quantile| nanos(self.latencies.quantile_ns(quantile));
        format!(
            "{}: {}: p99 of fdatasync is {} (p50 {}, p99.9 {}, max {}; {} writes of {} bytes), bound {}. The rule: {}.",
            self.system.name(),
            if self.passes { "PASS" } else { "FAIL" },
            q(QUANTILE),
            q(0.5),
            q(0.999),
            nanos(self.latencies.max_ns()),
            self.latencies.count(),
            self.bytes,
            nanos(rule.bound.as_nanos() as u64),
            rule.says
        )
    }

    /// Returns the JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        let rule = self.system.rule();
        let ns = |quantile| self.latencies.quantile_ns(quantile);
        json!({
            "system": self.system.name(),
            "rule": rule.says,
            "source": rule.source,
            "bytes": self.bytes,
            "writes": self.latencies.count(),
            "bound_ns": rule.bound.as_nanos() as u64,
            "p50_ns": ns(0.5),
            "p99_ns": ns(QUANTILE),
            "p99_9_ns": ns(0.999),
            "max_ns": self.latencies.max_ns(),
            "passes": self.passes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_has_enough_samples_for_its_percentile() {
        for system in System::value_variants() {
            let rule = system.rule();
            let writes = (rule.total / rule.bytes as u64).max(LEAST);
            assert!(writes as f64 >= 10.0 / (1.0 - QUANTILE), "{}", system.name());
            assert!(rule.bound >= Duration::from_millis(10) && !rule.source.is_empty());
        }
    }

    #[test]
    fn interrupted_rule_has_no_verdict() {
        let dir = std::env::temp_dir();
        let latencies = fdatasyncs(&dir, 2300, 20, &Stop::default()).unwrap();
        assert!(latencies.count() == 20 && latencies.max_ns() > 0);
        let stop = Stop::default();
        let _ = stop.signal();
        assert!(System::Etcd.judge(&dir, None, &stop).unwrap().is_none());
    }

    #[test]
    fn disk_passes_if_its_percentile_is_under_the_bound() {
        let mut latencies = Latencies::new();
        (0..1000).for_each(|_| latencies.record(Duration::from_millis(3)));
        let verdict = Verdict { system: System::Etcd, bytes: 2300, latencies, passes: true };
        assert!(verdict.line().starts_with("etcd: PASS: p99 of fdatasync is 3.00 ms"));
        assert_eq!(verdict.json()["bound_ns"], 10_000_000);
    }
}
