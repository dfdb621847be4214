//! `loadgen device`: what a disk can do for a log, without one, and what that means.
//!
//! Every commit method, at some sizes and depths, each for a short while, interleaved over rounds; beside each the
//! flushes that the kernel counted. Then in words: the cache, FUA, direct I/O, the filesystem, io_uring, and what to
//! change.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use ringwal::{BackendKind, Wal};
use serde_json::{Value, json};

use crate::baseline::{self, Method, Request};
use crate::cli::DeviceArgs;
use crate::device::Device;
use crate::directory::RunDir;
use crate::error::Error;
use crate::progress::{Part, Progress};
use crate::stop::Stop;
use crate::units::{bytes, nanos, rate};

const METHODS: [Method; 3] = [Method::LinkedFsync, Method::Dsync, Method::WriteFsync];
const SHAPES: [(usize, usize); 6] =
    [(4096, 1), (4096, 4), (65_536, 1), (65_536, 4), (1 << 20, 1), (1 << 20, 4)];
/// Four at least: `compare` decides nothing by fewer.
const ROUNDS: u32 = 5;
const AREA: u64 = 16 << 20;

/// One method in one shape.
#[derive(Debug, Clone)]
pub struct Cell {
    /// How writes became durable.
    pub method: Method,
    /// Bytes of a write.
    pub size: usize,
    /// Writes in flight.
    pub depth: usize,
    /// Median over the rounds.
    pub bytes_per_s: f64,
    /// Of single writes, median and 99th percentile of the round in the middle, in nanoseconds.
    pub latencies: [u64; 2],
    /// Flushes that the disk was asked for, by writes.
    pub flushes_per_write: Option<f64>,
    /// Bytes a second of every round, ascending.
    pub samples: Vec<f64>,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The disk.
    pub device: Device,
    /// What was measured.
    pub cells: Vec<Cell>,
    /// What it means, a sentence each.
    pub findings: Vec<String>,
}

/// Measures, in a directory that is left as it was.
///
/// # Errors
///
/// Any.
pub fn probe(args: &DeviceArgs, stop: &Arc<Stop>) -> Result<Probe, Error> {
    let dir = RunDir::own(args.dir.as_deref(), false, stop)?;
    let device = Device::under(dir.path());
    let mut progress = Progress::new(args.quiet);
    progress.step("looking at the system", Part::Unknown);
    let findings = findings(&dir, &device)?;
    let time = args.time / ROUNDS / (METHODS.len() * SHAPES.len()) as u32;
    let mut measured: Vec<(Method, usize, usize, Vec<Sample>)> = Vec::new();
    for (size, depth) in SHAPES {
        measured.extend(METHODS.map(|method| (method, size, depth, Vec::new())));
    }
    'rounds: for round in 0..ROUNDS {
        let cells = measured.len();
        for (n, (method, size, depth, samples)) in measured.iter_mut().enumerate() {
            let done = (round as usize * cells + n) as f64 / (ROUNDS as usize * cells) as f64;
            if stop.was_signalled() {
                break 'rounds;
            }
            let what = format!("round {} of {ROUNDS}: {}", round + 1, method.name());
            let what = format!("{what}, {}, {depth} in flight", bytes(*size as f64));
            progress.step(&what, Part::Share(done));
            samples.extend(sample(dir.path(), stop, &device, *method, *size, *depth, time)?);
        }
    }
    progress.clear();
    let cells = measured.into_iter().filter_map(|(method, size, depth, mut samples)| {
        samples.sort_by(|a, b| a.bytes_per_s.total_cmp(&b.bytes_per_s));
        let middle = samples.get(samples.len() / 2)?;
        Some(Cell {
            method,
            size,
            depth,
            bytes_per_s: middle.bytes_per_s,
            latencies: middle.latencies,
            flushes_per_write: middle.flushes_per_write,
            samples: samples.iter().map(|sample| sample.bytes_per_s).collect(),
        })
    });
    let mut probe = Probe { device, cells: cells.collect(), findings };
    probe.conclude();
    Ok(probe)
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    bytes_per_s: f64,
    latencies: [u64; 2],
    flushes_per_write: Option<f64>,
}

