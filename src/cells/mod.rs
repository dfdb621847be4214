//! Named cells: small values, each replaced as a whole, in one file beside the log.
//!
//! 1. The file holds every cell in each of two slots (`positions/two_slots.rs`). A store writes all
//!    cells to the slot with the older ones, and syncs it. The other slot holds what was stored
//!    last.
//! 2. One thread writes at a time. Changes that come meanwhile form one batch, which one of the
//!    threads that wait for it writes next. So all of them share one write and one sync.
//! 3. A value can be loaded once it is durable, and not before.
//! 4. After a failed write or sync nothing is stored or loaded any more: either value may be on the
//!    disk. A disk without space is no failure: nothing was stored, and later stores are tried.
//! 5. If a write fails, the changes that wait fail with it. They were checked against the map that
//!    was not stored.
//! 6. The file changes only while the log's lock is held. Closing the log waits for a write under
//!    way before it releases the lock, and rejects later ones.
//! 7. Wakers run with no lock held.

mod file;
#[cfg(all(test, not(ringwal_loom)))]
mod tests;

use std::sync::{Arc, OnceLock};
use std::task::Waker;

pub(crate) use file::{CellMap, ReadCells};
use file::{CellsFile, NotStored};

use crate::durable::wakers::WakerSet;
use crate::error::{Error, Result};
use crate::format::{CELLS_HEADER, CELLS_SLOT, MAX_CELL_VALUE, cell_size, is_plain_name};
use crate::io::fs::Dir;
use crate::segment::Names;
use crate::sys::sync::{Futex, Mutex, lock};

/// Changes that are written together, and the outcome for all that wait for them.
#[derive(Debug)]
pub(crate) struct CellBatch {
    outcome: OnceLock<Result<()>>,
    /// Tasks that wait. A waker is entered before the outcome is looked at.
    tasks: WakerSet,
}

impl CellBatch {
    fn new() -> Arc<Self> {
        Arc::new(CellBatch { outcome: OnceLock::new(), tasks: WakerSet::new() })
    }

    /// The outcome, once it is known.
    pub(crate) fn outcome(&self) -> Option<Result<()>> {
        self.outcome.get().cloned()
    }

    /// Has the task woken when the outcome is known, and returns it if it is.
    pub(crate) fn register(&self, waker: &Waker) -> Option<Result<()>> {
        self.tasks.enter(waker);
        self.outcome()
    }

    fn wake(&self) {
        self.tasks.wake_all();
    }
}

#[derive(Debug)]
struct CellsState {
    /// What is durable.
    stored: CellMap,
    /// What is durable, with every change under way.
    next: CellMap,
    /// Bytes of a slot that `next` uses.
    next_len: usize,
    /// The batch that collects changes.
    collecting: Option<Arc<CellBatch>>,
    /// The batch that is being written.
    writing: Option<Arc<CellBatch>>,
    /// `None` before the first store, and while a batch is being written.
    file: Option<CellsFile>,
    /// A thread writes the batches of tasks.
    has_writer: bool,
    failed: Option<Error>,
    ended: bool,
}

/// What a thread finds that wants a batch written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It has written the batch that collected changes.
    Wrote,
    /// Another thread writes.
    Busy,
    /// No batch collects changes.
    Idle,
}

#[derive(Debug)]
pub(crate) struct Cells {
    log_id: [u8; 16],
    state: Mutex<CellsState>,
    /// Changes when a write has ended.
    written: Futex,
}

fn used(cells: &CellMap) -> usize {
    CELLS_HEADER + cells.iter().map(|(name, value)| cell_size(name, value)).sum::<usize>()
}

/// Checks the name of a cell.
pub(crate) fn check_cell_name(name: &str) -> Result<()> {
    match is_plain_name(name.as_bytes()) {
        true => Ok(()),
        false => Err(Error::CellName { name: name.into() }),
    }
}

/// Checks the size of a value.
pub(crate) fn check_cell_value(name: &str, value: &[u8]) -> Result<()> {
    let (len, max) = (value.len(), MAX_CELL_VALUE);
    if len <= max { Ok(()) } else { Err(Error::CellTooLarge { name: name.into(), len, max }) }
}

impl Cells {
    /// Reads the cells. `exists`: the directory has a file of them.
    pub(crate) fn load(
        dir: &dyn Dir,
        names: &Names,
        exists: bool,
        log_id: [u8; 16],
    ) -> Result<Self> {
        let (file, stored) = match exists {
            true => {
                let (file, stored) = CellsFile::open(dir, &names.cells(), &log_id)?;
                (Some(file), stored)
            }
            false => (None, CellMap::new()),
        };
        let state = CellsState {
            next: stored.clone(),
            next_len: used(&stored),
            stored,
            collecting: None,
            writing: None,
            file,
            has_writer: false,
            failed: None,
            ended: false,
        };
        Ok(Cells { log_id, state: Mutex::new(state), written: Futex::new(0) })
    }

    /// The value of a cell that is durable.
    pub(crate) fn get(&self, name: &str) -> Result<Option<Arc<[u8]>>> {
        let state = lock(&self.state);
        state.check()?;
        Ok(state.stored.get(name).cloned())
    }

