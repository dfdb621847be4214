//! Opening from outside while retention removes the oldest segments all the time.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::Temp;
use ringwal::{Lsn, ReadOnlyWal, Wal};

const SEGMENTS: usize = 1500;

#[test]
fn log_whose_oldest_segments_go_all_the_time_is_read_from_its_oldest_record() {
    // In memory, if that can be had: segments then go fast.
    read_beside_retention(&Temp::new_in_memory());
}

/// As on a system where no reader can see that a writer lives.
#[test]
fn log_without_an_end_file_is_read_while_its_oldest_segments_go() {
    let temp = Temp::new_in_memory();
    // No file of the log: the writer goes on without one.
    std::fs::create_dir_all(temp.log().join("wal.end")).unwrap();
    read_beside_retention(&temp);
    assert!(temp.log().join("wal.end").is_dir());
}

/// A list of so many segments takes longer than the writer takes to remove some of them.
fn read_beside_retention(temp: &Temp) {
    let builder = Wal::builder(temp.log()).segment_size(16 << 10).ring_capacity(64 << 10);
    let wal = builder.max_segments(SEGMENTS).open().unwrap();
    let append = || wal.append(&[7; 3900]).unwrap();
    while wal.stats().kept_bytes < (SEGMENTS as u64 - 10) * (16 << 10) {
        append();
    }
    let is_over = AtomicBool::new(false);
    let read = || {
        for _ in 0..4 {
            let log = ReadOnlyWal::open(temp.log()).unwrap();
            let first = log.reader(Lsn::ZERO).unwrap().next().expect("a record").unwrap();
            assert_eq!(first.payload, [7; 3900]);
            // Retention may have overtaken it by now, and nothing else.
            match log.read(first.lsn) {
                Ok(again) => assert_eq!(again.payload, first.payload),
                Err(e) => assert!(matches!(e, ringwal::Error::Pruned { .. }), "{e:?}"),
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                append();
            }
        });
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
        is_over.store(true, Ordering::Relaxed);
        if let Err(panic) = read {
            std::panic::resume_unwind(panic);
        }
    });
}
