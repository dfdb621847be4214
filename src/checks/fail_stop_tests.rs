//! The log with its threads, on files whose syncs fail or block.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::engine::recover::recover;
use crate::engine::threads;
use crate::error::{Error, Result};
use crate::io::fs::hooked::{Call, HookedDir, TempPath};
use crate::io::fs::{Access, Dir, OsDir};
use crate::lsn::Lsn;
use crate::options::{BackendChoice, Durability, Options};
use crate::segment::end_file::Presence;
use crate::segment::{DirLock, Names};
use crate::sys::clock::{Clock, SystemClock};
use crate::wal::Wal;

pub(super) fn options(durability: Durability) -> Options {
    Options {
        segment_size: 64 << 10,
        durability,
        backend: BackendChoice::Std,
        // Longer than the test: no idle seal.
        idle_seal: Duration::from_secs(1000),
        ..Options::default()
    }
}

/// Opens the log in `path` as `Wal::open` does, on the directory that `wrap` makes of it.
pub(super) fn open(
    path: &Path,
    options: &Options,
    wrap: impl FnOnce(Arc<dyn Dir>) -> HookedDir,
) -> Result<Wal> {
    if !path.exists() {
        // A segment that is prepared and used at once would keep its temporary name. So prepare it
        // first.
        crate::wal::open::open(path, options)?.close()?;
    }
    let dir = OsDir::open_or_create(path).unwrap();
    let names = Names::new(&options.prefix);
    let lock = DirLock::acquire(&dir, &names, options.lock_wait)?;
    let dir: Arc<dyn Dir> = Arc::new(wrap(Arc::new(dir)));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let recovered = recover(&dir, &names, options, &*clock, [7; 24])?;
    let presence = Presence::hold(&dir, &names);
    let engine = threads::start(recovered, options, lock, presence, &clock)?;
    Wal::started(engine.state, engine.opened, engine.info, Box::new(engine.threads))
}

/// Whether the call syncs a segment. A segment under preparation has another name.
fn is_segment_sync(call: Call, name: &str) -> bool {
    call == Call::Sync && name.ends_with(".wal")
}

#[test]
fn failed_sync_is_not_retried_and_poisons_the_log() {
    for durability in
        [Durability::EveryGroup, Durability::Manual, Durability::Interval(Duration::from_millis(5))]
    {
        let path = TempPath::new();
        let armed = Arc::new(AtomicBool::new(false));
        let syncs = Arc::new(AtomicU32::new(0));
        let (is_armed, count) = (Arc::clone(&armed), Arc::clone(&syncs));
        let hook = move |call, name: &str| {
            let counted = is_armed.load(Ordering::SeqCst) && is_segment_sync(call, name);
            // Only the first sync fails. A retry would succeed and hide the failure.
            if counted && count.fetch_add(1, Ordering::SeqCst) == 0 {
                return Err(io::Error::from_raw_os_error(crate::sys::os_error::DEVICE_FAILED));
            }
            Ok(())
        };
        let wal = open(&path, &options(durability), |dir| HookedDir::new(dir, hook)).unwrap();
        let kept = wal.append_durable(b"before").unwrap();
        armed.store(true, Ordering::SeqCst);
        let lost = wal.append(b"not known to be durable").unwrap();
        let waited = wal.wait_durable(lost);
        assert!(matches!(waited, Err(Error::Poisoned { .. })), "{durability:?}: {waited:?}");
        assert!(matches!(wal.append(b"later"), Err(Error::Poisoned { .. })));
        assert!(matches!(wal.sync(), Err(Error::Poisoned { .. })));
        assert!(wal.wait_durable(kept).is_ok(), "what is durable stays so");
        assert!(wal.durable_end() <= lost);
        assert!(matches!(wal.close(), Err(Error::Poisoned { .. })));
        assert_eq!(syncs.load(Ordering::SeqCst), 1, "{durability:?}: retried");
    }
}

#[test]
fn open_whose_epoch_group_cannot_be_synced_fails() {
    let path = TempPath::new();
    // A new log: a closed one may have nothing to make durable.
    std::fs::create_dir(&*path).unwrap();
    let is_io = || std::thread::current().name() == Some("ringwal-io");
    let hook = move |call, _: &str| match call == Call::Sync && is_io() {
        true => Err(io::Error::from_raw_os_error(crate::sys::os_error::DEVICE_FAILED)),
        false => Ok(()),
    };
    let opened = open(&path, &options(Durability::EveryGroup), |dir| HookedDir::new(dir, hook));
    assert!(matches!(opened, Err(Error::Poisoned { .. })), "{opened:?}");
}

