//! Models of the waiters.

use std::task::{RawWaker, RawWakerVTable, Waker};

use crate::sys::sync::loom;
use loom::sync::Arc;
use loom::thread;

use super::relay::Relay;
use super::{Durable, Ready, Registrar, Verdict};
use crate::error::Failure;

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(f);
}

/// A waker that sets loom's own kind of flag.
fn waker(notify: &Arc<loom::sync::Notify>) -> Waker {
    unsafe fn clone(p: *const ()) -> RawWaker {
        // SAFETY: made by Arc::into_raw below; the clone has its own count.
        let notify = unsafe { Arc::from_raw(p.cast::<loom::sync::Notify>()) };
        let raw = Arc::into_raw(Arc::clone(&notify)).cast();
        std::mem::forget(notify);
        RawWaker::new(raw, &TABLE)
    }
    unsafe fn wake(p: *const ()) {
        // SAFETY: as above; this takes the count over.
        unsafe { Arc::from_raw(p.cast::<loom::sync::Notify>()) }.notify();
    }
    unsafe fn wake_by_ref(p: *const ()) {
        // SAFETY: as above; the count stays.
        unsafe { &*p.cast::<loom::sync::Notify>() }.notify();
    }
    unsafe fn drop_it(p: *const ()) {
        // SAFETY: as above; this gives the count back.
        drop(unsafe { Arc::from_raw(p.cast::<loom::sync::Notify>()) });
    }
    static TABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_it);
    let raw = RawWaker::new(Arc::into_raw(Arc::clone(notify)).cast(), &TABLE);
    // SAFETY: the table's functions keep the Arc's count as a waker's contract wants it.
    unsafe { Waker::from_raw(raw) }
}

/// 3: a thread that waits while the end moves is woken.
#[test]
fn loom_a_waiting_thread_is_woken() {
    model(|| {
        let durable = Arc::new(Durable::new(0, false));
        let waiter = {
            let durable = Arc::clone(&durable);
            thread::spawn(move || durable.wait(100).is_ok())
        };
        durable.advance(4096);
        durable.wake(0, 4096, &mut Ready::default());
        assert!(waiter.join().unwrap());
    });
}

/// 3: a task that registers while the end moves is woken, or told at once.
#[test]
fn loom_a_registered_task_is_woken() {
    model(|| {
        let durable = Arc::new(Durable::new(0, false));
        let publisher = {
            let durable = Arc::clone(&durable);
            thread::spawn(move || {
                durable.advance(4096);
                durable.wake(0, 4096, &mut Ready::default());
            })
        };
        let notify = Arc::new(loom::sync::Notify::new());
        if let (Verdict::NotYet, _) = durable.register(100, &waker(&notify), Registrar::Task) {
            // The model's flag may also wake for no reason.
            while matches!(durable.verdict(100), Verdict::NotYet) {
                notify.wait();
            }
        }
        publisher.join().unwrap();
    });
}

/// 3, 4: a failure releases every waiter.
#[test]
fn loom_a_failure_wakes_the_waiting() {
    model(|| {
        let durable = Arc::new(Durable::new(0, false));
        let waiter = {
            let durable = Arc::clone(&durable);
            thread::spawn(move || durable.wait(100).is_err())
        };
        durable.poison(Failure::new("model", "broken"));
        durable.wake_all();
        assert!(waiter.join().unwrap());
    });
}

/// A task that forgets its place while it is being woken leaves nothing behind.
#[test]
fn loom_forgetting_races_with_waking() {
    model(|| {
        let durable = Arc::new(Durable::new(0, false));
        let notify = Arc::new(loom::sync::Notify::new());
        let (verdict, ticket) = durable.register(100, &waker(&notify), Registrar::Task);
        assert!(matches!(verdict, Verdict::NotYet));
        let publisher = {
            let durable = Arc::clone(&durable);
            thread::spawn(move || {
                durable.advance(4096);
                durable.wake(0, 4096, &mut Ready::default());
            })
        };
        durable.forget(100, ticket);
        publisher.join().unwrap();
        assert_eq!(crate::sys::sync::lock(&durable.bucket(100).list).len(), 0);
    });
}

/// 6: a task that was left to another one is woken, whether that one is polled, dropped, or
/// neither.
#[test]
fn loom_tasks_wake_each_other() {
    for leader_acts in [true, false] {
        model(move || {
            let durable = Arc::new(Durable::new(0, false));
            let notify: [_; 2] = std::array::from_fn(|_| Arc::new(loom::sync::Notify::new()));
            for n in &notify {
                assert!(matches!(
                    durable.register(100, &waker(n), Registrar::Task).0,
                    Verdict::NotYet
                ));
            }
            let publisher = {
                let durable = Arc::clone(&durable);
                thread::spawn(move || {
                    durable.advance(4096);
                    durable.wake(0, 4096, &mut Ready::default());
                })
            };
            if leader_acts {
                // Polled while the waking goes on, before or after it is chosen.
                durable.pass_on();
            }
            publisher.join().unwrap();
            // What the I/O thread does in the end; the model's flags may also wake for no reason.
            durable.pass_on();
            notify[0].wait();
            notify[1].wait();
            assert!(!durable.has_left_tasks());
        });
    }
}

/// The relay's 3: what is put in while others take out is not left there.
#[test]
fn loom_the_relay_keeps_nobody() {
    model(|| {
        let relay = Arc::new(Relay::new());
        let notify: [_; 2] = std::array::from_fn(|_| Arc::new(loom::sync::Notify::new()));
        relay.put(std::iter::once(waker(&notify[0])));
        let taker = {
            let relay = Arc::clone(&relay);
            thread::spawn(move || relay.pass_on())
        };
        relay.put(std::iter::once(waker(&notify[1])));
        taker.join().unwrap();
        relay.pass_on();
        assert!(relay.is_empty());
        notify[0].wait();
        notify[1].wait();
    });
}
