//! Runs the engine on a directory in memory, stepped on the caller's thread.
//!
//! Every wait is a number of steps. A run that needs more hangs, and panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::memory::Memory;
use crate::engine::append::Appender;
use crate::engine::assemble::{Engine, ReadyBackend, assemble};
use crate::engine::batch::BatchRecords;
use crate::engine::io_thread::IoLoop;
use crate::engine::recover::{RecoveredLog, recover};
use crate::engine::segment_keeper::SegmentKeeper;
use crate::engine::state::LogState;
use crate::error::{Error, Result};
use crate::io::backend::{ChosenMethod, Method, MethodReason, StdBackend};
use crate::io::fs::Dir;
use crate::options::Options;
use crate::segment::Names;
use crate::sys::clock::Clock;

/// More steps than any run takes.
const STEPS: usize = 10_000;

/// A clock that only `idle` advances.
#[derive(Debug, Default)]
pub(super) struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn wall(&self) -> u64 {
        1 << 60 | self.now()
    }
}

/// Settings for small logs: blocks of 4 KiB, groups of two, segments of four to eight.
pub(super) fn options(segment_size: u64) -> Options {
    Options {
        segment_size,
        max_record_size: Some(6000),
        ring_capacity: Some(32 << 10),
        idle_seal: Duration::from_millis(1),
        ..Options::default()
    }
}

pub(super) fn names() -> Names {
    Names::new("wal")
}

/// Recovers the log in the directory.
pub(super) fn recovered(
    memory: &Arc<Memory>,
    options: &Options,
    nonce: u8,
) -> Result<RecoveredLog> {
    let dir: Arc<dyn Dir> = Arc::<Memory>::clone(memory);
    recover(&dir, &names(), options, &Ticks::default(), [nonce; 24])
}

/// An open log.
pub(super) struct Life {
    pub(super) appender: Appender,
    pub(super) state: Arc<LogState>,
    pub(super) max_record: usize,
    clock: Arc<Ticks>,
    io: IoLoop,
    keeper: SegmentKeeper,
}

impl Life {
    /// Opens the log, up to the durable epoch group.
    pub(super) fn open(memory: &Arc<Memory>, options: &Options, nonce: u8) -> Result<Self> {
        let recovered = recovered(memory, options, nonce)?;
        let max_record = recovered.geometry.max_record;
        let ready = ReadyBackend {
            backend: Box::new(StdBackend::new()),
            method: ChosenMethod {
                method: Method::Linked,
                alone: Method::Linked,
                reason: MethodReason::Pinned,
                parallel: true,
                detail: String::new(),
            },
            depth: options.depth,
            end_file: None,
            parks: false,
        };
        let ticks = Arc::new(Ticks::default());
        let clock: Arc<dyn Clock> = Arc::<Ticks>::clone(&ticks);
        let engine = assemble(recovered, options, &clock, |io| io.begin(ready))?;
        let Engine { state, io, keeper, opened, .. } = engine;
        let appender = opened.appender(&state);
        let mut life = Life { appender, state, max_record, clock: ticks, io, keeper };
        if let Some(lsn) = opened.epoch_group {
            life.step_until(|life| life.state.durable.end() > lsn)?;
        }
        Ok(life)
    }

    fn step_until(&mut self, done: impl Fn(&Life) -> bool) -> Result<()> {
        for step in 0..STEPS {
            if done(self) {
                return Ok(());
            }
            self.state.durable.check_running()?;
            let finished = self.io.step().finished;
            assert!(!finished || done(self), "the log ended");
            self.io.wait(Some(0));
            // The segment keeper gets a turn when the I/O loop alone makes no progress.
            if step % 16 == 15 {
                self.keeper.step();
            }
        }
        panic!("the log hangs");
    }

    /// Makes everything appended durable.
    pub(super) fn make_durable(&mut self) -> Result<()> {
        self.step_until(|life| life.state.durable.end() >= life.state.ring.reserved_end())
    }

    /// Steps the I/O loop so many times, whatever the result.
    pub(super) fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.io.step();
            self.io.wait(Some(0));
        }
    }

    /// Steps the I/O loop and the segment keeper once each.
    pub(super) fn work(&mut self) {
        self.run(1);
        self.keeper.step();
    }

    /// Waits until the log is idle and sealed.
    pub(super) fn idle(&mut self) -> Result<()> {
        self.make_durable()?;
        self.io.step();
        self.clock.0.fetch_add(10_000_000, Ordering::Relaxed);
        self.io.step();
        self.make_durable()
    }

    /// Appends one record, or several as a batch. Steps the log while the ring is full.
    pub(super) fn append(&mut self, records: &[Vec<u8>]) -> Result<u64> {
        for _ in 0..STEPS {
            let appended = match records {
                [one] => self.appender.try_append(one),
                batch => self
                    .appender
                    .try_append_batch(BatchRecords::new(None, batch))
                    .map(|lsns| lsns.first_lsn()),
            };
            match appended {
                Ok(lsn) => return Ok(lsn.as_u64()),
                Err(Error::RingFull) => {
                    self.io.step();
                    self.io.wait(Some(0));
                    self.keeper.step();
                }
                Err(e) => return Err(e),
            }
        }
        panic!("the ring stays full");
    }

    pub(super) fn close(mut self) -> Result<()> {
        self.state.begin_close();
        for _ in 0..STEPS {
            if self.state.durable.is_poisoned() {
                return self.state.durable.check_running();
            }
            if self.io.step().finished {
                return Ok(());
            }
            self.io.wait(Some(0));
            self.keeper.step();
        }
        panic!("the log does not close");
    }
}
