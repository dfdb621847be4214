//! When records become durable, and each way to wait until they are.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::support::{Temp, backends, eventually, read_all, small};
use ringwal::{Durability, Error, Lsn, Wal};

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(out) => return out,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn every_group_mode_syncs_without_a_request() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        let lsn = wal.append(b"x").unwrap();
        eventually("it is synced", || wal.durable_end() > lsn);
        let stats = wal.stats();
        assert!(stats.syncs >= stats.groups && stats.groups == 1 && stats.records == 1);
    }
}

#[test]
fn manual_mode_syncs_on_any_request_and_not_before() {
    for backend in backends() {
        let temp = Temp::new();
        let builder = small(&temp.log()).backend(backend).durability(Durability::Manual);
        let wal = builder.open().unwrap();
        let ask: [fn(&Wal, Lsn); 5] = [
            |w, lsn| w.wait_durable(lsn).unwrap(),
            |w, lsn| assert!(w.sync().unwrap() > lsn),
            |w, lsn| block_on(w.when_durable(lsn)).unwrap(),
            |w, lsn| assert!(w.append_durable(b"more").unwrap() > lsn),
            |w, _| assert!(w.replay(|_, _| Ok::<(), ()>(())).unwrap() > 0),
        ];
        for way in ask {
            let lsn = wal.append(b"x").unwrap();
            std::thread::sleep(Duration::from_millis(60));
            assert!(wal.durable_end() <= lsn, "nobody asked");
            way(&wal, lsn);
            assert!(wal.durable_end() > lsn);
        }
    }
}

#[test]
fn interval_mode_syncs_in_the_background_and_a_waiter_syncs_at_once() {
    for backend in backends() {
        let temp = Temp::new();
        let day = Durability::Interval(Duration::from_secs(86_400));
        let wal = small(&temp.log()).backend(backend).durability(day).open().unwrap();
        let lsn = wal.append(b"waited for").unwrap();
        wal.wait_durable(lsn).unwrap();
        let last = wal.append(b"and closed").unwrap();
        assert!(wal.durable_end() <= last);
        wal.close().unwrap();
        assert!(wal.durable_end() > last);

        let soon = Durability::Interval(Duration::from_millis(10));
        let wal = small(&temp.log()).backend(backend).durability(soon).open().unwrap();
        let lsn = wal.append(b"in ten milliseconds").unwrap();
        eventually("it is synced", || wal.durable_end() > lsn);
        assert_eq!(read_all(&wal).len(), 3);
    }
}

#[test]
fn wait_for_a_position_beyond_the_end_is_an_error() {
    let temp = Temp::new();
    // An idle seal would take the next block.
    let wal = small(&temp.log()).idle_seal(Duration::MAX).open().unwrap();
    let lsn = wal.append_durable(b"x").unwrap();
    for ahead in [4096_u64, 1 << 20, 1 << 40] {
        let beyond = Lsn::new(lsn.as_u64() + ahead);
        assert!(matches!(wal.wait_durable(beyond), Err(Error::NotAppended { .. })));
        assert!(matches!(block_on(wal.when_durable(beyond)), Err(Error::NotAppended { .. })));
    }
    assert!(wal.wait_durable(Lsn::new(u64::MAX)).is_err());
    assert!(wal.wait_durable(Lsn::ZERO).is_ok());
}

#[test]
fn records_of_many_threads_share_groups_and_keep_their_order() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = Wal::builder(temp.log()).segment_size(1 << 20).backend(backend).open().unwrap();
        std::thread::scope(|s| {
            for thread in 0..16_u32 {
                let wal = &wal;
                s.spawn(move || {
                    for n in 0..50_u32 {
                        let payload = [thread.to_le_bytes(), n.to_le_bytes()].concat();
                        let lsn = wal.append_durable(&payload).unwrap();
                        assert!(wal.durable_end() > lsn);
                    }
                });
            }
        });
        let stats = wal.stats();
        assert_eq!(stats.records, 800);
        assert!(stats.groups < 800, "{} groups", stats.groups);
        let mut next = [0_u32; 16];
        for (_, p) in read_all(&wal) {
            let thread = u32::from_le_bytes(p[..4].try_into().unwrap()) as usize;
            assert_eq!(p[4..], next[thread].to_le_bytes());
            next[thread] += 1;
        }
        assert_eq!(next, [50; 16]);
    }
}

