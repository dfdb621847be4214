//! An explanation in words: findings, the meaning of the figures, and suggested changes.

use std::path::Path;

use ringwal::{BackendInfo, BackendKind, Wal};

use super::{Cell, best};
use crate::error::Error;
use crate::log_dir::device::Device;
use crate::raw::Method;
use crate::units::{bytes, nanos, rate};

/// Sentences of findings and of changes.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) findings: Vec<String>,
    pub(super) changes: Vec<String>,
}

/// Collects what holds for the system before any measurement.
pub(super) fn look(dir: &Path, device: &Device) -> Result<Said, Error> {
    // The findings of the library.
    let wal = Wal::builder(dir.join("log")).segment_size(1 << 20).open()?;
    let info = wal.backend();
    wal.close()?;
    drop(wal);
    let _ = std::fs::remove_dir_all(dir.join("log"));
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let limits = read("/proc/self/limits");
    let locked = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
    let system = System {
        kernel: read("/proc/sys/kernel/osrelease"),
        disabled: read("/proc/sys/kernel/io_uring_disabled"),
        locked: locked
            .and_then(|rest| rest.split_whitespace().next())
            .unwrap_or("unknown")
            .to_owned(),
    };
    let mut said = Said::default();
    medium(device, &mut said);
    kernel(&info, &system, &mut said);
    Ok(said)
}

struct System {
    kernel: String,
    disabled: String,
    locked: String,
}

fn in_memory(device: &Device) -> bool {
    matches!(device.filesystem.as_deref(), Some("tmpfs" | "ramfs"))
}

fn medium(device: &Device, said: &mut Said) {
    let Said { findings, changes } = said;
    if !in_memory(device) {
        findings.push(match device.write_cache.as_deref() {
            Some("write back") => "The disk has a volatile write cache: what it has accepted is lost with the power until it is flushed. Every commit costs a flush.".into(),
            Some(_) => "The disk says that it has no volatile write cache: what it has accepted is durable, and a flush costs nothing. If that is not so, no log can help.".into(),
            None => "The system does not say whether the disk has a volatile write cache; flushes are made.".into(),
        });
        findings.push(match device.fua {
            Some(true) => "It can write through its cache on demand (FUA), so that a synced write needs no flush of everything else.".into(),
            Some(false) => "It cannot write through its cache on demand (no FUA): a synced write is a write and a flush.".into(),
            None => "The system does not say whether the disk can write through its cache (FUA).".into(),
        });
        if device.rotational == Some(true) {
            findings.push("The system says that the disk turns: a commit waits for a turn, some milliseconds. (Virtual disks often say so without turning.)".into());
        }
    }
    match device.filesystem.as_deref() {
        Some(name @ ("ext4" | "xfs")) => findings.push(format!("The filesystem is {name}, which writes in place and has direct I/O: as good as it gets.")),
        Some(name @ ("btrfs" | "zfs")) => {
            findings.push(format!("The filesystem is {name}, which copies on each write: a sync writes trees too."));
            changes.push("Give the log a directory on ext4 or XFS; on btrfs, at least one with nodatacow (chattr +C, while it is empty).".into());
        }
        Some(name @ ("tmpfs" | "ramfs")) => {
            findings.push(format!("The filesystem is {name}: it is memory, and nothing here survives a reboot. The figures are those of the software alone."));
            changes.push("Give a directory on a disk.".into());
        }
        Some(name @ ("nfs" | "nfs4" | "cifs" | "smb3" | "fuse" | "9p" | "virtiofs" | "overlay")) => {
            findings.push(format!("The filesystem is {name}: what a sync means there is for another system to say."));
            changes.push("Give a directory on a local disk; in a container, a volume.".into());
        }
        other => findings.push(format!("The filesystem is {}.", other.unwrap_or("unknown"))),
    }
    let options = device.options.as_deref().unwrap_or_default();
    let has = |wanted: &str| options.split(',').any(|option| option == wanted);
    if has("nobarrier") || has("barrier=0") {
        findings.push("It is mounted without barriers: the kernel does not flush the disk, whatever a log asks for.".into());
        changes.push("Mount it with barriers, unless the disk's cache has a battery.".into());
    }
    if has("data=journal") {
        findings.push("It is mounted with data=journal: everything is written twice, and there is no direct I/O.".into());
        changes.push("Mount it with data=ordered: the log has its own checksums.".into());
    }
}

