//! raft-engine: a multi-raft log of TiKV's.
//!
//! Durable by: `Engine::write(batch, true)`; the first writer of a group writes and syncs for all.
//! `Engine::sync` does nothing, as an empty batch is not written: a sync is a write of one small
//! key. Every thread has a raft group of its own, as entries of a group must follow each other.
//! Settings: files of 64 MiB that are recycled and written with zeros before; entries, not keys, as
//! keys would stay in memory.

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use crate::peer::{Entry, Kind, Replayed, Result, Setup, Tally, Use};

/// In the table.
pub const ENTRY: Entry = Entry {
    name: "raft-engine",
    package: "raft-engine",
    kind: Kind::Log,
    durable_by: "Engine::write(batch, sync = true)",
    open: |dir, setup| Ok(Box::new(Log(engine(dir, setup)?))),
    replay,
};

const SYNC_GROUP: u64 = 0;
const FETCHED_AT_ONCE: u64 = 1024;
const INDEX: usize = 8;

struct Log(Engine);

/// An entry that begins with its index.
#[derive(Clone)]
struct Indexed;

impl MessageExt for Indexed {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        entry.value.first_chunk::<INDEX>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

struct Group {
    id: u64,
    next: u64,
    batch: LogBatch,
}

static GROUPS: AtomicU64 = AtomicU64::new(SYNC_GROUP + 1);

thread_local! {
    static GROUP: RefCell<Group> = RefCell::new(Group {
        id: GROUPS.fetch_add(1, Ordering::Relaxed),
        next: 1,
        batch: LogBatch::default(),
    });
}

fn engine(dir: &Path, setup: &Setup) -> Result<Engine> {
    let config = Config {
        dir: dir.to_str().ok_or("the directory is not UTF-8")?.into(),
        target_file_size: ReadableSize::mb(64),
        prefill_for_recycle: !setup.keeps_all(),
        // Half as much again is really prepared: six files.
        prefill_limit: (!setup.keeps_all()).then(|| ReadableSize::mb(256)),
        ..Config::default()
    };
    Ok(Engine::open(config)?)
}

fn replay(dir: &Path, _: &Setup) -> Result<Replayed> {
    let setup = Setup { purpose: Use::Recovery, bytes: 0 };
    let engine = engine(dir, &setup)?;
    let (mut tally, mut entries) = (Tally::default(), Vec::new());
    for group in engine.raft_groups() {
        let bounds = (engine.first_index(group), engine.last_index(group));
        let (Some(mut from), Some(last)) = bounds else { continue };
        while from <= last {
            let end = (from + FETCHED_AT_ONCE).min(last + 1);
            engine.fetch_entries_to::<Indexed>(group, from, end, None, &mut entries)?;
            for entry in entries.drain(..) {
                tally.count(entry.value.get(INDEX..).unwrap_or_default());
            }
            from = end;
        }
    }
    Ok((tally, Box::new(engine)))
}

impl Log {
    fn write(&self, payload: &[u8], sync: bool) -> Result<()> {
        GROUP.with_borrow_mut(|group| {
            let mut entry = BytesValue::new();
            entry.value.reserve_exact(INDEX + payload.len());
            entry.value.extend_from_slice(&group.next.to_le_bytes());
            entry.value.extend_from_slice(payload);
            group.batch.add_entries::<Indexed>(group.id, &[entry])?;
            self.0.write(&mut group.batch, sync)?;
            group.next += 1;
            Ok::<(), loadgen::engine::Failure>(())
        })
    }
}

impl loadgen::engine::Engine for Log {
    fn append_durable(&self, payload: &[u8]) -> Result<()> {
        self.write(payload, true)
    }

    fn append(&self, payload: &[u8]) -> Result<()> {
        self.write(payload, false)
    }

    fn sync(&self) -> Result<()> {
        let mut batch = LogBatch::default();
        batch.put(SYNC_GROUP, b"sync".to_vec(), Vec::new())?;
        self.0.write(&mut batch, true)?;
        Ok(())
    }
}
