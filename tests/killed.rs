//! A writing process is killed at a random moment, again and again, over the same log. Whoever comes
//! after it finds every record that it had acknowledged, in order, without a gap, and nothing that
//! it had not appended.
//!
//! The writer is this test binary itself, run with `RINGWAL_KILL_DIR` set; its acknowledgements go
//! through a pipe to the parent, which outlives it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they did")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ringwal::{BackendChoice, CommitMethod, Durability, Error, Wal};
use support::{Temp, backends, long, read_all};

const THREADS: u32 = 3;

fn payload(round: u32, thread: u32, n: u32) -> Vec<u8> {
    let len = (n as usize * 37) % 900;
    let mut bytes = format!("{round} {thread} {n} ").into_bytes();
    bytes.extend((0..len).map(|i| (i as u32 ^ n ^ thread) as u8));
    bytes
}

fn parse(payload: &[u8]) -> (u32, u32, u32) {
    let mut parts = payload.splitn(4, |&b| b == b' ');
    let mut number = || std::str::from_utf8(parts.next().unwrap()).unwrap().parse().unwrap();
    (number(), number(), number())
}

fn open(dir: &Path, config: u32) -> Result<Wal, Error> {
    let backend = match config & 1 {
        0 => BackendChoice::Auto,
        _ => BackendChoice::Std,
    };
    let method = match config & 2 {
        0 => CommitMethod::LinkedFsync,
        _ => CommitMethod::Dsync,
    };
    let durability = match config % 5 {
        3 => Durability::Interval(Duration::from_millis(2)),
        4 => Durability::Manual,
        _ => Durability::EveryGroup,
    };
    let builder = Wal::builder(dir)
        .segment_size(256 << 10)
        .backend(backend)
        .commit_method(method)
        .durability(durability);
    // In every third configuration retention is on.
    if config % 3 == 2 { builder.max_segments(6).open() } else { builder.open() }
}

/// The child: appends and acknowledges until it is killed.
#[test]
fn writer() {
    let Ok(dir) = std::env::var("RINGWAL_KILL_DIR") else { return };
    let number = |name| std::env::var(name).unwrap().parse::<u32>().unwrap();
    let (round, config) = (number("RINGWAL_KILL_ROUND"), number("RINGWAL_KILL_CONFIG"));
    let wal = open(Path::new(&dir), config).unwrap();
    let writers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let wal = wal.clone();
            std::thread::spawn(move || {
                for n in 0.. {
                    let lsn = wal.append(&payload(round, thread, n)).unwrap();
                    if n % 3 == thread % 3 {
                        wal.wait_durable(lsn).unwrap();
                        // One write of one line: whole or not at all.
                        let line = format!("ack {thread} {n}\n");
                        std::io::stderr().write_all(line.as_bytes()).unwrap();
                    }
                }
            })
        })
        .collect();
    for w in writers {
        w.join().unwrap();
    }
}

#[test]
fn every_acknowledged_record_survives_sigkill() {
    let configs: Vec<u32> = if backends().len() == 2 { (0..15).collect() } else { vec![1, 3, 5] };
    let rounds_each = if long() { 60 } else { 4 };
    let mut kills = 0;
    let mut acknowledged = 0;
    for &config in &configs {
        let temp = Temp::new();
        let mut known: Vec<(u32, u32, u32)> = Vec::new();
        for round in 0..rounds_each {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["writer", "--exact", "--nocapture", "--test-threads=1"])
                .env("RINGWAL_KILL_DIR", temp.log())
                .env("RINGWAL_KILL_ROUND", round.to_string())
                .env("RINGWAL_KILL_CONFIG", config.to_string())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let stderr = child.stderr.take().unwrap();
            let reader = std::thread::spawn(move || {
                let mut last = vec![None; THREADS as usize];
                let mut lines = Vec::new();
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let parts: Vec<_> = line.split(' ').collect();
                    if let ["ack", thread, n] = parts[..] {
                        let (thread, n): (u32, u32) = (thread.parse().unwrap(), n.parse().unwrap());
                        last[thread as usize] = Some(n);
                    } else {
                        lines.push(line);
                    }
                }
                (last, lines)
            });
            let wait = 30 + u64::from((round * 7 + config * 13) % 50) * 2;
            std::thread::sleep(Duration::from_millis(wait));
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            let (last, lines) = reader.join().unwrap();
            assert!(
                !lines.iter().any(|l| l.contains("panicked")),
                "the writer failed by itself: {lines:?}"
            );
            acknowledged += last.iter().flatten().map(|n| u64::from(*n) + 1).sum::<u64>();

            let wal = open(&temp.log(), config).unwrap();
            let found = read_all(&wal);
            assert!(found.windows(2).all(|w| w[0].0 < w[1].0), "positions rise");
            let mut next = vec![0; THREADS as usize];
            let mut seen = Vec::new();
            let retained = config % 3 == 2;
            let mut started = !retained;
            for (_, bytes) in &found {
                let (r, thread, n) = parse(bytes);
                assert_eq!(*bytes, payload(r, thread, n), "content");
                seen.push((r, thread, n));
                if r == round {
                    let expected = &mut next[thread as usize];
                    if retained && *expected == 0 && n > 0 {
                        // Retention may have removed the thread's first records.
                        *expected = n;
                    }
                    assert_eq!(n, *expected, "no gap, thread {thread}, round {round}");
                    *expected += 1;
                }
            }
            for (thread, last) in last.iter().enumerate() {
                if let Some(last) = last {
                    let found = next[thread];
                    assert!(found > *last, "config {config}, round {round}: {last} lost, {found}");
                }
            }
            // What was recovered before is still there, and in front: all of it, or a suffix.
            if let Some(&first) = seen.first() {
                let at = known.iter().position(|k| *k == first);
                started |= at == Some(0) || known.is_empty();
                if let Some(at) = at {
                    assert!(seen.starts_with(&known[at..]), "the recovered prefix stays");
                }
            }
            assert!(started || retained, "nothing is removed unasked");
            known = seen;
            wal.close().unwrap();
        }
    }
    assert!(kills >= 50 || configs.len() < 15, "{kills} kills");
    println!("{kills} kills, {acknowledged} acknowledged records found");
}
