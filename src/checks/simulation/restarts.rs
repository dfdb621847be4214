//! Many short lives, with tiny segments, retention by number and a wall clock that is set: the
//! newest record stays, and the files stay few.

use std::time::Duration;

use super::world::{BEYOND, World};
use crate::io::backend::sim::Sabotage;
use crate::options::{Durability, Options};

fn files(world: &World) -> usize {
    world.disk.names().iter().filter(|name| name.ends_with(".wal")).count()
}

/// Runs so many lives, each of at most a few records. Each ends by a kill, a crash or a close.
fn restarted(seed: u64, lives: usize) -> Result<(), String> {
    let mut world = World::new(seed, Sabotage::None);
    let most = world.rng.usize(2..6);
    world.options = Options {
        segment_size: [16 << 10, 32 << 10][world.rng.usize(..2)],
        ring_capacity: Some(8 << 10),
        durability: Durability::EveryGroup,
        max_segments: Some(most),
        ..world.options.clone()
    };
    for n in 0..lives {
        if world.rng.u8(0..4) == 0 {
            world.step_wall();
        }
        let Some(mut life) = world.open()? else { return Err(format!("life {n} was not opened")) };
        for _ in 0..[0, 0, 0, 1, 2][world.rng.usize(..5)] {
            world.append_batch(&life);
            life.make_durable();
            world.note(&life);
        }
        let found = files(&world);
        if found > most + BEYOND {
            return Err(format!("life {n}: {found} files, limit {most}"));
        }
        let newest = world.oracle.records.last().map(|(lsn, _)| *lsn);
        if newest.is_some_and(|lsn| lsn < life.state.view.table.oldest()) {
            return Err(format!("life {n}: the newest record is gone"));
        }
        match world.rng.u8(0..3) {
            0 => world.disk.kill(&mut world.rng),
            1 => world.crash()?,
            _ => life.close(),
        }
    }
    Ok(())
}

/// Runs lives that append nothing between interrupted lives that work. The idle lives meet torn
/// tails, other settings and full disks. They end by a kill, a crash or a close, also during the
/// open.
fn idle_between_working_lives(seed: u64) -> Result<(u64, u64), String> {
    let mut world = World::new(seed, Sabotage::None);
    world.images = 2;
    let (mut waited, mut torn) = (0, 0);
    for _ in 0..5 {
        world.refit();
        let actions = world.rng.usize(1..80);
        world.live(actions)?;
        match world.rng.u8(0..3) {
            0 => world.disk.kill(&mut world.rng),
            _ => world.crash()?,
        }
        for _ in 0..world.rng.usize(1..6) {
            world.refit();
            let full = world.rng.u8(0..3) == 0;
            world.disk.set_capacity(if full { 0 } else { u64::MAX });
            if world.rng.u8(0..4) == 0 {
                let now = world.disk.operations();
                world.disk.crash_at(now + world.rng.u64(..12));
            }
            if let Some(mut life) = world.open()? {
                waited += u64::from(life.epoch_waits);
                torn += u64::from(life.epoch_waits && life.is_torn);
                for _ in 0..world.rng.usize(..4) {
                    life.run();
                    life.keeper.step();
                    world.clock.advance(Duration::from_micros(world.rng.u64(1..2000)));
                    world.note(&life);
                }
                if world.rng.u8(0..3) == 0 && !full && !world.disk.is_off() {
                    life.close();
                    world.note(&life);
                }
            }
            match world.rng.u8(0..3) {
                0 if !world.disk.is_off() => world.disk.kill(&mut world.rng),
                _ => world.crash()?,
            }
            world.disk.heal();
        }
        world.disk.set_capacity(u64::MAX);
    }
    world.open()?.ok_or("the last open failed")?;
    Ok((waited, torn))
}

#[test]
fn lives_without_appends_lose_and_resurrect_no_record() {
    let (mut waited, mut torn) = (0, 0);
    for seed in 0..super::number("RINGWAL_SIM_RESTARTS").unwrap_or(300) {
        match idle_between_working_lives(seed) {
            Ok(seen) => (waited, torn) = (waited + seen.0, torn + seen.1),
            Err(e) => panic!("seed {seed}: {e}"),
        }
    }
    println!("{waited} lives left the epoch group out, {torn} of them behind a torn tail");
    assert!(waited > 300 && torn > 0, "{waited}, {torn}");
}

#[test]
fn repeated_restarts_keep_the_newest_record_and_few_files() {
    for seed in 0..super::number("RINGWAL_SIM_RESTARTS").unwrap_or(300) / 5 {
        if let Err(e) = restarted(seed, 60) {
            panic!("seed {seed}: {e}");
        }
    }
}
