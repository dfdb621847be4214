//! The I/O loop and its sleep under random schedules, with producers that wait for every record and
//! a backend that completes operations when the loop waits.
//!
//! The clock stands still, so no time is ever due. A lost wake-up is then a deadlock, which shuttle
//! reports.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::{IoLoop, Start};
use crate::cells::Cells;
use crate::durable::Durable;
use crate::engine::append::Appender;
use crate::engine::assemble::{IoStart, ReadyBackend};
use crate::engine::log_view::LogView;
use crate::engine::state::LogState;
use crate::format::{EpochId, Link, SegmentHeader};
use crate::io::backend::{
    Backend, ChosenMethod, Completion, Method, MethodReason, Part, WriteRequest,
};
use crate::io::fs::{Access, Dir, Entry, File};
use crate::options::{Durability, Options};
use crate::positions::{Consumers, TagFloors};
use crate::ring::{Placement, Ring, Wake};
use crate::segment::cuts::Cuts;
use crate::segment::recent::RecentGroups;
use crate::segment::{Names, SegmentTable};
use crate::sys::clock::Clock;
use crate::sys::sync::loom;
use loom::sync::{Arc as ModelArc, Notify};
use loom::thread;
use std::sync::Arc;

const BLOCK: u32 = 4096;
const SEGMENT: u64 = 64 << 20;
const PRODUCERS: u64 = 3;
const RECORDS: u64 = 6;

#[derive(Debug)]
struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> u64 {
        0
    }

    fn wall(&self) -> u64 {
        0
    }
}

/// A directory and a file that store nothing: the loop only passes them on.
#[derive(Debug)]
struct Nothing;

impl Dir for Nothing {
    fn list(&self) -> io::Result<Vec<Entry>> {
        Ok(Vec::new())
    }
    fn open(&self, name: &str, _: Access) -> io::Result<Arc<dyn File>> {
        // There are no floors of tags.
        if name.ends_with(".streams") {
            Err(io::ErrorKind::NotFound.into())
        } else {
            Ok(Arc::new(Nothing))
        }
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn block_size(&self) -> u32 {
        BLOCK
    }
    fn path_of(&self, name: &str) -> PathBuf {
        name.into()
    }
}

impl File for Nothing {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }
    fn write_at(&self, buf: &[u8], _: u64) -> io::Result<usize> {
        Ok(buf.len())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(SEGMENT)
    }
    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }
    fn write_zeroes(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn is_direct(&self) -> bool {
        false
    }
    fn raw_fd(&self) -> Option<i32> {
        None
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

fn state(durability: Durability) -> Arc<LogState> {
    let first = u64::from(BLOCK);
    let placement = Placement {
        next: first,
        segment_end: SEGMENT,
        prepared_end: SEGMENT,
        segment_size: SEGMENT,
        block: first,
    };
    let dir: Arc<dyn Dir> = Arc::new(Nothing);
    let names = Names::new("wal");
    let consumers = Consumers::load(&*dir, &names, &[], [0; 16], None).unwrap();
    let cells = Cells::load(&*dir, &names, false, [0; 16]).unwrap();
    let floors = TagFloors::load(&*dir, &names, [0; 16]).unwrap();
    let files =
        LogView::new(SegmentTable::new([], []), &dir, &names, RecentGroups::new(0), Cuts::new());
    let ring = Ring::new(2 * BLOCK, 2, placement);
    let durable = Durable::new(first, durability != Durability::EveryGroup);
    Arc::new(LogState::new(ring, durable, files, (consumers, floors, cells), 0))
}

fn io_loop(state: &Arc<LogState>, durability: Durability, parks: bool) -> IoLoop {
    let backend = Patient {
        queued: VecDeque::new(),
        done: VecDeque::new(),
        bell: Bell(ModelArc::new(Notify::new())),
    };
    let active = SegmentHeader {
        log_id: [0; 16],
        block: BLOCK,
        size: SEGMENT,
        base: 0,
        max_group: 2 * BLOCK,
        created_at: 0,
        app_version: 0,
    };
    let start = Start {
        log_id: [0; 16],
        epoch: EpochId { counter: 1, nonce: 0 },
        link: Link::START,
        epoch_waits: false,
        replaceable: None,
        clean: false,
        active,
        active_file: Arc::new(Nothing),
        oldest: 0,
    };
    let options = Options {
        durability,
        commit_delay: Duration::ZERO,
        idle_seal: Duration::MAX,
        ..Options::default()
    };
    let io = IoStart {
        state: Arc::clone(state),
        clock: Arc::new(StoppedClock),
        geometry: options.geometry(BLOCK).unwrap(),
        options,
        start,
    };
    let method = ChosenMethod {
        method: Method::Linked,
        alone: Method::Linked,
        reason: MethodReason::Pinned,
        parallel: true,
        detail: String::new(),
    };
    let ready =
        ReadyBackend { backend: Box::new(backend), method, depth: 2, end_file: None, parks };
    io.begin(ready).unwrap()
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

fn run(durability: Durability, parks: bool) {
    let state = state(durability);
    let io = {
        let state = Arc::clone(&state);
        let io_loop = Box::new(io_loop(&state, durability, parks));
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

fn check(durability: Durability, parks: bool) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || run(durability, parks));
}

#[test]
fn loom_io_loop_that_syncs_every_group_loses_no_wake_up() {
    check(Durability::EveryGroup, false);
}

#[test]
fn loom_io_loop_that_syncs_on_demand_loses_no_wake_up() {
    check(Durability::Manual, false);
}

#[test]
fn loom_committers_that_step_the_loop_lose_no_wake_up() {
    check(Durability::EveryGroup, true);
}

#[test]
fn loom_committers_that_step_the_loop_and_sync_on_demand_lose_no_wake_up() {
    check(Durability::Manual, true);
}
