//! The costs of a service around the log: followers, read-only followers in another process, many
//! idle followers, typed records, and the open of a log with many segments. `cargo bench --bench
//! services`; a name as the argument runs one benchmark.
//!
//! Each figure is a median over interleaved rounds, with the least and the greatest. The logs are
//! in the current directory, which should be on the disk to measure.

#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ringwal::{Follow, Lsn, ReadOnlyWal, TypedWal, Wal, WalBuilder};

const ROUNDS: usize = 21;
/// Bytes of segments that pipelined runs keep.
const KEEP: u64 = 1 << 30;

/// Largest lag of a live follower at the end of the appends, in bytes.
static FURTHEST: AtomicU64 = AtomicU64::new(0);

/// A directory that is removed on drop.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let dir = PathBuf::from(format!("./ringwal-bench-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        Place(dir)
    }

    fn builder(&self) -> WalBuilder {
        Wal::builder(&self.0).max_total_bytes(1 << 30)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The time of a clock that all processes share, in nanoseconds.
#[cfg(target_os = "linux")]
fn now() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

#[cfg(not(target_os = "linux"))]
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("a clock").as_nanos() as u64
}

fn median(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.3} ({:.3} - {:.3})", values[values.len() / 2], values[0], values[values.len() - 1])
}

/// Times of a record, in nanoseconds from its append: of the durability callback on the I/O thread,
/// and of the delivery.
struct Times {
    durable: u64,
    delivered: u64,
}

fn tell_latencies(what: &str, times: &[Times]) {
    let tell = |name: &str, mut nanoseconds: Vec<f64>| {
        nanoseconds.sort_by(f64::total_cmp);
        let us =
            |share: f64| nanoseconds[((nanoseconds.len() - 1) as f64 * share) as usize] / 1000.0;
        println!(
            "{what}, {name}: p50 {:.1} us, p90 {:.1} us, p99 {:.1} us",
            us(0.5),
            us(0.9),
            us(0.99)
        );
    };
    tell("append to durable", times.iter().map(|t| t.durable as f64).collect());
    tell("append to delivered", times.iter().map(|t| t.delivered as f64).collect());
    // Below zero: the record was delivered before the callback ran.
    let between = |t: &Times| t.delivered as f64 - t.durable as f64;
    tell("durable to delivered", times.iter().map(between).collect());
}

/// Appends `records` records, each after the last one was delivered.
fn paced(wal: &Wal, records: usize, delivered: impl Fn() -> u64) -> Vec<Times> {
    let (send, receive) = mpsc::channel();
    let one = |n: u64| {
        let begun = now();
        let lsn = wal.append(&n.to_le_bytes()).expect("appended");
        let send = send.clone();
        wal.on_durable(lsn, move |_| send.send(now()).expect("the receiver is alive"));
        let durable = receive.recv().expect("durable") - begun;
        let delivered = delivered() - begun;
        std::thread::sleep(Duration::from_micros(200));
        Times { durable, delivered }
    };
    (0..records as u64).map(one).collect()
}

/// Measures the time from durable to delivered in one process. The follower blocks in `next_ref`.
fn follow() {
    let place = Place::new("follow");
    let wal = place.builder().open().expect("a log");
    let (send, receive) = mpsc::channel();
    let mut follower = wal.follow(Lsn::ZERO).expect("a follower");
    let thread = std::thread::spawn(move || {
        while let Ok(Some(record)) = follower.next_ref() {
            let _ = (record.payload.len(), send.send(now()));
        }
    });
    let times = paced(&wal, 5000, || receive.recv().expect("delivered"));
    wal.close().expect("closed");
    thread.join().expect("followed");
    tell_latencies("follower in the same process", &times);
}

/// Measures the time from durable to delivered in another process: this program, which writes the
/// time of each delivery to a file.
fn follow_across() {
    let place = Place::new("across");
    let wal = place.builder().open().expect("a log");
    wal.append_durable(b"there is something to open").expect("appended");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["follow-child", place.0.to_str().expect("a path")])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    lines.next();
    let mut lines = lines.map(|line| line.expect("a line").parse().expect("a time"));
    let lines = std::cell::RefCell::new(&mut lines);
    let times = paced(&wal, 5000, || lines.borrow_mut().next().expect("delivered"));
    let _ = child.kill();
    let _ = child.wait();
    tell_latencies("follower in another process", &times);
}

fn follow_child(dir: &Path) {
    let wal = ReadOnlyWal::open(dir).expect("a log");
    let mut follower = wal.follow(Lsn::ZERO).expect("a follower");
    while let Ok(Some(_)) = follower.next_ref() {
        println!("{}", now());
    }
}

