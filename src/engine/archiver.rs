//! The archiver: calls the hook on segments that the log has left, and then releases them.
//!
//! 1. The archiver calls the hook for one segment at a time, oldest first, when all records of the
//!    segment are durable.
//! 2. A segment is released when the hook has returned `Ok` for it and its end is stored durably.
//!    Until then retention must not remove the segment.
//! 3. The end of the last released segment is stored as a consumer's position is. A reopened log
//!    continues with the segment after it. So the hook may be called twice for a segment, and never
//!    misses one.
//! 4. The archiver does no I/O for the log. Retention waits for the hook, and `close` waits for at
//!    most [`PATIENCE`]. After that the archiver stores nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::state::LogState;
use crate::error::{Error, Result};
use crate::format::SegmentHeader;
use crate::hooks::{OnSealed, SealedSegment};
use crate::lsn::Lsn;
use crate::positions::PositionFile;
use crate::sys::panics::caught;
use crate::sys::sync::{Mutex, lock};

/// How long `close` waits for a running call of the hook.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause before a failed call is retried: doubled after each failure, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Archiver {
    state: Arc<LogState>,
    /// The file that stores the position. `None` once `close` does not wait any more.
    slots: Arc<Mutex<Option<PositionFile>>>,
    /// End of the last released segment.
    position: u64,
    /// The pause before the next retry.
    pause: Duration,
}

/// When to step again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArchiverStep {
    /// At once: a segment was released, and there may be another.
    Again,
    /// After this pause: the hook failed.
    After(Duration),
    /// When the bell rings: the log has left a segment, or a segment that it left is durable.
    OnBell,
    /// Never: the log has ended, or `close` does not wait any more.
    Over,
}

/// The thread of an archiver, for the last handle, which ends it.
#[derive(Debug)]
pub(crate) struct ArchiverThread {
    pub(crate) thread: std::thread::JoinHandle<()>,
    pub(crate) slots: Arc<Mutex<Option<PositionFile>>>,
}

impl Archiver {
    /// Reads the stored position, or creates the file that stores it. From then on retention waits
    /// for the hook.
    pub(crate) fn open(state: &Arc<LogState>, log_id: [u8; 16]) -> Result<Self> {
        let files = &state.view;
        let (name, temporary) = (files.names.sealed(), files.names.sealed_temporary());
        let all = files.dir.list().map_err(|e| Error::io("list", files.dir.path_of(""), e))?;
        let known = all.iter().any(|entry| entry.name == name);
        let (slots, position) = match known {
            true => PositionFile::open(&*files.dir, &name, log_id)?,
            false => {
                let oldest = files.table.oldest();
                (PositionFile::create(&*files.dir, &name, &temporary, log_id, oldest)?, oldest)
            }
        };
        state.hook.set_released(position);
        let slots = Arc::new(Mutex::new(Some(slots)));
        Ok(Archiver { state: Arc::clone(state), slots, position, pause: FIRST_PAUSE })
    }

    pub(crate) fn slots(&self) -> Arc<Mutex<Option<PositionFile>>> {
        Arc::clone(&self.slots)
    }

    /// The next segment, and whether all of its records are durable.
    fn next(&self) -> Option<(SegmentHeader, bool)> {
        let mut next = None;
        self.state.view.table.closed_from(self.position, |header, _| {
            next = Some(*header);
            false
        });
        let header = next?;
        // The durable end passes the end of a segment with the first group of the next one.
        Some((header, self.state.durable.end() > header.end()))
    }

    fn call(&self, hook: &OnSealed, header: &SegmentHeader) -> std::result::Result<(), String> {
        let files = &self.state.view;
        let segment = SealedSegment {
            path: files.dir.path_of(&files.names.segment(header.base)),
            base: Lsn::new(header.base),
            end: Lsn::new(header.end()),
        };
        let mut hook = lock(&hook.0);
        match caught(|| (*hook)(&segment)) {
            Some(Ok(())) => Ok(()),
            Some(Err(e)) => Err(e.to_string()),
            None => Err("it panicked".into()),
        }
    }

    /// Whether the log is closing or has failed.
    fn is_over(&self) -> bool {
        self.state.is_closing() || self.state.durable.is_poisoned()
    }

    /// Calls the hook for the next segment, if there is one.
    pub(crate) fn step(&mut self, hook: &OnSealed) -> ArchiverStep {
        if self.is_over() {
            return ArchiverStep::Over;
        }
        let header = match self.next() {
            None => return ArchiverStep::OnBell,
            // The I/O thread rings when the segment is durable.
            Some((_, false)) => return ArchiverStep::OnBell,
            Some((header, true)) => header,
        };
        match self.call(hook, &header).and_then(|()| self.release(&header)) {
            Ok(true) => {
                self.pause = FIRST_PAUSE;
                self.state.keeper.ring();
                ArchiverStep::Again
            }
            Ok(false) => ArchiverStep::Over,
            Err(error) => {
                self.state.counters.sealed_failures.add(1);
                let segment = self.state.view.names.segment(header.base);
                tracing::warn!(%segment, %error, "the hook on sealed segments failed; it is retried");
                let pause = self.pause;
                self.pause = (pause * 2).min(LONGEST_PAUSE);
                ArchiverStep::After(pause)
            }
        }
    }

    /// Stores the end of the segment and releases it. False: `close` does not wait any more.
    fn release(&mut self, header: &SegmentHeader) -> std::result::Result<bool, String> {
        let mut slots = lock(&self.slots);
        let Some(slots) = slots.as_mut() else { return Ok(false) };
        slots.store(header.end()).map_err(|e| format!("its position cannot be stored: {e}"))?;
        self.position = header.end();
        self.state.hook.set_released(self.position);
        Ok(true)
    }
}

/// Calls the hook until the log is closed or has failed.
pub(crate) fn run(mut sealed: Archiver, hook: &OnSealed) {
    let state = Arc::clone(&sealed.state);
    loop {
        let seen = state.hook.seen();
        match sealed.step(hook) {
            ArchiverStep::Again => {}
            ArchiverStep::OnBell => state.hook.wait(seen, None),
            ArchiverStep::Over => return,
            // The bell of another segment does not shorten the pause.
            ArchiverStep::After(pause) => {
                let until = Instant::now() + pause;
                while !sealed.is_over() {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    state.hook.wait(state.hook.seen(), Some(left));
                }
            }
        }
    }
}

impl ArchiverThread {
    /// Waits for a running call, for at most [`PATIENCE`]. After that the call is left alone, and
    /// the archiver stores nothing.
    pub(crate) fn end(self, state: &LogState) {
        let until = Instant::now() + PATIENCE;
        state.hook.ring();
        while !self.thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.thread.is_finished() {
            let _ = self.thread.join();
        } else {
            tracing::warn!("the hook on sealed segments does not return; it is left alone");
        }
        *lock(&self.slots) = None;
    }
}
