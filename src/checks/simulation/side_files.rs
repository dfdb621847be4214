//! Side files that are stale, missing, of another log, or unreadable, between the lives of one log.
//!
//! The oracle's rule: a side file never changes the log's records. A writer opens as if the files
//! were sound, except in the two cases that docs/format.md names: a file of a consumer or of floors
//! without a sound slot, and a position above the log's end. The open refuses both with an error of
//! their own and changes nothing. It succeeds once the file is restored.

use std::sync::Arc;

use super::tally::Tally;
use super::world::{Life, World};
use super::{long, number};
use crate::engine::recover::recover;
use crate::error::Error;
use crate::format::{SegmentHeader, StoredFloors};
use crate::io::backend::sim::Sabotage;
use crate::io::fs::sim::SimDisk;
use crate::positions::PositionFile;
use crate::read::consumer::Consumer;
use crate::segment::{Names, SegmentName, is_streams};

const CONSUMER: &str = "mailer";

/// A change to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// The content after an earlier life.
    Stale,
    Missing,
    Empty,
    Garbage,
    /// A file of another log.
    Foreign,
    /// A file of a later state of the log.
    Ahead,
}

const CHANGES: [Change; 6] = [
    Change::Stale,
    Change::Missing,
    Change::Empty,
    Change::Garbage,
    Change::Foreign,
    Change::Ahead,
];

/// The expected result of an open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Opens,
    /// `ConsumerDamaged` or `TagFloorsDamaged`.
    Damaged,
    /// `Corruption`: the log ends below a stored position.
    Short,
}

struct SideFiles {
    names: Names,
    /// Content of each file after each life.
    earlier: Vec<(String, Option<Vec<u8>>)>,
}

impl SideFiles {
    fn all(&self) -> [String; 10] {
        let n = &self.names;
        [
            n.consumer(CONSUMER),
            n.sealed(),
            n.streams(),
            n.end(),
            n.commit(),
            n.lock(),
            n.consumer_temporary(CONSUMER),
            n.sealed_temporary(),
            n.streams_temporary(),
            n.temporary(1 << 20),
        ]
    }

    fn remember(&mut self, disk: &SimDisk) {
        for name in self.all() {
            let content = disk.content(&name);
            self.earlier.push((name, content));
        }
    }

    /// The file's content after the change. `None`: the file is missing.
    fn changed(
        &self,
        world: &mut World,
        name: &str,
        change: Change,
        log_id: [u8; 16],
    ) -> Option<Vec<u8>> {
        let position = |id, at| {
            if is_streams(name) {
                let mut slot = vec![0; StoredFloors::slot_len(1)];
                StoredFloors { counter: 1, floors: vec![(7, at)] }.encode(&id, &mut slot);
                return Some(slot);
            }
            let other = SimDisk::new();
            drop(PositionFile::create(&*other.dir(), "p", "p.new", id, at).unwrap());
            other.content("p")
        };
        match change {
            Change::Stale => {
                let states: Vec<_> = self.earlier.iter().filter(|(of, _)| of == name).collect();
                states[world.rng.usize(..states.len())].1.clone()
            }
            Change::Missing => None,
            Change::Empty => Some(Vec::new()),
            Change::Garbage => {
                Some((0..world.rng.usize(1..9000)).map(|_| world.rng.u8(..)).collect())
            }
            Change::Foreign => position([0xEE; 16], 1 << 40),
            Change::Ahead => position(log_id, 1 << 40),
        }
    }

    fn expected(&self, name: &str, change: Change) -> Outcome {
        let consumer = name == self.names.consumer(CONSUMER);
        let floors = name == self.names.streams();
        match change {
            Change::Empty | Change::Garbage | Change::Foreign if consumer || floors => {
                Outcome::Damaged
            }
            Change::Ahead if self.names.is_of_positions(name) => Outcome::Short,
            _ => Outcome::Opens,
        }
    }
}

fn contents(disk: &SimDisk) -> Vec<(String, Option<Vec<u8>>)> {
    let mut names = disk.names();
    names.sort();
    names.into_iter().map(|name| (name.clone(), disk.content(&name))).collect()
}

fn log_id(world: &World, names: &Names) -> Option<[u8; 16]> {
    let is_segment = |name: &String| matches!(names.parse(name), SegmentName::Segment(_));
    let first = world.disk.names().into_iter().filter(is_segment).min()?;
    SegmentHeader::decode(&world.disk.content(&first)?).ok().map(|header| header.log_id)
}

/// Attaches the consumer. Its position must be that of its file, and its next record the log's
/// next.
fn attach(world: &World, life: &Life, log_id: [u8; 16]) -> Result<Option<Consumer>, String> {
    let mut consumer = match Consumer::attach(&life.state, log_id, CONSUMER) {
        Ok(consumer) => consumer,
        Err(Error::Io { .. } | Error::Poisoned { .. } | Error::NoSpace) => return Ok(None),
        Err(e) => return Err(format!("attach: {e}")),
    };
    let (position, oldest) = (consumer.position().as_u64(), life.state.view.table.oldest());
    if position > life.state.durable.end() {
        return Err(format!("the consumer stands at {position}, above the durable end"));
    }
    let next = match consumer.records() {
        Ok(follow) => follow.try_next().map(|r| r.map(|r| (r.lsn.as_u64(), r.payload.to_vec()))),
        Err(e) => Err(e),
    };
    let records = &world.oracle.records;
    let expected = records.iter().find(|(lsn, _)| *lsn >= position);
    match next {
        Ok(found) if found.as_ref() == expected => Ok(Some(consumer)),
        Err(Error::Pruned { .. }) if position < oldest => Ok(Some(consumer)),
        Err(Error::Io { .. }) => Ok(None),
        other => Err(format!("from {position}: {other:?} instead of {expected:?}")),
    }
}

