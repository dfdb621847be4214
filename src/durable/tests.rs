//! Which calls wake which waiters, one call at a time. The models check the interleavings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Wake, Waker};

use super::{BUCKETS, Durable, ONE_BY_ONE, Ready, Registrar, Verdict};
use crate::error::{Error, Failure};

const BLOCK: u64 = 4096;

/// Counts its wake-ups.
#[derive(Default)]
struct Count(AtomicU32);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn new() -> (Arc<Self>, Waker) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), Waker::from(count))
    }

    fn get(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

fn register(durable: &Durable, lsn: u64) -> (Arc<Count>, u64) {
    let (count, waker) = Count::new();
    let (verdict, id) = durable.register(lsn, &waker, Registrar::Task);
    assert!(matches!(verdict, Verdict::NotYet));
    (count, id)
}

fn advance(durable: &Durable, from: u64, to: u64) {
    durable.advance(to);
    durable.wake(from, to, &mut Ready::default());
}

#[test]
fn durable_is_what_lies_below_the_end() {
    let durable = Durable::new(BLOCK, false);
    assert!(matches!(durable.verdict(BLOCK - 1), Verdict::Durable));
    assert!(matches!(durable.verdict(BLOCK), Verdict::NotYet));
    durable.advance(2 * BLOCK);
    assert!(matches!(durable.verdict(2 * BLOCK - 1), Verdict::Durable));
    assert!(matches!(durable.verdict(2 * BLOCK), Verdict::NotYet));
    assert_eq!(durable.end(), 2 * BLOCK);
}

#[test]
fn the_status_is_left_once() {
    let durable = Durable::new(0, false);
    assert!(durable.check_running().is_ok() && !durable.is_poisoned() && !durable.is_forked());
    durable.close();
    assert!(matches!(durable.check_running(), Err(Error::Closed)));
    assert!(matches!(durable.verdict(5), Verdict::NotYet), "its groups are still written");
    durable.poison(Failure::new("first", ""));
    durable.poison(Failure::new("second", ""));
    durable.close();
    match durable.check_running() {
        Err(Error::Poisoned { cause }) => assert_eq!(cause.op, "first"),
        other => panic!("{other:?}"),
    }
    assert!(durable.is_poisoned() && matches!(durable.verdict(5), Verdict::Failed(_)));
}

#[test]
fn a_sync_is_demanded_once_and_only_where_it_does_not_come_by_itself() {
    let durable = Durable::new(0, false);
    assert!(!durable.demand(100));
    let durable = Durable::new(0, true);
    assert!(durable.demand(100) && !durable.demand(100) && !durable.demand(99));
    assert_eq!(durable.demanded(), 100);
    assert!(durable.demand(101));
    assert_eq!(durable.demanded(), 101);
}

#[test]
fn a_task_is_woken_when_its_own_position_is_durable() {
    let durable = Durable::new(0, false);
    let (below, _) = register(&durable, BLOCK - 8);
    // In the same bucket, as far round as can be.
    let (at, _) = register(&durable, BUCKETS as u64 * BLOCK);
    assert!(durable.has_waiters(0, BLOCK) && !durable.has_waiters(BLOCK, 2 * BLOCK));
    assert!(!durable.has_waiters(BLOCK, 64 * BLOCK) && durable.has_waiters(BLOCK, 64 * BLOCK + 1));
    advance(&durable, 0, BLOCK);
    assert_eq!((below.get(), at.get()), (1, 0));
    assert!(durable.has_waiters(0, BLOCK), "the other one waits on");
    advance(&durable, BLOCK, 64 * BLOCK);
    assert_eq!((below.get(), at.get()), (1, 0), "its position is the end, not below it");
    advance(&durable, 64 * BLOCK, 65 * BLOCK);
    assert_eq!((below.get(), at.get()), (1, 1));
    assert!(!durable.has_waiters(0, 1 << 40));
    let (verdict, _) = durable.register(5, &Count::new().1, Registrar::Task);
    assert!(matches!(verdict, Verdict::Durable));
    assert!(!durable.has_waiters(0, 1 << 40), "it is not left registered");
}

#[test]
fn a_failure_wakes_tasks_whatever_they_wait_for() {
    let durable = Durable::new(0, false);
    let waiting: Vec<_> = (0..200).map(|n| register(&durable, n * BLOCK).0).collect();
    durable.poison(Failure::new("model", "broken"));
    durable.wake_all();
    assert!(waiting.iter().all(|w| w.get() == 1));
    assert!(!durable.has_left_tasks());
}

#[test]
fn a_new_waker_takes_the_place_of_its_own_old_one() {
    let durable = Durable::new(0, false);
    let (other, _) = register(&durable, 8);
    let (old, id) = register(&durable, 8);
    let (new, waker) = Count::new();
    assert!(durable.update(8, id, &waker));
    advance(&durable, 0, BLOCK);
    assert_eq!((other.get(), old.get(), new.get()), (1, 0, 1));
    assert!(!durable.update(8, id, &waker), "it has been woken");
}

#[test]
fn who_forgets_leaves_the_others() {
    let durable = Durable::new(0, false);
    let (kept, _) = register(&durable, 8);
    let (gone, id) = register(&durable, 8);
    durable.forget(8, id);
    durable.forget(8, id);
    assert!(durable.has_waiters(0, BLOCK));
    advance(&durable, 0, BLOCK);
    assert_eq!((kept.get(), gone.get()), (1, 0));
}

#[test]
fn many_tasks_of_one_thread_are_left_to_one_of_them() {
    for (tasks, left) in [(ONE_BY_ONE, 0), (ONE_BY_ONE + 1, ONE_BY_ONE), (100, 99)] {
        let durable = Durable::new(0, false);
        let waiting: Vec<_> = (0..tasks).map(|_| register(&durable, 8).0).collect();
        advance(&durable, 0, BLOCK);
        let woken = waiting.iter().map(|w| w.get()).sum::<u32>() as usize;
        assert_eq!((woken, durable.has_left_tasks()), (tasks - left, left > 0));
        durable.pass_on();
        durable.pass_on();
        assert!(waiting.iter().all(|w| w.get() == 1) && !durable.has_left_tasks());
    }
}

#[test]
fn tasks_of_several_threads_are_woken_directly() {
    let durable = Durable::new(0, false);
    let mut waiting: Vec<_> = (0..50).map(|_| register(&durable, 8).0).collect();
    std::thread::scope(|s| {
        s.spawn(|| waiting.push(register(&durable, 8).0)).join().unwrap();
    });
    advance(&durable, 0, BLOCK);
    assert!(waiting.iter().all(|w| w.get() == 1) && !durable.has_left_tasks());
}

#[test]
fn a_thread_sleeps_until_its_position_is_durable_crowd_or_not() {
    for crowd in [0, 1000] {
        let durable = Durable::new(0, false);
        durable.set_crowd(crowd);
        std::thread::scope(|s| {
            let waiter = s.spawn(|| durable.wait(BLOCK));
            while !durable.has_waiters(BLOCK, 2 * BLOCK) {
                std::thread::yield_now();
            }
            assert!(!durable.has_waiters(0, BLOCK));
            advance(&durable, 0, 2 * BLOCK);
            waiter.join().unwrap().unwrap();
        });
        assert!(!durable.has_waiters(0, 1 << 40));
    }
}
