//! The public simulated disk: what it keeps and loses, that it is deterministic, and that the whole
//! interface of a log runs on it without threads.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringwal::testing::{DiskFault, SimulatedDisk};
use ringwal::{Durability, Error, Lsn, RecoveryCase, Wal, WalBuilder};

fn settings() -> WalBuilder {
    Wal::builder("not looked at").segment_size(64 << 10).ring_capacity(32 << 10)
}

fn records(wal: &Wal) -> Vec<(Lsn, Vec<u8>)> {
    wal.reader(Lsn::ZERO).map(|r| r.unwrap()).map(|r| (r.lsn, r.payload)).collect()
}

/// Runs a service until the power fails. Returns the number of acknowledged records. `hasty`: it
/// acknowledges too early.
fn service(disk: &SimulatedDisk, hasty: bool) -> u64 {
    let acknowledged = Cell::new(0_u64);
    let work = || -> ringwal::Result<()> {
        let wal = disk.open(&settings())?;
        let known = wal.reader(Lsn::ZERO).collect::<ringwal::Result<Vec<_>>>()?.len() as u64;
        acknowledged.set(known);
        for n in known..known + 400 {
            let lsn = wal.append(&n.to_le_bytes().repeat(1 + (n % 40) as usize))?;
            if !hasty {
                wal.wait_durable(lsn)?;
            }
            acknowledged.set(n + 1);
        }
        wal.close()
    };
    let _ = work();
    acknowledged.get()
}

/// Whether every acknowledged record is there. Panics on a gap or a damaged record.
fn holds(disk: &SimulatedDisk, acknowledged: u64) -> bool {
    let wal = disk.open(&settings()).unwrap();
    let found = records(&wal);
    for (n, (_, payload)) in found.iter().enumerate() {
        assert_eq!(payload[..8], (n as u64).to_le_bytes());
        assert_eq!(payload.len(), 8 * (1 + n % 40));
    }
    found.len() as u64 >= acknowledged
}

#[test]
fn service_that_waits_for_durability_keeps_acknowledged_records_at_any_power_failure() {
    let whole = SimulatedDisk::new(1);
    assert_eq!(service(&whole, false), 400);
    let operations = whole.operations();
    assert!(operations > 400, "{operations}");
    for at in (0..operations).step_by(7) {
        let disk = SimulatedDisk::new(at);
        disk.power_off_after(at);
        let first = service(&disk, false);
        assert!(disk.is_off() || first == 400, "at {at}");
        disk.crash();
        // The power fails again during the next life.
        disk.power_off_after(at % 50);
        let second = service(&disk, false);
        assert!(second >= first || second == 0, "at {at}: {first}, then {second}");
        disk.crash();
        assert!(holds(&disk, first.max(second)), "at {at}");
    }
}

#[test]
fn service_that_acknowledges_too_early_is_detected() {
    let caught = (0..40).filter(|seed| {
        let disk = SimulatedDisk::new(*seed);
        disk.power_off_after(20 + seed * 5);
        let acknowledged = service(&disk, true);
        disk.crash();
        !holds(&disk, acknowledged)
    });
    assert!(caught.count() > 20);
}

#[test]
fn same_seed_gives_the_same_events() {
    let trace = |seed: u64| {
        let disk = SimulatedDisk::new(seed);
        let mut seen = Vec::new();
        for life in 0..4 {
            disk.power_off_after(60 + 40 * life);
            let acknowledged = service(&disk, life % 2 == 0);
            disk.crash();
            let wal = disk.open(&settings().prefix("other")).unwrap();
            wal.append_durable(b"beside").unwrap();
            seen.push((acknowledged, disk.operations(), disk.names(), records(&wal).len()));
        }
        let wal = disk.open(&settings()).unwrap();
        let (found, stats) = (records(&wal), wal.stats());
        (seen, found, stats.groups, stats.group_bytes)
    };
    for seed in 0..10 {
        assert!(trace(seed) == trace(seed), "seed {seed}");
    }
    assert!(trace(1) != trace(2));
}

