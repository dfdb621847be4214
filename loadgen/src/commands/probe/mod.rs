//! `loadgen device`: the ability of a disk for a log, measured without a log, with an explanation.
//!
//! It measures every commit method at some sizes and depths in short, interleaved rounds, and
//! counts the kernel's flushes. The explanation covers cache, FUA, direct I/O, filesystem and
//! io_uring, and suggests changes.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::DeviceArgs;
use crate::error::Error;
use crate::log_dir::RunDir;
use crate::log_dir::device::Device;
use crate::measure::environment::Environment;
use crate::measure::require::{self, Check, Metric};
use crate::output::progress::{Part, Progress};
use crate::raw::rules::Verdict;
use crate::raw::{self, Method, RawFile, Request};
use crate::stop::Stop;
use crate::units::{bytes, nanos, rate};

mod explain;

const METHODS: [Method; 5] = [
    Method::LinkedFsync,
    Method::Dsync,
    Method::RingWriteFsync,
    Method::WriteFsync,
    Method::WriteDsync,
];
const SHAPES: [(usize, usize); 6] =
    [(4096, 1), (4096, 4), (65_536, 1), (65_536, 4), (1 << 20, 1), (1 << 20, 4)];
/// At least four rounds: `compare` needs them to decide.
const ROUNDS: u32 = 5;
const AREA: u64 = 16 << 20;
const BLOCK: usize = 4096;

/// One method in one shape.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The way in which writes became durable.
    pub method: Method,
    /// Bytes of a write.
    pub size: usize,
    /// Writes in flight.
    pub depth: usize,
    /// Durable bytes per second, the median over the rounds.
    pub bytes_per_s: f64,
    /// Latencies of single writes in nanoseconds, of the median round: median, 99th and 99.9th
    /// percentile, maximum.
    pub latencies: [u64; 4],
    /// Flushes of the disk per write.
    pub flushes_per_write: Option<f64>,
    /// Bytes per second of every round, ascending.
    pub samples: Vec<f64>,
}

/// The result of the command.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The disk.
    pub device: Device,
    /// The measured cells.
    pub cells: Vec<Cell>,
    /// The meaning of the figures, one sentence each.
    pub findings: Vec<String>,
    /// Suggested changes, one sentence each.
    pub changes: Vec<String>,
    /// Verdicts of the requested systems.
    pub verdicts: Vec<Verdict>,
    /// Results of --require; empty after an interruption.
    pub required: Vec<Check>,
    /// The reason for an early end.
    pub ended_by: Option<&'static str>,
    /// The conditions of the measurement.
    pub environment: Environment,
}

/// Measures, and keeps the content of the directory.
///
/// # Errors
///
/// Those of the directory, the device and the system.
pub fn probe(args: &DeviceArgs, stop: &Arc<Stop>) -> Result<Probe, Error> {
    let dir = RunDir::own(args.dir.as_deref(), false, stop)?;
    let device = Device::under(dir.path());
    let mut progress = Progress::new(args.quiet);
    progress.step("looking at the system", Part::Unknown);
    let environment = Environment::of(dir.path());
    let mut said = explain::look(dir.path(), &device)?;
    let mut verdicts = Vec::new();
    let mut cells = Vec::new();
    if args.systems.is_empty() {
        let shapes = shapes(args.size);
        let grid =
            Grid { dir: dir.path(), device: &device, time: args.time, rounds: ROUNDS, shapes };
        cells = grid.measure(stop, &mut progress)?;
        // Incomplete cells or rounds support no conclusion.
        if !stop.was_signalled() {
            explain::conclude(&device, &cells, &mut said);
        }
    }
    for system in &args.systems {
        progress.step(&format!("judging the disk for {}", system.name()), Part::Unknown);
        verdicts.extend(system.judge(dir.path(), args.size, stop)?);
    }
    progress.clear();
    let explain::Said { findings, changes } = said;
    let ended_by = stop.was_signalled().then_some("a signal");
    let figure = |metric| {
        let cell = fastest(&cells)?;
        let [.., max] = cell.latencies;
        match metric {
            Metric::Rate => Some(cell.bytes_per_s / cell.size as f64),
            Metric::Bandwidth => best(&cells).map(|cell| cell.bytes_per_s),
            Metric::Max => Some(max as f64),
            Metric::Quantile(0.5) => Some(cell.latencies[0] as f64),
            Metric::Quantile(0.99) => Some(cell.latencies[1] as f64),
            Metric::Quantile(0.999) => Some(cell.latencies[2] as f64),
            _ => None,
        }
    };
    let required = match &args.require {
        Some(required) if ended_by.is_none() => required.check(figure),
        _ => Vec::new(),
    };
    Ok(Probe { device, cells, findings, changes, verdicts, required, ended_by, environment })
}

