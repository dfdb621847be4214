//! A simulated disk: what was not synced survives a crash in part, in any order, torn.
//!
//! 1. A file has its durable content, and writes that are not synced yet: in flight or completed.
//! 2. A sync makes the writes durable that had completed when it began.
//! 3. Names change in order; a crash keeps a prefix of the changes since the directory's last sync.
//! 4. Every operation has a number. From `crash_at` on nothing happens any more: every operation
//!    fails. [`SimDisk::crash`] then draws what survived, and the disk goes on from there.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use fastrand::Rng;

use super::{Access, Dir, Entry, File};
use crate::sync::lock;

const SECTOR: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Eio,
    NoSpace,
    /// Half of the bytes.
    Short,
}

#[derive(Debug)]
struct Unsynced {
    id: u64,
    offset: u64,
    bytes: Vec<u8>,
    completed: bool,
}

#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    /// What a read sees: the durable bytes and every completed write.
    current: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

impl Content {
    fn apply(to: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
        let end = offset as usize + bytes.len();
        if to.len() < end {
            to.resize(end, 0);
        }
        to[offset as usize..end].copy_from_slice(bytes);
    }

    fn make_durable(&mut self, ids: &[u64]) {
        let (synced, rest) =
            std::mem::take(&mut self.unsynced).into_iter().partition(|w| ids.contains(&w.id));
        self.unsynced = rest;
        let synced: Vec<Unsynced> = synced;
        for w in synced {
            Self::apply(&mut self.durable, w.offset, &w.bytes);
        }
    }

    /// Any subset of the sectors of what was not synced, in any order of the writes.
    fn crash(&mut self, rng: &mut Rng) {
        let mut writes = std::mem::take(&mut self.unsynced);
        rng.shuffle(&mut writes);
        let mood = rng.u8(0..4);
        for w in writes {
            for (i, sector) in w.bytes.chunks(SECTOR).enumerate() {
                let survives = match mood {
                    0 => false,
                    1 => true,
                    _ => rng.bool(),
                };
                if survives {
                    // Now and then a sector is torn too.
                    let len = if rng.u8(0..16) == 0 { rng.usize(..=sector.len()) } else { SECTOR };
                    let offset = w.offset + (i * SECTOR) as u64;
                    Self::apply(&mut self.durable, offset, &sector[..len.min(sector.len())]);
                }
            }
        }
        self.current = self.durable.clone();
    }
}

#[derive(Debug, Clone)]
enum Rename {
    Link(String, u64),
    Move(String, String),
    Unlink(String),
}

