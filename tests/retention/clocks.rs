//! Retention by age under a wrong wall clock: a segment is removed when it is old, whatever the
//! clock is set to meanwhile. On the simulated disk.

use std::time::Duration;

use ringwal::testing::SimulatedDisk;
use ringwal::{Lsn, Wal, WalBuilder};

const YEARS: i64 = 10 * 365 * 24 * 3600;
const HOUR: Duration = Duration::from_secs(3600);

fn builder(age: Duration) -> WalBuilder {
    Wal::builder("not looked at").segment_size(64 << 10).ring_capacity(32 << 10).max_age(age)
}

fn records(wal: &Wal) -> usize {
    wal.reader(Lsn::ZERO).inspect(|r| assert!(r.is_ok(), "{r:?}")).count()
}

fn segments(disk: &SimulatedDisk) -> usize {
    disk.names().iter().filter(|name| name.ends_with(".wal")).count()
}

fn fill(wal: &Wal, records: usize) {
    for _ in 0..records {
        wal.append_durable(&[7; 1000]).unwrap();
    }
}

/// Advances time. Calls without another effect let the log do what is due.
fn pass(disk: &SimulatedDisk, wal: &Wal, time: Duration) {
    for _ in 0..100 {
        disk.advance(time / 100);
        for _ in 0..20 {
            let _ = wal.try_append(&[0; 1 << 20]);
        }
    }
}

#[test]
fn clock_ahead_for_a_second_removes_no_segment() {
    for opens in [false, true] {
        let disk = SimulatedDisk::new(1);
        let mut wal = disk.open(&builder(HOUR)).unwrap();
        fill(&wal, 200);
        if opens {
            wal.close().unwrap();
            disk.step_wall_clock(YEARS);
            wal = disk.open(&builder(HOUR)).unwrap();
        } else {
            disk.step_wall_clock(YEARS);
        }
        pass(&disk, &wal, Duration::from_secs(1));
        fill(&wal, 20);
        disk.step_wall_clock(-YEARS);
        pass(&disk, &wal, HOUR / 2);
        assert_eq!(records(&wal), 220, "opened meanwhile: {opens}");
        assert_eq!(wal.stats().clock_steps, if opens { 1 } else { 2 });
        pass(&disk, &wal, HOUR);
        assert!(segments(&disk) <= 4, "{:?}", disk.names());
    }
}

#[test]
fn clock_set_back_keeps_no_segment_longer() {
    for opens in [false, true] {
        let disk = SimulatedDisk::new(2);
        let age = Duration::from_millis(500);
        let mut wal = disk.open(&builder(age)).unwrap();
        fill(&wal, 200);
        disk.step_wall_clock(-24 * 3600);
        if opens {
            wal.close().unwrap();
            wal = disk.open(&builder(age)).unwrap();
        }
        pass(&disk, &wal, Duration::from_secs(1));
        fill(&wal, 100);
        pass(&disk, &wal, Duration::from_secs(1));
        assert!(segments(&disk) <= 4, "opened meanwhile {opens}: {:?}", disk.names());
    }
}

#[test]
fn segment_stamped_ahead_delays_no_other_over_restarts() {
    let disk = SimulatedDisk::new(3);
    let wal = disk.open(&builder(HOUR)).unwrap();
    fill(&wal, 30);
    disk.step_wall_clock(YEARS);
    fill(&wal, 40);
    disk.step_wall_clock(-YEARS);
    fill(&wal, 200);
    wal.close().unwrap();
    let before = segments(&disk);
    for n in 0..8 {
        let wal = disk.open(&builder(HOUR)).unwrap();
        pass(&disk, &wal, HOUR / 4);
        let now = segments(&disk);
        assert!(
            if n < 3 { now >= before - 1 } else { n < 6 || now <= 4 },
            "{n}: {now} of {before}"
        );
        wal.close().unwrap();
    }
}

#[test]
fn clock_ahead_at_the_open_removes_a_quarter_at_a_time() {
    let disk = SimulatedDisk::new(4);
    let wal = disk.open(&builder(HOUR)).unwrap();
    fill(&wal, 1000);
    wal.close().unwrap();
    let before = segments(&disk);
    disk.step_wall_clock(YEARS);
    let wal = disk.open(&builder(HOUR)).unwrap();
    pass(&disk, &wal, Duration::from_secs(9));
    assert!(segments(&disk) >= before, "no segment is removed at once");
    pass(&disk, &wal, Duration::from_secs(5));
    let after = segments(&disk);
    assert!(after < before && after * 3 >= before * 2, "{after} of {before}");
    pass(&disk, &wal, Duration::from_secs(1200));
    assert!(segments(&disk) <= 4, "old segments are removed in the end");
}
