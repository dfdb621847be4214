//! Followers as streams and appends as a sink, on more than one executor.

use std::task::{Context, Waker};

use crate::support::{Temp, backends, small};
use futures_util::{SinkExt, StreamExt};
use ringwal::{Error, Lsn, Wal};

async fn sent_and_followed(wal: Wal, count: u32) {
    let mut follow = wal.follow(Lsn::ZERO).unwrap().into_stream();
    let mut sink = wal.sink();
    for n in 0..count {
        sink.feed(vec![n as u8; (n * 97 % 3000) as usize]).await.unwrap();
    }
    sink.flush().await.unwrap();
    let last = sink.last_lsn().unwrap();
    assert!(wal.durable_end() > last, "flushed is durable");
    for n in 0..count {
        let record = follow.next().await.unwrap().unwrap();
        assert_eq!(record.payload, vec![n as u8; (n * 97 % 3000) as usize]);
    }
    sink.close().await.unwrap();
    wal.append_durable(b"the log is still open").unwrap();
}

#[test]
fn streams_and_sinks_work_on_smol_and_on_tokio() {
    for backend in backends() {
        // A ring that a few records fill.
        let open = |temp: &Temp| {
            let builder = small(&temp.log()).backend(backend).ring_capacity(64 << 10);
            builder.open().unwrap()
        };
        let temp = Temp::new();
        smol::block_on(sent_and_followed(open(&temp), 500));
        let temp = Temp::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(sent_and_followed(open(&temp), 500));
        let temp = Temp::new();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let wal = open(&temp);
        runtime.block_on(async {
            let tasks: Vec<_> = (0..4_u8)
                .map(|n| {
                    let wal = wal.clone();
                    tokio::spawn(async move {
                        let mut sink = wal.sink();
                        for _ in 0..200 {
                            sink.send(vec![n; 900]).await.unwrap();
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        assert_eq!(wal.reader(Lsn::ZERO).count(), 800);
    }
}

#[test]
fn sink_returns_the_errors_of_the_log() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let mut sink = wal.sink();
    let too_large = smol::block_on(sink.send(vec![0; 1 << 20]));
    assert!(matches!(too_large, Err(Error::RecordTooLarge { .. })));
    smol::block_on(sink.send(vec![1])).unwrap();
    wal.close().unwrap();
    assert!(matches!(smol::block_on(sink.send(vec![2])), Err(Error::Closed)));
    assert_eq!(wal.reader(Lsn::ZERO).count(), 1);
}

#[test]
fn sink_dropped_at_any_point_leaves_a_working_log() {
    let temp = Temp::new();
    let wal = small(&temp.log()).segment_size(1 << 20).ring_capacity(32 << 10);
    let wal = wal.max_record_size(3000).open().unwrap();
    let (mut appended, mut given_up) = (0, 0);
    let mut cx = Context::from_waker(Waker::noop());
    let payload = vec![7; 2900];
    for n in 0.. {
        if n >= 300 && given_up > 0 {
            break;
        }
        assert!(n < 30_000, "the ring is never full");
        while wal.try_append(&payload).is_ok() {
            appended += 1;
        }
        let mut sink = wal.sink();
        assert!(sink.poll_ready_unpin(&mut cx).is_ready());
        sink.start_send_unpin(payload.clone()).unwrap();
        for _ in 0..n % 3 {
            let _ = sink.poll_flush_unpin(&mut cx);
        }
        if n % 5 == 0 {
            smol::block_on(sink.flush()).unwrap();
        }
        appended += usize::from(sink.last_lsn().is_some());
        given_up += usize::from(sink.last_lsn().is_none());
    }
    wal.sync().unwrap();
    assert_eq!(wal.reader(Lsn::ZERO).count(), appended);
}