fn kernel(info: &BackendInfo, system: &System, said: &mut Said) {
    let Said { findings, changes } = said;
    if info.kind == BackendKind::IoUring {
        findings.push("io_uring works here.".into());
    } else {
        findings.push(format!("io_uring does not work here: {}. The log runs on pwrite and fdatasync, one group at a time.", info.reason));
        changes.push("Let io_uring be used: kernel.io_uring_disabled = 0 (sysctl), and in a container a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register.".into());
    }
    findings.push(match (info.direct_io, info.block_size) {
        (true, block) => format!("Direct I/O works, aligned to {block} bytes: the log's writes pass the page cache by."),
        (false, _) => "Direct I/O does not work here: writes go through the page cache, and each sync looks for them there.".into(),
    });
    let disabled = if system.disabled.is_empty() { "not there" } else { &system.disabled };
    let locked = match system.locked.parse::<u64>() {
        Ok(limit) => bytes(limit as f64),
        Err(_) => system.locked.clone(),
    };
    // A privileged process is exempt from the limit.
    let ring = match info.registered_buffers {
        true => "is registered with the kernel",
        false => "is not registered with the kernel",
    };
    findings.push(format!(
        "Kernel {}; kernel.io_uring_disabled is {disabled}; memory that may be locked (RLIMIT_MEMLOCK): {locked}; the log's ring of {} {ring}.",
        system.kernel,
        bytes(info.ring_bytes as f64)
    ));
    if info.kind == BackendKind::IoUring && !info.registered_buffers {
        changes.push(format!(
            "Let {} be locked, so that the kernel need not map the ring for each write: ulimit -l, LimitMEMLOCK= in a unit of systemd, --ulimit memlock= for a container.",
            bytes(info.ring_bytes as f64 * 2.0)
        ));
    }
}

/// Explains a long tail of single commits.
fn tail(p50: u64, p99: u64, findings: &mut Vec<String>, changes: &mut Vec<String>) {
    if p99 > 20 * p50 {
        findings.push(format!(
            "One commit in a hundred takes {} or more, {:.0} times the median: the disk is shared, busy, or collects garbage.",
            nanos(p99),
            p99 as f64 / p50.max(1) as f64
        ));
        changes.push("Measure again when the machine is quiet, and for longer (--time 60); if the tail stays, look for who else uses the disk.".into());
    }
}

/// Names the fastest method alone and in company, and says so if no company is worth a ring.
fn methods(cells: &[Cell], said: &mut Said) {
    let of = |depth| cells.iter().filter(move |cell| (cell.size, cell.depth) == (4096, depth));
    let by_rate = |a: &&Cell, b: &&Cell| a.bytes_per_s.total_cmp(&b.bytes_per_s);
    let commits = |cell: &Cell| cell.bytes_per_s / cell.size as f64;
    let alone = of(1).min_by_key(|cell| cell.latencies[0]);
    let (Some(alone), Some(company)) = (alone, of(4).max_by(by_rate)) else { return };
    let Said { findings, changes } = said;
    findings.push(format!(
        "Of one block, {} is the fastest commit alone, {} by the median, and {} with four in flight, {:.0} a second.",
        alone.method.name(),
        nanos(alone.latencies[0]),
        company.method.name(),
        commits(company)
    ));
    let without_ring = of(1).filter(|cell| cell.method.is_without_uring()).max_by(by_rate);
    if let Some(plain) = without_ring.filter(|cell| commits(cell) > 1.25 * commits(company)) {
        findings.push(format!(
            "{}, without io_uring, committed {:.0} times a second one after the other, which is more than four in flight did.",
            plain.method.name(),
            commits(plain)
        ));
        changes.push("Measure again for longer (--time 60); if that stays so, compare the log with --backend std.".into());
    }
}