/// A panic from a defect of the engine, in any of its threads, poisons the log and loses nothing.
#[test]
fn panic_in_a_thread_of_the_log_poisons_it_and_ends_every_wait() {
    let committer = std::thread::current().name().unwrap_or_default().to_owned();
    for thread in ["ringwal-io".to_owned(), "ringwal-segments".to_owned(), committer] {
        let path = TempPath::new();
        let armed = Arc::new(AtomicBool::new(false));
        let is_armed = Arc::clone(&armed);
        let mut registered = 0;
        let expected = thread.clone();
        let hook = move |_, _: &str| {
            let here = std::thread::current().name() == Some(&*expected);
            if here && is_armed.swap(false, Ordering::SeqCst) {
                std::panic::resume_unwind(Box::new("a defect"));
            }
            Ok(())
        };
        let options = options(Durability::EveryGroup);
        let wal = open(&path, &options, |dir| HookedDir::new(dir, hook)).unwrap();
        let mut kept = wal.append_durable(b"before").unwrap();
        armed.store(true, Ordering::SeqCst);
        let (send, called) = mpsc::channel();
        let failed = loop {
            // Rotation makes the segment keeper work.
            let lsn = match wal.append(&[5; 4000]) {
                Ok(lsn) => lsn,
                Err(e) => break e,
            };
            let send = send.clone();
            registered += 1;
            wal.on_durable(lsn, move |result| send.send(result.is_ok()).unwrap());
            match wal.wait_durable(lsn) {
                Ok(()) => kept = lsn,
                Err(e) => break e,
            }
        };
        assert!(matches!(&failed, Error::Poisoned { .. }), "{thread}: {failed}");
        assert!(failed.to_string().contains("panicked"), "{thread}: {failed}");
        assert!(wal.wait_durable(kept).is_ok(), "what is durable stays so");
        assert!(matches!(wal.append(b"later"), Err(Error::Poisoned { .. })));
        assert!(matches!(wal.truncate_before(kept), Err(Error::Poisoned { .. })));
        assert!(matches!(wal.close(), Err(Error::Poisoned { .. })));
        drop((wal, send));
        assert_eq!(called.iter().count(), registered, "every callback was called");
        let again = open(&path, &options, |dir| HookedDir::new(dir, |_, _| Ok(()))).unwrap();
        assert!(again.reader(Lsn::ZERO).any(|r| r.unwrap().lsn == kept), "{thread}");
    }
}

/// A committer whose write fails latches the failure. The I/O thread wakes the others, whose wakers
/// may want what the committer holds.
#[test]
fn failed_commit_by_its_caller_runs_no_callback_on_that_thread() {
    // The I/O thread may be first, and then its write fails: 2 of 30 times on two cores.
    for _ in 0..30 {
        let path = TempPath::new();
        let armed = Arc::new(AtomicBool::new(false));
        let here = std::thread::current().id();
        let is_armed = Arc::clone(&armed);
        let hook = move |call, _: &str| {
            if call == Call::Write && is_armed.load(Ordering::SeqCst) {
                return Err(io::Error::from_raw_os_error(crate::sys::os_error::DEVICE_FAILED));
            }
            Ok(())
        };
        let options = options(Durability::EveryGroup);
        let wal = open(&path, &options, |dir| HookedDir::new(dir, hook)).unwrap();
        for _ in 0..20 {
            wal.append_durable(b"before").unwrap();
        }
        armed.store(true, Ordering::SeqCst);
        let (send, called) = mpsc::channel();
        let registering = Arc::new(AtomicBool::new(true));
        let is_registering = Arc::clone(&registering);
        let Ok(lsn) = wal.append(b"with a callback") else { continue };
        wal.on_durable(lsn, move |result| {
            let on_time = !is_registering.load(Ordering::SeqCst);
            send.send((result, on_time, std::thread::current().id())).unwrap();
        });
        registering.store(false, Ordering::SeqCst);
        let committed = wal.append_durable(b"its committer");
        assert!(matches!(committed, Err(Error::Poisoned { .. })), "{committed:?}");
        let (result, on_time, thread) = called.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(matches!(result, Err(Error::Poisoned { .. })), "{result:?}");
        assert!(!on_time || thread != here, "the committer called it");
    }
}

