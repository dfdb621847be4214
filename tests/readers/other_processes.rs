//! Infinite durations, damage in every group, file names that resemble the log's own, and tasks
//! that do not claim a grant.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::support::{SetOnDrop, Temp, backends, copy_dir, read_all, segments, small};
use futures_util::{StreamExt, stream};
use ringwal::{Durability, Error, Lsn, ReadOnlyWal, Wal};

/// Such a duration means never, and no addition overflows.
#[test]
fn infinite_durations_mean_never() {
    for backend in backends() {
        for long in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_nanos(u64::MAX)] {
            let temp = Temp::new();
            let wal = small(&temp.log()).backend(backend).durability(Durability::Interval(long));
            let wal = wal.idle_seal(long).max_age(long).open().unwrap();
            let lsn = wal.append(b"not asked for").unwrap();
            std::thread::sleep(Duration::from_millis(30));
            assert!(wal.durable_end() <= lsn, "{long:?}: nothing was to sync it");
            wal.append_durable(b"asked for").unwrap();
            let mut follower = wal.follow(Lsn::ZERO).unwrap();
            assert!(follower.next_timeout(long).unwrap().is_some());
            wal.close().unwrap();
        }
    }
}

#[test]
fn file_with_an_invalid_consumer_name_is_ignored() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let lsn = wal.append_durable(b"x").unwrap();
    wal.consumer("mailer").unwrap().commit(lsn).unwrap();
    wal.close().unwrap();
    let names = ["mailer~", "mailer copy", "über", &"m".repeat(65)];
    for name in names {
        let copy = temp.log().join(format!("wal.consumer.{name}"));
        std::fs::copy(temp.log().join("wal.consumer.mailer"), copy).unwrap();
    }
    std::fs::write(temp.log().join("wal.consumer.note to self"), "what was I doing").unwrap();
    let wal = small(&temp.log()).open().unwrap();
    let known: Vec<_> = wal.consumers().into_iter().map(|consumer| consumer.name).collect();
    assert_eq!(known, ["mailer"]);
}

/// `wal.consumer.lock` would be the lock file of one log and a consumer's position of another.
#[test]
fn prefix_that_collides_with_consumer_files_is_refused() {
    let temp = Temp::new();
    let refused = small(&temp.log()).prefix("wal.consumer").open();
    assert!(matches!(refused, Err(Error::Options(_))), "{refused:?}");
    assert!(!temp.log().exists());
    for prefix in ["wal", "wal.consumers", "consumer", "wal.consumer.mailer", "wal.sealed", "wal.0"]
    {
        let wal = small(&temp.log()).prefix(prefix).open().unwrap();
        wal.append_durable(prefix.as_bytes()).unwrap();
        drop(wal.consumer("mailer").unwrap());
    }
    for prefix in ["wal", "wal.consumers", "consumer", "wal.consumer.mailer", "wal.sealed", "wal.0"]
    {
        let wal = small(&temp.log()).prefix(prefix).open().unwrap();
        assert_eq!(read_all(&wal).len(), 1, "{prefix}");
        assert_eq!(wal.consumers().len(), 1, "{prefix}");
    }
}

#[test]
fn refusal_states_the_sizes_and_positions_of_the_call() {
    let temp = Temp::new();
    let wal = small(&temp.log()).max_record_size(8).open().unwrap();
    let size = |refused| match refused {
        Err(Error::RecordTooLarge { len, .. }) => len,
        other => panic!("{other:?}"),
    };
    assert_eq!(size(wal.append_batch(&[""])), 12);
    assert_eq!(size(wal.append_batch(&[""; 100])), 804);
    assert_eq!(size(wal.append_batch(&["123456789", ""])), 36);
    let far = Lsn::new(1 << 40);
    let seek = wal.consumer("c").unwrap().seek(far);
    assert!(matches!(seek, Err(Error::NotAppended { lsn, .. }) if lsn == far), "{seek:?}");
    let age = Wal::builder(temp.log()).max_age(Duration::ZERO).open().unwrap_err().to_string();
    assert!(age.contains("max_age must be longer than zero") && !age.contains("sync"), "{age}");
}

