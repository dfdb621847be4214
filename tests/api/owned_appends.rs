//! Appends whose futures own what they need.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::support::{Temp, backends, read_all};
use ringwal::{AppendOwnedFuture, Error, Wal};

fn is_owned<T: Send + Sync + 'static>(value: T) -> T {
    value
}

fn poll(future: &mut AppendOwnedFuture) -> Poll<ringwal::Result<ringwal::Lsn>> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn owned_append_outlives_its_handle_and_moves_between_threads() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = Wal::builder(temp.log()).segment_size(64 << 10).backend(backend).open().unwrap();
        let appends: Vec<_> =
            (0..100).map(|n| is_owned(wal.clone().append_async_owned(format!("{n}")))).collect();
        let lsns: Vec<_> = appends
            .into_iter()
            .map(|append| std::thread::spawn(|| smol::block_on(append)).join().unwrap().unwrap())
            .collect();
        let all = read_all(&wal);
        assert_eq!(all.iter().map(|(lsn, _)| *lsn).collect::<Vec<_>>(), lsns);
        assert!(all.iter().enumerate().all(|(n, (_, p))| *p == n.to_string().into_bytes()));
    }
}

#[test]
fn owned_append_to_a_full_ring_waits_and_gives_up_its_room_when_dropped() {
    for backend in backends() {
        let temp = Temp::new();
        let record = vec![7_u8; 3000];
        let builder = Wal::builder(temp.log()).segment_size(64 << 10).ring_capacity(8192);
        let wal = builder.max_record_size(3000).backend(backend).open().unwrap();
        let mut waiting = Vec::new();
        while waiting.len() < 3 {
            let mut append = wal.append_async_owned(record.clone());
            if poll(&mut append).is_pending() {
                waiting.push(append);
            }
        }
        drop(waiting.remove(1));
        let before = read_all(&wal).len();
        for append in &mut waiting {
            let lsn = smol::block_on(append).unwrap();
            wal.wait_durable(lsn).unwrap();
        }
        assert_eq!(read_all(&wal).len(), before + 2);
        assert!(matches!(poll(&mut waiting[0]), Poll::Ready(Err(Error::Closed))));
    }
}

#[test]
fn owned_append_keeps_no_log_open() {
    let temp = Temp::new();
    let wal = Wal::builder(temp.log()).segment_size(64 << 10).open().unwrap();
    let append = wal.append_async_owned("too late");
    drop(wal);
    assert!(matches!(smol::block_on(append), Err(Error::Closed)));
    assert_eq!(Wal::open(temp.log()).unwrap().reader(ringwal::Lsn::ZERO).count(), 0);
}
