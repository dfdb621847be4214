//! One archive has one history of a log, and none of it is left out unsaid.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use ringwal::Lsn;
use ringwal_archive::{Error, Until, object_store};

use crate::faults::{Fault, Faulty, shared};
use crate::support::{
    Records, SEGMENT, Temp, archive, archiver, assert_nothing_left, before, builder, closed_log,
    contents, delete, eventually, memory, names, objects, payload, put, ship,
};

const SEALED: u64 = 4;

fn archived(temp: &Temp) -> (Arc<dyn ObjectStore>, Records) {
    let records = closed_log(&temp.join("log"), SEALED);
    let store = memory();
    ship(&archive(&store), &temp.join("log"));
    (store, records)
}

/// A log that was restored to a position in the last archived segment, and has gone on: it has left
/// everything that it has in common with its original.
fn restored_and_gone_on(store: &Arc<dyn ObjectStore>, temp: &Temp) -> PathBuf {
    let to = temp.fresh();
    let middle = Lsn::new((SEALED - 1) * SEGMENT + 50_000);
    archive(store).restore().until(Until::Lsn(middle)).into(&to).unwrap();
    let wal = builder(&to).open().unwrap();
    for n in 100.. {
        wal.append_durable(&payload(n)).unwrap();
        if wal.end().as_u64() > (SEALED + 3) * SEGMENT {
            break;
        }
    }
    assert_eq!(wal.truncate_before(Lsn::new(SEALED * SEGMENT)).unwrap().as_u64() / SEGMENT, SEALED);
    wal.close().unwrap();
    to
}

fn findings(store: &Arc<dyn ObjectStore>) -> Vec<Error> {
    archive(store).verify(|_| ControlFlow::Continue(())).unwrap().findings
}

#[test]
fn log_of_another_history_is_refused_although_no_segment_is_of_both() {
    let temp = Temp::new();
    let (store, _) = archived(&temp);
    let left = objects(&store);
    let other = restored_and_gone_on(&store, &temp);
    let outside = archiver(&archive(&store)).start().unwrap();
    let refused = outside.catch_up(&other, "wal").unwrap_err();
    assert!(matches!(refused, Error::Diverged { base, .. } if base.as_u64() == 3 * SEGMENT));
    // The hook refuses it too, and so the log keeps its segments.
    let by_hook = archiver(&archive(&store)).start().unwrap();
    let wal = by_hook.attach(builder(&other).max_segments(2)).open().unwrap();
    let mut n = 0;
    eventually("it is refused", || {
        wal.append_durable(&payload(n)).unwrap();
        n += 1;
        wal.stats().sealed_failures > 0
    });
    assert_eq!(wal.oldest_lsn().as_u64() / SEGMENT, SEALED);
    by_hook.stop();
    wal.close().unwrap();
    assert_eq!(objects(&store), left);
    // The original goes on.
    let wal = builder(&temp.join("log")).open().unwrap();
    for n in 0..100 {
        wal.append_durable(&payload(n)).unwrap();
    }
    wal.close().unwrap();
    assert!(ship(&archive(&store), &temp.join("log")).shipped > 0);
    assert!(findings(&store).is_empty());
    archive(&store).restore().into(temp.fresh()).unwrap();
}

#[test]
fn two_histories_in_one_archive_are_reported_and_each_can_be_restored() {
    let temp = Temp::new();
    let (store, records) = archived(&temp);
    let other = restored_and_gone_on(&store, &temp);
    let elsewhere = memory();
    ship(&archive(&elsewhere), &other);
    for (name, bytes) in objects(&elsewhere) {
        if !name.ends_with("archive.manifest") {
            put(&store, &name, bytes);
        }
    }
    let at = Lsn::new(SEALED * SEGMENT);
    let listing = archive(&store).list().unwrap();
    assert_eq!((listing.other_histories, listing.gaps), (vec![at], vec![]));
    let found = findings(&store);
    assert!(matches!(found[..], [Error::AnotherHistory { base, .. }] if base == at), "{found:?}");
    let to = temp.fresh();
    let refused = archive(&store).restore().into(&to).unwrap_err();
    assert!(matches!(refused, Error::AnotherHistory { base, .. } if base == at), "{refused}");
    assert_nothing_left(&to);
    archive(&store).restore().until(Until::Lsn(at)).into(&to).unwrap();
    assert!(contents(&to) == before(&records, at));
    archive(&store).restore().from(at).into(temp.fresh()).unwrap();
}