fn apply_name(names: &mut BTreeMap<String, u64>, change: &Rename) {
    match change {
        Rename::Link(name, id) => {
            names.insert(name.clone(), *id);
        }
        Rename::Move(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
        Rename::Unlink(name) => {
            names.remove(name);
        }
    }
}

#[derive(Debug)]
struct State {
    durable_names: BTreeMap<String, u64>,
    names: BTreeMap<String, u64>,
    changes: Vec<Rename>,
    files: HashMap<u64, Content>,
    ids: u64,
    operations: u64,
    crash_at: u64,
    faults: Vec<(u64, Fault, bool)>,
    /// Bytes that may be allocated in all.
    capacity: u64,
}

/// The disk. Clones are the same disk.
#[derive(Debug, Clone)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
pub(crate) struct SimDir(SimDisk);

#[derive(Debug)]
pub(crate) struct SimFile {
    disk: SimDisk,
    id: u64,
}

fn off() -> io::Error {
    io::Error::other("the simulated machine is off")
}

impl State {
    /// Counts an operation, and fails it if it is its turn.
    fn operation(&mut self) -> io::Result<Option<Fault>> {
        if self.operations >= self.crash_at {
            return Err(off());
        }
        let n = self.operations;
        self.operations += 1;
        let hit = self.faults.iter().find(|(at, _, ever)| n == *at || (*ever && n > *at));
        Ok(hit.map(|&(_, fault, _)| fault))
    }

    fn simple(&mut self) -> io::Result<()> {
        match self.operation()? {
            None => Ok(()),
            Some(fault) => Err(error_of(fault)),
        }
    }

    fn change(&mut self, change: Rename) {
        apply_name(&mut self.names, &change);
        self.changes.push(change);
    }

    fn allocated(&self) -> u64 {
        self.names
            .values()
            .filter_map(|id| self.files.get(id))
            .map(|c| c.current.len() as u64)
            .sum()
    }
}

pub(crate) fn error_of(fault: Fault) -> io::Error {
    match fault {
        Fault::Eio | Fault::Short => io::Error::other("simulated EIO"),
        Fault::NoSpace => io::ErrorKind::StorageFull.into(),
    }
}

impl SimDisk {
    pub(crate) fn new() -> Self {
        SimDisk(Arc::new(Mutex::new(State {
            durable_names: BTreeMap::new(),
            names: BTreeMap::new(),
            changes: Vec::new(),
            files: HashMap::new(),
            ids: 0,
            operations: 0,
            crash_at: u64::MAX,
            faults: Vec::new(),
            capacity: u64::MAX,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    pub(crate) fn dir(&self) -> Arc<dyn Dir> {
        Arc::new(SimDir(self.clone()))
    }

    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Turns the machine off before operation `at`.
    pub(crate) fn crash_at(&self, at: u64) {
        self.state().crash_at = at;
    }

    /// Fails operation `at`, and all later ones if `for_ever`.
    pub(crate) fn fault(&self, at: u64, fault: Fault, for_ever: bool) {
        self.state().faults.push((at, fault, for_ever));
    }

    pub(crate) fn heal(&self) {
        self.state().faults.clear();
    }

    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Draws what survived, and turns the machine on again.
    pub(crate) fn crash(&self, rng: &mut Rng) {
        let mut state = self.state();
        let state = &mut *state;
        let kept = rng.usize(..=state.changes.len());
        for change in state.changes.drain(..).take(kept).collect::<Vec<_>>() {
            apply_name(&mut state.durable_names, &change);
        }
        state.names = state.durable_names.clone();
        let mut ids: Vec<u64> = state.files.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            if let Some(content) = state.files.get_mut(&id) {
                content.crash(rng);
            }
        }
        let named: Vec<u64> = state.names.values().copied().collect();
        state.files.retain(|id, _| named.contains(id));
        state.crash_at = u64::MAX;
        state.faults.clear();
    }

    /// The process is gone and the machine goes on: what was in flight ends, or never began.
    pub(crate) fn kill(&self, rng: &mut Rng) {
        let mut state = self.state();
        let mut ids: Vec<u64> = state.files.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(content) = state.files.get_mut(&id) else { continue };
            content.unsynced.retain(|w| w.completed || rng.bool());
            for w in content.unsynced.iter_mut().filter(|w| !w.completed) {
                w.completed = true;
                Content::apply(&mut content.current, w.offset, &w.bytes);
            }
        }
    }

    /// Whether the machine went off.
    pub(crate) fn is_off(&self) -> bool {
        let state = self.state();
        state.operations >= state.crash_at
    }

    /// Changes durable bytes behind everybody's back.
    pub(crate) fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let id = state.names[name];
        let content = state.files.get_mut(&id).unwrap();
        content.durable = content.current.clone();
        content.unsynced.clear();
        change(&mut content.durable);
        content.current = content.durable.clone();
    }

    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[&state.names[name]].current.clone()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }
}

impl SimFile {
    /// Begins a write: from now on a crash may keep any part of it. Returns its number and how much
    /// of it the device will say it wrote.
    pub(crate) fn begin_write(&self, bytes: &[u8], offset: u64) -> io::Result<(u64, usize)> {
        let mut state = self.disk.state();
        let len = match state.operation()? {
            None => bytes.len(),
            Some(Fault::Short) => bytes.len() / 2,
            Some(fault) => return Err(error_of(fault)),
        };
        state.ids += 1;
        let id = state.ids;
        let bytes = bytes[..len].to_vec();
        let content = state.files.entry(self.id).or_default();
        content.unsynced.push(Unsynced { id, offset, bytes, completed: false });
        Ok((id, len))
    }

    /// Ends a write; `durable`: as one with DSYNC.
    pub(crate) fn end_write(&self, id: u64, durable: bool) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.operations >= state.crash_at {
            return Err(off());
        }
        let content = state.files.entry(self.id).or_default();
        if let Some(w) = content.unsynced.iter_mut().find(|w| w.id == id) {
            w.completed = true;
            Content::apply(&mut content.current, w.offset, &w.bytes);
        }
        if durable {
            // An older write to the same place cannot come out on top of this one any more.
            let place = |w: &Unsynced| (w.offset, w.offset + w.bytes.len() as u64);
            let new = content.unsynced.iter().find(|w| w.id == id).map_or((0, 0), place);
            let over = |w: &&Unsynced| place(w).0 < new.1 && new.0 < place(w).1 && w.id <= id;
            let ids: Vec<u64> = content.unsynced.iter().filter(over).map(|w| w.id).collect();
            content.make_durable(&ids);
        }
        Ok(())
    }

    /// Begins a sync: what it will make durable.
    pub(crate) fn begin_sync(&self) -> io::Result<Vec<u64>> {
        let mut state = self.disk.state();
        state.simple()?;
        let content = state.files.entry(self.id).or_default();
        Ok(content.unsynced.iter().filter(|w| w.completed).map(|w| w.id).collect())
    }

    pub(crate) fn end_sync(&self, ids: &[u64]) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.operations >= state.crash_at {
            return Err(off());
        }
        state.files.entry(self.id).or_default().make_durable(ids);
        Ok(())
    }
}

