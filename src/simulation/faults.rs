//! Full disks, failing operations, and modes that must not stall.

use super::*;

#[test]
fn a_full_disk_refuses_appends_and_loses_nothing() {
    let mut world = World::new(3, Sabotage::None);
    world.options =
        Options { segment_size: 16 << 10, ring_capacity: Some(32 << 10), ..Options::default() };
    world.disk.set_capacity(4 * (16 << 10));
    let mut life = world.open().unwrap().unwrap();
    let turn = |world: &mut World, life: &mut Life| {
        life.io.step();
        life.io.wait(None);
        life.helper.step();
        let appended = life.core.try_append(&[7; 900]);
        if let Ok(lsn) = appended {
            world.oracle.records.push((lsn.as_u64(), vec![7; 900]));
        }
        appended
    };
    let refused = (0..10_000).any(|_| matches!(turn(&mut world, &mut life), Err(Error::NoSpace)));
    assert!(refused);
    let full = world.oracle.records.len();
    for _ in 0..100 {
        assert!(matches!(turn(&mut world, &mut life), Err(Error::NoSpace | Error::RingFull)));
    }
    assert!(!life.shared.durable.is_poisoned());
    world.disk.set_capacity(u64::MAX);
    let resumed = (0..1000).any(|_| turn(&mut world, &mut life).is_ok());
    assert!(resumed, "appends work again without reopening");
    for _ in 0..200 {
        let _ = turn(&mut world, &mut life);
    }
    assert!(world.oracle.records.len() > full);
    settle(&mut life);
    assert!(read_all(&life.shared).unwrap().unwrap() == world.oracle.records);
}

#[test]
fn every_failed_operation_either_heals_or_stops_the_log_for_good() {
    for fault in [Fault::Eio, Fault::Short, Fault::NoSpace] {
        for for_ever in [false, true] {
            let operations = {
                let mut world = World::new(11, Sabotage::None);
                world.live(120).unwrap();
                world.disk.operations()
            };
            for at in 0..operations {
                let mut world = World::new(11, Sabotage::None);
                world.disk.fault(at, fault, for_ever);
                let survived = world.live(120).and_then(|_| {
                    world.disk.crash(&mut world.rng);
                    world.disk.heal();
                    world.run(1)
                });
                assert_eq!(survived, Ok(()), "{fault:?} at {at} of {operations}, {for_ever}");
            }
        }
    }
}

#[test]
fn no_mode_stops_at_a_segments_end() {
    let modes = [
        Durability::EveryGroup,
        Durability::Interval(Duration::from_secs(1000)),
        Durability::Manual,
    ];
    for (durability, max_segments) in modes.into_iter().flat_map(|d| [(d, None), (d, Some(2))]) {
        let mut world = World::new(1, Sabotage::None);
        world.options = Options {
            segment_size: 16 << 10,
            ring_capacity: Some(16 << 10),
            durability,
            max_segments,
            ..Options::default()
        };
        let mut life = world.open().unwrap().unwrap();
        let mut appended = 0;
        for _ in 0..20_000 {
            appended += u32::from(life.core.try_append(&[7; 1500]).is_ok());
            life.io.step();
            life.io.wait(None);
            life.helper.step();
        }
        // Some six records to a segment, and nobody has asked for a sync.
        assert!(appended > 1000, "{durability:?}, {max_segments:?}: {appended}");
    }
}
