//! Opening: lock, recover, and start what moves the log: the I/O thread, the segment keeper, and the
//! timing of commit methods.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::engine::archiver::{Archiver, ArchiverThread};
use crate::engine::io_thread::{self, IoLoop, Setup};
use crate::engine::recover::{RecoveredLog, Start, check_creation, entropy, recover};
use crate::engine::retention::Policy;
use crate::engine::segment_keeper::{self, SegmentKeeper};
use crate::engine::state::{LogState, Running};
use crate::engine::watchdog::{self, Watchdog};
use crate::error::{Error, Failure, Result};
use crate::io::backend::{
    BackendInfo, BackendKind, BackendRequest, ChosenMethod, Hold, Method, MethodReason, choose,
};
use crate::io::fs::{DEFAULT_MODE, Dir, OsDir, is_no_space};
use crate::options::{Durability, Geometry, Options};
use crate::recovery::{find_end_of_rest, scan};
use crate::segment::end_file::{EndFile, Presence};
use crate::segment::{DirLock, Names, check_names, newest_segment};
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::scheduling;
use crate::wal::Wal;

/// How long `close` waits for a callback of `on_stall` that goes on.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn open(path: &Path, options: &Options) -> Result<Wal> {
    open_here(path, options).map_err(|e| match e {
        // Whichever file it was that found no room.
        Error::Io { source, .. } if is_no_space(&source) => Error::NoSpace,
        e => e,
    })
}

