//! The backend of a log on a real disk, its first commit method, and its end file.

use std::sync::Arc;

use crate::engine::assemble::{IoStart, ReadyBackend};
use crate::engine::state::LogState;
use crate::error::Result;
use crate::io::backend::{
    BackendInfo, BackendRequest, ChosenMethod, Hold, Method, MethodReason, choose,
};
use crate::options::Durability;
use crate::segment::end_file::EndFile;

/// Creates the backend for the thread that calls this. `is_alive`: this process holds the lock that
/// tells other processes that the log has a writer.
pub(crate) fn choose_backend(
    io: &IoStart,
    lock: Hold,
    is_alive: bool,
) -> Result<(ReadyBackend, BackendInfo)> {
    let IoStart { state, options, geometry, start, .. } = io;
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
    let view = &state.view;
    // Recovery has made everything below this end durable.
    let (end, cut) = (state.durable.end(), view.cuts.newest());
    let create_end_file =
        || EndFile::create(&*view.dir, &view.names, start.log_id, end, cut, is_alive);
    let ready = ReadyBackend {
        backend: started.backend,
        method: started.method,
        depth: started.info.depth,
        end_file: started.info.kind.is_durable().then(create_end_file).flatten(),
        parks: started.info.kind.is_durable(),
    };
    Ok((ready, started.info))
}

/// What `CommitMethod::Auto` means before this run has measured anything.
fn first_method(state: &LogState, durability: Durability) -> ChosenMethod {
    let linked = |reason, detail: &str| ChosenMethod {
        method: Method::Linked,
        alone: Method::Linked,
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