    /// The names of all cells that hold a value, in ascending order.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let state = lock(&self.state);
        state.check()?;
        Ok(state.stored.keys().map(|name| name.to_string()).collect())
    }

    /// Enters a change, which the returned batch will store: a value, or the removal of the cell.
    /// `None`: there is nothing to remove.
    pub(crate) fn enter(&self, name: &str, value: Option<&[u8]>) -> Result<Option<Arc<CellBatch>>> {
        let mut state = lock(&self.state);
        state.check()?;
        let old = state.next.get(name).map_or(0, |old| cell_size(name, old));
        if value.is_none() && old == 0 && !state.stored.contains_key(name) {
            return Ok(None);
        }
        let len = state.next_len - old + value.map_or(0, |value| cell_size(name, value));
        if len > CELLS_SLOT {
            return Err(Error::CellsFull { len, max: CELLS_SLOT });
        }
        match value {
            Some(value) => drop(state.next.insert(name.into(), value.into())),
            None => drop(state.next.remove(name)),
        }
        state.next_len = len;
        Ok(Some(Arc::clone(state.collecting.get_or_insert_with(CellBatch::new))))
    }

    /// Waits until the batch is stored. Writes it on this thread if no other thread writes.
    pub(crate) fn settle(&self, dir: &dyn Dir, names: &Names, batch: &CellBatch) -> Result<()> {
        loop {
            let seen = self.written.load();
            if let Some(outcome) = batch.outcome() {
                return outcome;
            }
            if self.turn(dir, names) == Turn::Busy {
                self.written.wait(seen, None);
            }
        }
    }

    /// Claims to be the thread that writes the batches of tasks. False: there is one.
    pub(crate) fn claim_writer(&self) -> bool {
        !std::mem::replace(&mut lock(&self.state).has_writer, true)
    }

    /// The claim of [`Cells::claim_writer`] came to nothing.
    pub(crate) fn release_writer(&self) {
        lock(&self.state).has_writer = false;
    }

    /// Writes batches until none collects changes, after [`Cells::claim_writer`].
    pub(crate) fn write_all(&self, dir: &dyn Dir, names: &Names) {
        loop {
            let seen = self.written.load();
            match self.turn(dir, names) {
                Turn::Wrote => {}
                Turn::Busy => self.written.wait(seen, None),
                Turn::Idle => {
                    let mut state = lock(&self.state);
                    if state.collecting.is_none() {
                        state.has_writer = false;
                        return;
                    }
                }
            }
        }
    }

    /// Writes the batch that collects changes, unless another thread writes.
    fn turn(&self, dir: &dyn Dir, names: &Names) -> Turn {
        let (batch, cells, mut file) = {
            let mut state = lock(&self.state);
            if state.writing.is_some() {
                return Turn::Busy;
            }
            let Some(batch) = state.collecting.take() else { return Turn::Idle };
            state.writing = Some(Arc::clone(&batch));
            (batch, state.next.clone(), state.file.take())
        };
        let stored = CellsFile::store(&mut file, dir, names, &self.log_id, &cells);
        let failed_with_it = {
            let mut state = lock(&self.state);
            state.writing = None;
            state.file = file;
            match stored {
                Ok(()) => {
                    state.stored = cells;
                    let _ = batch.outcome.set(Ok(()));
                    None
                }
                Err(not_stored) => state.fail(&batch, not_stored),
            }
        };
        self.written.bump();
        self.written.wake_all();
        batch.wake();
        if let Some(other) = failed_with_it {
            other.wake();
        }
        Turn::Wrote
    }

    /// Holds the lock, as a thread does that is interrupted.
    #[cfg(all(test, target_os = "linux", not(ringwal_loom)))]
    pub(crate) fn hold(&self) -> impl Drop + '_ {
        struct Held<'a>(#[allow(dead_code, reason = "held")] std::sync::MutexGuard<'a, CellsState>);
        impl Drop for Held<'_> {
            fn drop(&mut self) {}
        }
        Held(lock(&self.state))
    }

    /// Waits for a write under way, and rejects later ones.
    pub(crate) fn end(&self) {
        loop {
            let seen = self.written.load();
            let mut state = lock(&self.state);
            state.ended = true;
            if state.writing.is_none() {
                let batch = state.collecting.take();
                if let Some(batch) = &batch {
                    let _ = batch.outcome.set(Err(Error::Closed));
                }
                drop(state);
                self.written.bump();
                self.written.wake_all();
                if let Some(batch) = batch {
                    batch.wake();
                }
                return;
            }
            drop(state);
            self.written.wait(seen, None);
        }
    }
}

impl CellsState {
    fn check(&self) -> Result<()> {
        match &self.failed {
            _ if self.ended => Err(Error::Closed),
            Some(failed) => Err(failed.clone()),
            None => Ok(()),
        }
    }

    /// The batch was not stored. Returns the batch that fails with it.
    fn fail(&mut self, batch: &CellBatch, not_stored: NotStored) -> Option<Arc<CellBatch>> {
        let NotStored { error, is_final } = not_stored;
        self.next = self.stored.clone();
        self.next_len = used(&self.next);
        let other = self.collecting.take();
        for batch in other.as_deref().into_iter().chain([batch]) {
            let _ = batch.outcome.set(Err(error.clone()));
        }
        if is_final {
            tracing::error!(%error, "the cells cannot be stored any more");
            self.failed = Some(error);
        }
        other
    }
}