/// A caller that waits for the segment keeper returns once that thread has ended.
#[test]
fn panic_of_the_segment_keeper_ends_a_truncation_that_waits_for_it() {
    let path = TempPath::new();
    let armed = Arc::new(AtomicBool::new(false));
    let is_armed = Arc::clone(&armed);
    let hook = move |call, _: &str| {
        let here = std::thread::current().name() == Some("ringwal-segments");
        // The segment keeper reads a segment before it recycles it, and removes another.
        let removes = matches!(call, Call::Open(Access::Read) | Call::Remove);
        if here && removes && is_armed.swap(false, Ordering::SeqCst) {
            std::panic::resume_unwind(Box::new("a defect"));
        }
        Ok(())
    };
    let options = options(Durability::EveryGroup);
    let wal = open(&path, &options, |dir| HookedDir::new(dir, hook)).unwrap();
    let mut last = Lsn::ZERO;
    for _ in 0..60 {
        last = wal.append_durable(&[5; 4000]).unwrap();
    }
    armed.store(true, Ordering::SeqCst);
    let (send, ended) = mpsc::channel();
    let truncating = wal.clone();
    std::thread::spawn(move || send.send(truncating.truncate_before(last).map(|_| ())));
    let ended = ended.recv_timeout(Duration::from_secs(60)).expect("the truncation waits for ever");
    assert!(matches!(ended, Err(Error::Poisoned { .. })), "{ended:?}");
    assert!(!armed.load(Ordering::SeqCst));
}

/// A callback of `on_stall` may wait for a lock that the closing thread holds.
#[test]
fn close_beside_a_stall_callback_that_waits_for_the_closer_returns() {
    let path = TempPath::new();
    let armed = Arc::new(AtomicBool::new(false));
    let is_armed = Arc::clone(&armed);
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = std::sync::Mutex::new(may_go_on);
    let hook = move |call, name: &str| {
        if is_segment_sync(call, name) && is_armed.swap(false, Ordering::SeqCst) {
            let _ = may_go_on.lock().unwrap().recv();
        }
        Ok(())
    };
    let held = Arc::new(std::sync::Mutex::new(()));
    let (wanted, called) = (Arc::clone(&held), mpsc::channel());
    let (call, called) = called;
    let mut options = options(Durability::EveryGroup);
    options.stall_threshold = Duration::from_millis(5);
    options.on_stall = Some(crate::hooks::OnStall(Arc::new(move |_: &crate::Stall| {
        let _ = call.send(());
        drop(wanted.lock());
    })));
    let wal = open(&path, &options, |dir| HookedDir::new(dir, hook)).unwrap();
    let guard = held.lock().unwrap();
    armed.store(true, Ordering::SeqCst);
    wal.append(b"stalled").unwrap();
    called.recv().unwrap();
    go_on.send(()).unwrap();
    wal.close().unwrap();
    drop(guard);
}

#[test]
fn lock_is_held_until_the_last_sync_has_ended() {
    let path = TempPath::new();
    let armed = Arc::new(AtomicBool::new(false));
    let is_armed = Arc::clone(&armed);
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = std::sync::Mutex::new(may_go_on);
    let hook = move |call, name: &str| {
        if is_segment_sync(call, name) && is_armed.swap(false, Ordering::SeqCst) {
            let _ = begun.send(());
            let _ = may_go_on.lock().unwrap().recv();
        }
        Ok(())
    };
    let wal = open(&path, &options(Durability::Manual), |dir| HookedDir::new(dir, hook)).unwrap();
    wal.append(b"synced by close").unwrap();
    armed.store(true, Ordering::SeqCst);
    let closing = std::thread::spawn(move || wal.close());
    has_begun.recv().unwrap();
    let names = Names::new("wal");
    let next = || DirLock::acquire(&OsDir::open_or_create(&path).unwrap(), &names, Duration::ZERO);
    for _ in 0..50 {
        assert!(matches!(next(), Err(Error::Locked { .. })), "locked during a sync");
        std::thread::sleep(Duration::from_millis(2));
    }
    go_on.send(()).unwrap();
    closing.join().unwrap().unwrap();
    assert!(next().is_ok());
}

#[test]
fn log_moved_between_devices_of_different_block_sizes_keeps_its_records() {
    let path = TempPath::new();
    let mut expected = Vec::new();
    for (round, block) in [4096, 8192, 4096, 16384, 8192].into_iter().enumerate() {
        let wrap = |dir| HookedDir::new(dir, |_, _| Ok(())).with_block(block);
        let wal = open(&path, &options(Durability::EveryGroup), wrap).unwrap();
        let read =
            |wal: &Wal| wal.reader(Lsn::ZERO).map(|r| r.unwrap().payload).collect::<Vec<_>>();
        assert_eq!(read(&wal), expected, "before round {round}");
        for n in 0..20_u8 {
            let payload = vec![n ^ round as u8; 300];
            wal.append_durable(&payload).unwrap();
            expected.push(payload);
        }
        assert_eq!(read(&wal), expected, "in round {round}");
    }
}
