//! Opens a log on a simulated disk: recovered as on a real one, moved by a machine instead of
//! threads.

use std::sync::Arc;

use fastrand::Rng;

use super::SimClock;
use super::machine::{End, Machine, Parts};
use crate::engine::assemble::{Engine, ReadyBackend, assemble};
use crate::engine::recover::recover;
use crate::error::{Error, Result};
use crate::io::backend::sim::{Sabotage, SimBackend};
use crate::io::backend::{BackendInfo, BackendKind, ChosenMethod, Method, MethodReason};
use crate::io::fs::sim::SimDisk;
use crate::options::{CommitMethod, Options};
use crate::segment::Names;
use crate::sys::clock::Clock;
use crate::sys::sync::Mutex;
use crate::wal::Wal;

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
    let recovered = recover(&dir, &names, options, &**clock, random)?;
    let method = chosen(options.commit_method, &mut rng);
    let info = BackendInfo {
        kind: BackendKind::Simulated,
        reason: "the disk is simulated".into(),
        commit_method: "",
        commit_method_reason: method.reason,
        commit_method_detail: String::new(),
        direct_io: true,
        registered_buffers: false,
        block_size: recovered.geometry.block,
        depth: options.depth,
        ring_bytes: recovered.state.ring.capacity(),
        volatility: None,
    };
    let backend = Box::new(SimBackend::new(rng.u64(..), Sabotage::None));
    let ready =
        ReadyBackend { backend, method, depth: options.depth, end_file: None, parks: false };
    let time: Arc<dyn Clock> = Arc::<SimClock>::clone(clock);
    let engine = assemble(recovered, options, &time, |io| io.begin(ready))?;
    let Engine { state, io, archiver, keeper, opened, .. } = engine;
    let parts = Parts::new(Arc::clone(&state), io, keeper, archiver, Arc::clone(clock), rng);
    let parts = Arc::new(Mutex::new(Some(parts)));
    let _ = state.machine.set(Box::new(Machine(Arc::clone(&parts))));
    let end = End { machine: Machine(parts), lock };
    Wal::started(state, opened, info, Box::new(end))
}

fn chosen(asked: CommitMethod, rng: &mut Rng) -> ChosenMethod {
    let mut any = || if rng.bool() { Method::Linked } else { Method::Dsync };
    let (method, alone, reason) = match asked {
        CommitMethod::LinkedFsync => (Method::Linked, Method::Linked, MethodReason::Pinned),
        CommitMethod::Dsync => (Method::Dsync, Method::Dsync, MethodReason::Pinned),
        CommitMethod::Auto => (any(), any(), MethodReason::Default),
    };
    ChosenMethod { method, alone, reason, parallel: rng.bool(), detail: String::new() }
}
