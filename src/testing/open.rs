//! Putting a log together on a simulated disk: recovered as any, moved by a machine instead of threads.

use std::sync::Arc;

use fastrand::Rng;

use super::SimClock;
use super::machine::{End, Machine, Parts};
use crate::engine::archiver::Archiver;
use crate::engine::io_thread::IoLoop;
use crate::engine::recover::{RecoveredLog, recover};
use crate::engine::segment_keeper::SegmentKeeper;
use crate::error::{Error, Result};
use crate::io::backend::sim::{Sabotage, SimBackend};
use crate::io::backend::{BackendInfo, BackendKind, ChosenMethod, Method, MethodReason};
use crate::io::fs::sim::SimDisk;
use crate::options::{CommitMethod, Options};
use crate::segment::Names;
use crate::sys::clock::Clock;
use crate::sys::sync::Mutex;
use crate::wal::Wal;
use crate::wal::open::setup;

pub(super) fn open(
    disk: &SimDisk,
    clock: &Arc<SimClock>,
    options: &Options,
    mut rng: Rng,
) -> Result<Wal> {
    options.validate()?;
    let names = Names::new(&options.prefix);
    let dir = disk.dir();
    let locked = || Error::Locked { path: dir.path_of(&names.lock()), pid: None };
    let lock = disk.lock(&names.lock()).ok_or_else(locked)?;
    let random = std::array::from_fn(|_| rng.u8(..));
    let RecoveredLog { state, policy, report, start, geometry } =
        recover(&dir, &names, options, &**clock, random)?;
    let (log_id, epoch_waits) = (start.log_id, start.epoch_waits);
    let method = chosen(options.commit_method, &mut rng);
    let info = BackendInfo {
        kind: BackendKind::Simulated,
        reason: "the disk is simulated".into(),
        commit_method: "",
        commit_method_reason: method.reason,
        commit_method_detail: String::new(),
        direct_io: true,
        registered_buffers: false,
        block_size: geometry.block,
        depth: options.depth,
        ring_bytes: state.ring.capacity(),
        volatility: None,
    };
    state.commit.set(method);
    let backend = Box::new(SimBackend::new(rng.u64(..), Sabotage::None));
    let time: Arc<dyn Clock> = Arc::<SimClock>::clone(clock);
    let setup = setup(start, &geometry, options);
    let io = IoLoop::new(Arc::clone(&state), Arc::clone(&time), backend, setup)
        .map_err(|failure| Error::Poisoned { cause: Arc::new(failure) })?;
    let hook = match &options.on_sealed {
        None => None,
        Some(hook) => Some((Archiver::open(&state, log_id)?, hook.clone())),
    };
    let keeper = SegmentKeeper::new(Arc::clone(&state), time, policy);
    let parts = Parts::new(Arc::clone(&state), io, keeper, hook, Arc::clone(clock), rng);
    let parts = Arc::new(Mutex::new(Some(parts)));
    let _ = state.machine.set(Box::new(Machine(Arc::clone(&parts))));
    let end = End { machine: Machine(parts), lock };
    let epoch_group = report.durable_end.as_u64();
    let running = Box::new(end);
    let wal = Wal::assemble(state, report, info, geometry, &log_id, running);
    if !epoch_waits {
        wal.wait_until_started(epoch_group)?;
    }
    Ok(wal)
}

fn chosen(asked: CommitMethod, rng: &mut Rng) -> ChosenMethod {
    let (method, reason) = match asked {
        CommitMethod::LinkedFsync => (Method::Linked, MethodReason::Pinned),
        CommitMethod::Dsync => (Method::Dsync, MethodReason::Pinned),
        CommitMethod::Auto if rng.bool() => (Method::Linked, MethodReason::Default),
        CommitMethod::Auto => (Method::Dsync, MethodReason::Default),
    };
    ChosenMethod { method, reason, parallel: rng.bool(), detail: String::new() }
}
