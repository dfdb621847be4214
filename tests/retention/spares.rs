//! How many segments a log prepares, and that they do not count as segments that are kept.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::Duration;

use crate::support::Temp;
use ringwal::testing::SimulatedDisk;
use ringwal::{Lsn, Wal};

fn files(disk: &SimulatedDisk) -> usize {
    disk.names().iter().filter(|name| name.ends_with(".wal")).count()
}

/// Lets time pass in which the log does what is due.
fn rest(disk: &SimulatedDisk, wal: &Wal) {
    for _ in 0..200 {
        disk.advance(Duration::from_millis(100));
        let _ = wal.try_append(&[0; 1 << 21]);
    }
}

#[test]
fn small_log_has_one_segment_until_a_quarter_of_it_is_full() {
    let disk = SimulatedDisk::new(3);
    let settings = Wal::builder("small").segment_size(1 << 20).ring_capacity(256 << 10);
    let wal = disk.open(&settings).unwrap();
    wal.append_durable(b"hello").unwrap();
    rest(&disk, &wal);
    assert_eq!(files(&disk), 1, "{:?}", disk.names());
    let fill = |records: usize| {
        for _ in 0..records {
            wal.append_durable(&[7; 4000]).unwrap();
        }
        rest(&disk, &wal);
    };
    fill(20);
    assert_eq!(files(&disk), 1, "{:?}", disk.names());
    fill(60);
    assert!((2..=3).contains(&files(&disk)), "{:?}", disk.names());
}

#[test]
fn default_log_with_one_record_has_one_segment() {
    let disk = SimulatedDisk::new(4);
    let wal = disk.open(&Wal::builder("default")).unwrap();
    wal.append_durable(b"hello").unwrap();
    rest(&disk, &wal);
    assert_eq!(files(&disk), 1, "{:?}", disk.names());
    // It is one segment after a restart too.
    wal.close().unwrap();
    let wal = disk.open(&Wal::builder("default")).unwrap();
    wal.append_durable(b"hello").unwrap();
    rest(&disk, &wal);
    assert_eq!(files(&disk), 1, "{:?}", disk.names());
}

#[test]
fn log_without_a_spare_gets_its_next_segments_in_time() {
    let temp = Temp::new();
    let dir = temp.log();
    let (send, done) = mpsc::channel();
    std::thread::spawn(move || {
        let wal = Wal::builder(dir).segment_size(1 << 20).ring_capacity(256 << 10).open().unwrap();
        for n in 0..8000_u32 {
            wal.append(&[&n.to_le_bytes()[..], &[7; 1000]].concat()).unwrap();
        }
        wal.sync().unwrap();
        send.send(wal.stats().rotations).unwrap();
    });
    let rotations = done.recv_timeout(Duration::from_secs(120)).expect("no segment is prepared");
    assert!(rotations >= 7, "{rotations}");
}

#[test]
fn max_segments_counts_segments_with_records_and_not_prepared_ones() {
    for most in [2_usize, 3, 4, 7] {
        let disk = SimulatedDisk::new(most as u64);
        let settings = Wal::builder("counted").segment_size(16 << 10).max_segments(most);
        let wal = disk.open(&settings).unwrap();
        for n in 0..211_u32 {
            wal.append_durable(&n.to_le_bytes()).unwrap();
        }
        rest(&disk, &wal);
        let kept = wal.reader(Lsn::ZERO).map(|r| r.unwrap().payload).collect::<Vec<_>>();
        assert_eq!(kept.last().unwrap()[..], 210_u32.to_le_bytes());
        let of_segments: BTreeSet<_> =
            wal.reader(Lsn::ZERO).map(|r| r.unwrap().lsn.as_u64() / (16 << 10)).collect();
        // The active segment may hold no record yet.
        let segments = of_segments.len();
        assert!(segments == most || segments == most - 1, "{most}: {segments} with records");
        let spares = if most < 4 { 1 } else { 2 };
        assert!(files(&disk) <= most + spares, "{most}: {:?}", disk.names());
    }
}
