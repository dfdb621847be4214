//! The callbacks of appends that are not durable yet.
//!
//! The log calls one callback for each group commit, for the oldest append that waits. That one
//! takes all appends that are durable by then. More than a few are handed to a task of the runtime
//! that appended first: callbacks wake tasks, which costs less inside the runtime than from the
//! log's thread.
//!
//! 1. `armed` is true from before a callback is registered with the log until `waiting` is empty.
//! 2. Every callback is called once, even if the runtime is gone.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringwal::{Lsn, Wal};
use tokio::runtime::Handle;

use crate::group::Group;

type Call = Box<dyn FnOnce(io::Result<()>) + Send>;

/// An append whose callback was not called yet.
struct Ack {
    /// The position of its last record.
    last: Lsn,
    group: Arc<Group>,
    call: Call,
}

/// Appends that are durable.
struct Durable {
    acks: Vec<Ack>,
    cache_bytes: usize,
}

impl Durable {
    fn settle(&mut self) {
        for ack in self.acks.drain(..) {
            ack.group.known().evict(self.cache_bytes, ack.last.next());
            (ack.call)(Ok(()));
        }
    }
}

/// If the runtime drops the task without running it.
impl Drop for Durable {
    fn drop(&mut self) {
        self.settle();
    }
}

#[derive(Default)]
struct Waiting {
    acks: Vec<Ack>,
    armed: bool,
}

/// The appends of all groups that wait for their group commit.
pub(crate) struct Acks {
    waiting: Mutex<Waiting>,
    /// Bytes of the newest entries that each group keeps.
    cache_bytes: usize,
}

impl std::fmt::Debug for Acks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acks").field("waiting", &self.waiting().acks.len()).finish()
    }
}

/// As many callbacks are called on the log's thread.
const FEW: usize = 4;

