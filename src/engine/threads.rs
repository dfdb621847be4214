//! What steps the parts of an engine, and its end. The I/O loop and the archiver have a thread of
//! their own. All logs of the process share the threads of `workers.rs`.
//!
//! 1. The lock of the log is released last, when no thread of the log touches its files any more.
//! 2. A thread that cannot be started ends those that were started before it.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::engine::archiver::{self, Archiver, ArchiverThread};
use crate::engine::assemble::{Engine, IoStart, Opened, assemble};
use crate::engine::choose_backend::choose_backend;
use crate::engine::io_thread::{self, IoLoop};
use crate::engine::recover::RecoveredLog;
use crate::engine::segment_keeper::{KeeperTask, SegmentKeeper};
use crate::engine::state::{LogState, Running};
use crate::engine::watchdog::Watchdog;
use crate::engine::workers::{SEGMENT_KEEPERS, TaskHandle, WATCHDOGS, spawn};
use crate::error::{Error, Failure, Result};
use crate::hooks::OnSealed;
use crate::io::backend::{BackendInfo, BackendKind, Hold, MethodReason};
use crate::options::Options;
use crate::segment::DirLock;
use crate::segment::end_file::Presence;
use crate::sys::clock::Clock;

/// How long `close` waits for a call of `on_stall` that has not returned.
const PATIENCE: Duration = Duration::from_secs(1);

/// An engine that its threads step.
#[derive(Debug)]
pub(crate) struct RunningEngine {
    pub(crate) state: Arc<LogState>,
    pub(crate) opened: Opened,
    pub(crate) info: BackendInfo,
    pub(crate) threads: Threads,
}

/// The threads of one log, and what it holds against other processes.
#[derive(Debug)]
pub(crate) struct Threads {
    workers: IoWorkers,
    archiver: Option<ArchiverThread>,
    /// Ends last, because it watches the others. Does no I/O.
    watchdog: TaskHandle,
    presence: Presence,
    lock: DirLock,
}

/// What does I/O for the log. Dropped before it was joined, it ends the log: opening has failed.
#[derive(Debug)]
struct IoWorkers {
    state: Arc<LogState>,
    handles: Vec<JoinHandle<()>>,
    keeper: Option<TaskHandle>,
}

/// The thread of the I/O loop, with its backend running.
struct IoThread {
    workers: IoWorkers,
    info: BackendInfo,
}

/// Assembles the engine and starts its threads: the I/O thread, the archiver, the segment keeper,
/// the watchdog, and the timing of commit methods if that is still to be done.
pub(crate) fn start(
    recovered: RecoveredLog,
    options: &Options,
    lock: DirLock,
    presence: Presence,
    clock: &Arc<dyn Clock>,
) -> Result<RunningEngine> {
    let (hold, is_alive) = (lock.hold(), presence.is_held());
    let engine = assemble(recovered, options, clock, |io| start_io(io, hold, is_alive))?;
    let Engine { state, io, archiver, keeper, watchdog, opened } = engine;
    let IoThread { mut workers, info } = io;
    let archiver = archiver.map(start_archiver).transpose()?;
    workers.keeper = Some(start_keeper(&state, keeper)?);
    let watchdog = start_watchdog(&state, watchdog)?;
    workers.handles.extend(start_timing(&state, &info));
    let threads = Threads { workers, archiver, watchdog, presence, lock };
    Ok(RunningEngine { state, opened, info, threads })
}

