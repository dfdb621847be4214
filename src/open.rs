//! Putting a log together: lock, recover, prepare, start the threads.

use std::path::Path;
use std::sync::{Arc, mpsc};

use crate::backend::{Ask, BackendInfo, choose};
use crate::durable::Durable;
use crate::error::{Error, Failure, Result};
use crate::format::{EpochId, Link, SegmentHeader};
use crate::helper::{self, Helper, Policy};
use crate::io_loop::{self, Clock, IoLoop, Setup, SystemClock};
use crate::lsn::Lsn;
use crate::options::{Durability, Geometry, Options};
use crate::recovery::{Judgement, RecoveryCase, RecoveryReport, judge, scan, settle};
use crate::ring::{Placement, Ring};
use crate::segment::{DirLock, Names, Preparation, Spare, Table, zeroes};
use crate::shared::Shared;
use crate::storage::{Access, Dir, File, OsDir, is_no_space};
use crate::wal::Wal;

/// A log that has been recovered and not been started.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) shared: Arc<Shared>,
    pub(crate) policy: Policy,
    pub(crate) report: RecoveryReport,
    pub(crate) start: Start,
    pub(crate) geometry: Geometry,
}

/// What the I/O loop's [`Setup`] takes from recovery.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) log_id: [u8; 16],
    pub(crate) epoch: EpochId,
    pub(crate) link: Link,
    pub(crate) active: SegmentHeader,
    pub(crate) active_file: Arc<dyn File>,
    pub(crate) oldest: u64,
}

pub(crate) fn open(path: &Path, options: &Options) -> Result<Wal> {
    let dir = OsDir::open_or_create(path).map_err(|e| Error::io("open directory", path, e))?;
    let names = Names::new(&options.prefix);
    let span = tracing::info_span!("open", dir = %dir.path().display(), prefix = options.prefix);
    let _entered = span.enter();
    let lock = DirLock::acquire(&dir, &names.lock())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let dir: Arc<dyn Dir> = Arc::new(dir);
    let recovered = recover(&dir, &names, options, &*clock, entropy())?;
    tracing::info!(report = %recovered.report, "recovered");
    start(recovered, options, lock, clock)
}

