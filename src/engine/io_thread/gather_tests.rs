//! The loop over a device and committers in a time of their own.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::log_for_tests;
use crate::io::backend::{Backend, Completion, Method, Part, WriteRequest};
use crate::io::fs::File;
use crate::options::Durability;
use crate::ring::Wake;
use crate::sys::clock::Clock;

/// Nanoseconds of a commit on the device, and between two committers that come back.
const COMMIT: u64 = 100_000;
const APART: u64 = 5_000;

#[derive(Debug, Default)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn wall(&self) -> u64 {
        0
    }
}

#[derive(Debug)]
struct NoBell;

impl Wake for NoBell {
    fn wake(&self) {}
}

/// Operations in flight, by the time at which they end.
type Flights = Arc<Mutex<VecDeque<(u64, Completion)>>>;

/// A device that commits one group after the other, or all in flight side by side.
#[derive(Debug)]
struct Device {
    clock: Arc<TestClock>,
    flights: Flights,
    serial: bool,
}

impl Backend for Device {
    fn attach(&mut self, _: usize, _: &Arc<dyn File>) -> io::Result<()> {
        Ok(())
    }
    fn detach(&mut self, _: usize) {}
    unsafe fn write(&mut self, w: WriteRequest) {
        let mut flights = self.flights.lock().unwrap();
        let last = flights.back().filter(|_| self.serial).map_or(0, |(at, _)| *at);
        let completion = Completion { token: w.token, part: Part::Write, result: Ok(w.len) };
        flights.push_back((self.clock.now().max(last) + COMMIT, completion));
    }
    fn sync(&mut self, _: u64, _: usize) {}
    fn submit(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn wait(&mut self, _: Option<Duration>) -> io::Result<()> {
        Ok(())
    }
    fn reap(&mut self) -> Option<Completion> {
        let mut flights = self.flights.lock().unwrap();
        let (at, _) = flights.front()?;
        if *at > self.clock.now() {
            return None;
        }
        flights.pop_front().map(|(_, completion)| completion)
    }
    fn waker(&self) -> Box<dyn Wake> {
        Box::new(NoBell)
    }
}

#[derive(Debug, Clone, Copy)]
enum Committer {
    Away { until: u64 },
    Waits { lsn: u64 },
}

/// Commits of a closed loop of committers in 0.3 s, in thousands a second.
fn rate(serial: bool, committers: usize) -> u64 {
    let state = log_for_tests::state(Durability::EveryGroup, 8);
    let clock = Arc::new(TestClock::default());
    let flights = Flights::default();
    let device = Device { clock: Arc::clone(&clock), flights: Arc::clone(&flights), serial };
    let (time, how) = (Arc::<TestClock>::clone(&clock), (4, true));
    let mut io = log_for_tests::io_loop(
        &state,
        Durability::EveryGroup,
        time,
        Box::new(device),
        Method::Dsync,
        how,
    );
    let mut committers = vec![Committer::Away { until: 2 * COMMIT }; committers];
    let (begin, end) = (100_000_000, 400_000_000);
    let mut before = 0;
    loop {
        let now = clock.now();
        for committer in &mut committers {
            if matches!(committer, Committer::Away { until } if *until <= now) {
                let mut room = state.ring.try_reserve(128).unwrap();
                let lsn = room.lsn();
                room.bytes();
                room.publish(1);
                *committer = Committer::Waits { lsn };
            }
        }
        let step = io.step();
        let mut until = now;
        for committer in &mut committers {
            if matches!(committer, Committer::Waits { lsn } if *lsn < state.durable.end()) {
                until += APART;
                *committer = Committer::Away { until };
            }
        }
        if step.progress {
            continue;
        }
        let flight = flights.lock().unwrap().front().map(|(at, _)| *at);
        let back = committers.iter().filter_map(|committer| match committer {
            Committer::Away { until } => Some(*until),
            Committer::Waits { .. } => None,
        });
        let next = back.chain(flight).chain(step.deadline).min().unwrap();
        clock.0.store(next.max(now + 1), Relaxed);
        if now >= begin && before == 0 {
            before = state.counters.records.get();
        }
        if now >= end {
            let commits = state.counters.records.get() - before;
            return commits * 1_000_000 / (end - begin);
        }
    }
}

#[test]
fn committers_share_their_groups_on_a_device_that_commits_one_at_a_time() {
    // At once: groups of a few, each of which waits for three others.
    for (committers, least) in [(2, 15), (4, 26), (8, 45), (32, 100)] {
        let rate = rate(true, committers);
        assert!(rate >= least, "{committers} committers: {rate} k commits/s");
    }
}

#[test]
fn groups_are_side_by_side_on_a_device_that_commits_them_so() {
    for (committers, least) in [(2, 18), (4, 35)] {
        let rate = rate(false, committers);
        assert!(rate >= least, "{committers} committers: {rate} k commits/s");
    }
}
