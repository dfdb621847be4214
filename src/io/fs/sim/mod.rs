//! A simulated disk: what was not synced survives a crash in part, in any order, torn.
//!
//! 1. A file has its durable content, and writes that are not synced yet: in flight or completed.
//! 2. A sync makes the writes durable that had completed when it began.
//! 3. Names change in order; a crash keeps a prefix of the changes since the directory's last sync.
//! 4. Every operation that may change something has a number, and every read another. From
//!    `crash_at` on nothing happens any more: every operation fails. [`SimDisk::crash`] then draws
//!    what survived, and the disk goes on from there; [`SimDisk::image`] draws it on a copy.
//! 5. Handles of the time before a crash are dead: nothing that they do arrives.

mod content;
mod files;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use fastrand::Rng;

use super::Dir;
use crate::sys::sync::lock;
use content::Content;
pub(crate) use files::SimFile;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Eio,
    NoSpace,
    /// Half of the bytes.
    Short,
    /// A signal came in between.
    Interrupted,
    /// EAGAIN.
    Again,
    /// ECANCELED.
    Cancelled,
}

impl Fault {
    #[cfg(test)]
    pub(crate) const ALL: [Fault; 6] = [
        Fault::Eio,
        Fault::NoSpace,
        Fault::Short,
        Fault::Interrupted,
        Fault::Again,
        Fault::Cancelled,
    ];

    fn error(self) -> io::Error {
        match self {
            Fault::Eio | Fault::Short => {
                io::Error::from_raw_os_error(crate::sys::os_error::DEVICE_FAILED)
            }
            Fault::NoSpace => io::ErrorKind::StorageFull.into(),
            Fault::Interrupted => io::ErrorKind::Interrupted.into(),
            Fault::Again => io::ErrorKind::WouldBlock.into(),
            Fault::Cancelled => io::Error::from_raw_os_error(125),
        }
    }
}

/// Faults to come, by the number of the operation: once, or for ever.
#[derive(Debug, Clone, Default)]
struct Script {
    done: u64,
    faults: Vec<(u64, Fault, bool)>,
}

impl Script {
    /// Counts an operation, and says how it fails if it is its turn.
    fn next(&mut self) -> Option<Fault> {
        let n = self.done;
        self.done += 1;
        let hit = self.faults.iter().find(|(at, _, ever)| n == *at || (*ever && n > *at));
        hit.map(|&(_, fault, _)| fault)
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

#[derive(Debug, Clone)]
struct State {
    durable_names: BTreeMap<String, u64>,
    names: BTreeMap<String, u64>,
    changes: Vec<Rename>,
    files: HashMap<u64, Content>,
    ids: u64,
    crash_at: u64,
    writes: Script,
    reads: Script,
    /// Faults that have happened.
    failed: u64,
    /// Bytes that may be allocated in all.
    capacity: u64,
    /// Crashes and kills so far.
    life: u64,
    /// Names that are locked, in this life.
    locked: BTreeSet<String>,
}

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

/// Without what is on it: megabytes, with every file and handle.
impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDisk").finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct SimDir {
    disk: SimDisk,
    life: u64,
}

/// A name that no other writer can lock meanwhile.
#[derive(Debug)]
pub(crate) struct SimLock {
    disk: SimDisk,
    life: u64,
    name: String,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        if let Ok(mut state) = self.disk.state_of(self.life) {
            state.locked.remove(&self.name);
        }
    }
}

fn off() -> io::Error {
    io::Error::other("the simulated machine is off")
}

impl State {
    fn check_on(&self) -> io::Result<()> {
        if self.writes.done >= self.crash_at { Err(off()) } else { Ok(()) }
    }

    /// Counts an operation, and says how it fails if it is its turn.
    fn operation(&mut self) -> io::Result<Option<Fault>> {
        self.check_on()?;
        let fault = self.writes.next();
        self.failed += u64::from(fault.is_some());
        Ok(fault)
    }

    fn simple(&mut self) -> io::Result<()> {
        self.operation()?.map_or(Ok(()), |fault| Err(fault.error()))
    }

    /// Counts a read of content or names.
    fn read(&mut self) -> io::Result<Option<Fault>> {
        self.check_on()?;
        let fault = self.reads.next();
        self.failed += u64::from(fault.is_some());
        Ok(fault)
    }

