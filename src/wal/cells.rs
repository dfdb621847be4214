//! Cells of a log: store, load, remove, list.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::cells::{CellBatch, check_cell_name, check_cell_value};
use crate::engine::state::LogState;
use crate::error::{Error, Result};
use crate::sys::reentrancy;
use crate::wal::Wal;

/// A small named value beside the log, from [`Wal::cell`]: replaced as a whole, durable before the
/// call returns, and untouched by retention and by [`Wal::truncate_from`].
///
/// A cell is for what has one current value: a vote, a checkpoint, a position of the application.
/// It holds up to 4096 bytes. All cells of a log together hold 64 KiB, with 4 bytes and the name
/// for each. A store costs one write of all cells, in steps of 4 KiB, and one sync. Stores of
/// several threads and tasks at the same time share one write and one sync. The records are not
/// synced with it: a store says nothing of an append before it.
///
/// After a crash a cell holds the last value whose store had returned, or one whose store was under
/// way, and never a mix. The same is true of removals. Stores of one cell at the same time take
/// effect in any order.
///
/// A clone is cheap and stands for the same cell. A cell does not keep the log open.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("ringwal-doc-cell-{}", std::process::id()));
/// # let wal = ringwal::Wal::open(&dir)?;
/// let vote = wal.cell("vote");
/// assert_eq!(vote.load()?, None);
/// vote.store(b"term 7, node 3")?; // survives power loss from here on
/// assert_eq!(vote.load()?.as_deref(), Some(&b"term 7, node 3"[..]));
/// assert_eq!(wal.cells()?, ["vote"]);
/// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
/// # Ok::<(), ringwal::Error>(())
/// ```
///
/// # Failures
///
/// A failed write or sync ends all cells of the log, and the log itself goes on: every later call
/// returns `CellsFailed` until the log is opened again, because either value may be on the disk. A
/// full disk ends nothing: a store then returns `Io` with `StorageFull`, stores nothing, and can be
/// repeated. Once the first cell is stored, the file has its room, and a store needs no more of it
/// on filesystems that overwrite in place.
#[derive(Clone)]
pub struct Cell {
    state: Arc<LogState>,
    name: Arc<str>,
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cell").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Wal {
    /// The cell with this name: 1 to 64 of `A-Z a-z 0-9 - _`. Checks and reads nothing. The cell is
    /// empty until a value is stored.
    #[must_use]
    pub fn cell(&self, name: &str) -> Cell {
        Cell { state: Arc::clone(&self.appender().state), name: name.into() }
    }

    /// The names of the cells that hold a value, in ascending order. Reads memory only.
    ///
    /// # Errors
    ///
    /// `CellsFailed`, `Closed`, `Forked`.
    pub fn cells(&self) -> Result<Vec<String>> {
        let state = &self.appender().state;
        check_not_forked(state)?;
        state.cells.names()
    }
}

fn check_not_forked(state: &LogState) -> Result<()> {
    if state.durable.is_forked() { Err(Error::Forked) } else { Ok(()) }
}

impl Cell {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value that was stored last. `None`: none was, or it was removed. Reads memory only.
    ///
    /// A value that is being stored is not visible before it is durable. A poisoned log still
    /// returns values.
    ///
    /// # Errors
    ///
    /// `CellName`, `CellsFailed`, `Closed`, `Forked`.
    pub fn load(&self) -> Result<Option<Vec<u8>>> {
        check_cell_name(&self.name)?;
        check_not_forked(&self.state)?;
        Ok(self.state.cells.get(&self.name)?.map(|value| value.to_vec()))
    }

    /// Stores a value, which is durable on return and replaces the one before. Blocks for a write
    /// and a sync.
    ///
    /// # Errors
    ///
    /// `CellName`, `CellTooLarge`, `CellsFull`, `NameTaken`, and `Io` (a full disk among it):
    /// nothing was stored, and the call can be repeated. `CellsFailed`: either value may be found
    /// when the log is opened again. `Closed`, `Poisoned`, `Forked`; `WouldDeadlock` on the log's
    /// own threads.
    pub fn store(&self, value: &[u8]) -> Result<()> {
        reentrancy::check_may_wait()?;
        match self.enter(Some(value))? {
            Some(batch) => self.settle(&batch),
            None => Ok(()),
        }
    }

