//! The settings of a work queue.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{OptionsError, Result};
use crate::lsn::Lsn;

/// The error of a sink of dead letters. The queue does not look at it.
pub(super) type SinkError = Box<dyn std::error::Error + Send + Sync>;

pub(super) type Sink = dyn Fn(DeadLetter<'_>) -> Result<(), SinkError> + Send + Sync;

/// A job that was given up: see [`WorkQueueOptions::dead_letters`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct DeadLetter<'a> {
    /// The position of the job's record.
    pub lsn: Lsn,
    /// The job.
    pub payload: &'a [u8],
    /// Deliveries of the job in this run of the program.
    pub attempts: u32,
}

/// Settings of a [`WorkQueue`](crate::WorkQueue).
#[derive(Clone)]
pub struct WorkQueueOptions {
    pub(super) lease: Duration,
    pub(super) max_out: usize,
    pub(super) commit_every: usize,
    pub(super) retry_delay: Duration,
    pub(super) max_attempts: u32,
    pub(super) sink: Option<Arc<Sink>>,
}

impl fmt::Debug for WorkQueueOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkQueueOptions")
            .field("lease", &self.lease)
            .field("max_out", &self.max_out)
            .finish_non_exhaustive()
    }
}

impl Default for WorkQueueOptions {
    fn default() -> Self {
        WorkQueueOptions {
            lease: Duration::from_secs(30),
            max_out: 1024,
            commit_every: 1,
            retry_delay: Duration::ZERO,
            max_attempts: u32::MAX,
            sink: None,
        }
    }
}

impl WorkQueueOptions {
    /// The time that a worker has for a job. After it the job goes to another worker. 30 seconds;
    /// [`Job::extend`](crate::Job::extend) gives one job more.
    #[must_use]
    pub fn lease(self, lease: Duration) -> Self {
        WorkQueueOptions { lease, ..self }
    }

    /// Jobs from the oldest one that is not done to the newest one that was read, at most: those
    /// that are out, those that wait for another delivery, and those that are done after a job that
    /// is not. So many jobs are in memory, and so many may come again after a crash. 1024.
    #[must_use]
    pub fn max_out(self, max_out: usize) -> Self {
        WorkQueueOptions { max_out, ..self }
    }

    /// Stores the position after so many jobs. 1: [`Job::done`](crate::Job::done) returns when the
    /// position is durable. With more, up to `n` - 1 jobs that are done come again after a crash.
    #[must_use]
    pub fn commit_every(self, n: usize) -> Self {
        WorkQueueOptions { commit_every: n, ..self }
    }

    /// The time after which a job that was given back is delivered again. Zero.
    #[must_use]
    pub fn retry_delay(self, retry_delay: Duration) -> Self {
        WorkQueueOptions { retry_delay, ..self }
    }

    /// Hands a job that was delivered `attempts` times and is not done to `sink`, and then counts
    /// it as done. Without dead letters a job is delivered until it is done.
    ///
    /// `sink` runs without a lock, on the thread of the worker that gives the job back or finds
    /// that its lease has ended. It may append the job to another log. If it returns an error or
    /// panics, the job is delivered once more and then handed to `sink` again. After a crash `sink`
    /// may get a job that it had already. A restart counts attempts from 1 again: a job that kills
    /// the process is never a dead letter.
    #[must_use]
    pub fn dead_letters<E>(
        self,
        attempts: u32,
        sink: impl Fn(DeadLetter<'_>) -> Result<(), E> + Send + Sync + 'static,
    ) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let sink = move |letter: DeadLetter<'_>| sink(letter).map_err(Into::into);
        WorkQueueOptions { max_attempts: attempts, sink: Some(Arc::new(sink)), ..self }
    }

    pub(super) fn check(&self) -> Result<()> {
        let mut wrong = Vec::new();
        if self.lease.is_zero() {
            let instead = "take a lease that a job needs at most";
            wrong.push(OptionsError::ZeroDuration { option: "lease", instead });
        }
        let sizes = [
            ("max_out", self.max_out as u64),
            ("commit_every", self.commit_every as u64),
            ("dead_letters", u64::from(self.max_attempts)),
        ];
        for (option, value) in sizes.into_iter().filter(|(_, value)| *value == 0) {
            wrong.push(OptionsError::Range { option, value, must: "at least 1".into() });
        }
        match wrong.len() {
            0 => Ok(()),
            1 => Err(wrong.remove(0).into()),
            _ => Err(OptionsError::Several(wrong).into()),
        }
    }
}
