//! Threads that the logs of a process share. One pool steps their segment keepers, another their
//! watchdogs.
//!
//! 1. The first task of a pool starts its first thread. After the last task the threads end.
//! 2. One thread steps a task at a time. Ready tasks get their steps in the order in which they
//!    became ready.
//! 3. A task that is ready waits for at most [`PATIENCE`] while other tasks are in long steps: then
//!    a further thread steps it. After each start of a step, a thread is idle, or the pool has as
//!    many threads as tasks. The pool never has more threads than tasks, or two more than run.
//! 4. A child of `fork()` has a pool of its own. It takes no lock of its parent's pool, which a
//!    lost thread may hold.
//! 5. A panic in a step ends its task and no other.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::sys::fork;
use crate::sys::{reentrancy, scheduling};

/// How long a ready task waits for a thread that is in a step of another task.
const PATIENCE: Duration = Duration::from_millis(5);

/// When a task is stepped again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextStep {
    /// After the other tasks that are ready.
    Now,
    /// After this time, whatever rings meanwhile.
    After(Duration),
    /// When its bell rings, or after this time.
    OnBell(Option<Duration>),
    /// Never: the task is over.
    Over,
}

/// Work of one log, stepped by a pool.
pub(crate) trait SharedTask: Send {
    /// Does a bounded piece of work.
    fn step(&mut self) -> NextStep;
    /// A step panicked. The task is not stepped again.
    fn panicked(&mut self);
}

/// The pools of one kind: of this process, and of its ancestors by `fork()`.
#[derive(Debug)]
pub(crate) struct Workers {
    /// Of the threads.
    name: &'static str,
    current: AtomicPtr<Pool>,
}

/// The threads that step the segment keepers of all logs.
pub(crate) static SEGMENT_KEEPERS: Workers = Workers::new("ringwal-segments");
/// The threads that step the watchdogs of all logs. They do no I/O.
pub(crate) static WATCHDOGS: Workers = Workers::new("ringwal-watch");

struct Pool {
    name: &'static str,
    /// The process that created the pool.
    generation: u32,
    schedule: Mutex<Schedule>,
    /// The schedule has changed.
    changed: Condvar,
    /// A task is over.
    over: Condvar,
}

#[derive(Default)]
struct Schedule {
    tasks: BTreeMap<u64, Entry>,
    /// Tasks that are ready, and since when.
    ready: VecDeque<(u64, Instant)>,
    ids: u64,
    /// Threads that are in a step.
    running: usize,
    threads: BTreeMap<u64, JoinHandle<()>>,
    /// Grows when the last task is over. Threads of an earlier cohort end.
    cohort: u64,
    /// Threads of earlier cohorts that are still to be joined.
    ended: Vec<JoinHandle<()>>,
}

struct Entry {
    /// `None` while a thread steps it.
    task: Option<Box<dyn SharedTask>>,
    state: TaskState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TaskState {
    Ready,
    Running { rung: bool },
    Waiting { until: Option<Instant>, heeds_bell: bool },
}

/// One task of a pool, for the log that it belongs to.
#[derive(Clone, Copy)]
pub(crate) struct TaskHandle {
    pool: &'static Pool,
    id: u64,
}

impl std::fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskHandle").field("of", &self.pool.name).field("id", &self.id).finish()
    }
}

