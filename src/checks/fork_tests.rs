//! Handles of the parent in a child of `fork()`, while other threads of the parent hold every lock:
//! each call returns.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nix::libc;

use crate::error::{Error, Result};
use crate::io::fs::hooked::TempPath;
use crate::lsn::Lsn;
use crate::read::outside::ReadOnlyWal;
use crate::wal::Wal;

/// Forks, runs `child` there, and returns its result. A child that hangs is killed.
fn in_a_child(child: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child runs the closure, which the tests keep to calls that take no lock of
    // another thread, and then ends at once; the allocator is usable in a child of a process with
    // threads.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: a timer of this process, without pointers.
        unsafe { libc::alarm(20) };
        let kept = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(false);
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(i32::from(!kept)) };
    }
    assert!(pid > 0);
    // The child drops what the closure owns. A drop in the parent would take the locks that are
    // held.
    std::mem::forget(child);
    let mut status = 0;
    // SAFETY: waits for our own child; the status is a local.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

fn log(path: &TempPath) -> Wal {
    // No group of the log itself moves its end while a test compares it.
    let builder = Wal::builder(&**path).segment_size(64 << 10);
    let wal = builder.idle_seal(Duration::from_secs(3600)).open().unwrap();
    for _ in 0..100 {
        wal.append_durable(&[3; 2000]).unwrap();
    }
    assert!(wal.stats().rotations > 0);
    wal
}

fn is_forked<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::Forked))
}

/// Calls `call` while this thread holds the locks that handles of the log share.
fn with_locks_held(wal: &Wal, call: impl FnOnce() -> bool) -> bool {
    let state = &wal.appender().state;
    let mut call = Some(call);
    let mut kept = false;
    let _cells = state.cells.hold();
    state.consumers.take_unheld(0, |_| {
        state.view.table.closed_from(0, |_, _| {
            kept = call.take().is_none_or(|call| call());
            false
        });
    });
    kept
}

/// What a callback gets that is called at once.
fn called_with(wal: &Wal, lsn: Lsn) -> Result<()> {
    let (send, called) = std::sync::mpsc::channel();
    wal.on_durable(lsn, move |result| drop(send.send(result)));
    called.try_recv().unwrap()
}

#[test]
fn child_of_fork_never_waits_for_a_lock_of_the_parent() {
    let path = TempPath::new();
    let wal = log(&path);
    let end = wal.durable_end();
    let records = wal.stats().records;
    let listener = wal.on_durable_end(drop).unwrap();
    let asked = || {
        in_a_child(|| {
            let stats = wal.stats();
            stats.records == records
                && stats.durable_end == end
                && wal.backend().depth > 0
                && wal.consumers().is_empty()
                && wal.tag_floors().is_empty()
                && wal.oldest_lsn() <= end
                && !format!("{wal:?}").is_empty()
                && wal.histograms().commit_time.count() > 0
                && is_forked(wal.health())
                && is_forked(wal.append(b"of a child"))
                && is_forked(wal.try_append(b"of a child"))
                && is_forked(wal.append_batch(&["of", "a child"]).map(|_| ()))
                && is_forked(wal.append_durable(b"of a child"))
                && is_forked(wal.sync())
                && is_forked(wal.wait_durable(Lsn::new(4096)))
                && is_forked(wal.wait_durable(end))
                && is_forked(smol::block_on(wal.when_durable(Lsn::new(4096))))
                && is_forked(called_with(&wal, Lsn::new(4096)))
                && is_forked(wal.read(Lsn::new(4096)))
                && is_forked(wal.follow(Lsn::ZERO))
                && is_forked(wal.reader(Lsn::ZERO).next_ref().map(|_| ()))
                && is_forked(wal.reader_back(end).next().transpose())
                && is_forked(wal.truncate_before(end))
                && is_forked(wal.truncate_from(end))
                && is_forked(wal.consumer("name"))
                && is_forked(wal.remove_consumer("name"))
                && is_forked(wal.cells())
                && is_forked(wal.cell("vote").load())
                && is_forked(wal.cell("vote").store(b"of a child"))
                && is_forked(wal.cell("vote").remove())
                && is_forked(wal.on_durable_end(drop))
                && {
                    drop(listener);
                    true
                }
        })
    };
    assert!(with_locks_held(&wal, asked));
    wal.append_durable(b"the parent goes on").unwrap();
    wal.close().unwrap();
}

#[test]
fn followers_and_readers_in_a_child_of_fork_end_and_drop_without_a_lock() {
    let path = TempPath::new();
    let wal = log(&path);
    let mut follower = wal.follow(Lsn::ZERO).unwrap();
    follower.next_ref().unwrap().unwrap();
    let mut waiting = wal.follow(wal.durable_end()).unwrap();
    let poll = |follow: &mut crate::Follow| {
        let mut next = pin!(follow.next_record());
        next.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    };
    assert!(poll(&mut waiting).is_pending());
    // A follower that is registered at the log's end.
    let mut seated = wal.follow(wal.durable_end()).unwrap();
    for _ in 0..3 {
        wal.append_durable(b"from memory").unwrap();
        seated.next_ref().unwrap().unwrap();
    }
    let mut reader = wal.reader(Lsn::ZERO);
    reader.next_ref().unwrap().unwrap();
    let mut back = wal.reader_back(wal.durable_end());
    back.next().unwrap().unwrap();
    let mut consumer = wal.consumer("named").unwrap();
    consumer.records().unwrap().next_ref().unwrap().unwrap();
    let used = || {
        in_a_child(|| {
            let mut kept = is_forked(follower.try_next().map(|_| ()))
                && matches!(follower.next_ref(), Ok(None))
                && is_forked(seated.next_timeout(Duration::from_secs(600)).map(|_| ()))
                && matches!(poll(&mut waiting), Poll::Ready(Some(Err(Error::Forked))))
                && matches!(poll(&mut waiting), Poll::Ready(None))
                && is_forked(consumer.commit(Lsn::new(5000)))
                && is_forked(consumer.seek(Lsn::ZERO));
            let records = consumer.records();
            kept &= is_forked(records.and_then(|follow| follow.next_records().map(|_| ())));
            // The reader may still return records of a group that it holds. Then it ends.
            while let Ok(Some(_)) = reader.next_ref() {}
            while let Some(Ok(_)) = back.next() {}
            drop((follower, seated, waiting, reader, back, consumer));
            kept
        })
    };
    assert!(with_locks_held(&wal, used));
    wal.close().unwrap();
}

#[test]
fn read_only_log_in_a_child_of_fork_must_be_opened_again() {
    let path = TempPath::new();
    let _wal = log(&path);
    let log = ReadOnlyWal::open(&*path).unwrap();
    let mut follower = log.follow(Lsn::ZERO).unwrap();
    follower.next_ref().unwrap().unwrap();
    assert!(in_a_child(|| {
        let again = ReadOnlyWal::open(&*path).unwrap();
        is_forked(log.durable_end())
            && is_forked(log.follow(Lsn::ZERO))
            && is_forked(follower.next_ref().map(|_| ()))
            && again.reader(Lsn::ZERO).unwrap().count() == 100
    }));
}

#[test]
fn child_of_fork_has_its_own_generation() {
    let here = crate::sys::fork::generation();
    assert_eq!(here, crate::sys::fork::generation());
    assert!(in_a_child(|| {
        let child = crate::sys::fork::generation();
        child != here
            && child == crate::sys::fork::generation()
            && in_a_child(|| ![here, child].contains(&crate::sys::fork::generation()))
    }));
    assert_eq!(here, crate::sys::fork::generation());
}