/// `None`: the method is not to be had here.
fn sample(
    dir: &std::path::Path,
    stop: &Stop,
    device: &Device,
    method: Method,
    group: usize,
    depth: usize,
    time: Duration,
) -> Result<Option<Sample>, Error> {
    let before = device.flushes();
    let request = Request { method, group, depth, direct: true, block: 4096, time, area: AREA };
    let raw = baseline::measure_until(dir, &request, stop)?;
    // A broken off one says nothing.
    if stop.was_signalled() || raw.method != method || raw.depth != depth {
        return Ok(None);
    }
    let flushes = before.zip(device.flushes()).and_then(|(a, b)| b.checked_sub(a));
    let writes = raw.latencies.count().max(1) as f64;
    Ok(Some(Sample {
        bytes_per_s: raw.bytes_per_s,
        latencies: [0.5, 0.99].map(|share| raw.latencies.quantile_ns(share)),
        flushes_per_write: flushes.map(|n| n as f64 / writes),
    }))
}

fn findings(dir: &RunDir, device: &Device) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".into());
    found.push(match device.write_cache.as_deref() {
        Some("write back") => "The disk has a volatile write cache: what it has accepted is lost with the power until it is flushed. Every commit costs a flush.".into(),
        Some(_) => "The disk says that it has no volatile write cache: what it has accepted is durable, and a flush costs nothing. If that is not so, no log can help.".into(),
        None => "The system does not say whether the disk has a volatile write cache; flushes are made.".into(),
    });
    found.push(match device.fua {
        Some(true) => "It can write through its cache on demand (FUA), so that a synced write needs no flush of everything else.".into(),
        Some(false) => "It cannot write through its cache on demand (no FUA): a synced write is a write and a flush.".into(),
        None => "The system does not say whether the disk can write through its cache (FUA).".into(),
    });
    found.push(match device.filesystem.as_deref() {
        Some(name @ ("ext4" | "xfs")) => format!("The filesystem is {name}, which writes in place and has direct I/O: as good as it gets."),
        Some(name @ ("btrfs" | "zfs")) => format!("The filesystem is {name}, which copies on each write: a sync writes trees too. Give the log a directory on ext4 or XFS, or with nodatacow."),
        Some(name @ ("tmpfs" | "ramfs")) => format!("The filesystem is {name}: nothing here survives a reboot. Give a directory on a disk."),
        Some(name @ ("nfs" | "nfs4" | "cifs" | "fuse" | "9p" | "overlay")) => format!("The filesystem is {name}: what a sync means there is for another system to say. Give a directory on a local disk."),
        _ => format!("The filesystem is {}.", known(&device.filesystem)),
    });
    // What the library itself finds.
    let at = dir.path().join("probe");
    let wal = Wal::builder(&at).segment_size(1 << 20).open()?;
    let info = wal.backend();
    wal.close()?;
    drop(wal);
    let _ = std::fs::remove_dir_all(&at);
    found.push(match info.kind {
        BackendKind::IoUring => "io_uring works here.".into(),
        _ => format!("io_uring does not work here: {}. The log runs on pwrite and fdatasync, one group at a time.", info.reason),
    });
    found.push(match (info.direct_io, info.block_size) {
        (true, block) => format!("Direct I/O works, aligned to {block} bytes: the log's writes pass the page cache by."),
        (false, _) => "Direct I/O does not work here: writes go through the page cache, and each sync looks for them there.".into(),
    });
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let disabled =
        std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let limit = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let limit = limit.lines().find_map(|line| line.strip_prefix("Max locked memory"));
    let limit = limit.and_then(|rest| rest.split_whitespace().next()).unwrap_or("unknown");
    let disabled = if disabled.trim().is_empty() { "not there" } else { disabled.trim() };
    found.push(format!(
        "Kernel {}; kernel.io_uring_disabled is {disabled}; locked memory: {limit}{}.",
        release.trim(),
        if info.registered_buffers {
            ", enough for the ring"
        } else {
            "; the ring is not registered with the kernel"
        }
    ));
    Ok(found)
}

impl Probe {
    fn cell(&self, method: Method, size: usize, depth: usize) -> Option<&Cell> {
        self.cells.iter().find(|c| (c.method, c.size, c.depth) == (method, size, depth))
    }

