//! Bits, sectors and groups that are not what was written.

use std::sync::Arc;
use std::time::Duration;

use super::long;
use super::oracle::Records;
use super::world::{Life, SimClock, World};
use crate::backend::Method;
use crate::backend::sim::Sabotage;
use crate::error::Error;
use crate::open::recover;
use crate::options::Options;
use crate::reader::Reader;
use crate::segment::Names;
use crate::storage::sim::SimDisk;

/// What can be said of a log after damage.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Records(Records),
    Corruption,
    /// Unsupported, foreign, or another typed refusal to open.
    Refused,
}

/// Opens and reads a copy of a log without writing to it.
fn look(disk: &SimDisk, options: &Options) -> Seen {
    let clock = SimClock::default();
    let names = Names::new(&options.prefix);
    let shared = match recover(&disk.dir(), &names, options, &clock, [1; 24]) {
        Ok(recovered) => recovered.shared,
        Err(Error::Corruption { .. }) => return Seen::Corruption,
        Err(Error::Unsupported { .. } | Error::ForeignSegment { .. }) => return Seen::Refused,
        Err(e) => panic!("{e}"),
    };
    let reader = Reader::new(Arc::clone(&shared), 0, shared.durable.end());
    let mut found = Vec::new();
    for record in reader {
        match record {
            Ok(record) => found.push((record.lsn.as_u64(), record.payload)),
            Err(Error::Corruption { .. }) => return Seen::Corruption,
            Err(e) => panic!("{e}"),
        }
    }
    Seen::Records(found)
}

/// A log of a few small segments: its disk, its records, and whether it was closed.
fn reference(close: bool) -> (SimDisk, Options, Records) {
    let mut world = World::new(5, Sabotage::None);
    world.options = Options {
        segment_size: 16 << 10,
        ring_capacity: Some(32 << 10),
        idle_seal: Duration::from_secs(1),
        ..Options::default()
    };
    let mut life = world.open().unwrap().unwrap();
    while life.shared.table.counts().0 < 5 {
        // A few records to a group, and now and then a batch among them.
        for _ in 0..world.rng.usize(1..8) {
            world.append(&mut life);
        }
        if world.rng.u8(0..3) == 0 {
            world.append_batch(&life);
        }
        life.settle();
    }
    if close {
        life.shared.begin_close();
        for _ in 0..10_000 {
            if life.io.step().finished {
                break;
            }
            life.io.wait(None);
        }
    }
    assert!(world.oracle.records.len() > 20);
    (world.disk, world.options, world.oracle.records)
}

#[test]
fn no_flipped_bit_shortens_a_closed_log() {
    let (disk, options, records) = reference(true);
    assert!(look(&disk, &options) == Seen::Records(records.clone()));
    // Every bit in the long form; here each byte once, with a bit that varies.
    let mut corruptions = 0;
    for name in disk.names().into_iter().filter(|n| n.ends_with(".wal")) {
        let bytes = disk.content(&name);
        let stride = if long() { 1 } else { 7 };
        let mut bit = 0;
        while bit < bytes.len() * 8 {
            disk.damage(&name, |b| b[bit / 8] ^= 1 << (bit % 8));
            match look(&disk, &options) {
                Seen::Records(found) => assert!(found == records, "{name}, bit {bit}"),
                Seen::Corruption | Seen::Refused => corruptions += 1,
            }
            disk.damage(&name, |b| b[bit / 8] ^= 1 << (bit % 8));
            // In zeros, padding and headers' reserved bytes most flips change nothing.
            bit += if bytes[bit / 8] == 0 { stride * 13 } else { stride };
        }
    }
    assert!(corruptions > 1000, "{corruptions}");
    assert!(look(&disk, &options) == Seen::Records(records));
}

#[test]
fn no_damaged_sector_shortens_a_closed_log() {
    let (disk, options, records) = reference(true);
    let names: Vec<_> = disk.names().into_iter().filter(|n| n.ends_with(".wal")).collect();
    let other = disk.content(&names[1]);
    for name in &names {
        let bytes = disk.content(name);
        for sector in 0..bytes.len() / 512 {
            let at = sector * 512;
            let replacements = [
                vec![0; 512],
                vec![0xFF; 512],
                other[at..at + 512].to_vec(),
                bytes[(at + 4096) % bytes.len()..][..512].to_vec(),
            ];
            for (kind, with) in replacements.iter().enumerate() {
                disk.damage(name, |b| b[at..at + 512].copy_from_slice(with));
                if let Seen::Records(found) = look(&disk, &options) {
                    assert!(found == records, "{name}, sector {sector}, kind {kind}");
                }
                disk.damage(name, |b| b.copy_from_slice(&bytes));
            }
        }
    }
}

#[test]
fn damage_behind_the_last_mark_cuts_and_never_alters() {
    let (disk, options, records) = reference(false);
    let Seen::Records(whole) = look(&disk, &options) else { panic!("sound") };
    assert!(records.starts_with(&whole));
    for name in disk.names().into_iter().filter(|n| n.ends_with(".wal")) {
        let bytes = disk.content(&name);
        for at in (0..bytes.len()).step_by(61) {
            disk.damage(&name, |b| b[at] ^= 0x55);
            if let Seen::Records(found) = look(&disk, &options) {
                assert!(whole.starts_with(&found), "{name}, byte {at}");
                // Without an idle seal, only the last groups are behind every mark.
                assert!(found.len() + 8 >= whole.len(), "{name}, byte {at}: {}", found.len());
            }
            disk.damage(&name, |b| b[at] ^= 0x55);
        }
    }
}

#[test]
fn a_group_behind_a_cut_does_not_come_back_behind_the_next_epoch() {
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
    let append = |world: &mut World, life: &mut Life| {
        let lsn = life.core.try_append(b"of one block").unwrap().as_u64();
        world.oracle.records.push((lsn, b"of one block".to_vec()));
        life.io.step();
        lsn
    };
    append(&mut world, &mut life);
    life.settle();
    // Two groups in flight at once: the second's mark does not prove the first.
    let torn = append(&mut world, &mut life);
    let behind = append(&mut world, &mut life);
    assert_eq!(behind, torn + 4096);
    life.settle();
    drop(life);
    let name = Names::new(&world.options.prefix).segment(0);
    let group = torn as usize - 128;
    world.disk.damage(&name, |b| b[group..group + 512].fill(0));
    // The epoch group takes the torn group's block: what stood behind that stands behind this.
    for _ in 0..3 {
        drop(world.open().unwrap().unwrap());
        assert_eq!(world.oracle.records.len(), 1);
    }
}