#[test]
fn tiny_ring_serves_large_and_small_producers() {
    let temp = Temp::new();
    let wal = Wal::builder(temp.log())
        .segment_size(1 << 20)
        .ring_capacity(16 << 10)
        .max_record_size(7000)
        .open()
        .unwrap();
    std::thread::scope(|s| {
        for thread in 0..6_usize {
            let wal = &wal;
            s.spawn(move || {
                let len = if thread < 2 { 7000 } else { 50 };
                for _ in 0..200 {
                    wal.append(&vec![thread as u8; len]).unwrap();
                }
            });
        }
    });
    let all = read_all(&wal);
    assert_eq!(all.len(), 1200);
    for thread in 0..6 {
        assert_eq!(all.iter().filter(|(_, p)| p[0] == thread).count(), 200);
    }
}

#[test]
fn full_ring_refuses_appends_and_loses_no_record() {
    let temp = Temp::new();
    let builder = Wal::builder(temp.log()).segment_size(1 << 20).ring_capacity(32 << 10);
    let wal = builder.max_record_size(3000).open().unwrap();
    let (mut accepted, mut refused) = (0_u32, 0);
    while refused == 0 || accepted < 500 {
        match wal.try_append(&[accepted.to_le_bytes().as_slice(), &[0; 2900]].concat()) {
            Ok(_) => accepted += 1,
            Err(Error::RingFull) => refused += 1,
            Err(e) => panic!("{e}"),
        }
        assert!(accepted < 2_000_000, "a ring this small fills up");
    }
    let all = read_all(&wal);
    assert_eq!(all.len() as u32, accepted);
    assert!(all.iter().zip(0_u32..).all(|((_, p), n)| p[..4] == n.to_le_bytes()));
}

#[test]
fn futures_dropped_at_any_point_leave_a_working_log() {
    let temp = Temp::new();
    let builder = Wal::builder(temp.log()).segment_size(1 << 20).ring_capacity(32 << 10);
    let wal = builder.max_record_size(3000).open().unwrap();
    let mut appended = 0;
    for n in 0..3000 {
        let payload = [n as u8; 2900];
        let mut append = Box::pin(wal.append_async(&payload));
        let mut cx = Context::from_waker(Waker::noop());
        match append.as_mut().poll(&mut cx) {
            Poll::Ready(lsn) => {
                let lsn = lsn.unwrap();
                appended += 1;
                let mut durable = Box::pin(wal.when_durable(lsn));
                let _ = durable.as_mut().poll(&mut cx);
                if n % 3 == 0 {
                    let _ = durable.as_mut().poll(&mut cx);
                }
            }
            Poll::Pending if n % 2 == 0 => drop(append),
            Poll::Pending => {
                block_on(append).unwrap();
                appended += 1;
            }
        }
    }
    assert_eq!(read_all(&wal).len(), appended, "dropped ones were not appended, others were");
}

