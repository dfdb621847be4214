//! Followers as streams and appending as a sink, on more than one executor.

mod support;

use futures_util::{SinkExt, StreamExt};
use ringwal::{Error, Lsn, Wal};
use support::{Temp, backends, small};

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
fn a_sink_tells_what_the_log_tells() {
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
