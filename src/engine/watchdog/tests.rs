use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Watchdog;
use crate::cells::Cells;
use crate::durable::Durable;
use crate::engine::log_view::LogView;
use crate::engine::state::LogState;
use crate::hooks::{OnStall, Stall, StallKind};
use crate::io::fs::sim::SimDisk;
use crate::positions::{Consumers, TagFloors};
use crate::ring::{Placement, Ring};
use crate::segment::cuts::Cuts;
use crate::segment::recent::RecentGroups;
use crate::segment::{Names, SegmentTable};
use crate::stats::in_flight::{InFlight, Place};
use crate::sys::clock::Clock;
use crate::sys::sync::{Ordering, lock};

#[derive(Debug, Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn wall(&self) -> u64 {
        self.now()
    }
}

struct Watched {
    state: Arc<LogState>,
    clock: Arc<Hand>,
    watchdog: Watchdog,
    told: Arc<Mutex<Vec<Stall>>>,
}

impl Watched {
    fn new() -> Self {
        let placement = Placement {
            next: 4096,
            segment_end: 1 << 16,
            prepared_end: 1 << 16,
            segment_size: 1 << 16,
            block: 4096,
        };
        let dir = SimDisk::new().dir();
        let names = Names::new("wal");
        let consumers = Consumers::load(&*dir, &names, &[], [0; 16], None).unwrap();
        let cells = Cells::load(&*dir, &names, false, [0; 16]).unwrap();
        let floors = TagFloors::load(&*dir, &names, [0; 16]).unwrap();
        let table = SegmentTable::new([], Vec::new());
        let files = LogView::new(table, &dir, &names, RecentGroups::new(0), Cuts::new());
        let ring = Ring::new(4096, 2, placement);
        let kept = (consumers, floors, cells);
        let state = LogState::new(ring, Durable::new(4096, false), files, kept, 0);
        let state = Arc::new(state);
        let clock = Arc::new(Hand::default());
        let told = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&told);
        let on_stall = OnStall(Arc::new(move |stall: &Stall| lock(&notes).push(*stall)));
        let watchdog = Watchdog::new(
            Arc::clone(&state),
            Arc::<Hand>::clone(&clock),
            Duration::from_millis(100),
            Some(on_stall),
        );
        Watched { state, clock, watchdog, told }
    }

    fn in_flight(&self) -> &InFlight {
        &self.state.in_flight
    }

    /// Steps the watchdog as often as it requests, for this long.
    fn pass(&mut self, ms: u64) {
        let end = self.clock.now() + ms * 1_000_000;
        while self.clock.now() < end {
            let pause = self.watchdog.look().map_or(end, |p| p.as_nanos() as u64);
            self.clock.0.fetch_add(pause.min(end - self.clock.now()), Ordering::Relaxed);
        }
        self.watchdog.look();
    }

    fn told(&self) -> Vec<(StallKind, u64, bool)> {
        let told = std::mem::take(&mut *lock(&self.told));
        told.iter().map(|s| (s.kind, s.lasted.as_millis() as u64, s.over)).collect()
    }
}

#[test]
fn stall_is_reported_at_the_threshold_at_each_doubling_and_at_its_end() {
    let mut w = Watched::new();
    w.in_flight().set(Place::Sync, 7);
    w.pass(90);
    assert_eq!(w.told(), []);
    assert_eq!(w.state.in_flight.stalled.load(Ordering::Relaxed), 0);
    w.pass(900);
    let sync = |ms, over| (StallKind::Sync, ms, over);
    let told = w.told();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told.iter().all(|t| t.0 == StallKind::Sync && !t.2), "{told:?}");
    assert!((100..=125).contains(&told[0].1), "{told:?}");
    assert!(told.windows(2).all(|t| t[1].1 >= 2 * t[0].1), "{told:?}");
    assert_eq!(w.state.in_flight.stalled.load(Ordering::Relaxed), 990_000_000);
    assert_eq!(w.state.counters.read().stalls, 1);
    w.in_flight().set(Place::Sync, 0);
    w.pass(25);
    assert_eq!(w.told(), [sync(990, true)]);
    assert_eq!(w.state.in_flight.stalled.load(Ordering::Relaxed), 0);
}

#[test]
fn busy_log_that_makes_progress_is_not_stalled() {
    let mut w = Watched::new();
    for token in 1..500 {
        w.in_flight().set(Place::Write, token);
        w.pass(20);
    }
    assert_eq!(w.told(), []);
    assert_eq!(w.state.counters.read().stalls, 0);
}

#[test]
fn each_place_is_watched_by_itself_and_an_idle_log_is_not_watched() {
    let mut w = Watched::new();
    w.in_flight().set(Place::Segment, 1);
    for token in 1..50 {
        w.in_flight().set(Place::Write, token);
        w.pass(10);
    }
    let told = w.told();
    assert!(told.len() >= 2 && told.iter().all(|t| t.0 == StallKind::Segment), "{told:?}");
    w.in_flight().set(Place::Segment, 0);
    w.in_flight().set(Place::Write, 0);
    let looks = (0..100).take_while(|_| w.watchdog.look().is_some()).count();
    assert!(looks < 10, "{looks}");
}

#[test]
fn callback_that_panics_is_caught() {
    let mut w = Watched::new();
    w.watchdog.on_stall = Some(OnStall(Arc::new(|_| panic!("from the callback"))));
    w.in_flight().set(Place::Write, 1);
    w.pass(300);
    assert_eq!(w.state.counters.read().stalls, 1);
}

/// The watchdog of a stopped process, or of a suspended machine, looks late.
#[test]
fn process_stopped_during_a_slow_sync_is_no_stall() {
    for (slow, pause) in [(80, 10_000), (70, 60), (0, 90), (95, 101), (99, 1 << 30)] {
        let mut w = Watched::new();
        w.in_flight().set(Place::Sync, 7);
        w.pass(slow);
        w.clock.0.fetch_add(pause * 1_000_000, Ordering::Relaxed);
        w.watchdog.look();
        assert_eq!(w.told(), [], "{slow} ms, stopped for {pause} ms");
        w.in_flight().set(Place::Sync, 0);
        w.pass(200);
        assert_eq!(w.told(), []);
        assert_eq!(w.state.counters.read().stalls, 0);
    }
    // A stall that continues after the pause is counted from there.
    let mut w = Watched::new();
    w.in_flight().set(Place::Write, 7);
    w.pass(50);
    w.clock.0.fetch_add(10_000_000_000, Ordering::Relaxed);
    w.pass(80);
    assert_eq!(w.state.counters.read().stalls, 1);
}
