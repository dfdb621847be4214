//! Wakers and callbacks that drop futures, append records, or panic with a payload that panics.

use std::future::Future;
use std::panic::panic_any;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use crate::support::{Temp, backends, small};
use ringwal::{DurableFuture, Wal};

/// Runs `run` on a thread of its own, and fails the test if it hangs.
fn in_time<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(run()));
    let done = receive.recv_timeout(Duration::from_secs(300));
    done.unwrap_or_else(|e| panic!("{what}: {e}"))
}

/// A waker that runs a closure when its last clone is dropped.
struct OnDrop<F: FnMut() + Send + 'static>(Mutex<F>);

impl<F: FnMut() + Send + 'static> OnDrop<F> {
    fn waker(act: F) -> Waker {
        Waker::from(Arc::new(OnDrop(Mutex::new(act))))
    }
}

impl<F: FnMut() + Send + 'static> Wake for OnDrop<F> {
    fn wake(self: Arc<Self>) {}
}

impl<F: FnMut() + Send + 'static> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0.get_mut().unwrap())();
    }
}

fn is_pending<F: Future + Unpin>(future: &mut F, waker: &Waker) -> bool {
    Pin::new(future).poll(&mut Context::from_waker(waker)).is_pending()
}

#[test]
fn waker_whose_drop_drops_another_future_is_replaced() {
    for backend in backends() {
        in_time("replacing the waker", move || {
            let temp = Temp::new();
            let delay = Duration::from_millis(500);
            let wal = small(&temp.log()).commit_delay(delay).backend(backend).open().unwrap();
            let lsn = wal.append(b"x").unwrap();
            // A task of a simple executor: its waker owns another future that the task waits for.
            let mut owned: Option<DurableFuture> = Some(wal.when_durable(lsn));
            assert!(is_pending(owned.as_mut().unwrap(), Waker::noop()));
            let waker = OnDrop::waker(move || drop(owned.take()));
            let mut moved = wal.when_durable(lsn);
            assert!(is_pending(&mut moved, &waker));
            drop(waker);
            // Another task polls the future from now on.
            assert!(is_pending(&mut moved, Waker::noop()));
            smol::block_on(moved).unwrap();
        });
    }
}

#[test]
fn waker_whose_drop_appends_is_replaced() {
    for backend in backends() {
        in_time("replacing the waker", move || {
            let temp = Temp::new();
            let record = [1; 3000];
            let builder = Wal::builder(temp.log()).segment_size(64 << 10).ring_capacity(8192);
            let wal = builder.max_record_size(3000).backend(backend).open().unwrap();
            // The ring is full at times.
            for _ in 0..8 {
                let other = wal.clone();
                let waker = OnDrop::waker(move || {
                    other.append_durable(&record).unwrap();
                });
                let mut waiting: Vec<_> = (0..8).map(|_| wal.append_async(&record)).collect();
                for future in &mut waiting {
                    let _ = is_pending(future, &waker);
                }
                drop(waker);
                for future in &mut waiting {
                    let _ = is_pending(future, Waker::noop());
                }
            }
            wal.close().unwrap();
        });
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("by the panic's own payload");
        }
    }
}

#[test]
fn panic_whose_payload_panics_is_caught_too() {
    for backend in backends() {
        let temp = Temp::new();
        let builder = small(&temp.log()).commit_delay(Duration::from_millis(50)).backend(backend);
        let wal = builder.open().unwrap();
        let (send, called) = mpsc::channel();
        let lsn = wal.append(b"x").unwrap();
        wal.on_durable(lsn, move |_| {
            send.send(()).unwrap();
            panic_any(Bomb);
        });
        called.recv_timeout(Duration::from_secs(300)).unwrap();
        wal.append_durable(b"the log goes on").unwrap();
        wal.close().unwrap();
    }
}

#[test]
fn last_handle_dropped_in_a_callback_or_waker_closes_the_log() {
    for backend in backends() {
        let temp = Temp::new();
        for _ in 0..20 {
            let builder = small(&temp.log()).commit_delay(Duration::from_millis(5));
            let wal = loop {
                match builder.clone().backend(backend).open() {
                    Err(ringwal::Error::Locked { .. }) => std::thread::yield_now(),
                    opened => break opened.unwrap(),
                }
            };
            let lsn = wal.append(b"x").unwrap();
            let mut future = wal.when_durable(lsn);
            let last = Mutex::new(Some(wal.clone()));
            let waker = OnDrop::waker(move || drop(last.lock().unwrap().take()));
            let _ = is_pending(&mut future, &waker);
            wal.on_durable(lsn, {
                let also = wal.clone();
                move |_| drop(also)
            });
            drop((wal, waker));
            // The last drop closes the log, and every record is durable then.
            in_time("waiting", move || smol::block_on(future)).unwrap();
        }
    }
}

/// A follower of a `ReadOnlyWal` also waits for the log's own threads.
#[test]
fn follower_that_would_wait_for_its_own_thread_is_refused() {
    for backend in backends() {
        in_time("following from a callback", move || {
            let temp = Temp::new();
            let wal = small(&temp.log()).backend(backend).open().unwrap();
            let lsn = wal.append_durable(b"one").unwrap();
            let log = ringwal::ReadOnlyWal::open(temp.log()).unwrap();
            let mut follow = log.follow(wal.durable_end()).unwrap();
            let filled = wal.append_with(3, |bytes| {
                assert!(matches!(follow.next_ref(), Err(ringwal::Error::Reentrant)));
                let timed = follow.next_timeout(Duration::from_secs(600));
                assert!(matches!(timed, Err(ringwal::Error::Reentrant)));
                assert!(matches!(follow.next_records(), Err(ringwal::Error::Reentrant)));
                assert!(matches!(follow.next(), Some(Err(ringwal::Error::Reentrant))));
                bytes.copy_from_slice(b"two");
            });
            assert!(filled.unwrap() > lsn);
            let (send, called) = mpsc::channel();
            let next = wal.append(b"three").unwrap();
            let mut inside = log.follow(wal.durable_end()).unwrap();
            // If the record is durable by now, the callback runs on this thread.
            let here = std::thread::current().id();
            wal.on_durable(next, move |_| {
                let there = std::thread::current().id() != here;
                let refused = matches!(inside.next_ref(), Err(ringwal::Error::WouldDeadlock));
                send.send(refused || !there).unwrap();
            });
            assert!(called.recv().unwrap());
            assert_eq!(follow.next_ref().unwrap().unwrap().payload, b"two", "it goes on");
            wal.close().unwrap();
        });
    }
}
