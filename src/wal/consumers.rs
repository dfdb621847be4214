//! Consumers of a log: attach, list, remove.

use crate::error::Result;
use crate::positions::ConsumerInfo;
use crate::read::consumer::{self, Consumer};
use crate::read::lag::lag;
use crate::read::work_queue::{WorkQueue, WorkQueueOptions};
use crate::wal::Wal;

impl Wal {
    /// Attaches a consumer: a reader under a name, with a position that survives. See [`Consumer`].
    /// A new consumer starts at the oldest record that is kept. Its file is durable before this
    /// call returns.
    ///
    /// # Errors
    ///
    /// `ConsumerName`, `ConsumerNameTooLong` with this prefix, `ConsumerInUse` if the consumer is
    /// attached already, `NameTaken` if another consumer's name differs from a new one's in case
    /// alone, `ConsumerDamaged`, `Io`; `Closed`, `Poisoned`, `WouldDeadlock`.
    pub fn consumer(&self, name: &str) -> Result<Consumer> {
        Consumer::attach(&self.appender().state, self.inner.log_id, name)
    }

    /// A queue of jobs for competing workers, over the consumer with this name: see [`WorkQueue`].
    ///
    /// # Errors
    ///
    /// As [`Wal::consumer`] and [`WorkQueue::over`].
    pub fn work_queue(&self, name: &str, options: WorkQueueOptions) -> Result<WorkQueue> {
        WorkQueue::over(self.consumer(name)?, options)
    }

    /// All consumers of the log, attached or not, ordered by name. In a child of `fork()`: none.
    #[must_use]
    pub fn consumers(&self) -> Vec<ConsumerInfo> {
        let state = &self.appender().state;
        if state.durable.is_forked() {
            return Vec::new();
        }
        let mut consumers = state.consumers.list(state.durable.end());
        for consumer in &mut consumers {
            let position = consumer.position.as_u64();
            consumer.lag_bytes = lag(state, position, position);
        }
        consumers
    }

    /// Deletes a consumer with its position. Retention then keeps nothing for it.
    ///
    /// # Errors
    ///
    /// `NoConsumer`, `ConsumerInUse`, `ConsumerName`, `Io`, `Closed`, `Poisoned`.
    pub fn remove_consumer(&self, name: &str) -> Result<()> {
        consumer::remove(&self.appender().state, name)
    }
}
