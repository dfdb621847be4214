//! Recovery of a log up to the parts of its engine: find, check, prepare, place.
//!
//! 1. The caller holds the lock of the log, and starts the I/O loop afterwards.
//! 2. `find` and `check` change nothing in the directory. Every reason to reject the log comes from
//!    them, except a failure of the system.
//! 3. `prepare` syncs what was found before it changes anything.
//! 4. `place` only reads.

mod check;
mod find;
mod place;
mod prepare;

use std::sync::Arc;

pub(crate) use check::{ENDS_EARLY, check_creation, check_end, check_position};
pub(crate) use find::{Examined, examine, load_cuts};

use crate::engine::io_thread::Start;
use crate::engine::retention::Policy;
use crate::engine::state::LogState;
use crate::error::{Error, Result};
use crate::io::fs::Dir;
use crate::options::{Geometry, Options};
use crate::recovery::RecoveryReport;
use crate::ring::Memory;
use crate::segment::Names;
use crate::sys::clock::Clock;

/// A log that was recovered and is not started.
#[derive(Debug)]
pub(crate) struct RecoveredLog {
    pub(crate) state: Arc<LogState>,
    pub(crate) policy: Policy,
    pub(crate) report: RecoveryReport,
    pub(crate) start: Start,
    pub(crate) geometry: Geometry,
}

/// What every step of a recovery needs.
struct Request<'a> {
    dir: &'a Arc<dyn Dir>,
    names: &'a Names,
    options: &'a Options,
    clock: &'a dyn Clock,
    geometry: Geometry,
    random: [u8; 24],
}

impl Request<'_> {
    /// The id of a log that is created.
    fn new_log_id(&self) -> [u8; 16] {
        *self.random.last_chunk().unwrap_or(&[0; 16])
    }

    /// Tells this epoch from others of the same number.
    fn nonce(&self) -> u64 {
        u64::from_le_bytes(*self.random.first_chunk().unwrap_or(&[0; 8]))
    }

    /// Another writer has the log: its lock file was removed, or this writer's was.
    fn locked(&self, name: &str) -> Error {
        Error::Locked { path: self.dir.path_of(name), pid: None }
    }
}

/// Recovers a log. Threads, a simulation or a test step its parts afterwards.
pub(crate) fn recover(
    dir: &Arc<dyn Dir>,
    names: &Names,
    options: &Options,
    clock: &dyn Clock,
    random: [u8; 24],
) -> Result<RecoveredLog> {
    let geometry = options.geometry(dir.block_size())?;
    let request = Request { dir, names, options, clock, geometry, random };
    let memory = allocate(&request)?;
    let found = examine(&**dir, names, options.front_was_taken)?;
    let checked = check::check(&request, found)?;
    let prepared = prepare::prepare(&request, checked)?;
    place::place(&request, prepared, memory)
}

/// The buffers of the ring.
fn allocate(request: &Request<'_>) -> Result<Memory> {
    let Geometry { buffer, buffers, .. } = request.geometry;
    Memory::new(buffer as usize, buffers).ok_or_else(|| {
        let e = std::io::ErrorKind::OutOfMemory.into();
        Error::io("allocate ring_capacity bytes for", request.dir.path_of(""), e)
    })
}

/// Bytes for the log id and the epoch's nonce. They need to differ, not to be secret.
pub(crate) fn entropy() -> [u8; 24] {
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