/// Returns the fastest commit of the smallest write, one at a time.
fn fastest(cells: &[Cell]) -> Option<&Cell> {
    let alone = cells.iter().filter(|cell| cell.depth == 1);
    let smallest = alone.clone().map(|cell| cell.size).min()?;
    alone.filter(|cell| cell.size == smallest).min_by_key(|cell| cell.latencies[0])
}

/// Returns the sizes to measure: `--size`, or several.
fn shapes(size: Option<u64>) -> Vec<(usize, usize)> {
    match size {
        None => SHAPES.to_vec(),
        Some(size) => {
            let size = size as usize;
            vec![(size, 1), (size, 4)]
        }
    }
}

/// Measurements of every method in some shapes, in rounds with a common time.
#[derive(Debug)]
pub struct Grid<'a> {
    /// Directory of the file.
    pub dir: &'a Path,
    /// The device under the directory.
    pub device: &'a Device,
    /// Time of all measurements.
    pub time: Duration,
    /// Rounds.
    pub rounds: u32,
    /// Shapes: bytes of a write, and writes in flight.
    pub shapes: Vec<(usize, usize)>,
}

impl<'a> Grid<'a> {
    /// Creates a grid that measures every shape in one round.
    #[must_use]
    pub fn of_a_run(dir: &'a Path, device: &'a Device, time: Duration) -> Self {
        Grid { dir, device, time, rounds: 1, shapes: SHAPES.to_vec() }
    }

    /// Measures. After an interruption, returns only cells with every round.
    ///
    /// # Errors
    ///
    /// [`Error::Baseline`].
    pub fn measure(&self, stop: &Stop, progress: &mut Progress) -> Result<Vec<Cell>, Error> {
        let time = self.time / self.rounds / (METHODS.len() * self.shapes.len()) as u32;
        let mut measured: Vec<(Method, usize, usize, Vec<Sample>)> = Vec::new();
        for &(size, depth) in &self.shapes {
            measured.extend(METHODS.map(|method| (method, size, depth, Vec::new())));
        }
        let (count, rounds) = (measured.len(), self.rounds as usize);
        let largest = self.shapes.iter().map(|(size, _)| size.next_multiple_of(BLOCK)).max();
        let raw = raw::raw_file(self.dir, true, largest.unwrap_or(BLOCK), AREA)?;
        'rounds: for round in 0..rounds {
            for (n, (method, size, depth, samples)) in measured.iter_mut().enumerate() {
                if stop.was_signalled() {
                    break 'rounds;
                }
                let done = (round * count + n) as f64 / (rounds * count) as f64;
                let what = format!("raw device, {}, {}", method.name(), bytes(*size as f64));
                progress.step(&format!("{what}, {depth} in flight"), Part::Share(done));
                let shape = (*method, *size, *depth);
                samples.extend(sample(&raw, stop, self.device, shape, time)?);
            }
        }
        let cells = measured.into_iter().filter_map(|(method, size, depth, mut samples)| {
            if samples.len() < rounds {
                return None;
            }
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
}

/// Returns the cell with the highest durable bandwidth.
#[must_use]
pub fn best(cells: &[Cell]) -> Option<&Cell> {
    cells.iter().max_by(|a, b| a.bytes_per_s.total_cmp(&b.bytes_per_s))
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    bytes_per_s: f64,
    latencies: [u64; 4],
    flushes_per_write: Option<f64>,
}

/// Measures one cell once. `None` if the method is not supported here.
fn sample(
    file: &RawFile,
    stop: &Stop,
    device: &Device,
    (method, group, depth): (Method, usize, usize),
    time: Duration,
) -> Result<Option<Sample>, Error> {
    let before = device.flushes();
    let request = Request { method, group, depth, direct: true, block: BLOCK, time, area: AREA };
    let raw = raw::measure_in(file, &request, stop)?;
    // An interrupted slice has no result.
    if stop.was_signalled() || raw.method != method || raw.depth != depth {
        return Ok(None);
    }
    let flushes = before.zip(device.flushes()).and_then(|(a, b)| b.checked_sub(a));
    let writes = raw.latencies.count().max(1) as f64;
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| raw.latencies.quantile_ns(share));
    Ok(Some(Sample {
        bytes_per_s: raw.bytes_per_s,
        latencies: [p50, p99, p999, raw.latencies.max_ns()],
        flushes_per_write: flushes.map(|n| n as f64 / writes),
    }))
}

impl Cell {
    /// Returns the JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "method": self.method.name(),
            "bytes": self.size,
            "depth": self.depth,
            "bytes_per_s": self.bytes_per_s,
            "p50_ns": self.latencies[0],
            "p99_ns": self.latencies[1],
            "p99_9_ns": self.latencies[2],
            "max_ns": self.latencies[3],
            "flushes_per_write": self.flushes_per_write,
            "samples": self.samples,
        })
    }
}