#[test]
fn every_blocking_call_returns_without_threads() {
    let disk = SimulatedDisk::new(3);
    let archived = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&archived);
    let builder = settings().max_segments(4).on_sealed(move |segment| {
        let mut list = list.lock().unwrap();
        list.push(segment.base);
        if list.len() == 2 { Err("once".into()) } else { Ok(()) }
    });
    let wal = disk.open(&builder).unwrap();
    assert_eq!(wal.recovery().case, RecoveryCase::New);
    assert_eq!(wal.backend().kind.to_string(), "simulated");
    assert!(matches!(disk.open(&settings()), Err(Error::Locked { .. })));

    // Append far more than the ring and the kept segments hold.
    for n in 0..3000_u32 {
        wal.append(&n.to_le_bytes().repeat(64)).unwrap();
        disk.advance(Duration::from_micros(500));
    }
    assert_eq!(wal.sync().unwrap(), wal.durable_end());
    assert!(wal.oldest_lsn() > Lsn::ZERO, "retention works");
    let archived = archived.lock().unwrap().clone();
    assert!(archived.len() > 8 && archived[1] == archived[2], "{archived:?}");

    let called = Arc::new(AtomicU64::new(0));
    let (count, inner) = (Arc::clone(&called), wal.clone());
    let lsn = wal.append_batch(&["a", "b"]).unwrap();
    wal.on_durable(lsn, move |settled| {
        settled.unwrap();
        assert!(matches!(inner.truncate_before(Lsn::ZERO), Err(Error::WouldDeadlock)));
        count.fetch_add(1, Ordering::SeqCst);
    });
    let last = smol::block_on(async {
        let lsn = wal.append_async(b"awaited").await.unwrap();
        wal.when_durable(lsn).await.unwrap();
        lsn
    });
    assert_eq!(called.load(Ordering::SeqCst), 1);
    assert_eq!(wal.read(last).unwrap().payload, b"awaited");

    let mut follow = wal.follow(last).unwrap();
    assert_eq!(follow.next().unwrap().unwrap().payload, b"awaited");
    wal.append(b"followed").unwrap();
    assert_eq!(follow.next().unwrap().unwrap().payload, b"followed");

    let mut consumer = wal.consumer("mailer").unwrap();
    let first = consumer.records().unwrap().next_ref().unwrap().unwrap().lsn;
    consumer.commit(first).unwrap();

    let conflict = wal.append(b"conflict").unwrap();
    wal.truncate_from(conflict).unwrap();
    assert!(matches!(wal.read(conflict), Err(Error::Truncated { .. })));
    let kept = wal.truncate_before(wal.durable_end()).unwrap();
    assert!(kept <= wal.durable_end());
    wal.close().unwrap();
    assert!(matches!(wal.append(b"late"), Err(Error::Closed)));

    let wal = disk.open(&settings()).unwrap();
    assert_eq!(wal.recovery().case, RecoveryCase::Marked);
    assert_eq!(wal.consumers()[0].name, "mailer");
}

#[test]
fn handles_from_before_a_crash_fail() {
    let disk = SimulatedDisk::new(4);
    let old = disk.open(&settings()).unwrap();
    old.append_durable(b"before").unwrap();
    let file = disk.create("snapshot").unwrap();
    disk.crash();
    let new = disk.open(&settings()).unwrap();
    assert!(old.append_durable(b"from the grave").is_err());
    assert!(file.write_at(b"from the grave", 0).is_err());
    assert!(matches!(old.close(), Err(Error::Poisoned { .. })));
    drop(old);
    new.append_durable(b"after").unwrap();
    let found = records(&new);
    let payloads: Vec<_> = found.iter().map(|(_, payload)| &payload[..]).collect();
    assert_eq!(payloads, [&b"before"[..], b"after"]);
    // A kill loses no data that the kernel had.
    drop(new);
    disk.kill();
    assert_eq!(records(&disk.open(&settings()).unwrap()), found);
}

#[test]
fn intervals_follow_the_disks_clock() {
    let disk = SimulatedDisk::new(5);
    let hour = Durability::Interval(Duration::from_secs(3600));
    let wal = disk.open(&settings().segment_size(1 << 20).durability(hour)).unwrap();
    let lsn = wal.append(b"later").unwrap();
    for _ in 0..200 {
        let _ = wal.try_append(b"x");
    }
    assert!(wal.durable_end() <= lsn);
    disk.advance(Duration::from_secs(3600));
    for _ in 0..200 {
        let _ = wal.try_append(b"x");
    }
    assert!(wal.durable_end() > lsn);
}