#[test]
fn first_segment_is_missed_if_its_manifest_is_missing_or_damaged() {
    let temp = Temp::new();
    let (store, _) = archived(&temp);
    let name = names(&store, "/manifests/")[0].clone();
    let (_, sound) = objects(&store).into_iter().find(|(found, _)| *found == name).unwrap();
    for damage in [false, true] {
        match damage {
            false => delete(&store, &name),
            true => put(&store, &name, sound[1..].to_vec()),
        }
        let to = temp.fresh();
        let refused = archive(&store).restore().into(&to).unwrap_err();
        let is_named = matches!(&refused, Error::MissingObject { object, .. } if *object == name);
        assert!(is_named, "{refused}");
        assert_nothing_left(&to);
        let listing = archive(&store).list().unwrap();
        assert_eq!(listing.gaps.len(), 1);
        assert_eq!((&listing.gaps[0].missing, listing.gaps[0].from), (&name, Lsn::ZERO));
        assert_eq!(findings(&store).len(), 1);
        // What the user asks for without it is restored.
        let rest = archive(&store).restore().from(Lsn::new(SEGMENT)).into(&to).unwrap();
        assert_eq!((rest.from, rest.left_out), (Lsn::new(SEGMENT), Vec::<String>::new()));
    }
}

#[test]
fn damaged_manifest_of_the_newest_segment_is_reported_by_every_restore_to_the_newest() {
    let temp = Temp::new();
    let (store, records) = archived(&temp);
    let name = names(&store, "/manifests/").pop().unwrap();
    put(&store, &name, b"{}".to_vec());
    let found = findings(&store);
    let is_named = |e: &Error| matches!(e, Error::DamagedObject { object, .. } if *object == name);
    assert!(found.len() == 1 && is_named(&found[0]), "{found:?}");
    let end = Lsn::new((SEALED - 1) * SEGMENT);
    for (until, left_out) in [(Until::Newest, vec![name.clone()]), (Until::Lsn(end), vec![])] {
        let to = temp.fresh();
        let restored = archive(&store).restore().until(until).into(&to).unwrap();
        assert_eq!(restored.left_out, left_out);
        assert!(contents(&to) == before(&records, end));
    }
    // Nothing else is there: the place is not said to hold no archive.
    for other in names(&store, "/manifests/").into_iter().filter(|other| *other != name) {
        delete(&store, &other);
    }
    let refused = archive(&store).restore().into(temp.fresh()).unwrap_err();
    assert!(is_named(&refused), "{refused}");
}

#[test]
fn one_bad_read_shortens_no_restore() {
    let temp = Temp::new();
    let (store, _) = archived(&temp);
    let whole = archive(&store).restore().into(temp.fresh()).unwrap();
    for fault in [Fault::Changed, Fault::Absent] {
        for at in 0.. {
            let faulty = Faulty::new(&store, move |n| (n == at).then_some(fault));
            let to = temp.fresh();
            match archive(&shared(&faulty)).restore().into(&to) {
                Ok(restored) => assert_eq!(restored, whole, "{fault:?} at {at}"),
                Err(_) => assert_nothing_left(&to),
            }
            let _ = std::fs::remove_dir_all(&to);
            if faulty.requests() <= at {
                assert!(at > 10, "{at}");
                break;
            }
        }
    }
}

#[test]
fn what_is_archived_is_stated_also_if_the_log_has_no_sealed_segment() {
    let temp = Temp::new();
    let (store, _) = archived(&temp);
    let wal = builder(&temp.join("log")).open().unwrap();
    wal.truncate_before(wal.end()).unwrap();
    wal.close().unwrap();
    let archiver = archiver(&archive(&store)).start().unwrap();
    let again = archiver.catch_up(temp.join("log"), "wal").unwrap();
    assert_eq!((again.present, again.archived_to), (0, Lsn::new(SEALED * SEGMENT)));
    assert_eq!(archiver.stats().archived_to, again.archived_to);
}

#[test]
fn archive_without_a_segment_is_an_archive() {
    let temp = Temp::new();
    let wal = builder(&temp.join("log")).open().unwrap();
    wal.append_durable(b"one").unwrap();
    wal.close().unwrap();
    let store = memory();
    assert_eq!(ship(&archive(&store), &temp.join("log")).archived_to, Lsn::ZERO);
    assert!(archive(&store).list().unwrap().segments.is_empty());
    let refused = archive(&store).restore().into(temp.fresh()).unwrap_err();
    assert!(matches!(refused, Error::NoSegment { .. }), "{refused}");
    let refused = archive(&store).prune(ringwal_archive::KeepFrom::Lsn(Lsn::ZERO)).unwrap_err();
    assert!(matches!(refused, Error::NoSegment { .. }), "{refused}");
}