    /// One that is neither interrupted nor short: of names and lengths.
    fn simple_read(&mut self) -> io::Result<()> {
        match self.read()? {
            None | Some(Fault::Short | Fault::Interrupted) => Ok(()),
            Some(fault) => Err(fault.error()),
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
            .map(|c| c.current().len() as u64)
            .sum()
    }

    /// Draws what survived, and turns the machine on again.
    fn crash(&mut self, rng: &mut Rng) {
        let kept = rng.usize(..=self.changes.len());
        for change in self.changes.drain(..).take(kept) {
            apply_name(&mut self.durable_names, &change);
        }
        self.names = self.durable_names.clone();
        let named: Vec<u64> = self.names.values().copied().collect();
        self.files.retain(|id, _| named.contains(id));
        for content in self.files_in_order() {
            content.crash(rng);
        }
        self.turn_on();
        self.end_life();
    }

    fn end_life(&mut self) {
        self.life += 1;
        self.locked.clear();
    }

    fn abandon(&mut self, rng: &mut Rng) {
        self.end_life();
        for content in self.files_in_order() {
            content.abandon(rng);
        }
    }

    fn turn_on(&mut self) {
        self.crash_at = u64::MAX;
        self.writes.faults.clear();
        self.reads.faults.clear();
    }

    /// Always the same order, so that a seed always draws the same.
    fn files_in_order(&mut self) -> Vec<&mut Content> {
        let mut files: Vec<_> = self.files.iter_mut().collect();
        files.sort_unstable_by_key(|(id, _)| **id);
        files.into_iter().map(|(_, content)| content).collect()
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
            crash_at: u64::MAX,
            writes: Script::default(),
            reads: Script::default(),
            failed: 0,
            capacity: u64::MAX,
            life: 0,
            locked: BTreeSet::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// The state for a handle of that life, if the machine still lives it.
    fn state_of(&self, life: u64) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.life == life { Ok(state) } else { Err(off()) }
    }

    /// The directory, for the time until the next crash.
    pub(crate) fn dir(&self) -> Arc<dyn Dir> {
        let life = self.state().life;
        Arc::new(SimDir { disk: self.clone(), life })
    }

    /// `None`: it is held.
    pub(crate) fn lock(&self, name: &str) -> Option<SimLock> {
        let mut state = self.state();
        let life = state.life;
        state.locked.insert(name.into()).then(|| SimLock {
            disk: self.clone(),
            life,
            name: name.into(),
        })
    }

    /// Operations so far that may have changed something.
    pub(crate) fn operations(&self) -> u64 {
        self.state().writes.done
    }

    pub(crate) fn reads(&self) -> u64 {
        self.state().reads.done
    }

    /// Faults that have happened so far.
    pub(crate) fn failed(&self) -> u64 {
        self.state().failed
    }

    /// Turns the machine off before operation `at`.
    pub(crate) fn crash_at(&self, at: u64) {
        self.state().crash_at = at;
    }

    /// Fails operation `at`, and all later ones if `for_ever`.
    pub(crate) fn fault(&self, at: u64, fault: Fault, for_ever: bool) {
        self.state().writes.faults.push((at, fault, for_ever));
    }

    /// Fails read `at`, and all later ones if `for_ever`.
    pub(crate) fn read_fault(&self, at: u64, fault: Fault, for_ever: bool) {
        self.state().reads.faults.push((at, fault, for_ever));
    }

    /// Ends all faults, and turns the machine on.
    pub(crate) fn heal(&self) {
        self.state().turn_on();
    }

    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Draws what survived, and turns the machine on again.
    pub(crate) fn crash(&self, rng: &mut Rng) {
        self.state().crash(rng);
    }

    /// The process is gone and the machine goes on: what was in flight ends, or never began.
    pub(crate) fn kill(&self, rng: &mut Rng) {
        self.state().abandon(rng);
    }

    /// Another disk that holds the same.
    #[cfg(test)]
    pub(crate) fn copy(&self) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(self.state().clone())))
    }

    /// Another disk, with what may have survived of this one.
    pub(crate) fn image(&self, rng: &mut Rng) -> SimDisk {
        let mut state = self.state().clone();
        state.crash(rng);
        SimDisk(Arc::new(Mutex::new(state)))
    }

    /// Whether the machine went off.
    pub(crate) fn is_off(&self) -> bool {
        self.state().check_on().is_err()
    }

    /// Changes durable bytes behind everybody's back.
    pub(crate) fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let id = state.names.get(name).copied();
        if let Some(content) = id.and_then(|id| state.files.get_mut(&id)) {
            content.damage(change);
        }
    }

    /// Puts a file under that name, or takes it away, behind everybody's back.
    #[cfg(test)]
    pub(crate) fn put(&self, name: &str, bytes: Option<&[u8]>) {
        let mut state = self.state();
        state.ids += 1;
        let id = state.ids;
        match bytes {
            Some(bytes) => {
                let mut content = Content::default();
                content.damage(|all| *all = bytes.to_vec());
                state.files.insert(id, content);
                state.names.insert(name.into(), id);
            }
            None => drop(state.names.remove(name)),
        }
        state.durable_names = state.names.clone();
    }

    pub(crate) fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.files.get(state.names.get(name)?)?.current().to_vec())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }
}
