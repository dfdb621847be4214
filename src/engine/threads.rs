//! The threads that step the parts of an engine, and their end.
//!
//! 1. The lock of the log is released last, when no thread of the log touches its files any more.
//! 2. A thread that cannot be started ends those that were started before it.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::engine::archiver::{self, Archiver, ArchiverThread};
use crate::engine::assemble::{Engine, IoStart, Opened, assemble};
use crate::engine::choose_backend::choose_backend;
use crate::engine::io_thread::{self, IoLoop};
use crate::engine::recover::RecoveredLog;
use crate::engine::segment_keeper::{self, SegmentKeeper};
use crate::engine::state::{LogState, Running};
use crate::engine::watchdog::{self, Watchdog};
use crate::error::{Error, Failure, Result};
use crate::hooks::OnSealed;
use crate::io::backend::{BackendInfo, BackendKind, Hold, MethodReason};
use crate::options::Options;
use crate::segment::DirLock;
use crate::segment::end_file::Presence;
use crate::sys::clock::Clock;
use crate::sys::scheduling;

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
    workers: Workers,
    archiver: Option<ArchiverThread>,
    /// Ends last, because it watches the others. Does no I/O.
    watchdog: JoinHandle<()>,
    presence: Presence,
    lock: DirLock,
}

/// Threads that do I/O for the log. Dropped before they were joined, they end the log: opening has
/// failed.
#[derive(Debug)]
struct Workers {
    state: Arc<LogState>,
    handles: Vec<JoinHandle<()>>,
}

/// The thread of the I/O loop, with its backend running.
struct IoThread {
    workers: Workers,
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
    workers.handles.push(start_keeper(&state, keeper)?);
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
            return Ok(IoThread { workers: Workers { state, handles: vec![thread] }, info });
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

fn start_keeper(state: &Arc<LogState>, keeper: SegmentKeeper) -> Result<JoinHandle<()>> {
    let state = Arc::clone(state);
    spawn("ringwal-segments", move || segment_keeper::run(&state, keeper))
}

fn start_watchdog(state: &Arc<LogState>, watchdog: Watchdog) -> Result<JoinHandle<()>> {
    let state = Arc::clone(state);
    spawn("ringwal-watch", move || watchdog::run(&state, watchdog))
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

/// Starts a thread of the log. Calls that wait for the log are rejected on it.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let body = move || {
        scheduling::block_signals();
        crate::sys::reentrancy::serve();
        work();
    };
    let spawned = std::thread::Builder::new().name(name.into()).spawn(body);
    spawned.map_err(|e| Error::io("start thread", name, e))
}

impl Workers {
    fn join(&mut self) {
        for handle in self.handles.drain(..) {
            let _ = handle.join();
        }
    }
}

impl Drop for Workers {
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
        end_watchdog(self.watchdog);
        state.detach_directory();
        // First: the lock lets in the next writer, which states its own presence.
        drop(self.presence);
        drop(self.lock);
    }
}

/// Joins the watchdog, unless a call of `on_stall` does not return: it may want what the closer
/// holds.
fn end_watchdog(watchdog: JoinHandle<()>) {
    let until = Instant::now() + PATIENCE;
    while !watchdog.is_finished() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    if watchdog.is_finished() {
        let _ = watchdog.join();
    } else {
        tracing::warn!("the callback of on_stall does not return; it is left alone");
    }
}