/// Runs a life in which a consumer commits now and then.
fn live(world: &mut World, names: &Names) -> Result<(), String> {
    let Some(mut life) = world.open()? else { return Ok(()) };
    let id = log_id(world, names).ok_or("there is no segment")?;
    let mut consumer = attach(world, &life, id)?;
    for _ in 0..world.rng.usize(20..150) {
        world.act(&mut life)?;
        let end = life.state.durable.end();
        let done = world.oracle.records.partition_point(|(lsn, _)| *lsn < end);
        if world.rng.u8(0..16) == 0 {
            let floor = life.state.view.table.oldest().max(end / 2);
            // The floor is refused after a failure.
            if life.state.tag_floors.enter(&[(world.rng.u64(..3), floor)]).is_ok() {
                let _ = life.state.store_tag_floors();
            }
        }
        if let Some(consumer) = &mut consumer
            && world.rng.u8(0..8) == 0
            && let Some((lsn, _)) = world.oracle.records[..done].last()
        {
            // A commit is refused after a failure, or in a cut. Then the position stays.
            let _ = consumer.commit(crate::lsn::Lsn::new(*lsn));
        }
    }
    drop(consumer);
    world.note(&life);
    Ok(())
}

/// Makes one change to one file and opens the log, then restores the file and opens the log again.
fn change(world: &mut World, side: &SideFiles) -> Result<Outcome, String> {
    let Some(id) = log_id(world, &side.names) else { return Ok(Outcome::Opens) };
    let all = side.all();
    // Half of the time, a file on which the result of an open depends.
    let of = if world.rng.bool() { 0..3 } else { 0..all.len() };
    let name = &all[world.rng.usize(of)];
    let change = CHANGES[world.rng.usize(..CHANGES.len())];
    let before = world.disk.content(name);
    let bytes = side.changed(world, name, change, id);
    world.disk.put(name, bytes.as_deref());
    let expected = side.expected(name, change);
    let there = contents(&world.disk);
    let random = std::array::from_fn(|_| world.rng.u8(..));
    if expected != Outcome::Opens {
        let clock = Arc::clone(&world.clock);
        let found = recover(&world.disk.dir(), &side.names, &world.options, &*clock, random);
        let refused = match found.map(drop) {
            Err(Error::ConsumerDamaged { .. } | Error::TagFloorsDamaged { .. }) => {
                expected == Outcome::Damaged
            }
            Err(Error::Corruption { .. }) => expected == Outcome::Short,
            _ => false,
        };
        if !refused || contents(&world.disk) != there {
            return Err(format!("{name}, {change:?}: not refused, or something was changed"));
        }
        world.disk.put(name, before.as_deref());
    }
    let opened = world.open().map_err(|e| format!("{name}, {change:?}: {e}"))?;
    let life = opened.ok_or_else(|| format!("{name}, {change:?}: it does not open"))?;
    attach(world, &life, id).map_err(|e| format!("{name}, {change:?}: {e}"))?;
    Ok(expected)
}

fn run(seed: u64, refused: &mut [u64; 2]) -> Result<Tally, String> {
    let mut world = World::new(seed, Sabotage::None);
    let mut side = SideFiles { names: Names::new(&world.options.prefix), earlier: Vec::new() };
    side.remember(&world.disk);
    for _ in 0..5 {
        world.refit();
        if world.rng.bool() {
            let at = world.disk.operations() + world.rng.u64(..400);
            world.disk.crash_at(at);
        }
        live(&mut world, &side.names)?;
        world.crash()?;
        side.remember(&world.disk);
        for _ in 0..3 {
            match change(&mut world, &side)? {
                Outcome::Opens => {}
                Outcome::Damaged => refused[0] += 1,
                Outcome::Short => refused[1] += 1,
            }
            world.crash()?;
        }
    }
    Ok(world.tally)
}

#[test]
fn stale_missing_foreign_and_unreadable_side_files_change_no_result() {
    let first = number("RINGWAL_SIM_SEED").unwrap_or(0);
    let count = if long() { 20_000 } else { 60 };
    let (mut total, mut refused) = (Tally::default(), [0; 2]);
    for seed in first..first + count {
        match run(seed, &mut refused) {
            Ok(tally) => total += tally,
            Err(e) => panic!("seed {seed}: {e}\nreplay it: RINGWAL_SIM_SEED={seed}"),
        }
    }
    println!("{count} seeds: {total}; {} damaged and {} too far refused", refused[0], refused[1]);
    assert!(refused.iter().all(|&n| n > count / 4), "{refused:?}");
}
