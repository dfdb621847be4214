//! A log on a full disk is not blocked by its own writes: it writes the marks for which there is a
//! block, frees space when it is truncated, and uses up no segments for groups of its own. On the
//! simulated disk.

use std::time::Duration;

use ringwal::testing::SimulatedDisk;
use ringwal::{Error, Lsn, RecoveryCase, Wal, WalBuilder};

fn settings() -> WalBuilder {
    Wal::builder("not looked at").segment_size(64 << 10).ring_capacity(32 << 10)
}

fn records(wal: &Wal) -> Vec<(Lsn, Vec<u8>)> {
    wal.reader(Lsn::ZERO).map(|r| r.unwrap()).map(|r| (r.lsn, r.payload)).collect()
}

/// A log on a full disk. Its last segment has free blocks, and no further segment can be prepared.
fn on_a_full_disk(seed: u64) -> (SimulatedDisk, Wal, Lsn) {
    let disk = SimulatedDisk::new(seed);
    let wal = disk.open(&settings()).unwrap();
    disk.set_capacity(0);
    let first = wal.append_durable(b"first").unwrap();
    // The segment keeper fails to prepare the next segment.
    for _ in 0..50 {
        disk.advance(Duration::from_millis(10));
        wal.append_durable(b"more").unwrap();
        if wal.stats().groups > 4 {
            break;
        }
    }
    (disk, wal, first)
}

#[test]
fn log_on_a_full_disk_writes_a_mark_for_which_there_is_room() {
    for seed in 0..50 {
        let (disk, wal, first) = on_a_full_disk(seed);
        wal.truncate_from(first).unwrap();
        assert!(matches!(wal.read(first), Err(Error::Truncated { .. })));
        wal.close().unwrap();
        disk.set_capacity(u64::MAX);
        let wal = disk.open(&settings()).unwrap();
        assert_eq!(wal.recovery().case, RecoveryCase::Marked, "seed {seed}: {:?}", wal.recovery());
        assert!(records(&wal).is_empty());
    }
}

#[test]
fn closing_log_writes_its_mark_once_the_disk_has_room() {
    for seed in 0..50 {
        let disk = SimulatedDisk::new(seed);
        let wal = disk.open(&settings()).unwrap();
        disk.set_capacity(0);
        while wal.append(&[7; 1000]).is_ok() {}
        disk.set_capacity(u64::MAX);
        wal.close().unwrap();
        let wal = disk.open(&settings()).unwrap();
        assert_eq!(wal.recovery().case, RecoveryCase::Marked, "seed {seed}: {:?}", wal.recovery());
    }
}

/// Appends until both the disk and the last segment are full.
fn fill(wal: &Wal) -> Vec<Lsn> {
    let mut all = Vec::new();
    loop {
        match wal.append(&[7; 1000]) {
            Ok(lsn) => all.push(lsn),
            Err(Error::NoSpace) => return all,
            Err(e) => panic!("{e}"),
        }
    }
}

/// The remedy that the error names works without free space.
#[test]
fn truncation_frees_space_on_a_full_disk() {
    for seed in 0..50 {
        let disk = SimulatedDisk::new(seed);
        let wal = disk.open(&settings()).unwrap();
        disk.set_capacity(300 << 10);
        let mut filled = fill(&wal);
        for round in 0..5 {
            let half = filled[filled.len() / 2];
            let oldest = wal.truncate_before(half).unwrap();
            assert!(oldest > filled[0], "seed {seed}, round {round}: kept from {oldest}");
            disk.advance(Duration::from_secs(1));
            let healed = (0..1000).any(|_| wal.append_durable(&[7; 1000]).is_ok());
            assert!(healed, "seed {seed}, round {round}: no room though {oldest} is the oldest");
            let more = fill(&wal);
            filled.retain(|lsn| *lsn >= oldest);
            filled.extend(more);
        }
        // A cut uses the kept block too.
        let last = *filled.last().unwrap();
        wal.truncate_from(last).unwrap();
        wal.sync().unwrap();
    }
}

/// A truncation whose mark cannot be written fails, and never waits for ever.
#[test]
fn truncation_without_a_block_for_its_mark_is_refused() {
    let disk = SimulatedDisk::new(8);
    let wal = disk.open(&settings()).unwrap();
    disk.set_capacity(300 << 10);
    let filled = fill(&wal);
    let before = filled[filled.len() / 2];
    // Only the mark can be written. The space that it frees cannot be used.
    disk.set_capacity(0);
    wal.truncate_before(filled[0]).unwrap();
    wal.truncate_from(*filled.last().unwrap()).unwrap();
    assert!(matches!(wal.truncate_from(before), Err(Error::NoSpace)));
    assert!(matches!(wal.truncate_before(before), Err(Error::NoSpace)));
    disk.set_capacity(u64::MAX);
    let healed = (0..1000).any(|_| {
        disk.advance(Duration::from_millis(10));
        wal.append_durable(b"there is room").is_ok()
    });
    assert!(healed);
    wal.sync().unwrap();
    disk.advance(Duration::from_secs(1));
    assert!(wal.truncate_before(before).unwrap() > Lsn::ZERO);
}

/// The groups of retention must not cause its next removal.
#[test]
fn idle_log_stops_writing_however_few_groups_its_segments_hold() {
    for (max_record, segments) in [(9000, 4), (9000, 3), (4500, 4), (4500, 3), (1000, 4), (1000, 3)]
    {
        let disk = SimulatedDisk::new(max_record);
        let builder = Wal::builder("rest").segment_size(16 << 10).max_segments(segments);
        let builder = builder.max_record_size(max_record as usize).ring_capacity(32 << 10);
        let wal = disk.open(&builder).unwrap();
        let mut last = Lsn::ZERO;
        for _ in 0..20 {
            last = wal.append_durable(b"to be kept").unwrap();
        }
        // Advances time. Calls without another effect let the log do what is due.
        let rest = |times: u32| {
            for _ in 0..times {
                disk.advance(Duration::from_millis(50));
                let _ = wal.try_append(&[0; 1 << 20]);
            }
            wal.stats().groups
        };
        let groups = rest(300);
        assert_eq!(
            rest(300),
            groups,
            "records of {max_record}, {segments} segments: it never rests"
        );
        assert_eq!(wal.read(last).unwrap().payload, b"to be kept", "{max_record}, {segments}");
    }
}
