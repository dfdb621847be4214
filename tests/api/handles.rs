//! Handles are sent, shared, kept and printed. Errors convert to errors of `std::io`.

use std::fmt::Debug;
use std::io;
use std::rc::Rc;

use ringwal::{
    AppendFuture, AppendSink, BackwardReader, Consumer, ConsumerInfo, DurableFuture, Error, Follow,
    FollowStream, Histograms, Lsn, ReadOnlyFollow, ReadOnlyReader, ReadOnlyWal, Reader, Record,
    RecoveryReport, Stats, TypedFollow, TypedWal, Wal, WalBuilder,
};

fn sent<T: Send + Debug + 'static>() {}
fn shared<T: Clone + Send + Sync + Debug + 'static>() {}
fn caught<T: std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
fn awaited<T: Future + Send>(_: &T) {}

#[test]
fn handles_are_sent_shared_and_printed() {
    shared::<Wal>();
    shared::<ReadOnlyWal>();
    shared::<Error>();
    shared::<Stats>();
    shared::<Histograms>();
    shared::<RecoveryReport>();
    shared::<ConsumerInfo>();
    shared::<Record>();
    shared::<ringwal::testing::SimulatedDisk>();
    // A typed log is `Send` even if its values are not: it holds none.
    shared::<TypedWal<Rc<u8>>>();
    sent::<WalBuilder>();
    sent::<Reader>();
    sent::<BackwardReader>();
    sent::<Follow>();
    sent::<FollowStream>();
    sent::<Consumer>();
    sent::<DurableFuture>();
    sent::<AppendFuture<'static>>();
    sent::<AppendSink<Vec<u8>>>();
    sent::<ReadOnlyReader>();
    sent::<ReadOnlyFollow>();
    sent::<TypedFollow<String>>();
    caught::<Wal>();
}

/// The debug output of a struct with a log in it must leave the other fields visible.
#[test]
fn debug_output_of_handles_takes_a_few_lines() {
    use crate::support::{Temp, small};
    let temp = Temp::new();
    let wal = small(&temp.log()).idle_seal(std::time::Duration::MAX).open().unwrap();
    for n in 0..600 {
        wal.append(&[n as u8; 900]).unwrap();
    }
    wal.sync().unwrap();
    assert!(format!("{wal:?}").contains(&format!("durable_end: {:?}", wal.durable_end())));
    let mut reader = wal.reader(Lsn::ZERO);
    assert!(reader.next_ref().unwrap().is_some());
    let mut follow = wal.follow(Lsn::ZERO).unwrap();
    assert!(follow.try_next().unwrap().is_some());
    let read_only = ReadOnlyWal::open(temp.log()).unwrap();
    let disk = ringwal::testing::SimulatedDisk::new(1);
    let simulated = disk.open(&Wal::builder("log")).unwrap();
    simulated.append_durable(&[1; 5000]).unwrap();
    for handle in [
        &wal as &dyn Debug,
        &reader,
        &follow,
        &wal.reader_back(wal.durable_end()),
        &wal.consumer("one").unwrap(),
        &wal.when_durable(Lsn::ZERO),
        &wal.append_async(b"payload"),
        &read_only,
        &read_only.reader(Lsn::ZERO).unwrap(),
        &read_only.follow(Lsn::ZERO).unwrap(),
        &disk,
        &simulated,
    ] {
        let text = format!("{handle:?}");
        assert!(text.len() < 2500, "{} bytes: {text}", text.len());
    }
}

#[test]
fn positions_convert_to_numbers_and_text_and_back() {
    let lsn = Lsn::new(4224);
    assert_eq!(lsn.to_string().parse::<Lsn>(), Ok(lsn));
    assert!("-1".parse::<Lsn>().is_err() && "".parse::<Lsn>().is_err());
    assert_eq!(serde_json::to_string(&lsn).unwrap(), "4224");
    assert_eq!(serde_json::from_str::<Lsn>("4224").unwrap(), lsn);
    assert_eq!((lsn.next(), Lsn::new(u64::MAX).next()), (Lsn::new(4225), Lsn::new(u64::MAX)));
}

#[test]
fn errors_convert_to_io_errors_of_the_matching_kind() {
    fn read() -> io::Result<()> {
        Err(Error::Pruned { oldest: Lsn::new(8) })?
    }
    let pruned = read().unwrap_err();
    assert_eq!(pruned.kind(), io::ErrorKind::NotFound);
    assert!(pruned.to_string().contains("the oldest kept is 8"), "{pruned}");
    let missing = ReadOnlyWal::open("/nonexistent/log").unwrap_err();
    assert_eq!(io::Error::from(missing).kind(), io::ErrorKind::NotFound);
    assert_eq!(io::Error::from(Error::RingFull).kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn typed_value_appended_as_a_future_is_durable_after_the_await() {
    let dir = std::env::temp_dir().join(format!("ringwal-test-handles-{}", std::process::id()));
    let log = TypedWal::<Vec<u32>>::new(Wal::builder(&dir).application_version(7).open().unwrap());
    let lsn = smol::block_on(async {
        let append = log.append_async(&vec![1, 2, 3]);
        awaited(&append);
        let lsn = append.await?;
        log.wal().when_durable(lsn).await?;
        Ok::<_, ringwal::TypedError>(lsn)
    })
    .unwrap();
    assert_eq!(log.read(lsn).unwrap(), [1, 2, 3]);
    assert_eq!(ReadOnlyWal::open(&dir).unwrap().application_version(), 7);
    drop(log);
    std::fs::remove_dir_all(dir).unwrap();
}
