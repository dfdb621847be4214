//! Short lives in loops, with tiny segments and retention by number, under a wall clock that is set now and then: the
//! newest record stays, and the files stay few.

use super::world::{BEYOND, World};
use crate::io::backend::sim::Sabotage;
use crate::options::{Durability, Options};

fn files(world: &World) -> usize {
    world.disk.names().iter().filter(|name| name.ends_with(".wal")).count()
}

/// So many lives, each of at most a few records, and ended in one of the ways there are.
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
        if newest.is_some_and(|lsn| lsn < life.shared.files.table.oldest()) {
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

#[test]
fn restarts_in_loops_keep_the_newest_record_and_few_files() {
    for seed in 0..super::number("RINGWAL_SIM_SEEDS").unwrap_or(60) {
        if let Err(e) = restarted(seed, 60) {
            panic!("seed {seed}: {e}");
        }
    }
}