/// Starts the I/O thread, and waits until its backend runs.
fn start_io(io: IoStart, lock: Hold, is_alive: bool) -> Result<IoThread> {
    let state = Arc::clone(&io.state);
    let (send, receive) = mpsc::sync_channel(1);
    let thread_state = Arc::clone(&state);
    let thread = spawn("ringwal-io", move || match begin_io(io, lock, is_alive) {
        Ok((io_loop, info)) => {
            let _ = send.send(Ok(info));
            io_thread::run(&thread_state, Box::new(io_loop));
        }
        Err(e) => {
            let _ = send.send(Err(e));
        }
    })?;
    let failed = match receive.recv() {
        Ok(Ok(info)) => {
            warn_of_volatility(&info);
            let workers = IoWorkers { state, handles: vec![thread], keeper: None };
            return Ok(IoThread { workers, info });
        }
        Ok(Err(e)) => e,
        Err(_) => {
            let failure = Failure::new("the I/O thread", "it ended before it began");
            Error::Poisoned { cause: Arc::new(failure) }
        }
    };
    // The caller holds the lock until this thread has ended.
    let _ = thread.join();
    Err(failed)
}

fn begin_io(io: IoStart, lock: Hold, is_alive: bool) -> Result<(IoLoop, BackendInfo)> {
    let (ready, info) = choose_backend(&io, lock, is_alive)?;
    Ok((io.begin(ready)?, info))
}

fn warn_of_volatility(info: &BackendInfo) {
    if let Some(reason) = info.volatility {
        tracing::warn!(reason, "the log's filesystem does not keep what is synced");
    }
}

fn start_archiver((archiver, hook): (Archiver, OnSealed)) -> Result<ArchiverThread> {
    let slots = archiver.slots();
    let thread = spawn("ringwal-sealed", move || archiver::run(archiver, &hook))?;
    Ok(ArchiverThread { thread, slots })
}

fn start_keeper(state: &LogState, keeper: SegmentKeeper) -> Result<TaskHandle> {
    SEGMENT_KEEPERS.add(|handle| {
        state.keeper.connect(move || handle.ring());
        Box::new(KeeperTask::new(keeper))
    })
}

fn start_watchdog(state: &LogState, watchdog: Watchdog) -> Result<TaskHandle> {
    WATCHDOGS.add(|handle| {
        state.in_flight.connect(move || handle.ring());
        Box::new(watchdog)
    })
}

/// Starts the thread that times the commit methods beside the log, if no result is remembered.
fn start_timing(state: &Arc<LogState>, info: &BackendInfo) -> Option<JoinHandle<()>> {
    if info.kind != BackendKind::IoUring || state.commit.chosen().reason != MethodReason::Measuring
    {
        return None;
    }
    #[cfg(linux_calls)]
    {
        let state = Arc::clone(state);
        let work = move || {
            let over = || state.is_closing() || state.durable.is_poisoned();
            let chosen =
                crate::engine::calibrate::measure(&*state.view.dir, &state.view.names, &over);
            tracing::info!(method = ?chosen.method, detail = chosen.detail, "commit method");
            state.commit.set(chosen);
        };
        // Without the thread the default method stays, which is right on every device.
        spawn("ringwal-timing", work).ok()
    }
    #[cfg(not(linux_calls))]
    None
}

impl IoWorkers {
    fn join(&mut self) {
        for handle in self.handles.drain(..) {
            let _ = handle.join();
        }
        if let Some(keeper) = self.keeper.take() {
            keeper.wait(None);
        }
    }
}

impl Drop for IoWorkers {
    fn drop(&mut self) {
        if self.handles.is_empty() {
            return;
        }
        // The segment keeper may not have started, and then no segment is prepared for the mark of
        // the clean close.
        self.state.ring.forsake();
        self.state.begin_close();
        self.join();
    }
}

impl Running for Threads {
    fn end(mut self: Box<Self>, state: &LogState) {
        self.workers.join();
        if let Some(archiver) = self.archiver {
            archiver.end(state);
        }
        state.in_flight.end();
        // A call of `on_stall` that does not return may want what the closer holds.
        if !self.watchdog.wait(Some(PATIENCE)) {
            tracing::warn!("the callback of on_stall does not return; it is left alone");
        }
        state.detach_directory();
        // First: the lock lets in the next writer, which states its own presence.
        drop(self.presence);
        drop(self.lock);
    }
}