/// Everything up to the threads: also what a simulation starts from.
pub(crate) fn recover(
    dir: &Arc<dyn Dir>,
    names: &Names,
    options: &Options,
    clock: &dyn Clock,
    random: [u8; 24],
) -> Result<Recovered> {
    let geometry = options.geometry(dir.block_size())?;
    let found = scan(&**dir, names)?;
    let judged = match found.segments.is_empty() {
        true => None,
        false => Some(judge(&**dir, names, &found.segments)?),
    };
    let removed = settle(&**dir, names, &found.segments, judged.as_ref(), &found.temporaries)?;
    let log_id = match found.segments.first() {
        Some(header) => header.log_id,
        None => *random.last_chunk().unwrap_or(&[0; 16]),
    };
    let policy = Policy {
        log_id,
        segment_size: geometry.segment_size,
        block: geometry.block,
        max_group: geometry.buffer,
        max_segments: options.max_segments,
        max_total_bytes: options.max_total_bytes,
        max_age: options.max_age,
    };
    let io = |op, name: &str, e: std::io::Error| match is_no_space(&e) {
        true => Error::NoSpace,
        false => Error::io(op, dir.path_of(name), e),
    };
    let prepare = |base: u64| {
        let mut preparation = Preparation::new(names, policy.header(base, clock.wall()), None);
        let zeroes = zeroes();
        loop {
            match preparation.step(&**dir, names, &zeroes) {
                Ok(Some(spare)) => return Ok(spare),
                Ok(None) => {}
                Err(e) => return Err(io("prepare", &names.segment(base), e)),
            }
        }
    };
    let open_segment = |header: &SegmentHeader| {
        let name = names.segment(header.base);
        dir.open(&name, Access::Write).map_err(|e| io("open", &name, e))
    };
    let mut spares = Vec::new();
    let (live, judged) = match judged {
        Some(judged) => {
            let (live, beyond) = found.segments.split_at(judged.active + 1);
            keep_spares(&**dir, names, &policy, geometry.segment_size, beyond, &mut spares)?;
            (live.to_vec(), judged)
        }
        None => {
            let first = prepare(0)?;
            (vec![first.header], Judgement::new_log(&first.header))
        }
    };
    let Some(active) = live.last().copied() else {
        return Err(Error::Io {
            op: "open",
            path: dir.path_of(""),
            source: Arc::new(std::io::ErrorKind::NotFound.into()),
        });
    };
    let active_file = open_segment(&active)?;
    // A segment of another block size, or for smaller groups, is left as it is.
    let next = if policy.fits(&active) { judged.end } else { active.end() };
    if active.end() - next < u64::from(geometry.block) && spares.is_empty() {
        spares.push(prepare(active.end())?);
    }
    let prepared_end = spares.last().map_or(active.end(), |s| s.header.end());
    let placement = Placement {
        next,
        segment_end: active.end(),
        prepared_end,
        segment_size: geometry.segment_size,
        block: u64::from(geometry.block),
    };
    let epoch = EpochId {
        counter: judged.highest_epoch + 1,
        nonce: u64::from_le_bytes(*random.first_chunk().unwrap_or(&[0; 8])),
    };
    let oldest = live[0].base;
    let report = RecoveryReport {
        case: judged.case,
        oldest: Lsn::new(oldest),
        durable_end: Lsn::new(judged.end),
        next_ordinal: judged.link.next_ordinal,
        segments: live.len(),
        clean: judged.clean,
        cut: judged.case == RecoveryCase::Torn,
        discarded_bytes: judged.discarded,
        epoch: epoch.counter,
        temporaries_removed: removed,
    };
    let closed_at = closing_times(&**dir, names, options, &live)?;
    let ring = Ring::new(geometry.buffer, geometry.buffers, placement);
    let shared = Shared::new(
        ring,
        Durable::new(judged.end, options.durability != Durability::EveryGroup),
        Table::new(live.iter().copied().zip(closed_at), spares),
        Arc::clone(dir),
        names.clone(),
        oldest,
    );
    let start = Start { log_id, epoch, link: judged.link, active, active_file, oldest };
    Ok(Recovered { shared: Arc::new(shared), policy, report, start, geometry })
}

/// Segments beyond the end hold nothing: kept as spares if they are as this open wants them, removed
/// from the last on if not.
fn keep_spares(
    dir: &dyn Dir,
    names: &Names,
    policy: &Policy,
    size: u64,
    beyond: &[SegmentHeader],
    spares: &mut Vec<Spare>,
) -> Result<()> {
    let usable = beyond.iter().take_while(|h| policy.fits(h) && h.size == size).count();
    for header in beyond[usable..].iter().rev() {
        let name = names.segment(header.base);
        let removed = dir.remove(&name).and_then(|()| dir.sync());
        removed.map_err(|e| Error::io("remove", dir.path_of(&name), e))?;
    }
    for header in &beyond[..usable] {
        let name = names.segment(header.base);
        let file = dir.open(&name, Access::Write);
        let file = file.map_err(|e| Error::io("open", dir.path_of(&name), e))?;
        spares.push(Spare { header: *header, file });
    }
    Ok(())
}

/// When each segment was left, for retention by age: the clock of the next one's first group.
fn closing_times(
    dir: &dyn Dir,
    names: &Names,
    options: &Options,
    live: &[SegmentHeader],
) -> Result<Vec<Option<u64>>> {
    let mut times = vec![None; live.len()];
    if options.max_age.is_some() {
        for (time, next) in times.iter_mut().zip(live.iter().skip(1)) {
            let name = names.segment(next.base);
            let io = |e| Error::io("read", dir.path_of(&name), e);
            let file = dir.open(&name, Access::Read).map_err(io)?;
            let mut walker = crate::recovery::Walker::new(file, *next);
            *time = walker.group(next.first_group()).map_err(io)?.ok().map(|g| g.wall);
        }
    }
    Ok(times)
}

