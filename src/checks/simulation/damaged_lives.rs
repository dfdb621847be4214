//! Random damage to logs of several lives, which were interrupted, opened with other sizes, and
//! left discarded groups.

use fastrand::Rng;

use super::damage::{Contents, Reference};
use super::world::World;
use super::{long, number};
use crate::format::{GroupHeader, SegmentHeader, stamp};
use crate::io::backend::sim::Sabotage;

const BLOCK: usize = 4096;

/// Every file and offset with a valid group header.
fn groups(files: &Contents) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (name, content) in files {
        let Ok(header) = SegmentHeader::decode(content) else { continue };
        for at in (BLOCK..content.len()).step_by(BLOCK) {
            if GroupHeader::decode(&content[at..], header.base + at as u64, &header).is_ok() {
                found.push((name.clone(), at));
            }
        }
    }
    found
}

/// Makes one change to the files. Some changes have no effect.
fn damage(rng: &mut Rng, files: &mut Contents) {
    let groups = groups(files);
    let Some((name, at)) = groups.get(rng.usize(..groups.len().max(1))).cloned() else { return };
    let other = groups[rng.usize(..groups.len())].clone();
    let source = files[&other.0][other.1..other.1 + BLOCK].to_vec();
    let kind = rng.u8(0..8);
    if kind == 7 {
        files.remove(&name);
        return;
    }
    let Some(bytes) = files.get_mut(&name) else { return };
    let Ok(header) = SegmentHeader::decode(bytes) else { return };
    let blocks = 1 + rng.usize(..4);
    let to = (at + blocks * BLOCK).min(bytes.len());
    match kind {
        0 | 1 => bytes[at..at + 512].fill(0),
        2 => bytes[at + rng.usize(..128)] ^= 1 << rng.u8(0..8),
        3 => bytes[at + rng.usize(..BLOCK)] ^= 1 << rng.u8(0..8),
        4 => bytes[at..at + BLOCK].copy_from_slice(&source),
        5 => bytes[at..to].fill(0),
        _ => {
            // A lost write.
            bytes[at..at + BLOCK].fill(0);
            let lsn = header.base + at as u64;
            if header.stamps_from_the_end().any(|stamped| stamped == lsn) {
                let stamp = stamp(lsn, &header.log_id);
                bytes[at..at + stamp.len()].copy_from_slice(&stamp);
            }
        }
    }
}

#[test]
fn damage_to_a_log_of_several_lives_shortens_it_only_above_every_mark() {
    let first = number("RINGWAL_SIM_SEED").unwrap_or(0);
    let count = if long() { 20_000 } else { 30 };
    let (mut looks, mut refused, mut cut) = (0, 0, 0);
    for seed in first..first + count {
        let mut world = World::new(seed, Sabotage::None);
        let mut rng = Rng::with_seed(seed);
        // The last life ends as the others did, with a tail that no later life overwrote.
        let mut lived = world.run(4);
        world.refit();
        lived = lived.and_then(|()| world.live(rng.usize(1..80)).map(drop));
        if rng.bool() {
            lived = lived.and_then(|()| world.crash());
        }
        lived.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let mut reference = Reference::of(world);
        for n in 0..24 {
            let times = 1 + rng.usize(..2);
            reference.change(&format!("seed {seed}, damage {n}"), |files| {
                (0..times).for_each(|_| damage(&mut rng, files));
            });
        }
        looks += reference.looks;
        refused += reference.refused;
        cut += reference.cut;
    }
    println!("{count} seeds: {looks} looks, {refused} refused, {cut} cut");
    assert!(refused > looks / 10 && cut > 0, "{refused} of {looks} refused, {cut} cut");
}