#[test]
fn faults_and_a_full_disk_are_typed_errors() {
    let disk = SimulatedDisk::new(6);
    let wal = disk.open(&settings()).unwrap();
    let kept = wal.append_durable(b"kept").unwrap();
    disk.set_capacity(300 << 10);
    let full = (0..10_000).find_map(|_| wal.append(&[7; 1000]).err());
    assert!(matches!(full, Some(Error::NoSpace)), "{full:?}");
    disk.set_capacity(10 << 20);
    let healed = (0..10_000).any(|_| wal.append(&[7; 1000]).is_ok());
    assert!(healed, "it resumes by itself");
    wal.sync().unwrap();

    disk.fail_after(3, DiskFault::Failed, true);
    let failed = (0..10_000).find_map(|_| wal.append_durable(&[7; 1000]).err());
    assert!(matches!(failed, Some(Error::Poisoned { .. })), "{failed:?}");
    assert!(disk.failed() > 0);
    disk.heal();
    assert!(matches!(wal.append(b"x"), Err(Error::Poisoned { .. })), "for good");
    drop(wal);
    disk.fail_read_after(2, DiskFault::Failed, false);
    assert!(matches!(disk.open(&settings()), Err(Error::Io { .. })));
    let wal = disk.open(&settings()).unwrap();
    assert_eq!(wal.read(kept).unwrap().payload, b"kept");
    drop(wal);

    let segment = disk.names().into_iter().find(|name| name.ends_with(".wal")).unwrap();
    disk.damage(&segment, |bytes| bytes[8192 + 140] ^= 1).unwrap();
    let found = disk.open(&settings()).map(|wal| wal.reader(Lsn::ZERO).find_map(Result::err));
    assert!(matches!(found, Err(Error::Corruption { .. }) | Ok(Some(Error::Corruption { .. }))));
    assert!(disk.damage("nothing", |_| {}).is_err());
}

#[test]
fn images_show_data_that_could_survive() {
    let disk = SimulatedDisk::new(7);
    let wal = disk.open(&settings()).unwrap();
    let mut sizes = std::collections::BTreeSet::new();
    for n in 0..60_u64 {
        wal.append(&n.to_le_bytes()).unwrap();
        let acknowledged = wal.durable_end();
        for _ in 0..5 {
            let image = disk.image();
            let found = records(&image.open(&settings()).unwrap());
            let durable = found.iter().take_while(|(lsn, _)| *lsn < acknowledged).count();
            assert!(records(&wal).len() <= durable);
            sizes.insert(found.len() - durable);
        }
    }
    assert!(sizes.len() > 1, "some of what was not acknowledged survives, sometimes");
    assert!(records(&wal).len() <= 60);
}

#[test]
fn files_of_the_service_lose_unsynced_data_too() {
    let (mut content_lost, mut name_lost) = (0, 0);
    for seed in 0..100 {
        let disk = SimulatedDisk::new(seed);
        let file = disk.create("snapshot.new").unwrap();
        file.write_at(b"whole", 0).unwrap();
        file.sync().unwrap();
        file.write_at(b"later", 5).unwrap();
        disk.rename("snapshot.new", "snapshot").unwrap();
        assert_eq!(disk.open_file("snapshot").unwrap().read_all().unwrap(), b"wholelater");
        let synced = seed % 2 == 0;
        if synced {
            disk.sync_names().unwrap();
        }
        disk.crash();
        match disk.open_file("snapshot") {
            Ok(file) => {
                let bytes = file.read_all().unwrap();
                assert!(bytes.starts_with(b"whole"));
                content_lost += u32::from(bytes != b"wholelater");
            }
            Err(e) => {
                assert!(!synced && e.kind() == std::io::ErrorKind::NotFound, "{e}");
                name_lost += 1;
            }
        }
    }
    assert!(content_lost > 10 && name_lost > 10, "{content_lost}, {name_lost}");
    let disk = SimulatedDisk::new(0);
    disk.create("one").unwrap();
    disk.create("two").unwrap();
    assert!(disk.rename("one", "two").is_err());
    assert!(disk.remove("three").is_err() && disk.create("one").is_err());
    disk.remove("two").unwrap();
    assert_eq!(disk.names(), ["one"]);
}

#[test]
fn several_threads_may_wait_on_one_disk() {
    let disk = SimulatedDisk::new(8);
    let wal = disk.open(&settings()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let wal = &wal;
            scope.spawn(move || {
                for n in 0..100_u8 {
                    let lsn = wal.append_durable(&[thread, n]).unwrap();
                    assert!(wal.durable_end() > lsn);
                }
            });
        }
        scope.spawn(|| {
            let mut follow = wal.follow(Lsn::ZERO).unwrap();
            for _ in 0..400 {
                follow.next().unwrap().unwrap();
            }
        });
    });
    assert_eq!(records(&wal).len(), 400);
}

/// After the call returns, the consumer never returns and never holds segments again.
#[test]
fn removed_consumer_stays_removed_after_any_crash() {
    for seed in 0..40 {
        let disk = SimulatedDisk::new(seed);
        let wal = disk.open(&settings()).unwrap();
        wal.append_durable(b"a record").unwrap();
        drop(wal.consumer("gone").unwrap());
        drop(wal.consumer("kept").unwrap());
        wal.remove_consumer("gone").unwrap();
        disk.crash();
        drop(wal);
        let wal = disk.open(&settings()).unwrap();
        let names: Vec<String> = wal.consumers().into_iter().map(|c| c.name).collect();
        assert_eq!(names, ["kept"], "seed {seed}");
    }
}