impl Dir for SimDir {
    fn list(&self) -> io::Result<Vec<Entry>> {
        let mut state = self.0.state();
        state.simple()?;
        let entry = |(name, id): (&String, &u64)| Entry {
            name: name.clone(),
            regular: true,
            len: state.files.get(id).map_or(0, |c| c.current.len() as u64),
        };
        Ok(state.names.iter().map(entry).collect())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let mut state = self.0.state();
        if access == Access::Create {
            state.simple()?;
            if state.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.ids += 1;
            let id = state.ids;
            state.files.insert(id, Content::default());
            state.change(Rename::Link(name.into(), id));
        } else if state.operations >= state.crash_at {
            return Err(off());
        }
        let id = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.0.clone(), id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.state();
        state.simple()?;
        assert!(!state.names.contains_key(to), "rename over {to}");
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(Rename::Move(from.into(), to.into()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.state();
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.simple()?;
        state.change(Rename::Unlink(name.into()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.state();
        state.simple()?;
        state.durable_names = state.names.clone();
        state.changes.clear();
        Ok(())
    }

    fn block_size(&self) -> u32 {
        4096
    }

    fn path_of(&self, name: &str) -> std::path::PathBuf {
        std::path::Path::new("/simulated").join(name)
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        if state.operations >= state.crash_at {
            return Err(off());
        }
        let Some(content) = state.files.get(&self.id) else { return Ok(0) };
        let content = &content.current;
        let from = (offset as usize).min(content.len());
        let n = buf.len().min(content.len() - from);
        buf[..n].copy_from_slice(&content[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        {
            let state = self.disk.state();
            let end = offset + buf.len() as u64;
            let has = state.files.get(&self.id).map_or(0, |c| c.current.len() as u64);
            if state.allocated() + end.saturating_sub(has) > state.capacity {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let (id, len) = self.begin_write(buf, offset)?;
        self.end_write(id, false)?;
        Ok(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let ids = self.begin_sync()?;
        self.end_sync(&ids)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files.get(&self.id).map_or(0, |c| c.current.len() as u64))
    }

    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }

    fn write_zeroes(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        crate::storage::write_full(self, &vec![0; len as usize], 0)
    }

    fn is_direct(&self) -> bool {
        true
    }

    fn raw_fd(&self) -> Option<i32> {
        None
    }

    fn as_sim(&self) -> Option<&SimFile> {
        Some(self)
    }
}
