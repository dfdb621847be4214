//! Fixed amounts of work, whose instructions `benches/gate` counts. A count does not depend on the
//! load of the machine.
//!
//! The counted functions are never inlined, so that callgrind reports them by name.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use ringwal::{BackendChoice, Durability, Lsn, Wal};

/// Number of appends, few enough that they fit in the ring: no append waits.
const APPENDS: usize = 20_000;
const COMMITS: usize = 2_000;
const LOG: usize = 16 << 20;

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        Place(std::env::temp_dir().join(format!("ringwal-counted-{name}-{}", std::process::id())))
    }

    fn open(&self, backend: BackendChoice, delay: Duration) -> Wal {
        let builder = Wal::builder(&self.0)
            .segment_size(32 << 20)
            .backend(backend)
            .commit_delay(delay)
            .idle_seal(Duration::from_secs(60))
            .durability(Durability::EveryGroup);
        builder.open().expect("a log in the temporary directory")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[inline(never)]
fn counted_append(wal: &Wal, payload: &[u8]) {
    for _ in 0..APPENDS {
        black_box(wal.append(black_box(payload)).expect("appended"));
    }
}

#[inline(never)]
fn counted_batch(wal: &Wal, payloads: &[Vec<u8>]) {
    for _ in 0..APPENDS / payloads.len() {
        black_box(wal.append_batch(black_box(payloads)).expect("appended"));
    }
}

#[inline(never)]
fn counted_replay(wal: &Wal) -> usize {
    let mut reader = wal.reader(Lsn::ZERO);
    let mut bytes = 0;
    while let Some(record) = reader.next_ref().expect("read") {
        bytes += black_box(record.payload).len();
    }
    bytes
}

fn append(size: usize) {
    let place = Place::new("append");
    let wal = place.open(BackendChoice::Discard, Duration::from_secs(1));
    counted_append(&wal, &vec![7; size]);
}

fn batch() {
    let place = Place::new("batch");
    let wal = place.open(BackendChoice::Discard, Duration::from_secs(1));
    counted_batch(&wal, &vec![vec![7; 100]; 100]);
}

/// Commits one group at a time: the I/O thread's seal, submission and completion.
fn seal() {
    let place = Place::new("seal");
    let wal = place.open(BackendChoice::Discard, Duration::ZERO);
    for _ in 0..COMMITS {
        wal.append_durable(&[7; 100]).expect("durable");
    }
}

fn replay(size: usize) {
    let place = Place::new("replay");
    let wal = place.open(BackendChoice::Std, Duration::from_millis(1));
    for _ in 0..LOG / size {
        wal.append(&vec![7; size]).expect("appended");
    }
    wal.sync().expect("durable");
    assert_eq!(counted_replay(&wal), LOG / size * size);
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("append-100") => append(100),
        Some("append-1024") => append(1024),
        Some("batch-100x100") => batch(),
        Some("seal") => seal(),
        Some("replay-100") => replay(100),
        Some("replay-1024") => replay(1024),
        // `cargo bench` and `cargo test --benches` run this program without a purpose.
        _ => {}
    }
}