fn open_here(path: &Path, options: &Options) -> Result<Wal> {
    let names = Names::new(&options.prefix);
    let dir = open_directory(path, options)?;
    let span = tracing::info_span!("open", dir = %dir.path().display(), prefix = options.prefix);
    let _entered = span.enter();
    check_names(&dir, &names)?;
    let newest = newest_segment(&dir, &names).map_err(|e| Error::io("list", path, e))?;
    check_creation(&dir, &names, options, newest.is_some())?;
    if let Some(newest) = newest {
        dir.create_like_neighbour(&names.segment(newest));
    }
    let lock = DirLock::acquire(&dir, &names, options.lock_wait)?;
    if let Some(mode) = options.file_mode {
        let of_the_log = |name: &str| names.are_of(name);
        dir.set_modes(of_the_log, mode).map_err(|e| Error::io("set the modes in", path, e))?;
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let dir: Arc<dyn Dir> = Arc::new(dir);
    let presence = Presence::hold(&dir, &names);
    let recovered = {
        let _recovery = tracing::info_span!("recovery").entered();
        recover(&dir, &names, options, &*clock, entropy())?
    };
    tracing::info!(report = %recovered.report, "recovered");
    start(recovered, options, lock, presence, clock)
}

/// Opens the log's directory, and creates it if the options allow a new log.
fn open_directory(path: &Path, options: &Options) -> Result<OsDir> {
    let mode = options.file_mode.unwrap_or(DEFAULT_MODE);
    if path.as_os_str().is_empty() {
        let reason = "the path is empty; name the directory, for instance `.`";
        let e = std::io::Error::new(std::io::ErrorKind::InvalidInput, reason);
        return Err(Error::io("open directory", "\"\"", e));
    }
    let opened = match options.may_create() {
        true => OsDir::open_or_create_with(path, mode),
        false => OsDir::open_with(path, mode),
    };
    opened.map_err(|e| match e.kind() {
        // Creating the directory finds a file of its name first.
        std::io::ErrorKind::AlreadyExists => {
            Error::io("open directory", path, std::io::ErrorKind::NotADirectory.into())
        }
        std::io::ErrorKind::NotFound if !options.may_create() => {
            Error::NoLog { path: path.into(), prefix: options.prefix.clone() }
        }
        _ => Error::io("open directory", path, e),
    })
}

/// After a repair has taken segments away, and with them the groups that state what is the oldest: opens the log once,
/// whose new epoch states it.
pub(crate) fn state_oldest(path: &Path, names: &Names) -> Result<()> {
    let dir = OsDir::open(path).map_err(|e| Error::io("open directory", path, e))?;
    let segments = scan(&dir, names, &[])?.segments;
    let Some(last) = segments.last() else { return Ok(()) };
    if find_end_of_rest(&dir, names, &segments)?.stated_oldest >= segments[0].base {
        return Ok(());
    }
    let options = Options {
        prefix: names.prefix().into(),
        segment_size: last.size,
        file_mode: dir.mode_of(&names.segment(last.base)).map(|mode| mode | DEFAULT_MODE),
        front_was_taken: true,
        ..Options::default()
    };
    open(path, &options)?.close()
}

pub(crate) fn start(
    recovered: RecoveredLog,
    options: &Options,
    lock: DirLock,
    presence: Presence,
    clock: Arc<dyn Clock>,
) -> Result<Wal> {
    let RecoveredLog { state, policy, report, start, geometry } = recovered;
    let (log_id, epoch_waits) = (start.log_id, start.epoch_waits);
    let (send, receive) = mpsc::sync_channel(1);
    let io = {
        let (state, clock, options) = (Arc::clone(&state), Arc::clone(&clock), options.clone());
        let (hold, alive) = (lock.hold(), presence.is_held());
        spawn("ringwal-io", move || {
            match begin(&state, &clock, &options, start, geometry, hold, alive) {
                Ok((io_loop, info)) => {
                    let _ = send.send(Ok(info));
                    io_thread::run(&state, io_loop);
                }
                Err(e) => {
                    let _ = send.send(Err(e));
                }
            }
        })?
    };
    let info = match receive.recv() {
        Ok(Ok(info)) => info,
        Ok(Err(e)) => {
            let _ = io.join();
            return Err(e);
        }
        Err(_) => {
            // The lock is held until nothing of it moves any more.
            let _ = io.join();
            let failure = Failure::new("the I/O thread", "it ended before it began");
            return Err(Error::Poisoned { cause: Arc::new(failure) });
        }
    };
    if let Some(reason) = info.volatility {
        tracing::warn!(reason, "the log's filesystem does not keep what is synced");
    }
    let mut workers = vec![io];
    // The hook first: retention waits for it from the segment keeper's first step on.
    let others = start_sealed(&state, options, log_id).and_then(|sealed| {
        workers.push(start_keeper(&state, &clock, policy)?);
        Ok((sealed, start_watchdog(&state, &clock, options)?))
    });
    let (sealed, watchdog) = match others {
        Ok(others) => others,
        Err(e) => {
            // Nobody may be there to prepare a segment for the mark of a clean close: it goes without.
            state.ring.forsake();
            state.begin_close();
            for worker in workers {
                let _ = worker.join();
            }
            return Err(e);
        }
    };
    let epoch_group = (!epoch_waits).then_some(report.durable_end.as_u64());
    workers.extend(calibrate(&state, &info));
    let threads = Threads { workers, sealed, watchdog, presence, lock };
    let wal = Wal::assemble(state, report, info, geometry, &log_id, Box::new(threads));
    // The epoch is durable before anybody can append to it, or before what is appended is written.
    if let Some(lsn) = epoch_group {
        wal.wait_until_started(lsn)?;
    }
    Ok(wal)
}

#[derive(Debug)]
struct Threads {
    workers: Vec<JoinHandle<()>>,
    /// Calls the hook on sealed segments.
    sealed: Option<ArchiverThread>,
    /// Watches the others, and so ends last. It does no I/O.
    watchdog: JoinHandle<()>,
    presence: Presence,
    lock: DirLock,
}

impl Running for Threads {
    /// Waits for all of them; then the next opener may come.
    fn end(self: Box<Self>, state: &LogState) {
        for worker in self.workers {
            let _ = worker.join();
        }
        if let Some(sealed) = self.sealed {
            sealed.end(state);
        }
        state.in_flight.end();
        end_watchdog(self.watchdog);
        state.detach_directory();
        // First: the lock lets in the next writer, which says for itself that it is there.
        drop(self.presence);
        drop(self.lock);
    }
}

/// Waits for a callback of `on_stall` that goes on, for a while: it may want what the closer holds. Then
/// it is left alone.
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

fn start_sealed(
    state: &Arc<LogState>,
    options: &Options,
    log_id: [u8; 16],
) -> Result<Option<ArchiverThread>> {
    let Some(hook) = options.on_sealed.clone() else { return Ok(None) };
    let sealed = Archiver::open(state, log_id)?;
    let slots = sealed.slots();
    let thread = spawn("ringwal-sealed", move || crate::engine::archiver::run(sealed, &hook))?;
    Ok(Some(ArchiverThread { thread, slots }))
}

fn start_keeper(
    state: &Arc<LogState>,
    clock: &Arc<dyn Clock>,
    policy: Policy,
) -> Result<JoinHandle<()>> {
    let (state, clock) = (Arc::clone(state), Arc::clone(clock));
    spawn("ringwal-segments", move || {
        let keeper = SegmentKeeper::new(Arc::clone(&state), clock, policy);
        segment_keeper::run(&state, keeper);
    })
}

fn start_watchdog(
    state: &Arc<LogState>,
    clock: &Arc<dyn Clock>,
    options: &Options,
) -> Result<JoinHandle<()>> {
    let (state, clock) = (Arc::clone(state), Arc::clone(clock));
    let (threshold, on_stall) = (options.stall_threshold, options.on_stall.clone());
    spawn("ringwal-watch", move || {
        let watchdog = Watchdog::new(Arc::clone(&state), clock, threshold, on_stall);
        watchdog::run(&state, watchdog);
    })
}

fn begin(
    state: &Arc<LogState>,
    clock: &Arc<dyn Clock>,
    options: &Options,
    start: Start,
    geometry: Geometry,
    lock: Hold,
    alive: bool,
) -> Result<(IoLoop, BackendInfo)> {
    let probe = state.view.names.probe();
    let ask = BackendRequest {
        dir: &*state.view.dir,
        probe: &probe,
        choice: options.backend,
        method: options.commit_method,
        auto: first_method(state, options.durability),
        depth: options.depth,
        buffers: geometry.buffers,
        buffer: geometry.buffer as usize,
        lock,
        direct_io: start.active_file.is_direct(),
    };
    let started = choose(&ask, Arc::clone(&state.ring.memory))?;
    state.commit.set(started.method);
    let files = &state.view;
    // Durable since it was recovered.
    let (end, cut) = (state.durable.end(), files.cuts.newest());
    let create_end_file =
        || EndFile::create(&*files.dir, &files.names, start.log_id, end, cut, alive);
    let setup = Setup {
        depth: started.info.depth,
        end_file: started.info.kind.is_durable().then(create_end_file).flatten(),
        ..setup(start, &geometry, options)
    };
    let io_loop = IoLoop::new(Arc::clone(state), Arc::clone(clock), started.backend, setup)
        .map_err(|failure| Error::Poisoned { cause: Arc::new(failure) })?;
    Ok((io_loop, started.info))
}

/// What the I/O loop is told; its depth is the backend's to say.
pub(crate) fn setup(start: Start, geometry: &Geometry, options: &Options) -> Setup {
    Setup {
        log_id: start.log_id,
        epoch: start.epoch,
        link: start.link,
        epoch_waits: start.epoch_waits,
        replaceable: start.replaceable,
        clean: start.clean,
        active: start.active,
        active_file: start.active_file,
        oldest: start.oldest,
        block: geometry.block,
        depth: options.depth,
        durability: options.durability,
        commit_delay: options.commit_delay,
        idle_seal: options.idle_seal,
        end_file: None,
    }
}

/// What `CommitMethod::Auto` means before anything is measured in this run.
fn first_method(state: &LogState, durability: Durability) -> ChosenMethod {
    let linked = |reason, detail: &str| ChosenMethod {
        method: Method::Linked,
        reason,
        parallel: true,
        detail: detail.into(),
    };
    if durability != Durability::EveryGroup {
        return linked(MethodReason::Default, "groups are not synced one by one in this mode");
    }
    #[cfg(linux_calls)]
    if let Some(chosen) = crate::engine::calibrate::remembered(&*state.view.dir, &state.view.names)
    {
        return chosen;
    }
    let _ = state;
    linked(MethodReason::Measuring, "right on every device")
}

/// Times the commit methods beside the log, if that is still to be done.
fn calibrate(state: &Arc<LogState>, info: &BackendInfo) -> Option<JoinHandle<()>> {
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
        // Without the thread the default stays, which is right too.
        spawn("ringwal-timing", work).ok()
    }
    #[cfg(not(linux_calls))]
    None
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let body = move || {
        scheduling::block_signals();
        crate::sys::reentrancy::serve();
        work();
    };
    let spawned = std::thread::Builder::new().name(name.into()).spawn(body);
    spawned.map_err(|e| Error::io("start thread", name, e))
}
