//! The archiver ends at every step, in every way, and is started again.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use object_store::ObjectStore;
use ringwal::Lsn;
use ringwal_archive::{Error, object_store};

use crate::faults::{Fault, Faulty, shared};
use crate::support::{
    Records, SEGMENT, Temp, archive, archiver, before, closed_log, contents, memory, objects, ship,
};

const SEALED: u64 = 2;

/// Whatever is listed as archived is whole, and is the log.
fn check_listed(store: &Arc<dyn ObjectStore>, temp: &Temp, log: &Records, case: &str) {
    let listing = match archive(store).list() {
        Err(Error::NoArchive { .. }) => return,
        listing => listing.unwrap(),
    };
    assert!(listing.gaps.is_empty(), "{case}: {listing:?}");
    let Some(last) = listing.segments.last() else { return };
    let to = temp.fresh();
    let restored = archive(store).restore().into(&to).unwrap();
    assert_eq!(restored.end, last.groups_end, "{case}");
    assert!(contents(&to) == before(log, last.end), "{case}");
    std::fs::remove_dir_all(to).unwrap();
}

/// The contents of stores that were checked. The same objects make the same log.
#[derive(Default)]
struct Checked(HashSet<Vec<(String, Vec<u8>)>>);

impl Checked {
    fn check(&mut self, store: &Arc<dyn ObjectStore>, temp: &Temp, log: &Records, case: &str) {
        if self.0.insert(objects(store)) {
            check_listed(store, temp, log, case);
        }
    }
}

/// The request numbered `at` meets a fault, and with it the process ends: no later request arrives.
fn crash(temp: &Temp, log: &Records, checked: &mut Checked, at: u64, fault: Fault) -> bool {
    let case = format!("request {at}: {fault:?}");
    let inner = memory();
    let dead = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&dead);
    let faulty = Faulty::new(&inner, move |n| match n {
        n if n == at => {
            ended.store(true, Ordering::SeqCst);
            Some(fault)
        }
        n if n > at => Some(Fault::Unavailable),
        _ => None,
    });
    let dir = temp.join("log");
    // One attempt: the archiver is gone after the first failure.
    let first = archiver(&archive(&shared(&faulty))).attempts(1).start().unwrap();
    let done = first.catch_up(&dir, "wal");
    first.stop();
    let crashed = dead.load(Ordering::SeqCst);
    assert_eq!(done.is_err(), crashed, "{case}: {done:?}");
    checked.check(&inner, temp, log, &case);
    let names =
        |all: Vec<(String, Vec<u8>)>| all.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let again = ship(&archive(&inner), &dir);
    assert_eq!(again.archived_to, Lsn::new(SEALED * SEGMENT), "{case}");
    assert_eq!(again.shipped + again.present, SEALED, "{case}");
    let listing = archive(&inner).list().unwrap();
    assert_eq!(listing.segments.len() as u64, SEALED, "{case}");
    assert!(listing.invalid_manifests.is_empty(), "{case}: {listing:?}");
    assert!(listing.unconfirmed_objects.is_empty(), "{case}: {listing:?}");
    checked.check(&inner, temp, log, &case);
    // A third time sends nothing, and the store has one name for each thing.
    let third = ship(&archive(&inner), &dir);
    assert_eq!((third.shipped, third.present), (0, SEALED), "{case}");
    assert_eq!(names(objects(&inner)).len() as u64, 1 + 2 * SEALED, "{case}");
    crashed
}

#[test]
fn crash_at_any_request_leaves_nothing_wrong_and_is_continued() {
    let temp = Temp::new();
    let log = closed_log(&temp.join("log"), SEALED);
    let mut checked = Checked::default();
    for fault in [Fault::Unavailable, Fault::LostAnswer, Fault::Torn] {
        let mut at = 0;
        while crash(&temp, &log, &mut checked, at, fault) {
            at += 1;
        }
        assert!(at > 20, "only {at} requests");
    }
}

#[test]
fn archiver_that_is_stopped_in_a_hanging_request_ends_and_is_continued() {
    let temp = Temp::new();
    let log = closed_log(&temp.join("log"), SEALED);
    for at in [0, 3, 7, 12, 20] {
        let inner = memory();
        let (reached, seen) = std::sync::mpsc::channel();
        let faulty = Faulty::new(&inner, move |n| {
            (n == at).then(|| {
                let _ = reached.send(());
                Fault::Hangs
            })
        });
        let first = archiver(&archive(&shared(&faulty))).start().unwrap();
        let stop = first.stopper();
        std::thread::scope(|scope| {
            let caught = scope.spawn(|| first.catch_up(temp.join("log"), "wal"));
            seen.recv().unwrap();
            stop();
            assert!(matches!(caught.join().unwrap(), Err(Error::Stopped)), "{at}");
        });
        drop(first);
        check_listed(&inner, &temp, &log, "a hanging request");
        assert_eq!(
            ship(&archive(&inner), &temp.join("log")).archived_to,
            Lsn::new(SEALED * SEGMENT)
        );
        check_listed(&inner, &temp, &log, "after it");
    }
}

#[test]
fn torn_upload_that_the_store_calls_a_success_is_sent_again() {
    let temp = Temp::new();
    let log = closed_log(&temp.join("log"), SEALED);
    let mut checked = Checked::default();
    // Each request once. Where it only reads, it fails.
    for torn in 0.. {
        let inner = memory();
        let faulty = Faulty::new(&inner, move |n| (n == torn).then_some(Fault::TornInSilence));
        let archiver = archiver(&archive(&shared(&faulty))).start().unwrap();
        let done = archiver.catch_up(temp.join("log"), "wal").unwrap();
        assert_eq!(done.archived_to, Lsn::new(SEALED * SEGMENT));
        checked.check(&inner, &temp, &log, &format!("request {torn} is torn"));
        if faulty.requests() <= torn {
            assert!(torn > 20, "only {torn} requests");
            break;
        }
        let stats = archiver.stats();
        assert!(stats.retries == 1 && stats.last_error.is_none(), "{torn}: {stats:?}");
    }
}

#[test]
fn list_that_lags_hides_nothing_from_a_restore() {
    let temp = Temp::new();
    let log = closed_log(&temp.join("log"), SEALED);
    let inner = memory();
    ship(&archive(&inner), &temp.join("log"));
    // Where a list names no segment at all, there is nothing that others follow from.
    for lag in 1..SEALED as usize {
        let store = shared(&Faulty::lagging(&inner, lag));
        assert_eq!(archive(&store).list().unwrap().segments.len() as u64, SEALED);
        check_listed(&store, &temp, &log, "a list that lags");
    }
}

#[test]
fn store_that_does_not_answer_in_time_is_asked_again() {
    let temp = Temp::new();
    closed_log(&temp.join("log"), 1);
    let inner = memory();
    let faulty = Faulty::new(&inner, |n| (n % 5 == 4 && n < 20).then_some(Fault::Hangs));
    let archive = archive(&shared(&faulty)).request_timeout(std::time::Duration::from_millis(20));
    let errors = Arc::new(std::sync::Mutex::new(Vec::new()));
    let list = Arc::clone(&errors);
    let archiver = archiver(&archive)
        .on_error(move |e| list.lock().unwrap().push(e.to_string()))
        .start()
        .unwrap();
    assert_eq!(archiver.catch_up(temp.join("log"), "wal").unwrap().shipped, 1);
    let errors = errors.lock().unwrap();
    assert!(errors.iter().any(|e| e.contains("did not")), "{errors:?}");
    assert_eq!(errors.len() as u64, archiver.stats().retries);
}
