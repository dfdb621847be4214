//! The I/O loop and its sleep under random schedules, with producers that wait for every record and
//! a backend that completes operations when the loop waits.
//!
//! The clock stands still, so no time is ever due. A lost wake-up is then a deadlock, which shuttle
//! reports. Where groups gather, each look at the clock takes a microsecond, so that a wait ends.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::log_for_tests::{self, BLOCK};
use crate::engine::append::Appender;
use crate::engine::state::LogState;
use crate::io::backend::{Backend, Completion, Method, Part, WriteRequest};
use crate::io::fs::File;
use crate::options::Durability;
use crate::ring::Wake;
use crate::sys::clock::Clock;
use crate::sys::sync::loom;
use loom::sync::{Arc as ModelArc, Notify};
use loom::thread;

const PRODUCERS: u64 = 3;
const RECORDS: u64 = 6;

/// Nanoseconds so far, and those that a look takes.
#[derive(Debug)]
struct ModelClock(AtomicU64, u64);

impl Clock for ModelClock {
    fn now(&self) -> u64 {
        self.0.fetch_add(self.1, Relaxed)
    }

    fn wall(&self) -> u64 {
        0
    }
}

#[derive(Debug, Clone)]
struct Bell(ModelArc<Notify>);

impl Wake for Bell {
    fn wake(&self) {
        self.0.notify();
    }
}

/// Completes submitted operations in order, one for each wait.
#[derive(Debug)]
struct Patient {
    queued: VecDeque<Completion>,
    done: VecDeque<Completion>,
    bell: Bell,
}

impl Backend for Patient {
    fn attach(&mut self, _: usize, _: &Arc<dyn File>) -> io::Result<()> {
        Ok(())
    }
    fn detach(&mut self, _: usize) {}
    unsafe fn write(&mut self, w: WriteRequest) {
        let completion = |part, n| Completion { token: w.token, part, result: Ok(n) };
        self.queued.push_back(completion(Part::Write, w.len));
        if w.method == Method::Linked {
            self.queued.push_back(completion(Part::Sync, 0));
        }
    }
    fn sync(&mut self, token: u64, _: usize) {
        self.queued.push_back(Completion { token, part: Part::Sync, result: Ok(0) });
    }
    fn submit(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn wait(&mut self, _: Option<Duration>) -> io::Result<()> {
        thread::yield_now();
        match self.queued.pop_front() {
            Some(completion) => self.done.push_back(completion),
            None if self.done.is_empty() => self.bell.0.wait(),
            None => {}
        }
        Ok(())
    }
    fn reap(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }
    fn waker(&self) -> Box<dyn Wake> {
        Box::new(self.bell.clone())
    }
}

/// Appends and waits. Half of the producers wait for each record, the others for every second one.
fn produce(state: &LogState, producer: u64) {
    for n in 0..RECORDS {
        let len = 1024 * (1 + (producer + n) % 3);
        let ring = &state.ring;
        let mut room = ring.try_reserve(len).or_else(|_| ring.reserve_or_wait(len)).unwrap();
        let lsn = room.lsn();
        room.bytes();
        room.publish(1);
        if producer % 2 == 0 || n % 2 == 1 {
            if state.durable.demand(lsn + 1) {
                ring.doorbell.ring();
            }
            state.durable.wait(lsn).unwrap();
            assert!(state.durable.end() > lsn);
        }
    }
}

/// Commits as `append_durable`, `append` with `wait_durable`, and `append` with `sync` do.
fn commit(state: &Arc<LogState>, producer: u64) {
    let appender = Appender::new(Arc::clone(state), &[0; 16], 1, 4096);
    for n in 0..RECORDS {
        let payload = [0; 100];
        let lsn = match (producer + n) % 3 {
            0 => appender.append_durable(None, &payload).unwrap(),
            1 => {
                let lsn = appender.append(&payload).unwrap();
                appender.wait_durable(lsn.as_u64()).unwrap();
                lsn
            }
            _ => {
                let lsn = appender.append(&payload).unwrap();
                appender.sync().unwrap();
                lsn
            }
        };
        assert!(state.durable.end() > lsn.as_u64());
    }
}

fn run(durability: Durability, parks: bool, gathers: bool) {
    let state = log_for_tests::state(durability, 2);
    let io = {
        let state = Arc::clone(&state);
        let clock = Arc::new(ModelClock(AtomicU64::new(0), if gathers { 1000 } else { 0 }));
        let backend = Box::new(Patient {
            queued: VecDeque::new(),
            done: VecDeque::new(),
            bell: Bell(ModelArc::new(Notify::new())),
        });
        let how = (2, parks);
        let mut io_loop =
            log_for_tests::io_loop(&state, durability, clock, backend, Method::Linked, how);
        if gathers {
            io_loop.gather_always();
        }
        let io_loop = Box::new(io_loop);
        thread::spawn(move || super::run(&state, io_loop))
    };
    // As opening does: no producer appends before the epoch group is durable.
    state.durable.wait(u64::from(BLOCK)).unwrap();
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let state = Arc::clone(&state);
            thread::spawn(move || match parks {
                true => commit(&state, producer),
                false => produce(&state, producer),
            })
        })
        .collect();
    for producer in producers {
        producer.join().unwrap();
    }
    state.begin_close();
    io.join().unwrap();
    assert!(!state.durable.is_poisoned());
    assert!(state.durable.end() >= state.ring.reserved_end(), "what was appended is durable");
    assert_eq!(state.counters.records.get(), PRODUCERS * RECORDS);
}

fn check(durability: Durability, parks: bool, gathers: bool) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || run(durability, parks, gathers));
}

#[test]
fn loom_io_loop_that_syncs_every_group_loses_no_wake_up() {
    check(Durability::EveryGroup, false, false);
}

#[test]
fn loom_io_loop_that_syncs_on_demand_loses_no_wake_up() {
    check(Durability::Manual, false, false);
}

#[test]
fn loom_committers_that_step_the_loop_lose_no_wake_up() {
    check(Durability::EveryGroup, true, false);
}

#[test]
fn loom_committers_that_step_the_loop_and_sync_on_demand_lose_no_wake_up() {
    check(Durability::Manual, true, false);
}

#[test]
fn loom_io_loop_whose_groups_gather_loses_no_wake_up() {
    check(Durability::EveryGroup, true, true);
}