impl Workers {
    const fn new(name: &'static str) -> Self {
        Workers { name, current: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Adds a task. `make` gets its handle before the first step, and must not block.
    pub(crate) fn add(
        &self,
        make: impl FnOnce(TaskHandle) -> Box<dyn SharedTask>,
    ) -> Result<TaskHandle> {
        let pool = self.of_this_process();
        let mut schedule = pool.lock();
        schedule.ids += 1;
        let handle = TaskHandle { pool, id: schedule.ids };
        let task = Some(make(handle));
        schedule.tasks.insert(handle.id, Entry { task, state: TaskState::Ready });
        schedule.ready.push_back((handle.id, Instant::now()));
        if schedule.lacks_thread()
            && let Err(e) = pool.start_thread(&mut schedule)
            && schedule.threads.is_empty()
        {
            schedule.ready.retain(|(id, _)| *id != handle.id);
            let entry = schedule.tasks.remove(&handle.id);
            drop(schedule);
            drop(entry);
            return Err(e);
        }
        drop(schedule);
        pool.changed.notify_all();
        Ok(handle)
    }

    fn of_this_process(&self) -> &'static Pool {
        let generation = fork::generation();
        loop {
            let found = self.current.load(Ordering::Acquire);
            // SAFETY: null, or from Box::leak below: a pool is never freed, because threads and
            // handles refer to it. Release and Acquire order its content before this look.
            if let Some(pool) = unsafe { found.as_ref() }
                && pool.generation == generation
            {
                return pool;
            }
            let new = Box::into_raw(Box::new(Pool {
                name: self.name,
                generation,
                schedule: Mutex::default(),
                changed: Condvar::new(),
                over: Condvar::new(),
            }));
            let order = (Ordering::AcqRel, Ordering::Acquire);
            if self.current.compare_exchange(found, new, order.0, order.1).is_err() {
                // SAFETY: from Box::into_raw above, and no other thread has seen it.
                drop(unsafe { Box::from_raw(new) });
            }
        }
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Schedule> {
        // Valid between any two statements: no task is stepped under the lock.
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_thread(&'static self, schedule: &mut Schedule) -> Result<()> {
        schedule.ids += 1;
        let (number, cohort) = (schedule.ids, schedule.cohort);
        let thread = spawn(self.name, move || self.work(number, cohort))?;
        schedule.threads.insert(number, thread);
        Ok(())
    }

    /// Steps tasks until the cohort is over.
    fn work(&'static self, number: u64, cohort: u64) {
        let mut schedule = self.lock();
        while schedule.cohort == cohort {
            let now = Instant::now();
            schedule.wake_due(now);
            if let Some((id, task)) = schedule.take(now) {
                if schedule.lacks_thread() {
                    // Without it, other tasks wait longer than they should.
                    let _ = self.start_thread(&mut schedule);
                }
                drop(schedule);
                // Another thread watches the time from now on.
                self.changed.notify_all();
                let stepped = step(task);
                schedule = self.lock();
                schedule.put_back(id, stepped, Instant::now());
                if !schedule.tasks.contains_key(&id) {
                    self.over.notify_all();
                    self.changed.notify_all();
                }
                if schedule.has_idle_threads() && schedule.cohort == cohort {
                    schedule.threads.remove(&number);
                    drop(schedule);
                    // The task may be ready again, and the idle threads do not know.
                    self.changed.notify_all();
                    return;
                }
                continue;
            }
            schedule = match schedule.next_time() {
                Some(at) => {
                    let pause = at.saturating_duration_since(now);
                    let waited = self.changed.wait_timeout(schedule, pause);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(schedule).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// Steps a task. Returns it, unless it is over.
fn step(mut task: Box<dyn SharedTask>) -> (Option<Box<dyn SharedTask>>, NextStep) {
    match catch_unwind(AssertUnwindSafe(|| task.step())) {
        Ok(NextStep::Over) => {}
        Ok(next) => return (Some(task), next),
        Err(_) => task.panicked(),
    }
    // What the task holds is released before its log learns that it is over.
    drop(task);
    (None, NextStep::Over)
}

impl Schedule {
    /// Whether no thread is idle although a task may become ready.
    fn lacks_thread(&self) -> bool {
        self.threads.len() <= self.running && self.threads.len() < self.tasks.len()
    }

    /// Whether two other threads are idle.
    fn has_idle_threads(&self) -> bool {
        self.threads.len() > self.running + 2
    }

    fn make_ready(&mut self, id: u64, now: Instant) {
        if let Some(entry) = self.tasks.get_mut(&id) {
            entry.state = TaskState::Ready;
            self.ready.push_back((id, now));
        }
    }

    /// Makes the tasks ready whose time has come.
    fn wake_due(&mut self, now: Instant) {
        let is_due = |entry: &Entry| matches!(entry.state, TaskState::Waiting { until: Some(at), .. } if at <= now);
        let due: Vec<_> =
            self.tasks.iter().filter(|(_, entry)| is_due(entry)).map(|(&id, _)| id).collect();
        for id in due {
            self.make_ready(id, now);
        }
    }

    /// Takes the next task, unless a thread that is in a step may come to it soon.
    fn take(&mut self, now: Instant) -> Option<(u64, Box<dyn SharedTask>)> {
        let &(id, since) = self.ready.front()?;
        if self.running > 0 && now.saturating_duration_since(since) < PATIENCE {
            return None;
        }
        self.ready.pop_front();
        let entry = self.tasks.get_mut(&id)?;
        entry.state = TaskState::Running { rung: false };
        let task = entry.task.take()?;
        self.running += 1;
        Some((id, task))
    }

    /// Puts a task back after its step. Removes a task that is over.
    fn put_back(
        &mut self,
        id: u64,
        stepped: (Option<Box<dyn SharedTask>>, NextStep),
        now: Instant,
    ) {
        self.running -= 1;
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        let rung = entry.state == TaskState::Running { rung: true };
        let (task, next) = stepped;
        entry.task = task;
        let after = |pause: Duration| now.checked_add(pause);
        match next {
            NextStep::Now => self.make_ready(id, now),
            NextStep::OnBell(_) if rung => self.make_ready(id, now),
            NextStep::After(pause) => {
                // A ring during the pause changes nothing, and the step after it sees everything.
                entry.state = TaskState::Waiting { until: after(pause), heeds_bell: false };
            }
            NextStep::OnBell(timeout) => {
                let until = timeout.and_then(after);
                entry.state = TaskState::Waiting { until, heeds_bell: true };
            }
            NextStep::Over => {
                self.tasks.remove(&id);
                if self.tasks.is_empty() {
                    self.cohort += 1;
                    self.ended.extend(std::mem::take(&mut self.threads).into_values());
                }
            }
        }
    }

    /// When an idle thread has to look again.
    fn next_time(&self) -> Option<Instant> {
        let waiting = self.tasks.values().filter_map(|entry| match entry.state {
            TaskState::Waiting { until, .. } => until,
            TaskState::Ready | TaskState::Running { .. } => None,
        });
        let patience = self.ready.front().map(|(_, since)| *since + PATIENCE);
        waiting.chain(patience).min()
    }

    /// True: an idle thread is to be woken.
    fn ring(&mut self, id: u64, now: Instant) -> bool {
        let Some(entry) = self.tasks.get_mut(&id) else { return false };
        match &mut entry.state {
            TaskState::Running { rung } => *rung = true,
            TaskState::Waiting { heeds_bell: true, .. } => {
                self.make_ready(id, now);
                return true;
            }
            TaskState::Ready | TaskState::Waiting { .. } => {}
        }
        false
    }
}

impl TaskHandle {
    /// Has the task stepped soon. Does nothing in a child of `fork()`.
    pub(crate) fn ring(self) {
        if self.pool.generation != fork::generation() {
            return;
        }
        if self.pool.lock().ring(self.id, Instant::now()) {
            self.pool.changed.notify_all();
        }
    }

    /// Waits until the task is over, at most for this time. False: it is not.
    pub(crate) fn wait(self, timeout: Option<Duration>) -> bool {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut schedule = self.pool.lock();
        while schedule.tasks.contains_key(&self.id) {
            schedule = match until {
                None => self.pool.over.wait(schedule).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    let waited = self.pool.over.wait_timeout(schedule, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let ended = std::mem::take(&mut schedule.ended);
        drop(schedule);
        // They are in no step, and end at once.
        for thread in ended {
            let _ = thread.join();
        }
        true
    }
}

/// Starts a thread of the log. Calls that wait for the log are rejected on it.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let body = move || {
        scheduling::block_signals();
        reentrancy::serve();
        work();
    };
    let spawned = std::thread::Builder::new().name(name.into()).spawn(body);
    spawned.map_err(|e| Error::io("start thread", name, e))
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Reports each step, and ends when its sender is gone.
    struct Counting(Sender<()>, Receiver<NextStep>);

    impl SharedTask for Counting {
        fn step(&mut self) -> NextStep {
            let _ = self.0.send(());
            self.1.recv().unwrap_or(NextStep::Over)
        }

        fn panicked(&mut self) {}
    }

    /// A task whose steps return what is sent, with the reports of its steps.
    fn task(workers: &Workers) -> (TaskHandle, Receiver<()>, Sender<NextStep>) {
        let (stepped, steps) = channel();
        let (go_on, next) = channel();
        let handle = workers.add(|_| Box::new(Counting(stepped, next))).unwrap();
        (handle, steps, go_on)
    }

    #[test]
    fn step_that_blocks_holds_up_no_other_task_and_threads_end_with_the_last() {
        static POOL: Workers = Workers::new("workers-test-a");
        let all: Vec<_> = (0..5).map(|_| task(&POOL)).collect();
        // Each blocks in its first step, at the same time as all others.
        for (_, steps, _) in &all {
            steps.recv_timeout(LONG).unwrap();
        }
        let pool = POOL.of_this_process();
        assert_eq!(pool.lock().threads.len(), 5);
        for (handle, _, go_on) in all {
            drop(go_on);
            assert!(handle.wait(Some(LONG)));
        }
        let schedule = pool.lock();
        assert!(schedule.threads.is_empty() && schedule.ended.is_empty());
    }

    #[test]
    fn ring_during_a_step_leads_to_another_step() {
        static POOL: Workers = Workers::new("workers-test-b");
        let (handle, steps, go_on) = task(&POOL);
        steps.recv_timeout(LONG).unwrap();
        handle.ring();
        go_on.send(NextStep::OnBell(None)).unwrap();
        steps.recv_timeout(LONG).unwrap();
        go_on.send(NextStep::OnBell(None)).unwrap();
        // Whether it waits already or not, the bell is heard.
        handle.ring();
        steps.recv_timeout(LONG).unwrap();
        go_on.send(NextStep::OnBell(Some(Duration::from_millis(1)))).unwrap();
        steps.recv_timeout(LONG).unwrap();
        assert!(!handle.wait(Some(Duration::from_millis(1))));
        drop(go_on);
        assert!(handle.wait(Some(LONG)));
    }

    #[test]
    fn panic_in_a_step_ends_its_task_and_no_other() {
        static POOL: Workers = Workers::new("workers-test-c");
        struct Panicking(Sender<()>);
        impl SharedTask for Panicking {
            fn step(&mut self) -> NextStep {
                std::panic::resume_unwind(Box::new("a defect"))
            }
            fn panicked(&mut self) {
                let _ = self.0.send(());
            }
        }
        let (other, steps, go_on) = task(&POOL);
        let (send, panicked) = channel();
        let handle = POOL.add(|_| Box::new(Panicking(send))).unwrap();
        assert!(handle.wait(Some(LONG)));
        panicked.recv_timeout(LONG).unwrap();
        go_on.send(NextStep::Now).unwrap();
        for _ in 0..2 {
            steps.recv_timeout(LONG).unwrap();
        }
        drop(go_on);
        assert!(other.wait(Some(LONG)));
    }

    #[test]
    fn ready_tasks_are_stepped_in_turn_and_a_long_step_lets_another_thread_in() {
        let mut schedule = Schedule::default();
        let begun = Instant::now();
        for id in 1..=3 {
            let (stepped, next) = (channel().0, channel().1);
            let task: Option<Box<dyn SharedTask>> = Some(Box::new(Counting(stepped, next)));
            schedule.tasks.insert(id, Entry { task, state: TaskState::Ready });
            schedule.ready.push_back((id, begun));
        }
        let (first, task) = schedule.take(begun).unwrap();
        assert_eq!((first, schedule.next_time()), (1, Some(begun + PATIENCE)));
        assert!(schedule.take(begun).is_none(), "the first thread may come to it soon");
        schedule.put_back(first, (Some(task), NextStep::Now), begun);
        let (second, _) = schedule.take(begun).unwrap();
        let (third, _) = schedule.take(begun + PATIENCE).unwrap();
        assert_eq!((second, third, schedule.ready[0].0), (2, 3, 1));
    }
}
