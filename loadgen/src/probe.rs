//! `loadgen device`: what a disk can do for a log, without one, and what that means.
//!
//! Every commit method, at some sizes and depths, each for a short while, interleaved over rounds; beside each the
//! flushes that the kernel counted. Then in words: the cache, FUA, direct I/O, the filesystem, io_uring, and what to
//! change.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::baseline::{self, Method, Request};
use crate::cli::DeviceArgs;
use crate::device::Device;
use crate::directory::RunDir;
use crate::error::Error;
use crate::progress::{Part, Progress};
use crate::stop::Stop;
use crate::units::{bytes, nanos, rate};

mod explain;

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
    /// What to change, a sentence each.
    pub changes: Vec<String>,
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
    let mut said = explain::look(dir.path(), &device)?;
    let cells = grid(dir.path(), &device, args.time, ROUNDS, stop, &mut progress)?;
    progress.clear();
    explain::conclude(&device, &cells, &mut said);
    let explain::Said { findings, changes } = said;
    Ok(Probe { device, cells, findings, changes })
}

/// Every method in every shape, for `time` all together, in rounds.
///
/// # Errors
///
/// [`Error::Baseline`].
pub fn grid(
    dir: &Path,
    device: &Device,
    time: Duration,
    rounds: u32,
    stop: &Stop,
    progress: &mut Progress,
) -> Result<Vec<Cell>, Error> {
    let time = time / rounds / (METHODS.len() * SHAPES.len()) as u32;
    let mut measured: Vec<(Method, usize, usize, Vec<Sample>)> = Vec::new();
    for (size, depth) in SHAPES {
        measured.extend(METHODS.map(|method| (method, size, depth, Vec::new())));
    }
    let count = measured.len();
    'rounds: for round in 0..rounds {
        for (n, (method, size, depth, samples)) in measured.iter_mut().enumerate() {
            if stop.was_signalled() {
                break 'rounds;
            }
            let done = (round as usize * count + n) as f64 / (rounds as usize * count) as f64;
            let what = format!("raw device, {}, {}", method.name(), bytes(*size as f64));
            progress.step(&format!("{what}, {depth} in flight"), Part::Share(done));
            samples.extend(sample(dir, stop, device, *method, *size, *depth, time)?);
        }
    }
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
    Ok(cells.collect())
}

/// The one that makes the most durable.
#[must_use]
pub fn best(cells: &[Cell]) -> Option<&Cell> {
    cells.iter().max_by(|a, b| a.bytes_per_s.total_cmp(&b.bytes_per_s))
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    bytes_per_s: f64,
    latencies: [u64; 2],
    flushes_per_write: Option<f64>,
}

/// `None`: the method is not to be had here.
fn sample(
    dir: &Path,
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

impl Cell {
    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "method": self.method.name(),
            "bytes": self.size,
            "depth": self.depth,
            "bytes_per_s": self.bytes_per_s,
            "p50_ns": self.latencies[0],
            "p99_ns": self.latencies[1],
            "flushes_per_write": self.flushes_per_write,
            "samples": self.samples,
        })
    }
}

impl Probe {
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
        for (title, texts) in
            [("What that means", &self.findings), ("What to change", &self.changes)]
        {
            let _ = writeln!(out, "\n{title}\n");
            for text in texts {
                let _ = writeln!(out, "{}", wrapped(text));
            }
        }
        out
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "schema": "ringwal-loadgen/device/1",
            "device": {
                "name": self.device.name,
                "filesystem": self.device.filesystem,
                "write_cache": self.device.write_cache,
                "fua": self.device.fua,
                "options": self.device.options,
                "rotational": self.device.rotational,
            },
            "cells": self.cells.iter().map(Cell::json).collect::<Vec<_>>(),
            "findings": self.findings,
            "changes": self.changes,
        })
    }
}

/// As an item of a list, in lines that can be read.
fn wrapped(text: &str) -> String {
    const WIDTH: usize = 96;
    let mut lines = vec!["  -".to_owned()];
    for word in text.split_whitespace() {
        let last = lines.last().map_or(0, |line| line.chars().count());
        if last > 4 && last + 1 + word.chars().count() > WIDTH {
            lines.push("   ".into());
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n")
}