    /// Stores a value, as a future for any executor. The value is durable when it resolves.
    ///
    /// The first poll enters the value and copies it. A short-lived thread of its own then writes
    /// and syncs, for all tasks that wait at the time. A future that is dropped after its first
    /// poll may have stored the value.
    ///
    /// # Errors
    ///
    /// As [`Cell::store`], without `WouldDeadlock`.
    pub fn store_async<'a>(&'a self, value: &'a [u8]) -> StoreFuture<'a> {
        StoreFuture { cell: self, change: Some(value), batch: None, done: false }
    }

    /// Removes the value, durably: [`Cell::load`] then returns `None`, and [`Wal::cells`] does not
    /// list the cell. Does nothing if the cell is empty.
    ///
    /// # Errors
    ///
    /// As [`Cell::store`].
    pub fn remove(&self) -> Result<()> {
        reentrancy::check_may_wait()?;
        match self.enter(None)? {
            Some(batch) => self.settle(&batch),
            None => Ok(()),
        }
    }

    /// Removes the value, as a future: see [`Cell::remove`] and [`Cell::store_async`].
    ///
    /// # Errors
    ///
    /// As [`Cell::store_async`].
    pub fn remove_async(&self) -> StoreFuture<'_> {
        StoreFuture { cell: self, change: None, batch: None, done: false }
    }

    fn enter(&self, value: Option<&[u8]>) -> Result<Option<Arc<CellBatch>>> {
        check_cell_name(&self.name)?;
        check_cell_value(&self.name, value.unwrap_or_default())?;
        self.state.durable.check_running()?;
        self.state.cells.enter(&self.name, value)
    }

    fn settle(&self, batch: &CellBatch) -> Result<()> {
        let view = &self.state.view;
        self.state.cells.settle(&*view.dir, &view.names, batch)
    }

    /// Has a thread write the batches of tasks, if none does. A simulated disk has no threads.
    fn start_writer(&self, batch: &CellBatch) {
        if self.state.has_machine() {
            let _ = self.settle(batch);
            return;
        }
        if !self.state.cells.claim_writer() {
            return;
        }
        let state = Arc::clone(&self.state);
        let write = move || state.cells.write_all(&*state.view.dir, &state.view.names);
        let started = std::thread::Builder::new().name("ringwal-cells".into()).spawn(write);
        if started.is_err() {
            // The system has no thread to spare: this task's thread waits for the disk.
            self.state.cells.release_writer();
            let _ = self.settle(batch);
        }
    }
}

/// Resolves when a value of a [`Cell`] is durable, or its removal. From [`Cell::store_async`] and
/// [`Cell::remove_async`].
#[derive(Debug)]
#[must_use = "a future does nothing until it is polled"]
pub struct StoreFuture<'a> {
    cell: &'a Cell,
    change: Option<&'a [u8]>,
    /// What stores the change, after the first poll.
    batch: Option<Arc<CellBatch>>,
    done: bool,
}

impl StoreFuture<'_> {
    fn outcome(&mut self, cx: &Context<'_>) -> Result<Option<Result<()>>> {
        if self.done {
            // Polled after it was ready: nothing is stored twice.
            return Err(Error::Closed);
        }
        check_not_forked(&self.cell.state)?;
        let batch = match &self.batch {
            Some(batch) => batch,
            None => {
                reentrancy::check_not_filling()?;
                match self.cell.enter(self.change)? {
                    Some(batch) => self.batch.insert(batch),
                    None => return Ok(Some(Ok(()))),
                }
            }
        };
        if let Some(outcome) = batch.register(cx.waker()) {
            return Ok(Some(outcome));
        }
        self.cell.start_writer(batch);
        Ok(batch.outcome())
    }
}

impl Future for StoreFuture<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = match self.outcome(cx) {
            Ok(None) => return Poll::Pending,
            Ok(Some(outcome)) => outcome,
            Err(e) => Err(e),
        };
        self.done = true;
        Poll::Ready(outcome)
    }
}
