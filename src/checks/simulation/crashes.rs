//! Crashes at every operation of many workloads, and inside the recoveries.

use std::time::Duration;

use super::long;
use super::tally::Tally;
use super::world::{Life, World, chosen};
use crate::io::backend::Method;
use crate::io::backend::sim::Sabotage;
use crate::options::Options;
use crate::segment::Names;

const ACTIONS: usize = 150;

fn operations(seed: u64) -> u64 {
    let mut world = World::new(seed, Sabotage::None);
    world.live(ACTIONS).unwrap();
    world.disk.operations()
}

fn crashed_at(seed: u64, at: u64, images: usize) -> Result<Tally, String> {
    let mut world = World::new(seed, Sabotage::None);
    world.images = images;
    world.disk.crash_at(at);
    world.live(ACTIONS)?;
    world.crash()?;
    world.crash_recoveries(8)?;
    world.run(1)?;
    Ok(world.tally)
}

#[test]
fn crash_at_any_operation_of_a_workload_loses_no_acknowledged_record() {
    let (workloads, images) = if long() { (1000, 8) } else { (4, 1) };
    let mut total = Tally::default();
    let mut all = 0;
    for seed in 0..workloads {
        let operations = operations(seed);
        for at in 0..operations {
            match crashed_at(seed, at, images) {
                Ok(tally) => total += tally,
                Err(e) => panic!("workload {seed}, operation {at} of {operations}: {e}"),
            }
        }
        all += operations;
    }
    println!("{workloads} workloads, crashed at each of their {all} operations: {total}");
}

#[test]
fn discarded_group_does_not_return_after_the_next_epoch() {
    let mut world = World::new(7, Sabotage::None);
    world.method = Method::Linked;
    world.options = Options {
        segment_size: 64 << 10,
        ring_capacity: Some(64 << 10),
        depth: 4,
        idle_seal: Duration::from_secs(1),
        ..Options::default()
    };
    let mut life = world.open().unwrap().unwrap();
    life.state.commit.set(chosen(world.method, true));
    let append = |world: &mut World, life: &mut Life| {
        let lsn = life.appender.try_append(b"of one block").unwrap().as_u64();
        world.oracle.records.push((lsn, b"of one block".to_vec()));
        life.io.step();
        lsn
    };
    append(&mut world, &mut life);
    life.make_durable();
    // Two groups are in flight at once. The second's mark does not prove the first.
    let torn = append(&mut world, &mut life);
    let behind = append(&mut world, &mut life);
    assert_eq!(behind, torn + 4096);
    assert_eq!(life.io.in_flight(), 4, "a write and a sync of each");
    life.make_durable();
    drop(life);
    let name = Names::new(&world.options.prefix).segment(0);
    let group = torn as usize - 128;
    world.disk.damage(&name, |b| b[group..group + 512].fill(0));
    // The epoch group takes the torn group's block, so the old second group now lies after the
    // epoch group. The later lives find a log that ends with a mark, and write nothing.
    for n in 0..4 {
        let mut life = world.open().unwrap().unwrap();
        assert_eq!(world.oracle.records.len(), 1);
        assert_eq!(life.state.durable.end(), torn - 128 + 4096);
        if n == 3 {
            // The next epoch group takes the block of the old second group.
            assert_eq!(append(&mut world, &mut life), behind + 4096);
            life.make_durable();
        }
    }
    drop(world.open().unwrap().unwrap());
    assert_eq!(world.oracle.records.len(), 2);
}

/// On a full disk, opening omits the epoch group after a torn tail too. Each further life finds the
/// same tail, with any settings, until there is space and a record is appended.
#[test]
fn torn_tail_on_a_full_disk_stays_unchanged_until_there_is_space() {
    for (seed, fits, space_comes_late) in (0..16).map(|n| (n, n & 1 == 0, n & 2 == 0)) {
        let mut world = World::new(seed, Sabotage::None);
        let settings = |fits: bool| Options {
            segment_size: 16 << 10,
            ring_capacity: Some(24 << 10),
            // With these settings the segment holds smaller groups.
            max_record_size: (!fits).then_some(5000),
            idle_seal: Duration::from_secs(1),
            ..Options::default()
        };
        world.options = settings(true);
        let mut life = world.open().unwrap().unwrap();
        let append = |world: &mut World, life: &mut Life| {
            let lsn = life.appender.try_append(b"of one block").unwrap().as_u64();
            world.oracle.records.push((lsn, b"of one block".to_vec()));
            while life.state.durable.end() < lsn {
                life.run();
            }
            lsn
        };
        let kept = append(&mut world, &mut life);
        let torn = append(&mut world, &mut life);
        assert_eq!(torn + 4096 - 128, 16 << 10, "the last block");
        drop(life);
        // As if the record had not been acknowledged.
        world.oracle.acknowledged = torn - 128;
        let name = Names::new(&world.options.prefix).segment(0);
        world.disk.damage(&name, |bytes| bytes[torn as usize + 20] ^= 1);
        world.disk.set_capacity(0);
        for n in 0..4 {
            world.options = settings(fits || n % 2 == 0);
            let mut life = world.open().unwrap().unwrap();
            assert!(life.epoch_waits, "{seed}, life {n}");
            assert_eq!(world.oracle.records.len(), 1, "{seed}, life {n}");
            assert_eq!(life.state.durable.end(), torn - 128, "{seed}, life {n}");
            for _ in 0..3 {
                life.run();
                life.keeper.step();
            }
            world.crash().unwrap();
        }
        world.options = settings(fits);
        let mut life = if space_comes_late {
            let life = world.open().unwrap().unwrap();
            assert!(life.epoch_waits, "{seed}");
            world.disk.set_capacity(u64::MAX);
            life
        } else {
            world.disk.set_capacity(u64::MAX);
            world.open().unwrap().unwrap()
        };
        let late = loop {
            match life.appender.try_append(b"late") {
                Ok(lsn) => break lsn.as_u64(),
                Err(_) => world.clock.advance(Duration::from_millis(100)),
            }
            life.run();
            life.keeper.step();
        };
        world.oracle.records.push((late, b"late".to_vec()));
        life.make_durable();
        world.note(&life);
        for n in 0..4 {
            world.crash().unwrap();
            world.options = settings(n % 2 == 0);
            drop(world.open().unwrap().unwrap());
            let found: Vec<_> = world.oracle.records.iter().map(|(lsn, _)| *lsn).collect();
            assert_eq!(found, [kept, late], "{seed}");
        }
    }
}
