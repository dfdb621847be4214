//! The cost of single calls: `cargo bench --bench micro`.
//!
//! Appends include the device's share once the ring is full. To compare the engine with the device,
//! run `loadgen`.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use ringwal::{Durability, Lsn, Wal};

fn main() {
    divan::main();
}

/// A log that syncs only when it must, so that the figures show the calls and not the disk.
struct Log(Wal, std::path::PathBuf);

impl Log {
    fn open(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("ringwal-bench-{name}-{}", std::process::id()));
        let builder = Wal::builder(&dir).durability(Durability::Manual).max_total_bytes(512 << 20);
        Log(builder.open().expect("a log in the temporary directory"), dir)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = self.0.close();
        let _ = std::fs::remove_dir_all(&self.1);
    }
}

const BATCH: usize = 1000;

#[divan::bench(args = [64, 100, 1024], threads = [1, 2])]
fn append(bencher: Bencher<'_, '_>, size: usize) {
    let log = Log::open("append");
    let payload = vec![7; size];
    bencher.counter(ItemsCount::new(BATCH)).counter(BytesCount::new(BATCH * size)).bench(|| {
        for _ in 0..BATCH {
            black_box(log.0.append(black_box(&payload)).expect("appended"));
        }
    });
}

#[divan::bench(args = [100])]
fn append_batch(bencher: Bencher<'_, '_>, size: usize) {
    let log = Log::open("batch");
    let records = vec![vec![7; size]; BATCH];
    bencher
        .counter(ItemsCount::new(BATCH))
        .bench(|| black_box(log.0.append_batch(black_box(&records)).expect("appended")));
}

#[divan::bench]
fn a_durable_position_asked_for(bencher: Bencher<'_, '_>) {
    let log = Log::open("asked");
    let lsn = log.0.append_durable(b"x").expect("durable");
    bencher.bench(|| log.0.wait_durable(black_box(lsn)).expect("durable"));
}

#[divan::bench(args = [100, 1024])]
fn replay(bencher: Bencher<'_, '_>, size: usize) {
    let log = Log::open("replay");
    let records = (64 << 20) / size;
    for _ in 0..records {
        log.0.append(&vec![7; size]).expect("appended");
    }
    log.0.sync().expect("durable");
    bencher.counter(ItemsCount::new(records)).counter(BytesCount::new(records * size)).bench(
        || {
            let mut reader = log.0.reader(Lsn::ZERO);
            let mut bytes = 0;
            while let Some(record) = reader.next_ref().expect("read") {
                bytes += record.payload.len();
            }
            bytes
        },
    );
}