fn start(
    recovered: Recovered,
    options: &Options,
    lock: DirLock,
    clock: Arc<dyn Clock>,
) -> Result<Wal> {
    let Recovered { shared, policy, report, start, geometry } = recovered;
    let log_id = start.log_id;
    let (send, receive) = mpsc::sync_channel(1);
    let io = {
        let (shared, clock, options) = (Arc::clone(&shared), Arc::clone(&clock), options.clone());
        let lock_fd = lock_fd(&lock);
        spawn("ringwal-io", move || {
            match begin(&shared, &clock, &options, start, geometry, lock_fd) {
                Ok((io_loop, info)) => {
                    let _ = send.send(Ok(info));
                    io_loop::run(&shared, io_loop);
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
            let failure = Failure::new("the I/O thread", "it ended before it began");
            return Err(Error::Poisoned { cause: Arc::new(failure) });
        }
    };
    let helper = {
        let (shared, clock) = (Arc::clone(&shared), Arc::clone(&clock));
        spawn("ringwal-segments", move || {
            let helper = Helper::new(Arc::clone(&shared), clock, policy);
            helper::run(&shared, helper);
        })
    };
    let helper = match helper {
        Ok(helper) => helper,
        Err(e) => {
            shared.begin_close();
            let _ = io.join();
            return Err(e);
        }
    };
    let epoch_group = report.durable_end.as_u64();
    let wal = Wal::assemble(shared, report, info, geometry, &log_id, (io, helper, lock));
    // The epoch is durable before anybody can append to it.
    wal.wait_until_started(epoch_group)?;
    Ok(wal)
}

fn begin(
    shared: &Arc<Shared>,
    clock: &Arc<dyn Clock>,
    options: &Options,
    start: Start,
    geometry: Geometry,
    lock_fd: Option<i32>,
) -> Result<(IoLoop, BackendInfo)> {
    let probe = shared.names.probe();
    let ask = Ask {
        dir: &*shared.dir,
        probe: &probe,
        choice: options.backend,
        method: options.commit_method,
        depth: options.depth,
        buffers: geometry.buffers,
        buffer: geometry.buffer as usize,
        lock_fd,
        direct_io: start.active_file.is_direct(),
    };
    let chosen = choose(&ask, Arc::clone(&shared.ring.memory))?;
    let setup = Setup {
        log_id: start.log_id,
        epoch: start.epoch,
        link: start.link,
        active: start.active,
        active_file: start.active_file,
        oldest: start.oldest,
        block: geometry.block,
        depth: chosen.info.depth,
        durability: options.durability,
        commit_delay: options.commit_delay,
        idle_seal: options.idle_seal,
        method: chosen.method,
    };
    let io_loop = IoLoop::new(Arc::clone(shared), Arc::clone(clock), chosen.backend, setup)
        .map_err(|failure| Error::Poisoned { cause: Arc::new(failure) })?;
    Ok((io_loop, chosen.info))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>> {
    let body = move || {
        block_signals();
        crate::context::serve();
        work();
    };
    let spawned = std::thread::Builder::new().name(name.into()).spawn(body);
    spawned.map_err(|e| Error::io("start thread", name, e))
}

/// Signals are the program's own business: its handlers must not run on the log's threads.
fn block_signals() {
    #[cfg(all(target_os = "linux", feature = "uring"))]
    {
        use nix::sys::signal::SigSet;
        let _ = SigSet::all().thread_block();
    }
}

fn lock_fd(lock: &DirLock) -> Option<i32> {
    #[cfg(unix)]
    return Some(lock.raw_fd());
    #[cfg(not(unix))]
    {
        let _ = lock;
        None
    }
}

/// Bytes for the log id and the epoch's nonce. They need to differ, not to be secret.
fn entropy() -> [u8; 24] {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut bytes = [0; 24];
    for chunk in bytes.chunks_mut(8) {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        hasher.write_u128(now.map_or(0, |d| d.as_nanos()));
        chunk.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    bytes
}
