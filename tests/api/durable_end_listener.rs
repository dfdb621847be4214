//! A listener of the durable end: it gets every new end, and last how the log ended.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use ringwal::testing::{DiskFault, SimulatedDisk};
use ringwal::{Durability, Error, Lsn, Result, Wal};

use crate::support::{Temp, backends, small};

type Ends = mpsc::Receiver<Result<Lsn>>;

fn listen(wal: &Wal) -> (ringwal::DurableEndListener, Ends) {
    let (send, ends) = mpsc::channel();
    (wal.on_durable_end(move |end| drop(send.send(end))).unwrap(), ends)
}

/// Takes ends until one is above `lsn`. Checks that they increase.
fn take_beyond(ends: &Ends, lsn: Lsn, last: &mut Lsn) {
    while *last <= lsn {
        let end = ends.recv().unwrap().unwrap();
        assert!(end > *last, "{end} after {last}");
        *last = end;
    }
}

#[test]
fn listener_gets_every_end_in_order_from_every_kind_of_commit() {
    for backend in backends() {
        for durability in [Durability::EveryGroup, Durability::Manual] {
            let temp = Temp::new();
            let wal = small(&temp.log()).backend(backend).durability(durability).open().unwrap();
            // Commits on the caller's thread come first, so that it holds the loop.
            for _ in 0..20 {
                wal.append_durable(b"alone").unwrap();
            }
            let (_listener, ends) = listen(&wal);
            let mut last = wal.durable_end();
            for n in 0..200_u32 {
                let lsn = match n % 3 {
                    0 => wal.append_durable(&[7; 900]).unwrap(),
                    1 => {
                        let lsn = wal.append(&[7; 900]).unwrap();
                        wal.wait_durable(lsn).unwrap();
                        lsn
                    }
                    _ => {
                        let lsn = wal.append(&[7; 900]).unwrap();
                        wal.sync().unwrap();
                        lsn
                    }
                };
                take_beyond(&ends, lsn, &mut last);
            }
            wal.close().unwrap();
            let rest: Vec<_> = ends.iter().collect();
            let (end, sealed) = rest.split_last().unwrap();
            assert!(matches!(end, Err(Error::Closed)), "{end:?}");
            for end in sealed {
                let end = *end.as_ref().unwrap();
                assert!(end > last && end <= wal.durable_end());
                last = end;
            }
        }
    }
}

#[test]
fn listener_runs_on_no_committers_thread() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        let (send, threads) = mpsc::channel();
        let listener = wal
            .on_durable_end(move |_| send.send(std::thread::current().id()).unwrap_or_default())
            .unwrap();
        for _ in 0..50 {
            wal.append_durable(b"a lone committer").unwrap();
        }
        wal.close().unwrap();
        drop(listener);
        assert!(threads.iter().all(|id| id != std::thread::current().id()));
    }
}

#[test]
fn listener_of_a_log_that_fails_gets_the_failure_last() {
    let disk = SimulatedDisk::new(11);
    let wal = disk.open(&Wal::builder("log").segment_size(64 << 10)).unwrap();
    let (_listener, ends) = listen(&wal);
    let mut last = Lsn::ZERO;
    let durable = wal.append_durable(b"durable").unwrap();
    take_beyond(&ends, durable, &mut last);
    disk.fail_after(0, DiskFault::Failed, true);
    let failed = wal.append_durable(b"lost");
    assert!(matches!(failed, Err(Error::Poisoned { .. })), "{failed:?}");
    let _ = wal.close();
    let rest: Vec<_> = ends.iter().collect();
    let (end, before) = rest.split_last().unwrap();
    assert!(matches!(end, Err(Error::Poisoned { .. })), "{end:?}");
    assert!(before.iter().all(|end| *end.as_ref().unwrap() <= wal.durable_end()));
    let late = wal.on_durable_end(|_| panic!("a listener of a failed log is never called"));
    assert!(matches!(late, Err(Error::Poisoned { .. })));
}

#[test]
fn dropped_listener_is_not_called_again_and_its_drop_waits_for_a_running_call() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let running = Arc::new(AtomicU32::new(0));
    let inside = Arc::clone(&running);
    let (entered, enters) = mpsc::channel();
    let listener = wal
        .on_durable_end(move |_| {
            inside.store(1, Ordering::SeqCst);
            let _ = entered.send(());
            std::thread::sleep(std::time::Duration::from_millis(20));
            inside.store(0, Ordering::SeqCst);
        })
        .unwrap();
    let others = listen(&wal);
    wal.append(b"calls it").unwrap();
    enters.recv().unwrap();
    drop(listener);
    assert_eq!(running.load(Ordering::SeqCst), 0, "a call runs after the drop");
    assert!(enters.try_iter().count() <= 1 && enters.recv().is_err(), "its closure is dropped");
    let lsn = wal.append_durable(b"the other one goes on").unwrap();
    take_beyond(&others.1, lsn, &mut Lsn::new(0));
}

#[test]
fn listener_that_panics_blocks_or_removes_itself_harms_nothing() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    let panics = wal
        .on_durable_end(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            panic!("a panic of user code");
        })
        .unwrap();
    let slot = Arc::new(Mutex::new(None));
    let (own, (send, refused)) = (Arc::clone(&slot), mpsc::channel());
    let inner = Arc::new(Mutex::new(Some(wal.clone())));
    let listener = wal
        .on_durable_end(move |_| {
            if let Some(wal) = inner.lock().unwrap().take() {
                send.send(wal.close()).unwrap();
                drop(own.lock().unwrap().take());
            }
        })
        .unwrap();
    *slot.lock().unwrap() = Some(listener);
    let lsn = wal.append(b"one").unwrap();
    wal.wait_durable(lsn).unwrap();
    let refused: Result<()> = refused.recv().unwrap();
    assert!(matches!(refused, Err(Error::WouldDeadlock)), "{refused:?}");
    crate::support::eventually("it has removed itself", || slot.lock().unwrap().is_none());
    for _ in 0..10 {
        wal.append_durable(b"more").unwrap();
    }
    crate::support::eventually("it is called after a panic", || calls.load(Ordering::SeqCst) > 5);
    wal.health().unwrap();
    drop(panics);
    wal.close().unwrap();
    assert!(matches!(wal.on_durable_end(drop), Err(Error::Closed)));
}

#[test]
fn listeners_that_come_and_go_beside_commits_miss_no_end() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..150 {
                        let (listener, ends) = listen(&wal);
                        let lsn = wal.append(&[5; 300]).unwrap();
                        take_beyond(&ends, lsn, &mut Lsn::new(0));
                        drop(listener);
                    }
                });
            }
        });
        wal.close().unwrap();
    }
}
