//! The logs that inputs edit. The engine writes them once in a process.

use std::sync::{Arc, OnceLock};

use super::life::{Life, options, recovered};
use super::memory::{Files, Memory};

/// A sound log, and contents of its files at other times and in other epochs.
pub(super) struct Base {
    pub(super) files: Files,
    pub(super) stale: Vec<Arc<Vec<u8>>>,
    pub(super) segment_size: u64,
}

const SMALL: u64 = 16 << 10;
const LARGE: u64 = 32 << 10;

pub(super) fn base(choice: u8) -> &'static Base {
    static ALL: OnceLock<Vec<Base>> = OnceLock::new();
    let all = ALL.get_or_init(|| vec![closed(), abandoned(), cut_short(), unwritten(), nothing()]);
    &all[usize::from(choice) % all.len()]
}

fn payload(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (seed * 31 + i) as u8).collect()
}

/// Records of many lengths, and every fourth time a batch.
fn write(life: &mut Life, from: usize, count: usize) {
    for n in from..from + count {
        let one = |k: usize| payload(n + k, n * 61 * (k + 1) % 900);
        let items: Vec<_> = (0..1 + n % 4 / 3 * 3).map(one).collect();
        let _ = life.append(&items).expect("a sound log takes records");
        if n % 3 == 0 {
            life.make_durable().expect("nothing fails");
        }
    }
}

fn open(memory: &Arc<Memory>, segment_size: u64, nonce: u8) -> Life {
    Life::open(memory, &options(segment_size), nonce).expect("a sound log opens")
}

fn base_of(memory: &Arc<Memory>, segment_size: u64, earlier: &[Files]) -> Base {
    let files = memory.files();
    // The same positions in another epoch.
    let mut other = open(memory, segment_size, 99);
    write(&mut other, 50, 12);
    other.close().expect("nothing fails");
    let later = [memory.files()];
    let contents = earlier.iter().chain(&later).flat_map(Files::values);
    let mut stale: Vec<_> = contents.map(|content| Arc::clone(&content.bytes)).collect();
    stale.dedup();
    Base { files, stale, segment_size }
}

/// Two epochs, three segments and their spares, closed.
fn closed() -> Base {
    let memory = Memory::new(&Files::new());
    let mut life = open(&memory, SMALL, 1);
    write(&mut life, 0, 8);
    life.close().expect("nothing fails");
    let earlier = memory.files();
    let mut life = open(&memory, SMALL, 2);
    write(&mut life, 8, 10);
    life.close().expect("nothing fails");
    base_of(&memory, SMALL, &[earlier])
}

/// Large groups, abandoned while records were appended.
fn abandoned() -> Base {
    let memory = Memory::new(&Files::new());
    let mut life = open(&memory, LARGE, 3);
    write(&mut life, 0, 9);
    life.append(&[payload(7, 5900)]).expect("a sound log takes records");
    life.make_durable().expect("nothing fails");
    let earlier = memory.files();
    write(&mut life, 30, 6);
    life.run(3);
    drop(life);
    base_of(&memory, LARGE, &[earlier])
}

/// Its oldest segments were removed; idle at the end.
fn cut_short() -> Base {
    let memory = Memory::new(&Files::new());
    let mut life = open(&memory, SMALL, 4);
    write(&mut life, 0, 24);
    life.make_durable().expect("nothing fails");
    let earlier = memory.files();
    life.state.retention.ask_truncation(life.state.durable.end());
    for _ in 0..50 {
        life.work();
    }
    life.idle().expect("nothing fails");
    drop(life);
    base_of(&memory, SMALL, &[earlier])
}

/// Segments that were prepared and never written.
fn unwritten() -> Base {
    let memory = Memory::new(&Files::new());
    drop(recovered(&memory, &options(SMALL), 5).expect("a new log"));
    base_of(&memory, SMALL, &[])
}

fn nothing() -> Base {
    Base { files: Files::new(), stale: Vec::new(), segment_size: SMALL }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_logs_open_as_their_names_say() {
        let segments = |choice| base(choice).files.keys().filter(|n| n.ends_with(".wal")).count();
        assert!(segments(0) >= 4 && segments(1) >= 2 && segments(2) >= 2, "several segments");
        assert_eq!((segments(3), segments(4)), (1, 0));
        assert!(!base(2).files.contains_key("wal.00000000000000000000.wal"), "the oldest is gone");
        for choice in 0..3 {
            let n = base(choice).stale.len();
            assert!(n >= 3, "{n} other contents of log {choice}");
        }
    }
}
