//! A crash at every operation of many workloads, with crashes inside the recoveries.

use super::long;
use super::tally::Tally;
use super::world::World;
use crate::backend::sim::Sabotage;

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
fn a_crash_at_every_operation_of_a_workload_is_survived() {
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
