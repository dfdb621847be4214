//! The device without an engine: the same writes, made durable in the same way.
//!
//! 1. The file is written in advance in the directory of the log, so that its blocks are allocated
//!    on the same filesystem. It is unlinked, so that nothing remains of it.
//! 2. A measurement has several short slices and reports the median: one stall of the device does
//!    not decide it.
//! 3. Groups have the same size, depth, direct or buffered mode, and registered memory if the
//!    kernel permits.

mod area;
pub mod rules;
mod std_fs;
#[cfg(target_os = "linux")]
mod uring;

use std::path::Path;
use std::time::Duration;

use crate::error::Error;
use crate::measure::latency::Latencies;
use crate::stop::Stop;

pub use area::RawFile;
pub(crate) use area::{Area, write_all_at};

/// The way in which a write becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// io_uring: a write with a linked `fdatasync`.
    LinkedFsync,
    /// io_uring: one write with `RWF_DSYNC`.
    Dsync,
    /// io_uring: a write, not durable; for logs that do not sync every group.
    Write,
    /// io_uring: a write, and then `fdatasync` by the thread, for all writes that have ended.
    RingWriteFsync,
    /// `pwrite`, then `fdatasync`.
    WriteFsync,
    /// One `pwrite` to a file that was opened with `O_DSYNC`, as a lone committer of a log does.
    WriteDsync,
    /// `pwrite`, not durable.
    PlainWrite,
}

impl Method {
    /// Returns the name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Method::LinkedFsync => "linked-fsync",
            Method::Dsync => "dsync",
            Method::Write => "write",
            Method::RingWriteFsync => "ring-write-fsync",
            Method::WriteFsync => "write-fsync",
            Method::WriteDsync => "write-dsync",
            Method::PlainWrite => "plain-write",
        }
    }

    /// True if the method is plain system calls of one thread.
    #[must_use]
    pub fn is_without_uring(self) -> bool {
        self.without_uring() == self
    }

    /// Returns the nearest method without io_uring.
    fn without_uring(self) -> Method {
        match self {
            Method::WriteDsync => Method::WriteDsync,
            Method::LinkedFsync | Method::Dsync | Method::RingWriteFsync | Method::WriteFsync => {
                Method::WriteFsync
            }
            Method::Write | Method::PlainWrite => Method::PlainWrite,
        }
    }
}

/// A measurement to make.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The way in which writes become durable.
    pub method: Method,
    /// Bytes of one write, rounded up to the block.
    pub group: usize,
    /// Writes in flight.
    pub depth: usize,
    /// Bypasses the page cache if the filesystem supports it.
    pub direct: bool,
    /// Block size, a power of two.
    pub block: usize,
    /// Measured time without preparation.
    pub time: Duration,
    /// Bytes of the file at most. It is written repeatedly.
    pub area: u64,
}

impl Request {
    fn rounded_block(&self) -> usize {
        self.block.max(512).next_power_of_two()
    }

    fn rounded_group(&self) -> usize {
        self.group.max(1).next_multiple_of(self.rounded_block())
    }
}

/// A measured baseline.
#[derive(Debug, Clone)]
pub struct Baseline {
    /// The method in use, after a fallback.
    pub method: Method,
    /// Bytes of one write.
    pub group: usize,
    /// Writes in flight.
    pub depth: usize,
    /// True if writes bypassed the page cache.
    pub direct: bool,
    /// Durable bytes per second, the median over the slices.
    pub bytes_per_s: f64,
    /// Groups per second, from the same median.
    pub groups_per_s: f64,
    /// Latencies of single writes, from submission to durable.
    pub latencies: Latencies,
}

/// A way to write groups. Consecutive slices use one open area.
trait Driver {
    /// Writes for `time`, or until the stop. Returns the durable bytes and the elapsed seconds.
    fn slice(
        &mut self,
        time: Duration,
        latencies: &mut Latencies,
        stop: &Stop,
    ) -> std::io::Result<(u64, f64)>;
}

const SLICES: u32 = 5;
const MIN_SLICE: Duration = Duration::from_millis(20);

/// Measures in `directory`.
///
/// # Errors
///
/// [`Error::Baseline`] with the error of the system.
pub fn measure(directory: &Path, request: &Request) -> Result<Baseline, Error> {
    measure_until(directory, request, &Stop::default())
}