/// Runs `f` on a thread, so that a hang is a failure.
fn within<T: Send + 'static>(seconds: u64, f: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive): (_, Receiver<T>) = channel();
    let thread = std::thread::spawn(move || send.send(f()).unwrap());
    match receive.recv_timeout(Duration::from_secs(seconds)) {
        Ok(value) => value,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("the call hangs"),
        Err(_) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

struct Deaf;

impl Wake for Deaf {
    fn wake(self: Arc<Self>) {}
}

/// A ring so small that it is full after a few appends.
fn narrow(temp: &Temp) -> ringwal::WalBuilder {
    small(&temp.log()).ring_capacity(8192).max_record_size(3000)
}

/// Fills the ring, until a future waits for room in it.
fn waiting<'a>(wal: &'a Wal, payload: &'a [u8]) -> std::pin::Pin<Box<ringwal::AppendFuture<'a>>> {
    let waker = Waker::from(Arc::new(Deaf));
    loop {
        let mut append = Box::pin(wal.append_async(payload));
        match append.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(appended) => drop(appended.unwrap()),
            Poll::Pending => return append,
        }
    }
}

#[test]
fn unpolled_appends_do_not_block_the_log() {
    for backend in backends() {
        let temp = Temp::new();
        let builder = narrow(&temp).backend(backend);
        within(300, move || {
            let wal = builder.open().unwrap();
            let mut left = waiting(&wal, &[1; 3000]);
            // The append is granted room and woken, and does not claim the grant.
            wal.append_durable(b"of another").unwrap();
            wal.sync().unwrap();
            let before = read_all(&wal).len();
            // A late poll gets other room, once.
            let waker = Waker::from(Arc::new(Deaf));
            while left.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                std::thread::yield_now();
            }
            wal.sync().unwrap();
            assert_eq!(read_all(&wal).len(), before + 1);
            // A leaked future blocks neither other appends nor the close.
            std::mem::forget(waiting(&wal, &[2; 3000]));
            wal.append_durable(b"of another").unwrap();
            std::mem::forget(waiting(&wal, &[3; 3000]));
            wal.close().unwrap();
        });
    }
}

/// While the last step waits, no task polls the appends in flight.
#[test]
fn pipeline_of_appends_that_waits_in_its_last_step_completes() {
    for backend in backends() {
        let temp = Temp::new();
        let builder = narrow(&temp).backend(backend);
        within(300, move || {
            let wal = builder.open().unwrap();
            let payload = [7; 300];
            let busy = wal.clone();
            let over = Arc::new(AtomicBool::new(false));
            let is_over = Arc::clone(&over);
            let others = std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    busy.append(b"of another").unwrap();
                }
            });
            let ends = SetOnDrop(&over);
            smol::block_on(pin!(async {
                let mut appends =
                    stream::iter(0..40).map(|_| wal.append_async(&payload)).buffer_unordered(64);
                while let Some(appended) = appends.next().await {
                    wal.when_durable(appended.unwrap()).await.unwrap();
                }
            }));
            drop(ends);
            others.join().unwrap();
            let all = read_all(&wal);
            assert_eq!(all.iter().filter(|(_, found)| found == &payload).count(), 40);
        });
    }
}

/// Damages every group's header in turn. The error names the damaged segment, whether or not the
/// segment before it was full.
#[test]
fn damaged_group_header_is_reported_in_its_segment() {
    let temp = Temp::new();
    for size in [16 << 10, 64 << 10] {
        let dir = temp.path().join(size.to_string());
        let wal = Wal::builder(&dir).segment_size(size).open().unwrap();
        let longest = if size == 16 << 10 { 3000 } else { 11_000 };
        for n in 0..20 {
            wal.append_durable(&vec![b'.'; n * 1777 % longest]).unwrap();
        }
        wal.close().unwrap();
        let mut damaged = 0;
        let end = ReadOnlyWal::open(&dir).unwrap().durable_end().unwrap().as_u64();
        for path in segments(&dir) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let base: u64 = name.split('.').nth(1).unwrap().parse().unwrap();
            let whole = std::fs::read(&path).unwrap();
            for at in (4096..whole.len()).step_by(4096) {
                // Skip the mark of the close: it lies at the newest mark.
                if !whole[at..].starts_with(b"RWGp") || base + at as u64 + 4096 >= end {
                    continue;
                }
                let copy = temp.path().join("copy");
                copy_dir(&dir, &copy);
                let mut bytes = whole.clone();
                bytes[at + 40] ^= 4;
                std::fs::write(copy.join(&name), bytes).unwrap();
                let read = Wal::builder(&copy)
                    .segment_size(size)
                    .open()
                    .and_then(|wal| wal.reader(Lsn::ZERO).try_for_each(|record| record.map(drop)));
                match read {
                    Err(Error::Corruption { segment, offset, lsn, .. }) => {
                        let said = (segment.as_str(), offset, lsn.as_u64());
                        assert_eq!(said, (name.as_str(), at as u64, base + at as u64));
                    }
                    other => panic!("{name} at {at}: {other:?}"),
                }
                std::fs::remove_dir_all(&copy).unwrap();
                damaged += 1;
            }
        }
        assert!(damaged > 20, "{damaged}");
    }
}