/// Explains the figures.
pub(super) fn conclude(device: &Device, cells: &[Cell], said: &mut Said) {
    let cell = |method, size, depth| {
        cells.iter().find(|c| (c.method, c.size, c.depth) == (method, size, depth))
    };
    let volatile = device.write_cache.as_deref() == Some("write back");
    let Said { findings, changes } = said;
    let block = |method| cell(method, 4096, 1);
    if let (Some(linked), Some(dsync)) = (block(Method::LinkedFsync), block(Method::Dsync)) {
        let (better, other) = match dsync.latencies[0] <= linked.latencies[0] {
            true => (dsync, linked),
            false => (linked, dsync),
        };
        let name = match better.method {
            Method::Dsync => "A write with DSYNC",
            _ => "A write with a linked fsync",
        };
        let [p50, p99, ..] = better.latencies;
        findings.push(format!(
            "{name} is the faster commit of one block: {} against {}, by the median. One thread that waits for each record committed {:.0} times in a second; a log adds its own time to that.",
            nanos(p50),
            nanos(other.latencies[0]),
            better.bytes_per_s / better.size as f64
        ));
        if p50 < 15_000 && volatile {
            findings.push("That is very fast for a disk with a volatile cache: it may have power-loss protection, or it may not keep its word. Only pulling the plug tells; see `loadgen crash`.".into());
        }
        tail(p50, p99, findings, changes);
    }
    methods(cells, said);
    let Said { findings, changes } = said;
    if let Some(best) = best(cells) {
        findings.push(format!(
            "The most that can be made durable is {}: {} of {}, {} in flight. Group commit gets there with records of any size.",
            rate(best.bytes_per_s),
            best.method.name(),
            bytes(best.size as f64),
            best.depth
        ));
    }
    let gain =
        |method| Some(cell(method, 4096, 4)?.bytes_per_s / block(method)?.bytes_per_s.max(1.0));
    if !in_memory(device)
        && let Some(gain) = gain(Method::Dsync).or_else(|| gain(Method::LinkedFsync))
    {
        findings.push(match gain {
            g if g > 6.0 => format!("Four commits in flight came out as {g:.0} times as many, more than there can be: something disturbed the disk meanwhile."),
            g if g > 1.5 => format!("Four commits in flight make {g:.1} times as many: the disk overlaps them."),
            g => format!("Four commits in flight make {g:.1} times as many: the disk does one at a time."),
        });
    }
    if let Some(flushes) = block(Method::Dsync).and_then(|c| c.flushes_per_write)
        && volatile
        && flushes < 0.5
    {
        if device.fua == Some(true) {
            findings.push(format!("Synced writes were followed by {flushes:.2} flushes each: they are written through (FUA)."));
        } else {
            findings.push("Synced writes were not followed by flushes, though the disk has a volatile cache: something below does not pass them on. Do not trust it.".into());
            changes.push("Find out who drops flushes: a hypervisor's cache=unsafe, a RAID controller, nobarrier.".into());
        }
    }
    if changes.is_empty() {
        changes.push("Nothing that can be seen from here.".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(p50: u64, flushes: f64) -> Vec<Cell> {
        let one = |method, depth| Cell {
            method,
            size: 4096,
            depth,
            bytes_per_s: 1e6 * depth as f64,
            latencies: [p50, p50 * 2, p50 * 3, p50 * 4],
            flushes_per_write: Some(flushes),
            samples: vec![],
        };
        vec![one(Method::LinkedFsync, 1), one(Method::Dsync, 1), one(Method::Dsync, 4)]
    }

    /// Commits of 500 us, and synchronous ones that are this many times as fast.
    fn plain(times: f64) -> Vec<Cell> {
        let mut cells = cells(500_000, 1.0);
        let p50 = (500_000.0 / times) as u64;
        let (latencies, bytes_per_s) = ([p50, p50 * 2, p50 * 3, p50 * 4], 1e6 * times);
        let method = Method::WriteDsync;
        cells.push(Cell { method, latencies, bytes_per_s, ..cells[0].clone() });
        cells
    }

    fn told(device: &Device, cells: &[Cell]) -> String {
        let mut said = Said::default();
        medium(device, &mut said);
        conclude(device, cells, &mut said);
        [said.findings, said.changes].concat().join("\n")
    }

    #[test]
    fn every_medium_is_explained_with_a_change() {
        let device = |filesystem: &str, cache: &str, fua, options: &str| {
            let mut device = Device::default();
            device.filesystem = Some(filesystem.into());
            device.write_cache = Some(cache.into());
            device.options = Some(options.into());
            device.fua = fua;
            device
        };
        for (device, cells, says) in [
            (
                device("ext4", "write back", Some(false), ""),
                cells(500_000, 1.0),
                "Every commit costs a flush",
            ),
            (
                device("ext4", "write back", Some(false), ""),
                cells(500_000, 1.0),
                "Nothing that can be seen",
            ),
            (device("xfs", "write through", None, ""), cells(20_000, 0.0), "a flush costs nothing"),
            (device("ext4", "write back", Some(false), ""), cells(9_000, 1.0), "pulling the plug"),
            (device("ext4", "write back", Some(false), ""), cells(90_000, 0.0), "Do not trust it"),
            (device("ext4", "write back", Some(true), ""), cells(90_000, 0.0), "(FUA)"),
            (
                device("ext4", "write back", Some(true), "rw,nobarrier"),
                cells(90_000, 1.0),
                "without barriers",
            ),
            (device("ext4", "write back", Some(true), "rw,data=journal"), vec![], "data=ordered"),
            (device("btrfs", "write back", Some(true), "rw"), vec![], "nodatacow"),
            (device("overlay", "write back", Some(true), "rw"), vec![], "a volume"),
            (device("tmpfs", "write back", None, "rw"), vec![], "Give a directory on a disk"),
            (Device::default(), vec![], "The filesystem is unknown"),
            (Device::default(), plain(1.5), "write-dsync is the fastest commit alone"),
            (Device::default(), plain(1.5), "and dsync with four in flight"),
            (Device::default(), plain(6.0), "which is more than four in flight did"),
            (Device::default(), plain(6.0), "--backend std"),
        ] {
            let text = told(&device, &cells);
            assert!(text.contains(says), "{says}: {text}");
            let slower = cells.len() < 4 || cells[3].bytes_per_s < 5e6;
            assert!(!slower || !text.contains("--backend std"), "{text}");
            assert!(!in_memory(&device) || !text.contains("flush"), "{text}");
        }
    }
}