/// Measures in `directory` until the time is over or a signal stops it, and returns the result so
/// far.
///
/// # Errors
///
/// [`Error::Baseline`] with the error of the system.
pub fn measure_until(directory: &Path, request: &Request, stop: &Stop) -> Result<Baseline, Error> {
    let raw = raw_file(directory, request.direct, request.rounded_group(), request.area)?;
    measure_in(&raw, request, stop)
}

/// Creates a [`RawFile`] for several measurements.
///
/// # Errors
///
/// [`Error::Baseline`] with the error of the system.
pub fn raw_file(
    directory: &Path,
    direct: bool,
    largest: usize,
    bytes: u64,
) -> Result<RawFile, Error> {
    RawFile::create(directory, direct, largest, bytes).map_err(|e| Error::Baseline(e.to_string()))
}

/// Measures in a file that several measurements share.
///
/// # Errors
///
/// [`Error::Baseline`] with the error of the system, or if the file has no room for 16 writes.
pub fn measure_in(raw: &RawFile, request: &Request, stop: &Stop) -> Result<Baseline, Error> {
    let failed = |e: std::io::Error| Error::Baseline(e.to_string());
    let (block, group) = (request.rounded_block(), request.rounded_group());
    let area = Area::new(raw, group).map_err(failed)?;
    let direct = area.direct();
    let request = Request { group, block, direct, depth: request.depth.max(1), ..*request };
    let (mut driver, method, depth) = driver(area, &request).map_err(failed)?;
    let (mut rates, mut latencies) = (Vec::new(), Latencies::new());
    let slices = (request.time.as_millis() / MIN_SLICE.as_millis()).clamp(1, SLICES.into()) as u32;
    for _ in 0..slices {
        let time = (request.time / slices).max(MIN_SLICE);
        let (bytes, seconds) = driver.slice(time, &mut latencies, stop).map_err(failed)?;
        rates.push(bytes as f64 / seconds);
        if stop.was_signalled() {
            break;
        }
    }
    let bytes_per_s = median(&mut rates);
    let groups_per_s = bytes_per_s / group as f64;
    Ok(Baseline { method, group, depth, direct, bytes_per_s, groups_per_s, latencies })
}

/// Returns the driver, the method that it supports, and its depth.
fn driver(area: Area, request: &Request) -> std::io::Result<(Box<dyn Driver>, Method, usize)> {
    let method = request.method;
    #[cfg(target_os = "linux")]
    let area = match method {
        Method::WriteFsync | Method::WriteDsync | Method::PlainWrite => area,
        _ => match uring::UringDriver::new(area, request) {
            Ok(driver) => return Ok((Box::new(driver), method, request.depth)),
            Err((area, _)) => area,
        },
    };
    let method = match method.without_uring() {
        Method::WriteDsync if area.synced_file().is_none() => Method::WriteFsync,
        method => method,
    };
    Ok((Box::new(std_fs::StdDriver::new(area, request, method)), method, 1))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(method: Method, depth: usize) -> Baseline {
        let request = Request {
            method,
            group: 5000,
            depth,
            direct: true,
            block: 4096,
            time: Duration::from_millis(1),
            area: 1 << 20,
        };
        measure(&std::env::temp_dir(), &request).unwrap()
    }

    #[test]
    fn every_method_has_a_rate() {
        for method in [
            Method::LinkedFsync,
            Method::Dsync,
            Method::Write,
            Method::RingWriteFsync,
            Method::WriteFsync,
            Method::WriteDsync,
            Method::PlainWrite,
        ] {
            for depth in [1, 4] {
                let baseline = short(method, depth);
                assert_eq!(baseline.group, 8192);
                assert!(baseline.bytes_per_s > 0.0 && baseline.latencies.count() > 0, "{method:?}");
            }
        }
    }

    #[test]
    fn median_is_the_middle_value() {
        assert_eq!(median(&mut [3.0, 1.0, 100.0]), 3.0);
        assert_eq!(median(&mut []), 0.0);
    }

    #[test]
    fn missing_directory_is_a_clear_error() {
        let request = Request {
            method: Method::Dsync,
            group: 4096,
            depth: 1,
            direct: true,
            block: 4096,
            time: MIN_SLICE,
            area: 4096,
        };
        let e = measure(Path::new("/no/such/place"), &request).unwrap_err();
        assert!(e.to_string().contains("--baseline 0"), "{e}");
    }
}
