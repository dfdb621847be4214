//! How far the log is durable, which waiters wait for it, and the latch that a failure sets.
//!
//! Invariants:
//! 1. The durable end never goes back. Only the I/O thread moves it. Here and in the ring, that
//!    name stands for the thread that holds the I/O loop, which may be a committer's.
//! 2. A waiter for `lsn` belongs to the bucket of its block. Groups are block-aligned, so that all
//!    waiters of one block wait for the same group. Each is woken once, when its own group is
//!    durable, or when another group 64 blocks away in the same bucket is.
//! 3. A waiter enters its bucket and then looks at the end. The I/O thread moves the end and then
//!    looks at the bucket. All four are sequentially consistent: no wake-up is lost.
//! 4. The status leaves RUNNING once, for CLOSED or POISONED. The failure is set before POISONED
//!    is. In a child of fork() the status reads as 0.
//! 5. User code (wakers, their clones and drops) runs with no lock held.
//! 6. Of many tasks that one thread registered, one is woken, and the others are in the relay: see
//!    its own invariants.

pub(crate) mod listeners;
#[cfg(all(test, ringwal_loom))]
mod loom_tests;
mod relay;
mod status;
mod tasks;
#[cfg(all(test, not(ringwal_loom)))]
mod tests;
pub(crate) mod wakers;

use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use listeners::EndListeners;
use relay::{Relay, this_thread};
pub(crate) use status::Status;
use tasks::{Task, Tasks};

use crate::error::{Error, Failure};
use crate::ring::wake_quietly;
use crate::sys::sync::{
    AtomicU32, AtomicU64, Futex, Mutex, Ordering, lock, model_fence, yield_now,
};

const BUCKETS: usize = 64;
const BLOCK_BITS: u32 = crate::format::MIN_BLOCK.trailing_zeros();

/// Records in a group from which on its waiters are a crowd, and how often each then gives way.
/// docs/design/commit.md has the figures.
const CROWD: u32 = 24;
const YIELDS: u32 = 4;

/// Tasks that the I/O thread wakes itself, whichever threads they belong to.
const ONE_BY_ONE: usize = if cfg!(ringwal_loom) { 1 } else { 8 };

const FORKED: u32 = 0;
const RUNNING: u32 = 1;
const CLOSED: u32 = 2;
const POISONED: u32 = 3;

#[derive(Debug)]
struct Bucket {
    /// Threads asleep, or about to be, on `changed`.
    threads: AtomicU32,
    tasks: AtomicU32,
    changed: Futex,
    list: Mutex<Tasks>,
}

impl Bucket {
    fn wake_threads(&self) {
        if self.threads.load(Ordering::SeqCst) != 0 {
            self.changed.bump();
            self.changed.wake_all();
        }
    }
}

/// What the I/O thread keeps from one waking to the next, so that waking allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    tasks: Vec<Task>,
}

#[derive(Debug)]
pub(crate) struct Durable {
    end: CachePadded<AtomicU64>,
    status: Status,
    failure: OnceLock<Arc<Failure>>,
    /// Whether groups stay unsynced until a waiter requests a sync, or until a time.
    on_demand: bool,
    /// Positions below this are to be synced although the mode would not sync them yet.
    demand: CachePadded<AtomicU64>,
    buckets: Box<[CachePadded<Bucket>]>,
    ids: AtomicU64,
    /// Records in the last group: how many threads may be waiting together. Only a hint.
    crowd: CachePadded<AtomicU32>,
    relay: CachePadded<Relay>,
    pub(crate) listeners: EndListeners,
}

/// How a waiter is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registrar {
    /// A task, most likely of the calling thread. Another task of that thread may wake it.
    Task,
    /// No polling task: the I/O thread wakes it directly.
    Nobody,
}

/// Whether everything below a position is durable.
#[derive(Debug)]
pub(crate) enum Verdict {
    Durable,
    NotYet,
    Failed(Error),
}

impl Durable {
    /// `on_demand`: see [`Durable::demand`].
    pub(crate) fn new(end: u64, on_demand: bool) -> Self {
        let bucket = || {
            CachePadded::new(Bucket {
                threads: AtomicU32::new(0),
                tasks: AtomicU32::new(0),
                changed: Futex::new(0),
                list: Mutex::new(Tasks::default()),
            })
        };
        Durable {
            end: CachePadded::new(AtomicU64::new(end)),
            status: Status::new(RUNNING),
            failure: OnceLock::new(),
            on_demand,
            demand: CachePadded::new(AtomicU64::new(0)),
            buckets: (0..BUCKETS).map(|_| bucket()).collect(),
            ids: AtomicU64::new(0),
            crowd: CachePadded::new(AtomicU32::new(0)),
            relay: CachePadded::new(Relay::new()),
            listeners: EndListeners::new(),
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::SeqCst)
    }

    /// `Ok` while the log takes appends.
    #[inline]
    pub(crate) fn check_running(&self) -> Result<(), Error> {
        if self.status.load() == RUNNING { Ok(()) } else { Err(self.why_not_running()) }
    }

