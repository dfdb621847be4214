//! A committer that finds the log at rest commits its record on its own thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use ringwal::{BackendChoice, Durability, Wal};

use crate::support::{Temp, backends, small};

/// Commits until commits are made by their callers.
fn settle(wal: &Wal) {
    for _ in 0..50 {
        wal.append_durable(b"settling").unwrap();
    }
}

/// The fewest times that the I/O thread slept while `commits` ran, of five goes. On a busy machine
/// the I/O thread may not come to rest between two commits, and then goes on committing.
fn fewest_sleeps(wal: &Wal, mut commits: impl FnMut()) -> u64 {
    let goes = (0..5).map(|_| {
        settle(wal);
        let before = wal.stats().io_sleeps;
        commits();
        wal.stats().io_sleeps - before
    });
    goes.min().unwrap()
}

#[test]
fn lone_committer_wakes_no_thread() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).idle_seal(Duration::from_secs(60));
        let wal = wal.segment_size(8 << 20).open().unwrap();
        let sleeps = fewest_sleeps(&wal, || {
            for _ in 0..200 {
                wal.append_durable(b"alone").unwrap();
            }
        });
        assert!(sleeps < 20, "{backend:?}: the I/O thread slept {sleeps} times in 200 commits");
        assert_eq!(wal.reader(ringwal::Lsn::ZERO).count(), 5 * 250);
    }
}

#[test]
fn lone_sync_of_unsynced_records_wakes_no_thread() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).durability(Durability::Manual);
        let wal = wal.idle_seal(Duration::from_secs(60)).segment_size(8 << 20).open().unwrap();
        let sleeps = fewest_sleeps(&wal, || {
            for _ in 0..100 {
                let lsn = wal.append_durable(b"alone").unwrap();
                assert!(wal.durable_end() > lsn);
            }
        });
        assert!(sleeps < 20, "{backend:?}: the I/O thread slept {sleeps} times in 100 commits");
    }
}

#[test]
fn callback_runs_on_no_committers_thread() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        settle(&wal);
        for _ in 0..50 {
            let (send, receive) = mpsc::channel();
            let lsn = wal.append(b"with a callback").unwrap();
            // A record that is durable by then calls back inside `on_durable`.
            let registers = Arc::new(AtomicBool::new(true));
            let inside = Arc::clone(&registers);
            wal.on_durable(lsn, move |result| {
                let here = (std::thread::current().id(), inside.load(Ordering::SeqCst));
                send.send((result, here)).unwrap();
            });
            registers.store(false, Ordering::SeqCst);
            wal.append_durable(b"its committer").unwrap();
            let (result, (thread, registered)) = receive.recv().unwrap();
            result.unwrap();
            assert!(registered || thread != std::thread::current().id());
        }
    }
}

#[test]
fn committers_that_come_and_go_lose_no_record() {
    for backend in backends() {
        for durability in [Durability::EveryGroup, Durability::Manual] {
            let temp = Temp::new();
            let wal = small(&temp.log()).backend(backend).durability(durability);
            // No seal wakes the I/O thread by itself: a record that is left behind stays there.
            let wal = wal.idle_seal(Duration::from_secs(3600)).open().unwrap();
            let together = Barrier::new(4);
            let appended: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4_u64)
                    .map(|thread| {
                        let (wal, together) = (&wal, &together);
                        scope.spawn(move || {
                            let mut mine = Vec::new();
                            for n in 0..150 {
                                if n % 50 == 0 {
                                    together.wait();
                                }
                                // Alone for a while, then two, then all.
                                if n < 50 && thread > 0 || n < 100 && thread > 1 {
                                    continue;
                                }
                                let payload = format!("{thread} {n}");
                                let lsn = match n % 3 {
                                    0 => wal.append_durable(payload.as_bytes()).unwrap(),
                                    1 => {
                                        let lsn = wal.append(payload.as_bytes()).unwrap();
                                        wal.wait_durable(lsn).unwrap();
                                        lsn
                                    }
                                    _ => {
                                        let lsn = wal.append(payload.as_bytes()).unwrap();
                                        assert!(wal.sync().unwrap() > lsn);
                                        lsn
                                    }
                                };
                                assert!(wal.durable_end() > lsn);
                                mine.push((lsn, payload));
                            }
                            mine
                        })
                    })
                    .collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            });
            wal.close().unwrap();
            let wal = Wal::open(temp.log()).unwrap();
            for (lsn, payload) in appended {
                assert_eq!(wal.read(lsn).unwrap().payload, payload.as_bytes());
            }
        }
    }
}

#[test]
fn record_that_comes_during_a_lone_commit_is_committed_without_another() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).idle_seal(Duration::from_secs(3600));
        let wal = wal.segment_size(4 << 20).open().unwrap();
        settle(&wal);
        let together = Barrier::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        // Both are durable before either goes on.
                        together.wait();
                        wal.append_durable(b"one of two").unwrap();
                    }
                });
            }
        });
        assert_eq!(wal.reader(ringwal::Lsn::ZERO).count(), 650);
    }
}

#[test]
fn log_of_a_lone_committer_rotates_seals_and_closes() {
    let temp = Temp::new();
    let wal = small(&temp.log()).backend(BackendChoice::Std).idle_seal(Duration::from_millis(5));
    let wal = wal.max_segments(3).open().unwrap();
    for _ in 0..199 {
        wal.append_durable(&[7; 1000]).unwrap();
    }
    assert!(wal.stats().rotations > 2);
    // Before the last append: on a busy machine the seal may come before the next statement.
    let sealed = wal.stats().control_groups;
    wal.append_durable(&[7; 1000]).unwrap();
    while wal.stats().control_groups == sealed {
        std::thread::sleep(Duration::from_millis(1));
    }
    wal.close().unwrap();
    // Opening with larger segments removes the spare, and creates another one of its name.
    let wal = Wal::open(temp.log()).unwrap();
    assert!(wal.recovery().clean);
}
