//! Futures that are no longer polled, leaked, or polled late: the log does not wait for them.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::support::{Temp, backends, read_all};
use ringwal::{AppendFuture, BackendChoice, Error, Wal};

const RECORD: [u8; 3000] = [7; 3000];

/// A ring of two buffers with room for one record each.
fn tiny(temp: &Temp, backend: BackendChoice) -> Wal {
    let builder = Wal::builder(temp.log()).segment_size(64 << 10).ring_capacity(8192);
    builder.max_record_size(RECORD.len()).backend(backend).open().unwrap()
}

fn poll(future: &mut AppendFuture<'_>) -> Poll<ringwal::Result<ringwal::Lsn>> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls new futures until one must wait.
fn pending(wal: &Wal) -> AppendFuture<'_> {
    loop {
        let mut future = wal.append_async(&RECORD);
        if poll(&mut future).is_pending() {
            return future;
        }
    }
}

/// Runs `run` on a thread of its own, and fails the test if it hangs.
fn in_time<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(run()));
    let done = receive.recv_timeout(Duration::from_secs(300));
    done.unwrap_or_else(|e| panic!("{what}: {e}"))
}

#[test]
fn unpolled_future_blocks_no_other_append() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = tiny(&temp, backend);
        let mut waiting: Vec<_> = (0..3).map(|_| pending(&wal)).collect();
        let other = wal.clone();
        in_time("an append beside it", move || {
            for _ in 0..20 {
                other.append_durable(&RECORD).unwrap();
            }
        });
        // A future that is polled late completes.
        let before = read_all(&wal).len();
        for future in &mut waiting {
            let lsn = smol::block_on(future).unwrap();
            wal.wait_durable(lsn).unwrap();
        }
        assert_eq!(read_all(&wal).len(), before + 3);
        wal.close().unwrap();
    }
}

#[test]
fn leaked_future_blocks_neither_appends_nor_close() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = tiny(&temp, backend);
        for _ in 0..5 {
            std::mem::forget(pending(&wal));
        }
        let lsn = wal.append_durable(&RECORD).unwrap();
        in_time("closing", move || wal.close()).unwrap();
        let again = tiny(&temp, backend);
        assert_eq!(read_all(&again).last().unwrap().0, lsn);
    }
}

#[test]
fn close_does_not_wait_for_a_future_on_the_same_thread() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = tiny(&temp, backend);
        let lasts = in_time("closing", move || {
            let mut waiting = [pending(&wal), pending(&wal)];
            wal.close().unwrap();
            waiting.each_mut().map(|future| poll(future))
        });
        for last in lasts {
            assert!(matches!(last, Poll::Ready(Err(Error::Closed))), "{last:?}");
        }
    }
}