impl Acks {
    pub(crate) fn new(cache_bytes: usize) -> Self {
        Acks { waiting: Mutex::default(), cache_bytes }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `call` once, when the record at `last` is durable or cannot become durable.
    pub(crate) fn add(self: &Arc<Self>, wal: &Wal, last: Lsn, group: &Arc<Group>, call: Call) {
        let ack = Ack { last, group: Arc::clone(group), call };
        let mut waiting = self.waiting();
        waiting.acks.push(ack);
        let armed = std::mem::replace(&mut waiting.armed, true);
        drop(waiting);
        if !armed {
            self.arm(wal.clone(), last, Handle::try_current().ok());
        }
    }

    fn arm(self: &Arc<Self>, wal: Wal, last: Lsn, runtime: Option<Handle>) {
        let (acks, log) = (Arc::clone(self), wal.clone());
        wal.on_durable(last, move |outcome| match outcome {
            Ok(()) => acks.settle_durable(log, runtime),
            Err(e) => acks.fail(&log, &e),
        });
    }

    /// Settles the appends that are durable, and waits for the oldest one that is not.
    fn settle_durable(self: &Arc<Self>, wal: Wal, runtime: Option<Handle>) {
        let end = wal.durable_end();
        let all = std::mem::take(&mut self.waiting().acks);
        let (acks, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|ack| ack.last < end);
        let mut waiting = self.waiting();
        waiting.acks.extend(left);
        let oldest = waiting.acks.iter().map(|ack| ack.last).min();
        waiting.armed = oldest.is_some();
        drop(waiting);
        let mut durable = Durable { acks, cache_bytes: self.cache_bytes };
        match &runtime {
            Some(runtime) if durable.acks.len() > FEW => {
                runtime.spawn(async move { durable.settle() });
            }
            _ => durable.settle(),
        }
        if let Some(oldest) = oldest {
            self.arm(wal, oldest, runtime);
        }
    }

    /// Settles all appends: the log accepts none any more.
    fn fail(&self, wal: &Wal, error: &ringwal::Error) {
        let mut waiting = self.waiting();
        let all = std::mem::take(&mut waiting.acks);
        waiting.armed = false;
        drop(waiting);
        let end = wal.durable_end();
        let (acks, lost): (Vec<_>, Vec<_>) = all.into_iter().partition(|ack| ack.last < end);
        Durable { acks, cache_bytes: self.cache_bytes }.settle();
        for ack in lost {
            (ack.call)(Err(error.clone().into()));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ringwal::testing::SimulatedDisk;
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::group::Known;

    /// A simulated log has no threads: its callbacks are called in `sync`.
    fn wal(disk: &SimulatedDisk) -> Wal {
        let builder = Wal::builder("raft").segment_size(1 << 20).ring_capacity(256 << 10);
        builder.max_record_size(16 << 10).on(disk).open().unwrap()
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().build().unwrap()
    }

    /// Counts the appends that are acknowledged, and those that fail.
    #[derive(Debug, Default)]
    struct Counts {
        done: AtomicUsize,
        failed: AtomicUsize,
    }

    impl Counts {
        fn get(&self) -> (usize, usize) {
            (self.done.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
        }
    }

    fn append(acks: &Arc<Acks>, wal: &Wal, many: usize, counts: &Arc<Counts>) -> Vec<Lsn> {
        let group = Arc::new(Group::new(1, Known::default()));
        let one = |_| {
            let counts = Arc::clone(counts);
            let call = move |outcome: io::Result<()>| {
                let count = if outcome.is_ok() { &counts.done } else { &counts.failed };
                count.fetch_add(1, Ordering::Relaxed);
            };
            let lsn = wal.append(b"an entry").unwrap();
            acks.add(wal, lsn, &group, Box::new(call));
            lsn
        };
        (0..many).map(one).collect()
    }

    #[test]
    fn appends_are_acknowledged_once_they_are_durable_and_not_before() {
        let wal = wal(&SimulatedDisk::new(1));
        let (acks, counts) = (Arc::new(Acks::new(0)), Arc::new(Counts::default()));
        let runtime = runtime();
        for many in [1, FEW, FEW + 1, 300] {
            let before = counts.get().0;
            let entered = runtime.enter();
            let places = append(&acks, &wal, many, &counts);
            drop(entered);
            acks.settle_durable(wal.clone(), None);
            let durable = places.iter().filter(|lsn| **lsn < wal.durable_end()).count();
            assert!(durable < many, "all are durable already");
            assert!(counts.get().0 <= before + durable, "{counts:?}, {durable} are durable");
            wal.sync().unwrap();
            runtime.block_on(tokio::task::yield_now());
            assert_eq!(counts.get(), (before + many, 0));
            assert!(!acks.waiting().armed);
        }
        // Without a runtime.
        let before = counts.get().0;
        append(&acks, &wal, 2 * FEW, &counts);
        wal.sync().unwrap();
        assert_eq!(counts.get(), (before + 2 * FEW, 0));
    }

    #[test]
    fn appends_of_a_runtime_that_is_gone_are_acknowledged() {
        let wal = wal(&SimulatedDisk::new(2));
        let (acks, counts) = (Arc::new(Acks::new(0)), Arc::new(Counts::default()));
        let runtime = runtime();
        let entered = runtime.enter();
        append(&acks, &wal, 5 * FEW, &counts);
        drop(entered);
        drop(runtime);
        wal.sync().unwrap();
        assert_eq!(counts.get(), (5 * FEW, 0));
    }

    #[test]
    fn appends_that_cannot_become_durable_fail_once_each() {
        let disk = SimulatedDisk::new(3);
        let wal = wal(&disk);
        let (acks, counts) = (Arc::new(Acks::new(0)), Arc::new(Counts::default()));
        let places = append(&acks, &wal, 3 * FEW, &counts);
        disk.power_off_after(0);
        assert!(wal.sync().is_err());
        let durable = places.iter().filter(|lsn| **lsn < wal.durable_end()).count();
        assert!(durable < 3 * FEW, "all are durable");
        assert_eq!(counts.get(), (durable, 3 * FEW - durable));
        assert!(!acks.waiting().armed);
    }
}
