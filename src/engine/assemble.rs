//! The one place where the parts of an engine are put together.
//!
//! 1. The I/O loop begins first. Then the archiver opens, because retention waits for the hook from
//!    the segment keeper's first step on. The segment keeper and the watchdog follow.
//! 2. The caller decides what steps the parts: threads, the machine of a simulated disk, or a test.
//! 3. A part does nothing before its first step.

use std::sync::Arc;

use crate::engine::append::Appender;
use crate::engine::archiver::Archiver;
use crate::engine::io_thread::{IoLoop, Setup, Start};
use crate::engine::recover::RecoveredLog;
use crate::engine::segment_keeper::SegmentKeeper;
use crate::engine::state::LogState;
use crate::engine::watchdog::Watchdog;
use crate::error::{Error, Result};
use crate::hooks::OnSealed;
use crate::io::backend::{Backend, ChosenMethod};
use crate::options::{Geometry, Options};
use crate::recovery::RecoveryReport;
use crate::segment::end_file::EndFile;
use crate::sys::clock::Clock;

/// The parts of one engine. `I` is the I/O loop, or the thread that steps it.
#[derive(Debug)]
pub(crate) struct Engine<I> {
    pub(crate) state: Arc<LogState>,
    pub(crate) io: I,
    /// `None` if no hook on sealed segments is set.
    pub(crate) archiver: Option<(Archiver, OnSealed)>,
    pub(crate) keeper: SegmentKeeper,
    pub(crate) watchdog: Watchdog,
    pub(crate) opened: Opened,
}

/// What opening found and decided. Does not change while the log is open.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) report: RecoveryReport,
    pub(crate) geometry: Geometry,
    pub(crate) log_id: [u8; 16],
    /// LSN of the epoch group. `None` if the I/O loop writes it only before something else.
    pub(crate) epoch_group: Option<u64>,
}

impl Opened {
    /// The part of the engine that producers call.
    pub(crate) fn appender(&self, state: &Arc<LogState>) -> Appender {
        let Opened { report, geometry, log_id, .. } = self;
        Appender::new(Arc::clone(state), log_id, report.epoch, geometry.max_record)
    }
}

/// What the I/O loop begins with. It moves to the thread that steps the loop: a backend belongs to
/// the thread that creates it.
pub(crate) struct IoStart {
    pub(crate) state: Arc<LogState>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) geometry: Geometry,
    pub(crate) start: Start,
}

/// The backend of an I/O loop, with what was chosen together with it.
pub(crate) struct ReadyBackend {
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) method: ChosenMethod,
    /// Groups in flight, at most.
    pub(crate) depth: usize,
    /// `None` if no other process may rely on what this backend completes.
    pub(crate) end_file: Option<EndFile>,
    /// Whether a committer may step the loop while the I/O thread sleeps.
    pub(crate) parks: bool,
}

impl IoStart {
    /// Builds the I/O loop. Its first step submits the epoch group.
    pub(crate) fn begin(self, ready: ReadyBackend) -> Result<IoLoop> {
        let IoStart { state, clock, options, geometry, start } = self;
        state.commit.set(ready.method);
        let setup = Setup {
            log_id: start.log_id,
            epoch: start.epoch,
            link: start.link,
            epoch_waits: start.epoch_waits,
            replaceable: start.replaceable,
            clean: start.clean,
            active: start.active,
            oldest: start.oldest,
            block: geometry.block,
            depth: ready.depth,
            durability: options.durability,
            commit_delay: options.commit_delay,
            idle_seal: options.idle_seal,
            end_file: ready.end_file,
            parks: ready.parks,
        };
        IoLoop::new(state, clock, ready.backend, setup, &start.active_file)
            .map_err(|failure| Error::Poisoned { cause: Arc::new(failure) })
    }
}

/// Puts an engine together from a recovered log. `begin` makes the I/O loop, or starts its thread.
/// If a later part fails, this drops what `begin` returned.
pub(crate) fn assemble<I>(
    recovered: RecoveredLog,
    options: &Options,
    clock: &Arc<dyn Clock>,
    begin: impl FnOnce(IoStart) -> Result<I>,
) -> Result<Engine<I>> {
    let RecoveredLog { state, policy, report, start, geometry } = recovered;
    state.set_clock(clock);
    let log_id = start.log_id;
    let epoch_group = (!start.epoch_waits).then_some(report.durable_end.as_u64());
    let io = begin(IoStart {
        state: Arc::clone(&state),
        clock: Arc::clone(clock),
        options: options.clone(),
        geometry,
        start,
    })?;
    let archiver = match &options.on_sealed {
        Some(hook) => Some((Archiver::open(&state, log_id)?, hook.clone())),
        None => None,
    };
    let keeper = SegmentKeeper::new(Arc::clone(&state), Arc::clone(clock), policy);
    let watchdog = Watchdog::new(
        Arc::clone(&state),
        Arc::clone(clock),
        options.stall_threshold,
        options.on_stall.clone(),
    );
    let opened = Opened { report, geometry, log_id, epoch_group };
    Ok(Engine { state, io, archiver, keeper, watchdog, opened })
}