    /// What the figures mean.
    fn conclude(&mut self) {
        let mut said = Vec::new();
        let p50 = |method| self.cell(method, 4096, 1).map(|cell| cell.latencies[0]);
        if let (Some(linked), Some(dsync)) = (p50(Method::LinkedFsync), p50(Method::Dsync)) {
            let (better, other) = (linked.min(dsync), linked.max(dsync));
            let name =
                if dsync <= linked { "A write with DSYNC" } else { "A write with a linked fsync" };
            said.push(format!(
                "{name} is the faster commit of one block: {} against {}. One thread that waits for each record commits {:.0} times in a second at best.",
                nanos(better),
                nanos(other),
                1e9 / better.max(1) as f64
            ));
            if better < 15_000 && self.device.write_cache.as_deref() == Some("write back") {
                said.push("That is very fast for a disk with a volatile cache: it may have power-loss protection, or it may not keep its word. Only pulling the plug tells; see `loadgen crash`.".into());
            }
        }
        let best = self.cells.iter().max_by(|a, b| a.bytes_per_s.total_cmp(&b.bytes_per_s));
        if let Some(best) = best {
            said.push(format!(
                "The most that can be made durable is {}: {} of {}, {} in flight. Group commit gets there with records of any size.",
                rate(best.bytes_per_s),
                best.method.name(),
                bytes(best.size as f64),
                best.depth
            ));
        }
        if let (Some(one), Some(four)) =
            (self.cell(Method::Dsync, 4096, 1), self.cell(Method::Dsync, 4096, 4))
        {
            let gain = four.bytes_per_s / one.bytes_per_s.max(1.0);
            said.push(match gain {
                g if g > 1.5 => format!(
                    "Four commits in flight make {g:.1} times as many: the disk overlaps them."
                ),
                g => format!(
                    "Four commits in flight make {g:.1} times as many: the disk does one at a time."
                ),
            });
        }
        if let Some(flushes) = self.cell(Method::Dsync, 4096, 1).and_then(|c| c.flushes_per_write)
            && flushes < 0.5
            && self.device.write_cache.as_deref() == Some("write back")
            && self.device.fua != Some(true)
        {
            said.push("Synced writes were not followed by flushes, though the disk has a volatile cache: something below does not pass them on. Do not trust it.".into());
        }
        self.findings.extend(said);
    }

    /// For people, ended by a newline.
    #[must_use]
    pub fn table(&self) -> String {
        let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".into());
        let mut out = format!(
            "{}, {}, write cache: {}\n\n  {:>12}  {:>9}  {:>9}  {:>10}  {:>9}  {:>9}  {:>9}  flushes a write\n",
            known(&self.device.name),
            known(&self.device.filesystem),
            known(&self.device.write_cache),
            "commit",
            "of",
            "in flight",
            "durable",
            "commits/s",
            "p50",
            "p99",
        );
        for cell in &self.cells {
            let flushes = cell.flushes_per_write.map_or("-".into(), |n| format!("{n:.2}"));
            let _ = writeln!(
                out,
                "  {:>12}  {:>9}  {:>9}  {:>10}  {:>9.0}  {:>9}  {:>9}  {flushes}",
                cell.method.name(),
                bytes(cell.size as f64),
                cell.depth,
                rate(cell.bytes_per_s),
                cell.bytes_per_s / cell.size as f64,
                nanos(cell.latencies[0]),
                nanos(cell.latencies[1]),
            );
        }
        out.push('\n');
        for finding in &self.findings {
            let _ = writeln!(out, "  - {finding}");
        }
        out
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let cells = self.cells.iter().map(|cell| {
            json!({
                "method": cell.method.name(),
                "bytes": cell.size,
                "depth": cell.depth,
                "bytes_per_s": cell.bytes_per_s,
                "p50_ns": cell.latencies[0],
                "p99_ns": cell.latencies[1],
                "flushes_per_write": cell.flushes_per_write,
                "samples": cell.samples,
            })
        });
        json!({
            "schema": "ringwal-loadgen/device/1",
            "device": {
                "name": self.device.name,
                "filesystem": self.device.filesystem,
                "write_cache": self.device.write_cache,
                "fua": self.device.fua,
            },
            "cells": cells.collect::<Vec<_>>(),
            "findings": self.findings,
        })
    }
}