#[test]
fn every_waiting_task_on_tokio_is_woken() {
    for workers in [0, 2] {
        let temp = Temp::new();
        let wal = Wal::builder(temp.log()).segment_size(1 << 20).open().unwrap();
        let mut builder = match workers {
            0 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder.build().unwrap();
        runtime.block_on(async {
            let tasks: Vec<_> = (0..200_u32)
                .map(|task| {
                    let wal = wal.clone();
                    tokio::spawn(async move {
                        for n in 0..20_u32 {
                            let payload = [task.to_le_bytes(), n.to_le_bytes()].concat();
                            let lsn = wal.append_async(&payload).await.unwrap();
                            wal.when_durable(lsn).await.unwrap();
                            assert!(wal.durable_end() > lsn);
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        assert_eq!(read_all(&wal).len(), 4000);
    }
}

#[test]
fn panic_in_append_with_leaves_a_working_log() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    wal.append_with(5, |b| b.copy_from_slice(b"first")).unwrap();
    let panicked = std::panic::catch_unwind(|| {
        wal.append_with(100, |b| {
            b.fill(7);
            panic!("on purpose");
        })
    });
    assert!(panicked.is_err());
    wal.append_with(4, |b| assert_eq!(b, [0; 4])).unwrap();
    let inside = wal.append_with(1, |_| {
        assert!(matches!(wal.append(b"nested"), Err(Error::Reentrant)));
        assert!(matches!(wal.try_append(b"nested"), Err(Error::Reentrant)));
    });
    inside.unwrap();
    let payloads: Vec<_> = read_all(&wal).into_iter().map(|(_, p)| p).collect();
    assert_eq!(payloads, [b"first".to_vec(), vec![0; 4], vec![0]]);
}

#[test]
fn blocking_call_in_a_waker_is_refused() {
    struct Nosy(Wal, std::sync::mpsc::SyncSender<bool>);
    impl Wake for Nosy {
        fn wake(self: Arc<Self>) {
            let refused = matches!(self.0.append(b"from the waker"), Err(Error::WouldDeadlock));
            let closing = matches!(self.0.close(), Err(Error::WouldDeadlock));
            self.1.send(refused && closing).unwrap();
            panic!("and a panic does no harm");
        }
    }
    let temp = Temp::new();
    let wal = small(&temp.log()).durability(Durability::Manual).open().unwrap();
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    let waker = Waker::from(Arc::new(Nosy(wal.clone(), send)));
    // The poll requests a sync, which may complete before the poll checks the durable end.
    let future = loop {
        let lsn = wal.append(b"x").unwrap();
        let mut future = Box::pin(wal.when_durable(lsn));
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            break future;
        }
    };
    drop(waker);
    assert!(receive.recv_timeout(Duration::from_secs(300)).unwrap());
    drop(future);
    wal.append_durable(b"still alive").unwrap();
}

#[test]
fn durations_longer_than_the_clock_mean_never() {
    for backend in backends() {
        let temp = Temp::new();
        let builder = small(&temp.log()).backend(backend).idle_seal(Duration::MAX);
        let builder = builder.max_age(Duration::MAX);
        let wal = builder.durability(Durability::Interval(Duration::MAX)).open().unwrap();
        let lsn = wal.append(b"for later").unwrap();
        std::thread::sleep(Duration::from_millis(60));
        assert!(wal.durable_end() <= lsn, "it is not synced at once");
        wal.append_durable(b"waited for").unwrap();
        let controls = wal.stats().control_groups;
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!(wal.stats().control_groups, controls, "and not sealed");
        wal.close().unwrap();
        assert_eq!(read_all(&small(&temp.log()).open().unwrap()).len(), 2);
    }
}

#[test]
fn append_durable_async_returns_once_the_record_is_durable_in_every_mode() {
    for backend in backends() {
        for durability in [
            Durability::EveryGroup,
            Durability::Manual,
            Durability::Interval(Duration::from_secs(3600)),
        ] {
            let temp = Temp::new();
            let wal = small(&temp.log()).backend(backend).durability(durability).open().unwrap();
            for n in 0..20_u8 {
                let lsn = block_on(wal.append_durable_async(&[n; 2000])).unwrap();
                assert!(lsn < wal.durable_end());
                assert_eq!(wal.read(lsn).unwrap().payload, [n; 2000]);
            }
            let spawned = wal.clone();
            let payload = vec![9];
            // The future may move between threads, as executors ask for.
            let task = async move { spawned.append_durable_async(&payload).await };
            let lsn = std::thread::spawn(|| block_on(task)).join().unwrap().unwrap();
            assert!(lsn < wal.durable_end());
            wal.close().unwrap();
            let closed = block_on(wal.append_durable_async(b"x"));
            assert!(matches!(closed, Err(Error::Closed)), "{closed:?}");
        }
    }
}

#[test]
fn end_of_the_log_lies_above_every_appended_record_and_is_the_durable_end_after_a_sync() {
    for backend in backends() {
        let temp = Temp::new();
        let open = || {
            let builder = small(&temp.log()).backend(backend).durability(Durability::Manual);
            builder.idle_seal(Duration::MAX).open().unwrap()
        };
        let mut wal = open();
        for n in 0..200 {
            let end = wal.end();
            assert!(end >= wal.durable_end());
            let lsn = wal.append(&vec![7; n * 31 % 3000]).unwrap();
            assert!(lsn >= end && wal.end() > lsn, "{n}");
            if n % 50 == 0 {
                wal.sync().unwrap();
                assert_eq!(wal.end(), wal.durable_end());
                assert_eq!(wal.reader(wal.end()).count(), 0);
                wal.follow(wal.end()).unwrap();
            }
        }
        wal.close().unwrap();
        assert_eq!(wal.end(), wal.durable_end());
        wal = open();
        assert!(wal.end() >= wal.durable_end());
    }
}