impl Probe {
    /// Returns the table with a final newline.
    #[must_use]
    pub fn table(&self) -> String {
        let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".into());
        let mut out = format!(
            "{}, {}, write cache: {}\n{}\n",
            known(&self.device.name),
            known(&self.device.filesystem),
            known(&self.device.write_cache),
            self.environment.line(),
        );
        if self.ended_by.is_some() {
            let _ = writeln!(
                out,
                "INTERRUPTED: {} cells were measured in every round, and nothing is concluded from them",
                self.cells.len()
            );
        }
        for verdict in &self.verdicts {
            let _ = writeln!(out, "\n{}", wrapped(&verdict.line()));
        }
        if !self.cells.is_empty() {
            out += &self.grid();
        }
        for (title, texts) in
            [("What that means", &self.findings), ("What to change", &self.changes)]
        {
            if !texts.is_empty() {
                let _ = writeln!(out, "\n{title}\n");
            }
            for text in texts {
                let _ = writeln!(out, "{}", wrapped(text));
            }
        }
        out + &require::table(&self.required)
    }

    fn grid(&self) -> String {
        let mut out = format!(
            "\n  {:>16}  {:>9}  {:>9}  {:>10}  {:>9}  {:>9}  {:>9}  flushes a write\n",
            "commit", "of", "in flight", "durable", "commits/s", "p50", "p99",
        );
        for cell in &self.cells {
            let flushes = cell.flushes_per_write.map_or("-".into(), |n| format!("{n:.2}"));
            let _ = writeln!(
                out,
                "  {:>16}  {:>9}  {:>9}  {:>10}  {:>9.0}  {:>9}  {:>9}  {flushes}",
                cell.method.name(),
                bytes(cell.size as f64),
                cell.depth,
                rate(cell.bytes_per_s),
                cell.bytes_per_s / cell.size as f64,
                nanos(cell.latencies[0]),
                nanos(cell.latencies[1]),
            );
        }
        out
    }

    /// Returns the result for a gate.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`]; [`Error::Required`] if a system fails or a requirement is not met.
    pub fn verdict(&self) -> Result<(), Error> {
        if self.ended_by.is_some() {
            let text = format!("{} cells were measured whole", self.cells.len());
            return Err(Error::Interrupted(text));
        }
        let failed: Vec<String> =
            self.verdicts.iter().filter(|v| !v.passes).map(Verdict::line).collect();
        if !failed.is_empty() {
            return Err(Error::Required(failed.join("; ")));
        }
        require::verdict(&self.required)
    }

    /// Returns the JSON object of a cell.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "schema": "ringwal-loadgen/device/1",
            "ended_by": self.ended_by,
            "environment": self.environment.json(),
            "required": require::to_json(&self.required),
            "verdicts": self.verdicts.iter().map(Verdict::json).collect::<Vec<_>>(),
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

/// Wraps text into an item of a list.
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
