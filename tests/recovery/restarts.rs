//! Groups that a log writes for itself cost the user neither records nor space. However often a log
//! is opened, closed and killed, a record stays within the limits, the files stay few, and space
//! can be freed on a full disk. On the simulated disk.
#![allow(clippy::print_stdout, reason = "a test says what it measured")]

use std::time::Duration;

use ringwal::testing::SimulatedDisk;
use ringwal::{Error, Lsn, Wal, WalBuilder};

fn builder(size: u64) -> WalBuilder {
    Wal::builder("not looked at").segment_size(size).ring_capacity(32 << 10)
}

fn payloads(wal: &Wal) -> Vec<Vec<u8>> {
    wal.reader(Lsn::ZERO).map(|r| r.unwrap().payload).collect()
}

fn segments(disk: &SimulatedDisk) -> usize {
    disk.names().iter().filter(|name| name.ends_with(".wal")).count()
}

/// Each limit: its name, the settings, and the number of files that it allows.
fn limits(size: u64) -> [(&'static str, WalBuilder, usize); 4] {
    [
        ("2 segments", builder(size).max_segments(2), 2),
        ("3 segments", builder(size).max_segments(3), 3),
        ("5 segments", builder(size).max_segments(5), 5),
        ("3 segments' bytes", builder(size).max_total_bytes(3 * size), 3),
    ]
}

#[test]
fn record_survives_any_number_of_restarts_within_every_limit() {
    for (size, kills) in
        [16_u64, 32, 64, 256].into_iter().flat_map(|k| [(k << 10, false), (k << 10, true)])
    {
        for (limit, builder, most) in limits(size) {
            let disk = SimulatedDisk::new(size + u64::from(kills));
            let wal = disk.open(&builder).unwrap();
            wal.append_durable(b"kept").unwrap();
            wal.close().unwrap();
            for n in 0..140 {
                let wal = disk.open(&builder).unwrap();
                let text = format!("{size} bytes, {limit}, kills {kills}, restart {n}");
                assert_eq!(payloads(&wal), [b"kept"], "{text}");
                // A service replays the log when it starts.
                assert_eq!(wal.replay(|_, _| Ok::<(), Error>(())).unwrap(), 1, "{text}");
                disk.advance(Duration::from_secs(1));
                wal.sync().unwrap();
                if kills {
                    disk.kill();
                }
                drop(wal);
                assert!(segments(&disk) <= most.max(3), "{text}: {:?}", disk.names());
            }
        }
    }
}

#[test]
fn writers_killed_after_one_record_leave_few_files() {
    for (limit, builder, most) in limits(16 << 10) {
        let disk = SimulatedDisk::new(7);
        for n in 0..220_u32 {
            let wal = disk.open(&builder).unwrap();
            wal.append_durable(&n.to_le_bytes()).unwrap();
            assert_eq!(payloads(&wal).last().unwrap()[..], n.to_le_bytes(), "{limit}");
            disk.kill();
            drop(wal);
            assert!(segments(&disk) <= most + 3, "{limit}, life {n}: {:?}", disk.names());
        }
    }
}

/// Appends until the disk is full.
fn fill(wal: &Wal) -> Vec<Lsn> {
    let mut all = Vec::new();
    loop {
        match wal.append_durable(&[7; 1000]) {
            Ok(lsn) => all.push(lsn),
            Err(Error::NoSpace) => return all,
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn truncation_frees_space_on_a_full_disk_after_any_number_of_restarts() {
    for seed in 0..6 {
        let disk = SimulatedDisk::new(seed);
        let settings = builder(64 << 10);
        let wal = disk.open(&settings).unwrap();
        disk.set_capacity(300 << 10);
        let filled = fill(&wal);
        wal.close().unwrap();
        for n in 0..100 {
            let wal =
                disk.open(&settings).unwrap_or_else(|e| panic!("seed {seed}, restart {n}: {e}"));
            assert!(matches!(wal.append_durable(&[7; 1000]), Err(Error::NoSpace)), "{seed}, {n}");
            if (seed + n) % 3 == 0 {
                disk.kill();
            }
            drop(wal);
        }
        let wal = disk.open(&settings).unwrap();
        assert_eq!(payloads(&wal).len(), filled.len());
        let oldest = wal.truncate_before(filled[filled.len() / 2]).unwrap();
        assert!(oldest > Lsn::ZERO, "seed {seed}");
        disk.advance(Duration::from_secs(1));
        let healed = (0..1000).any(|_| wal.append_durable(b"there is room").is_ok());
        assert!(healed, "seed {seed}");
    }
}

/// Without a free block, the truncation takes the block of the last mark.
#[test]
fn truncation_frees_space_on_a_full_disk_without_a_free_block() {
    for seed in 0..20 {
        let disk = SimulatedDisk::new(seed);
        // The segment has three blocks for groups, and keeps none.
        let settings = builder(16 << 10);
        disk.set_capacity(32 << 10);
        let wal = disk.open(&settings).unwrap();
        let mut last = Lsn::ZERO;
        for _ in 0..4 {
            last = wal.append_durable(b"of one block").unwrap();
        }
        // The idle seal takes the last block.
        while wal.stats().control_groups < 2 {
            disk.advance(Duration::from_secs(1));
            let _ = wal.try_append(&[0; 1 << 20]);
        }
        let more = wal.append(b"more");
        assert!(matches!(more, Err(Error::NoSpace)), "seed {seed}: {more:?} {:?}", wal.stats());
        if seed % 2 == 0 {
            disk.kill();
        }
        drop(wal);
        let wal = disk.open(&settings).unwrap();
        assert_eq!(payloads(&wal).len(), 4, "seed {seed}");
        assert!(wal.truncate_before(last).unwrap() > Lsn::ZERO, "seed {seed}");
        disk.advance(Duration::from_secs(1));
        let mut tried = Vec::new();
        let healed = (0..1000).any(|_| match wal.append_durable(b"there is room") {
            Ok(_) => true,
            Err(e) => {
                tried.push(e);
                false
            }
        });
        assert!(healed, "seed {seed}: {:?} {:?} {:?}", tried.last(), wal.stats(), disk.names());
        let kept = payloads(&wal);
        disk.kill();
        drop(wal);
        assert_eq!(payloads(&disk.open(&settings).unwrap()), kept, "seed {seed}");
    }
}

#[test]
fn truncate_before_above_the_end_removes_no_later_record() {
    let disk = SimulatedDisk::new(3);
    let wal = disk.open(&builder(16 << 10)).unwrap();
    wal.append_durable(b"before").unwrap();
    for above in [u64::MAX, 1 << 40] {
        wal.truncate_before(Lsn::new(above)).unwrap();
    }
    let after: Vec<_> = (0..500_u32).map(|n| n.to_le_bytes().to_vec()).collect();
    for payload in &after {
        wal.append_durable(payload).unwrap();
    }
    disk.advance(Duration::from_secs(1));
    wal.truncate_before(Lsn::ZERO).unwrap();
    assert!(payloads(&wal).ends_with(&after));
}

/// The durable mark in the next group's header makes a mark of its own needless.
#[test]
fn regular_commits_are_not_followed_by_idle_seals() {
    for pause in [1000, 100, 10] {
        let disk = SimulatedDisk::new(pause);
        let wal = disk.open(&builder(1 << 20)).unwrap();
        for _ in 0..200 {
            wal.append_durable(&[7; 100]).unwrap();
            // Advance time. Calls without another effect let the log do what is due.
            for _ in 0..20 {
                disk.advance(Duration::from_millis(pause) / 20);
                let _ = wal.try_append(&[0; 1 << 20]);
            }
        }
        let stats = wal.stats();
        println!("every {pause} ms: {} bytes for 20000", stats.group_bytes);
        assert!(stats.control_groups < 10, "every {pause} ms: {stats:?}");
        for _ in 0..200 {
            disk.advance(Duration::from_millis(pause));
            let _ = wal.try_append(&[0; 1 << 20]);
        }
        assert_eq!(wal.stats().control_groups, stats.control_groups + 1, "then the log is idle");
    }
}

/// The block kept for the epoch group may leave no other room in the prepared segment.
#[test]
fn restarted_log_of_large_groups_appends_within_tight_limits() {
    for (segments, n) in [2, 3, 4].into_iter().flat_map(|s| (0..12).map(move |n| (s, n))) {
        let disk = SimulatedDisk::new(n);
        let settings = Wal::builder("not looked at").segment_size(16 << 10).max_segments(segments);
        let settings = settings.ring_capacity(24 << 10).max_record_size(9000);
        let wal = disk.open(&settings).unwrap();
        for _ in 0..n {
            wal.append_durable(b"one block").unwrap();
        }
        wal.close().unwrap();
        for _ in 0..5 {
            let wal = disk.open(&settings).unwrap();
            wal.append_durable(&[7; 9000]).unwrap();
            assert_eq!(payloads(&wal).last().unwrap(), &[7; 9000]);
            wal.close().unwrap();
        }
    }
}