    #[cold]
    pub(crate) fn why_not_running(&self) -> Error {
        match (self.status.load(), self.failure.get()) {
            (FORKED, _) => Error::Forked,
            (POISONED, Some(cause)) => Error::Poisoned { cause: Arc::clone(cause) },
            _ => Error::Closed,
        }
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.status.load() == POISONED
    }

    /// Whether this is a child of fork(), in which the I/O thread does not exist.
    pub(crate) fn is_forked(&self) -> bool {
        self.status.load() == FORKED
    }

    /// Sets the latch. Returns true for the first failure, which stays. The caller then wakes every
    /// waiter.
    pub(crate) fn poison(&self, failure: Failure) -> bool {
        let first = self.failure.set(Arc::new(failure)).is_ok();
        if first {
            self.status.store(POISONED);
        }
        first
    }

    /// Reports to the listeners that the log has ended, and why. On the I/O thread, once no group
    /// becomes durable any more.
    pub(crate) fn end_listeners(&self) {
        self.listeners.end(&self.why_not_running());
    }

    /// Takes no more appends. A poisoned log stays poisoned.
    pub(crate) fn close(&self) {
        self.status.change(RUNNING, CLOSED);
    }

    /// Whether appends have ended by a close, and not by a failure.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.status.load() == CLOSED
    }

    pub(crate) fn verdict(&self, lsn: u64) -> Verdict {
        if self.end() > lsn {
            Verdict::Durable
        } else if self.is_poisoned() || self.is_forked() {
            Verdict::Failed(self.why_not_running())
        } else {
            Verdict::NotYet
        }
    }

    /// Requests a sync of everything below `end`, whatever the mode. True: the caller must ring the
    /// bell. Where every group is synced anyway, there is nothing to request.
    pub(crate) fn demand(&self, end: u64) -> bool {
        self.on_demand && self.demand.fetch_max(end, Ordering::SeqCst) < end
    }

    pub(crate) fn demanded(&self) -> u64 {
        self.demand.load(Ordering::SeqCst)
    }

    fn bucket(&self, lsn: u64) -> &Bucket {
        &self.buckets[(lsn >> BLOCK_BITS) as usize % BUCKETS]
    }

    /// Sleeps until `lsn` is durable or the log has failed.
    pub(crate) fn wait(&self, lsn: u64) -> Result<(), Error> {
        self.give_way(lsn);
        let bucket = self.bucket(lsn);
        loop {
            bucket.threads.fetch_add(1, Ordering::SeqCst);
            let seen = bucket.changed.load();
            model_fence();
            let verdict = self.verdict(lsn);
            if matches!(verdict, Verdict::NotYet) {
                bucket.changed.wait(seen, None);
            }
            bucket.threads.fetch_sub(1, Ordering::SeqCst);
            match verdict {
                Verdict::Durable => return Ok(()),
                Verdict::Failed(e) => return Err(e),
                Verdict::NotYet => {}
            }
        }
    }

    /// Sleeps until the end has passed `lsn`, which need not have been appended, or `over`, or the
    /// time is up.
    pub(crate) fn wait_to_pass(&self, lsn: u64, until: Option<Instant>, over: impl Fn() -> bool) {
        let bucket = self.bucket(lsn);
        loop {
            bucket.threads.fetch_add(1, Ordering::SeqCst);
            let seen = bucket.changed.load();
            model_fence();
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let ended = !matches!(self.verdict(lsn), Verdict::NotYet) || over();
            if !ended && left != Some(Duration::ZERO) {
                bucket.changed.wait(seen, left);
            }
            bucket.threads.fetch_sub(1, Ordering::SeqCst);
            if ended || left == Some(Duration::ZERO) {
                return;
            }
        }
    }

    /// In a crowd, yields before the thread sleeps. The other threads have records for the next
    /// group, and by the time those are appended this one's group is often durable. Yielding costs
    /// a switch, and so does sleeping. Yielding saves the wake-up, which costs the I/O thread more.
    /// It keeps no runnable thread from running.
    fn give_way(&self, lsn: u64) {
        if self.crowd.load(Ordering::Relaxed) >= CROWD {
            for _ in 0..YIELDS {
                yield_now();
                if self.end.load(Ordering::Relaxed) > lsn {
                    return;
                }
            }
        }
    }

    /// Sets the number of records in the last group, for the waiters.
    pub(crate) fn set_crowd(&self, records: u32) {
        self.crowd.store(records, Ordering::Relaxed);
    }

    /// Registers a task to be woken when `lsn` is durable or the log has failed, and says how it
    /// stands after that. `NotYet` comes with the ticket to [`Durable::forget`].
    pub(crate) fn register(&self, lsn: u64, waker: &Waker, by: Registrar) -> (Verdict, u64) {
        let bucket = self.bucket(lsn);
        let waker = Some(waker.clone());
        let id = {
            let mut list = lock(&bucket.list);
            let id = self.ids.fetch_add(1, Ordering::Relaxed);
            let thread = match by {
                Registrar::Task => this_thread(),
                Registrar::Nobody => usize::MAX - id as usize,
            };
            list.enter(Task { lsn, id, thread, waker });
            bucket.tasks.store(list.len() as u32, Ordering::SeqCst);
            id
        };
        model_fence();
        let verdict = self.verdict(lsn);
        if !matches!(verdict, Verdict::NotYet) {
            self.forget(lsn, id);
        }
        (verdict, id)
    }

    /// Replaces the waker of a registered task. False: it has been woken already.
    pub(crate) fn update(&self, lsn: u64, id: u64, waker: &Waker) -> bool {
        let place = &self.bucket(lsn).list;
        let same = lock(place).waker(id).map(|old| old.will_wake(waker));
        if same != Some(false) {
            return same.is_some();
        }
        let mut new = waker.clone();
        let replaced = match lock(place).waker(id) {
            Some(old) => {
                std::mem::swap(old, &mut new);
                true
            }
            None => false,
        };
        // The old one: its drop is user code too.
        drop(new);
        replaced
    }

    /// Removes a task that does not wait any more.
    pub(crate) fn forget(&self, lsn: u64, id: u64) {
        let bucket = self.bucket(lsn);
        let mut list = lock(&bucket.list);
        let removed = list.leave(id);
        bucket.tasks.store(list.len() as u32, Ordering::SeqCst);
        drop(list);
        // A waker's drop is user code too.
        drop(removed);
    }

    /// Moves the durable end. Waiters are woken by [`Durable::wake`], later.
    pub(crate) fn advance(&self, to: u64) {
        debug_assert!(to >= self.end());
        self.end.store(to, Ordering::SeqCst);
        model_fence();
    }

    /// Whether a waiter waits for a position in `[from, to)`.
    pub(crate) fn has_waiters(&self, from: u64, to: u64) -> bool {
        self.touched(from, to).any(|bucket| {
            bucket.threads.load(Ordering::SeqCst) != 0 || bucket.tasks.load(Ordering::SeqCst) != 0
        })
    }

    /// Wakes the threads that wait for a position in `[from, to)`, which runs no user code. False:
    /// tasks wait too.
    pub(crate) fn wake_threads(&self, from: u64, to: u64) -> bool {
        model_fence();
        let mut all = true;
        for bucket in self.touched(from, to) {
            bucket.wake_threads();
            all &= bucket.tasks.load(Ordering::SeqCst) == 0;
        }
        all
    }

    fn touched(&self, from: u64, to: u64) -> impl Iterator<Item = &Bucket> {
        let first = from >> BLOCK_BITS;
        let count = (to.saturating_sub(1) >> BLOCK_BITS).saturating_sub(first) + 1;
        (first..first + count.min(BUCKETS as u64))
            .map(|block| &*self.buckets[block as usize % BUCKETS])
    }

    /// Wakes the waiters for a position in `[from, to)`. Tasks may be left for each other to wake:
    /// then [`Durable::has_left_tasks`] holds until they are woken.
    pub(crate) fn wake(&self, from: u64, to: u64, ready: &mut Ready) {
        let failed = !matches!(self.status.load(), RUNNING | CLOSED);
        self.wake_from(from, to, ready, failed);
    }

    fn wake_from(&self, from: u64, to: u64, ready: &mut Ready, everybody: bool) {
        model_fence();
        for bucket in self.touched(from, to) {
            bucket.wake_threads();
            if bucket.tasks.load(Ordering::SeqCst) != 0 {
                let end = self.end();
                let mut list = lock(&bucket.list);
                ready.tasks.extend(list.take(|t| everybody || t.lsn < end));
                bucket.tasks.store(list.len() as u32, Ordering::SeqCst);
            }
        }
        self.wake_tasks(ready);
    }

    fn wake_tasks(&self, ready: &mut Ready) {
        let mut tasks = ready.tasks.drain(..);
        let all = tasks.as_slice();
        let one_thread = all.first().is_some_and(|f| all.iter().all(|t| t.thread == f.thread));
        // Tasks of several threads belong to several executors, or to one that has work for each of
        // its threads: measured, they are better woken from here.
        if all.len() > ONE_BY_ONE && one_thread {
            let chosen = tasks.next();
            self.relay.put(tasks.filter_map(|t| t.waker));
            if let Some(waker) = chosen.and_then(|t| t.waker) {
                wake_quietly(waker);
            }
        } else {
            tasks.filter_map(|t| t.waker).for_each(wake_quietly);
        }
    }

    /// Wakes the tasks that were left to each other and have not been woken yet.
    pub(crate) fn pass_on(&self) {
        self.relay.pass_on();
    }

    pub(crate) fn has_left_tasks(&self) -> bool {
        !self.relay.is_empty()
    }

    /// Wakes every waiter, after a failure or at the end.
    pub(crate) fn wake_all(&self) {
        self.wake_from(0, u64::MAX, &mut Ready::default(), true);
        self.pass_on();
    }
}
