//! Opens many logs in one process, and prints what they cost: threads, memory, disk, the time to
//! open one, and the commits in a second when each has one committer.
//!
//! `cargo run --release --example what_a_log_costs -- DIR LOGS SEGMENT_BYTES`
#![allow(clippy::print_stdout, reason = "a program")]

use std::path::Path;
use std::time::{Duration, Instant};

use ringwal::{Result, Wal};

/// What the kernel says about this process: the number in the line that starts with `name`.
fn of_process(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Bytes of all files below a directory, as the filesystem has allocated them.
fn on_disk(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => on_disk(&entry.path()),
            #[cfg(unix)]
            Ok(meta) => std::os::unix::fs::MetadataExt::blocks(&meta) * 512,
            #[cfg(not(unix))]
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

fn print(what: &str, dir: &Path) {
    let (threads, kib) = (of_process("Threads:"), of_process("VmRSS:"));
    let mib = on_disk(dir) >> 20;
    println!("{what:<28} {threads:>5} threads {:>6} MiB resident {mib:>6} MiB on disk", kib >> 10);
}

/// Commits of one thread for each log, in a second.
fn commits(logs: &[Wal], time: Duration) -> Result<f64> {
    let until = Instant::now() + time;
    let total = std::thread::scope(|scope| {
        let commit = |wal: &Wal| {
            let mut count = 0_u32;
            while Instant::now() < until {
                wal.append_durable(&[7; 100])?;
                count += 1;
            }
            Ok::<_, ringwal::Error>(count)
        };
        let threads: Vec<_> = logs.iter().map(|wal| scope.spawn(move || commit(wal))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap_or(Ok(0)));
        joined.sum::<Result<u32>>()
    })?;
    Ok(f64::from(total) / time.as_secs_f64())
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map_or_else(
        || std::env::temp_dir().join(format!("ringwal-costs-{}", std::process::id())),
        Into::into,
    );
    let mut number = |or: u64| args.next().and_then(|arg| arg.parse().ok()).unwrap_or(or);
    let (count, segment) = (number(10), number(1 << 20));

    print("before", &dir);
    let begun = Instant::now();
    let open = |n: u64| {
        let wal = Wal::builder(dir.join(n.to_string())).segment_size(segment);
        wal.max_total_bytes(segment * 8).open()
    };
    let logs = (0..count).map(open).collect::<Result<Vec<_>>>()?;
    let each = begun.elapsed() / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    println!("{count} logs of {segment}-byte segments, opened in {each:?} each");
    for wal in &logs {
        wal.append_durable(b"hello")?;
    }
    // After their first commit logs prepare, seal and time the device.
    std::thread::sleep(Duration::from_secs(2));
    print("one record each, after 2 s", &dir);
    println!("{:.0} commits/s", commits(&logs, Duration::from_secs(3))?);
    print("after the commits", &dir);
    let begun = Instant::now();
    drop(logs);
    println!("closed in {:?}", begun.elapsed());
    print("closed", &dir);
    std::fs::remove_dir_all(&dir).ok();
    Ok(())
}