/// Measures records of 100 bytes per second, from one producer that does not wait, while the
/// followers of `beside` exist.
fn pipelined(keep: u64, beside: impl FnOnce(&Wal) -> Vec<Follow>, busy: bool) -> f64 {
    const TIME: Duration = Duration::from_millis(700);
    let place = Place::new("pipelined");
    let wal = Wal::builder(&place.0).max_total_bytes(keep).open().expect("a log");
    // By now the first segments are prepared, and the commit method is chosen.
    std::thread::sleep(Duration::from_millis(300));
    let mut idle = beside(&wal);
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::new(AtomicU64::new(0));
    let follower = busy.then(|| {
        let (mut follower, seen) = (idle.pop().expect("a follower"), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut bytes = 0;
            while let Ok(Some(records)) = follower.next_records() {
                let (mut n, mut last) = (0, 0);
                for record in records {
                    bytes += record.payload.len();
                    (n, last) = (n + 1, record.lsn.as_u64());
                }
                let _ = (n, seen.store(last, Ordering::Relaxed));
            }
            bytes
        })
    });
    let payload = [7; 100];
    let begun = Instant::now();
    let mut records = 0_u64;
    while begun.elapsed() < TIME {
        for _ in 0..1000 {
            wal.append(&payload).expect("appended");
        }
        records += 1000;
    }
    let end = wal.sync().expect("durable");
    let rate = records as f64 / begun.elapsed().as_secs_f64();
    if busy {
        let behind = end.as_u64().saturating_sub(seen.load(Ordering::Relaxed));
        FURTHEST.fetch_max(behind, Ordering::Relaxed);
    }
    stop.store(true, Ordering::Relaxed);
    drop(idle);
    wal.close().expect("closed");
    if let Some(thread) = follower {
        thread.join().expect("followed");
    }
    rate
}

fn followers(n: usize) -> impl Fn(&Wal) -> Vec<Follow> {
    move |wal| (0..n).map(|_| wal.follow(wal.durable_end()).expect("a follower")).collect()
}

/// Interleaves both measurements, so that a slow minute of the machine affects both.
fn compare(what: &str, before: impl Fn() -> f64, after: impl Fn() -> f64) {
    let (mut ratios, mut befores, mut afters) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (b, a) = if round % 2 == 0 {
            let b = before();
            (b, after())
        } else {
            let a = after();
            (before(), a)
        };
        ratios.push(a / b);
        befores.push(b / 1e6);
        afters.push(a / 1e6);
    }
    println!(
        "{what}: ratio {}; {} M/s without, {} M/s with",
        median(&mut ratios),
        median(&mut befores),
        median(&mut afters)
    );
}

/// Measures the cost of followers that are not polled. They keep segments from being recycled, so
/// the comparison recycles none either.
fn idle_followers() {
    const ALL: u64 = 1 << 40;
    let none = || pipelined(ALL, followers(0), false);
    let many = || pipelined(ALL, followers(1000), false);
    compare("1,000 followers that do not read, pipelined appends", none, many);
}

fn live_follower() {
    compare(
        "one follower at full speed, pipelined appends",
        || pipelined(KEEP, followers(0), false),
        || pipelined(KEEP, followers(1), true),
    );
    let furthest = FURTHEST.load(Ordering::Relaxed) >> 20;
    println!("  the follower was {furthest} MiB behind at most when the last record was durable");
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Event {
    account: u64,
    cents: i64,
    text: String,
    tags: Vec<u32>,
}

/// Compares a typed append with an encoding into a buffer and an append of that.
fn typed() {
    const RECORDS: u64 = 300_000;
    let event = |n: u64| Event {
        account: n,
        cents: -(n as i64),
        text: "something that was bought".into(),
        tags: vec![n as u32, 7, 9],
    };
    let events: Vec<_> = (0..1000).map(event).collect();
    let place = Place::new("typed");
    let manual = ringwal::Durability::Manual;
    let wal = place.builder().ring_capacity(64 << 20).durability(manual).open().expect("a log");
    let typed = TypedWal::<Event>::new(wal.clone());
    let by_hand = || {
        let mut bytes = vec![0; 1024];
        let begun = Instant::now();
        for n in 0..RECORDS {
            let event = &events[n as usize % events.len()];
            let used = postcard::to_slice(event, &mut bytes).expect("encoded");
            wal.append(used).expect("appended");
        }
        RECORDS as f64 / begun.elapsed().as_secs_f64()
    };
    let by_type = || {
        let begun = Instant::now();
        for n in 0..RECORDS {
            typed.append(&events[n as usize % events.len()]).expect("appended");
        }
        RECORDS as f64 / begun.elapsed().as_secs_f64()
    };
    compare("typed appends against encode and append", by_hand, by_type);
    wal.close().expect("closed");
}

/// Measures the open of a log with many small segments.
fn open_many() {
    const SEGMENTS: usize = 10_000;
    let place = Place::new("many");
    let builder = Wal::builder(&place.0).segment_size(16 << 10).ring_capacity(8 << 10);
    let wal = builder.clone().durability(ringwal::Durability::Manual).open().expect("a log");
    while (wal.stats().rotations as usize) < SEGMENTS {
        wal.append(&[7; 1500]).expect("appended");
    }
    wal.close().expect("closed");
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let wal = builder.clone().open().expect("opened");
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        wal.close().expect("closed");
    }
    println!("opening a log of {SEGMENTS} segments: {} ms", median(&mut times));
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [command, dir] = &arguments[..]
        && command == "follow-child"
    {
        return follow_child(Path::new(dir));
    }
    type Part = (&'static str, fn());
    let parts: [Part; 6] = [
        ("follow", follow),
        ("across", follow_across),
        ("live", live_follower),
        ("idle", idle_followers),
        ("typed", typed),
        ("open", open_many),
    ];
    for (name, part) in parts {
        if arguments.is_empty() || arguments.iter().any(|argument| argument == name) {
            part();
        }
    }
}
