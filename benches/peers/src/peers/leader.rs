//! Group commit by a leader, the best that is simple: threads put their records into a buffer, one
//! of them swaps it for an empty one, writes and syncs it for all.
//!
//! Durable by: `pwrite` and one `fdatasync` for a group. The file is written with zeros before and
//! then overwritten in turn, so that no commit allocates a block.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use loadgen::engine::Engine;

use super::frames;
use crate::peer::{Entry, Kind, Result, Setup};

/// In the table.
pub const ENTRY: Entry = Entry {
    name: "leader",
    package: "ringwal-peers",
    kind: Kind::Baseline,
    durable_by: "leader: pwrite + fdatasync a group, in place in a zeroed file",
    open,
    replay: |dir, _| frames::replay(&dir.join(NAME)),
};

const NAME: &str = "log";
const AREA: u64 = 256 << 20;
/// Frames take a little more than payloads; this is enough for payloads of 64 bytes and more.
const ROOM_SHARE: u64 = 8;
/// Bytes in the buffer at which an append without a wait commits them.
const FULL: usize = 16 << 20;

struct Log {
    file: File,
    area: u64,
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Default)]
struct State {
    buffer: Vec<u8>,
    spare: Vec<u8>,
    /// Number of records put into the buffer.
    put: u64,
    /// Number of those records that are durable.
    durable: u64,
    offset: u64,
    leading: bool,
    failed: bool,
}

fn open(dir: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let file = File::options().write(true).create(true).truncate(false).open(dir.join(NAME))?;
    let whole = setup.bytes + setup.bytes / ROOM_SHARE + (1 << 20);
    let area = if setup.keeps_all() { whole } else { AREA };
    let zeros = vec![0; 1 << 20];
    let mut at = 0;
    while at < area {
        file.write_all_at(&zeros, at)?;
        at += zeros.len() as u64;
    }
    file.sync_all()?;
    let (state, done) = (Mutex::new(State::default()), Condvar::new());
    Ok(Box::new(Log { file, area, state, done }))
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the first `upto` records are durable. Leads the commit if no other thread does.
    fn commit<'a>(&'a self, mut state: MutexGuard<'a, State>, upto: u64) -> Result<()> {
        while state.durable < upto {
            if state.failed {
                return Err("a write or sync failed".into());
            }
            if state.leading {
                state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.leading = true;
            let spare = std::mem::take(&mut state.spare);
            let mut group = std::mem::replace(&mut state.buffer, spare);
            let put = state.put;
            if state.offset + group.len() as u64 > self.area {
                state.offset = 0;
            }
            let offset = state.offset;
            drop(state);
            let written =
                self.file.write_all_at(&group, offset).and_then(|()| self.file.sync_data());
            state = self.lock();
            state.leading = false;
            state.failed |= written.is_err();
            if written.is_ok() {
                state.durable = put;
                state.offset += group.len() as u64;
            }
            group.clear();
            state.spare = group;
            self.done.notify_all();
        }
        Ok(())
    }
}

impl Engine for Log {
    fn append_durable(&self, payload: &[u8]) -> Result<()> {
        let mut state = self.lock();
        frames::push(&mut state.buffer, payload)?;
        state.put += 1;
        let mine = state.put;
        self.commit(state, mine)
    }

    fn append(&self, payload: &[u8]) -> Result<()> {
        let mut state = self.lock();
        frames::push(&mut state.buffer, payload)?;
        state.put += 1;
        if state.buffer.len() < FULL {
            return Ok(());
        }
        let all = state.put;
        self.commit(state, all)
    }

    fn sync(&self) -> Result<()> {
        let state = self.lock();
        let all = state.put;
        self.commit(state, all)
    }
}
