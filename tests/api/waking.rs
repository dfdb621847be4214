//! Each waiting task is woken, whatever the others do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::support::{Temp, backends, eventually, small};
use ringwal::{Error, Wal, WalBuilder};

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// More tasks than the I/O thread wakes one by one.
const TASKS: usize = 40;

fn slow(temp: &Temp) -> WalBuilder {
    // Long enough that all tasks register before their group is sealed.
    Wal::builder(temp.log()).commit_delay(Duration::from_millis(700))
}

#[test]
fn every_task_is_woken_although_none_is_polled_again() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = slow(&temp).backend(backend).open().unwrap();
        let counts: Vec<Arc<Count>> = (0..TASKS).map(|_| Arc::default()).collect();
        let mut futures = Vec::new();
        for count in &counts {
            let lsn = wal.append(b"x").unwrap();
            let mut future = Box::pin(wal.when_durable(lsn));
            let waker = Waker::from(Arc::clone(count));
            assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            futures.push(future);
        }
        let all = || counts.iter().all(|c| c.0.load(Ordering::SeqCst) > 0);
        eventually("a task was left asleep", all);
        for future in &mut futures {
            let polled = Pin::new(future).poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(polled, Poll::Ready(Ok(()))));
        }
    }
}

#[test]
fn task_dropped_when_woken_wakes_the_others() {
    let temp = Temp::new();
    let wal = slow(&temp).open().unwrap();
    let counts: Vec<Arc<Count>> = (0..TASKS).map(|_| Arc::default()).collect();
    let mut futures: Vec<_> = counts
        .iter()
        .map(|count| {
            let lsn = wal.append(b"x").unwrap();
            let mut future = Box::pin(wal.when_durable(lsn));
            let waker = Waker::from(Arc::clone(count));
            assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            Some(future)
        })
        .collect();
    eventually("nobody was woken", || counts.iter().any(|c| c.0.load(Ordering::SeqCst) > 0));
    for (future, count) in futures.iter_mut().zip(&counts) {
        if count.0.load(Ordering::SeqCst) > 0 {
            drop(future.take());
        }
    }
    eventually("a task was left asleep", || counts.iter().all(|c| c.0.load(Ordering::SeqCst) > 0));
}

#[test]
fn close_wakes_every_task() {
    let temp = Temp::new();
    let wal = slow(&temp).open().unwrap();
    let counts: Vec<Arc<Count>> = (0..TASKS).map(|_| Arc::default()).collect();
    let futures: Vec<_> = counts
        .iter()
        .map(|count| {
            let lsn = wal.append(b"x").unwrap();
            let mut future = Box::pin(wal.when_durable(lsn));
            let waker = Waker::from(Arc::clone(count));
            assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            future
        })
        .collect();
    wal.close().unwrap();
    assert!(counts.iter().all(|c| c.0.load(Ordering::SeqCst) > 0));
    drop(futures);
}

#[test]
fn records_of_very_many_threads_are_acknowledged() {
    // So many concurrent waiters yield before they sleep.
    for backend in backends() {
        let temp = Temp::new();
        let wal = Wal::builder(temp.log()).backend(backend).open().unwrap();
        std::thread::scope(|scope| {
            for n in 0..64_u32 {
                let wal = &wal;
                scope.spawn(move || {
                    for i in 0..20_u32 {
                        let lsn = wal.append_durable(&(n << 8 | i).to_le_bytes()).unwrap();
                        assert!(wal.durable_end() > lsn);
                    }
                });
            }
        });
        assert_eq!(wal.replay(|_, _| Ok::<_, std::convert::Infallible>(())).unwrap(), 64 * 20);
    }
}

#[test]
fn every_callback_is_called_once_with_the_result_of_its_record() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        let called = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut asked = Vec::new();
        for n in 0..500_u32 {
            let lsn = wal.append(&n.to_le_bytes()).unwrap();
            asked.push(lsn);
            let (called, inside) = (Arc::clone(&called), wal.clone());
            wal.on_durable(lsn, move |result| {
                result.unwrap();
                assert!(inside.durable_end() > lsn);
                called.lock().unwrap().push(lsn);
                if n % 7 == 0 {
                    panic!("caught");
                }
            });
        }
        wal.sync().unwrap();
        eventually("all are called", || called.lock().unwrap().len() >= asked.len());
        let mut seen = called.lock().unwrap().clone();
        seen.sort_unstable();
        assert_eq!(seen, asked);
        // The record is durable already, so the callback runs at once.
        let (send, receive) = std::sync::mpsc::channel();
        let again = send.clone();
        wal.on_durable(asked[0], move |result| again.send(result).unwrap());
        assert!(receive.try_recv().unwrap().is_ok());
        let never = ringwal::Lsn::new(u64::MAX - 1);
        wal.on_durable(never, move |result| send.send(result).unwrap());
        assert!(matches!(receive.try_recv().unwrap(), Err(Error::NotAppended { .. })));
        wal.append_durable(b"and the log goes on").unwrap();
    }
}

#[test]
fn blocking_call_in_a_callback_is_refused_and_the_last_handle_may_be_dropped_there() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    let lsn = wal.append(&[1; 2000]).unwrap();
    let inside = wal.clone();
    wal.on_durable(lsn, move |_| {
        send.send(inside.append_durable(b"x").map(drop)).unwrap();
    });
    let result = receive.recv().unwrap();
    // The call is refused on the I/O thread. If the record was durable before, the callback ran on
    // this thread.
    assert!(matches!(result, Err(Error::WouldDeadlock) | Ok(())), "{result:?}");
    drop(wal);
    let again = loop {
        match small(&temp.log()).open() {
            Err(Error::Locked { .. }) => std::thread::yield_now(),
            opened => break opened.unwrap(),
        }
    };
    assert!(again.durable_end() > lsn);
}
