//! Full disks, failing operations and reads, and modes that must not stall.

use std::time::Duration;

use super::long;
use super::world::{Ending, Life, World, read_all};
use crate::engine::segment_keeper::PATIENCE;
use crate::error::Error;
use crate::io::backend::Method;
use crate::io::backend::sim::Sabotage;
use crate::io::fs::sim::Fault;
use crate::options::{Durability, Options};
use crate::stats::in_flight::Place;
use crate::sys::clock::Clock;

#[test]
fn full_disk_refuses_appends_and_loses_no_record() {
    let mut world = World::new(3, Sabotage::None);
    world.options =
        Options { segment_size: 16 << 10, ring_capacity: Some(32 << 10), ..Options::default() };
    world.disk.set_capacity(4 * (16 << 10));
    let mut life = world.open().unwrap().unwrap();
    let turn = |world: &mut World, life: &mut Life| {
        life.io.step();
        life.io.wait(None);
        life.keeper.step();
        let appended = life.appender.try_append(&[7; 900]);
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
    assert!(!life.state.durable.is_poisoned());
    world.disk.set_capacity(u64::MAX);
    let resumed = (0..1000).any(|_| turn(&mut world, &mut life).is_ok());
    assert!(resumed, "appends work again without reopening");
    for _ in 0..200 {
        let _ = turn(&mut world, &mut life);
    }
    assert!(world.oracle.records.len() > full);
    life.make_durable();
    assert!(read_all(&life.state).unwrap().unwrap() == world.oracle.records);
}

#[test]
fn close_without_a_segment_waits_as_long_as_appends_do() {
    let mut world = World::new(7, Sabotage::None);
    world.options =
        Options { segment_size: 16 << 10, ring_capacity: Some(8 << 10), ..Options::default() };
    let mut life = world.open().unwrap().unwrap();
    while !life.state.ring.waits_for_segment() {
        world.append(&mut life);
        life.run();
    }
    while life.state.durable.end() < life.state.ring.reserved_end() {
        life.run();
    }
    // There is no block for the idle seal, and no segment can be prepared.
    world.disk.fault(world.disk.operations(), Fault::Again, true);
    let begun = world.clock.now();
    assert_eq!(world.close(life), Ok(Ending::Closed));
    assert!(world.clock.now() - begun >= PATIENCE);
    world.disk.heal();
    let life = world.open().unwrap().unwrap();
    assert_eq!(world.close(life), Ok(Ending::Closed));
}

/// Runs a workload in which `fail` plants a failure. The log recovers or stops for good, and the
/// next open finds every record.
fn failed_at(seed: u64, fail: impl FnOnce(&World)) -> Result<u64, String> {
    let mut world = World::new(seed, Sabotage::None);
    fail(&world);
    let ending = world.live(120)?;
    let failed = world.disk.failed();
    if ending == Ending::Stopped {
        world.crash()?;
    }
    world.disk.heal();
    world.run(1)?;
    Ok(failed)
}

fn extent(seed: u64) -> (u64, u64) {
    let mut world = World::new(seed, Sabotage::None);
    world.live(120).unwrap();
    (world.disk.operations(), world.disk.reads())
}

#[test]
fn failed_operation_is_retried_or_stops_the_log_for_good() {
    let workloads = if long() { 11..211 } else { 11..12 };
    let mut faults = 0;
    for seed in workloads.clone() {
        let (operations, _) = extent(seed);
        for (fault, for_ever, at) in sites(operations) {
            match failed_at(seed, |world| world.disk.fault(at, fault, for_ever)) {
                Ok(failed) => {
                    assert!(failed > 0, "workload {seed}: operation {at} was not reached");
                    faults += failed;
                }
                Err(e) => panic!("workload {seed}, {fault:?} at {at}, for ever {for_ever}: {e}"),
            }
        }
    }
    println!("workloads {workloads:?}: every operation failed in 12 ways, {faults} faults");
}

#[test]
fn failed_read_of_an_open_is_an_error_and_never_the_end_of_the_log() {
    let workloads = if long() { 11..211 } else { 11..13 };
    let mut faults = 0;
    for seed in workloads.clone() {
        // A log of some length, to be read by its second life.
        let prepared = || {
            let mut world = World::new(seed, Sabotage::None);
            world.live(200).unwrap();
            world.crash().unwrap();
            world
        };
        let reads = {
            let mut world = prepared();
            let before = world.disk.reads();
            assert!(world.open().unwrap().is_some());
            before..world.disk.reads()
        };
        for (fault, for_ever, n) in sites(reads.end - reads.start) {
            let mut world = prepared();
            world.disk.read_fault(reads.start + n, fault, for_ever);
            let found = world.open().map(|life| life.is_some());
            let passes = matches!(fault, Fault::Short | Fault::Interrupted) && !for_ever;
            let text = format!("workload {seed}, {fault:?} at read {n}, for ever {for_ever}");
            assert!(found.is_ok(), "{text}: {found:?}");
            assert!(!passes || found == Ok(true), "{text}");
            faults += world.disk.failed();
            world.disk.heal();
            world.crash().unwrap();
            assert!(world.open().unwrap().is_some(), "{text}");
        }
    }
    println!("workloads {workloads:?}: every read of an open failed in 12 ways, {faults} faults");
}

/// Every fault, transient and permanent, at each of so many places.
fn sites(places: u64) -> impl Iterator<Item = (Fault, bool, u64)> {
    let kinds = Fault::ALL.into_iter().flat_map(|fault| [(fault, false), (fault, true)]);
    kinds.flat_map(move |(fault, ever)| (0..places).map(move |at| (fault, ever, at)))
}

#[test]
fn appends_without_a_sync_pass_the_end_of_a_segment_in_every_mode() {
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
            appended += u32::from(life.appender.try_append(&[7; 1500]).is_ok());
            life.io.step();
            life.io.wait(None);
            life.keeper.step();
        }
        // A segment holds some six records. No call asked for a sync.
        assert!(appended > 1000, "{durability:?}, {max_segments:?}: {appended}");
    }
}

#[test]
fn in_flight_operations_are_visible_to_the_watchdog_and_no_others() {
    for seed in 0..40 {
        let mut world = World::new(seed, Sabotage::None);
        let mut life = world.open().unwrap().unwrap();
        life.make_durable();
        let waits = |life: &Life| Place::ALL.map(|place| life.state.in_flight.get(place) != 0);
        assert_eq!(waits(&life), [false; 3], "seed {seed}: idle");
        let lsn = life.appender.try_append(b"in flight").unwrap();
        let _ = life.appender.ask_durable(lsn.as_u64());
        life.io.step();
        // The device does nothing, so further steps change nothing.
        assert_eq!(waits(&life), [true, false, false], "seed {seed}: the write");
        let token = life.state.in_flight.get(Place::Write);
        life.io.step();
        assert_eq!(life.state.in_flight.get(Place::Write), token);
        let mut seen_sync = false;
        while life.state.durable.end() <= lsn.as_u64() {
            life.io.wait(None);
            life.io.step();
            seen_sync |= waits(&life) == [false, true, false];
        }
        let dsync =
            world.options.durability == Durability::EveryGroup && world.method == Method::Dsync;
        assert_eq!(seen_sync, !dsync, "seed {seed}: the sync");
        life.io.step();
        assert_eq!(waits(&life), [false; 3], "seed {seed}: idle again");
    }
}
