//! What is missing, damaged or foreign in a store or in a log is named, and nothing is deleted.

use std::sync::Arc;

use object_store::ObjectStore;
use ringwal::Lsn;
use ringwal_archive::{Error, Until, object_store};

use crate::support::{
    PART, SEGMENT, Temp, archive, archiver, assert_nothing_left, before, builder, closed_log,
    contents, delete, memory, names, objects, put, ship,
};

fn archived(temp: &Temp) -> (Arc<dyn ObjectStore>, crate::support::Records) {
    let records = closed_log(&temp.join("log"), 4);
    let store = memory();
    ship(&archive(&store), &temp.join("log"));
    (store, records)
}

#[test]
fn missing_object_is_named_and_ranges_beside_it_are_restored() {
    let temp = Temp::new();
    let (store, records) = archived(&temp);
    for (kind, damaged) in [("/segments/", 1), ("/manifests/", 2)] {
        let name = names(&store, kind)[damaged].clone();
        let (_, bytes) = objects(&store).into_iter().find(|(found, _)| *found == name).unwrap();
        delete(&store, &name);
        let left = objects(&store);
        let to = temp.fresh();
        let failed = archive(&store).restore().into(&to).unwrap_err();
        let at = Lsn::new(damaged as u64 * SEGMENT);
        match &failed {
            Error::MissingObject { object, from, to } => {
                assert_eq!((object, *from), (&name, at));
                assert_eq!(*to, Lsn::new((damaged as u64 + 1) * SEGMENT));
            }
            other => panic!("{other:?}"),
        }
        assert!(failed.to_string().contains("put the object back"), "{failed}");
        assert_nothing_left(&to);
        let gaps = archive(&store).list().unwrap().gaps;
        assert!(gaps.len() == 1 && gaps[0].missing == name && gaps[0].from == at, "{gaps:?}");
        let restored = archive(&store).restore().until(Until::Lsn(at)).into(&to).unwrap();
        assert!(contents(&to) == before(&records, restored.end));
        let after = Lsn::new((damaged as u64 + 1) * SEGMENT);
        let rest = archive(&store).restore().from(after).into(temp.fresh()).unwrap();
        assert_eq!(rest.from, after);
        assert_eq!(objects(&store), left, "nothing is deleted");
        put(&store, &name, bytes);
    }
    archive(&store).restore().into(temp.fresh()).unwrap();
}

#[test]
fn damaged_object_is_named_with_its_place() {
    let temp = Temp::new();
    let (store, _) = archived(&temp);
    let name = names(&store, "/segments/")[1].clone();
    let (_, sound) = objects(&store).into_iter().find(|(found, _)| *found == name).unwrap();
    let places = [0, 100, 4096, PART as usize + 1, sound.len() - 1];
    for place in places {
        let mut bytes = sound.clone();
        bytes[place] ^= 0x10;
        put(&store, &name, bytes);
        let to = temp.fresh();
        match archive(&store).restore().into(&to) {
            Err(Error::DamagedObject { object, offset, before, .. }) => {
                assert_eq!((object, before), (name.clone(), Lsn::new(SEGMENT)));
                assert!((offset..offset + PART).contains(&(place as u64)), "{place}: {offset}");
            }
            other => panic!("{place}: {other:?}"),
        }
        assert_nothing_left(&to);
    }
    put(&store, &name, sound[..sound.len() - 7].to_vec());
    let short = archive(&store).restore().into(temp.fresh());
    assert!(matches!(short, Err(Error::DamagedObject { .. })), "{short:?}");
    // What is missing in the store is sent again while the log has it.
    let again = ship(&archive(&store), &temp.join("log"));
    assert_eq!((again.shipped, again.present), (1, 3));
    archive(&store).restore().into(temp.fresh()).unwrap();
}

#[test]
fn torn_manifest_is_no_archived_segment_and_is_replaced() {
    let temp = Temp::new();
    let (store, records) = archived(&temp);
    let name = names(&store, "/manifests/")[3].clone();
    let (_, sound) = objects(&store).into_iter().find(|(found, _)| *found == name).unwrap();
    for len in [0, 1, sound.len() / 2, sound.len() - 1] {
        put(&store, &name, sound[..len].to_vec());
        let listing = archive(&store).list().unwrap();
        assert_eq!(listing.segments.len(), 3);
        assert_eq!(listing.invalid_manifests, [name.as_str()]);
        assert_eq!(listing.unconfirmed_objects.len(), 1);
        let to = temp.fresh();
        let restored = archive(&store).restore().into(&to).unwrap();
        assert!(contents(&to) == before(&records, restored.end));
        assert_eq!(ship(&archive(&store), &temp.join("log")).shipped, 1);
        assert_eq!(objects(&store).into_iter().find(|(n, _)| *n == name).unwrap().1, sound);
    }
}

#[test]
fn another_log_is_refused_at_the_same_place() {
    let temp = Temp::new();
    let (store, _) = archived(&temp);
    let left = objects(&store);
    closed_log(&temp.join("other"), 2);
    let other = archiver(&archive(&store)).start().unwrap();
    let refused = other.catch_up(temp.join("other"), "wal").unwrap_err();
    assert!(matches!(refused, Error::AnotherLog { .. }), "{refused}");
    assert!(refused.to_string().contains("logs/orders"), "{refused}");
    // Also if the object is gone that says whose the archive is.
    delete(&store, "logs/orders/archive.manifest");
    let refused = other.catch_up(temp.join("other"), "wal").unwrap_err();
    assert!(matches!(refused, Error::AnotherLog { .. }), "{refused}");
    put(&store, "logs/orders/archive.manifest", left[0].1.clone());
    assert_eq!(objects(&store), left);
}

#[test]
fn restored_log_that_goes_on_is_refused_where_its_original_is_archived() {
    let temp = Temp::new();
    let (store, _) = archived(&temp);
    let left = objects(&store);
    let to = temp.fresh();
    archive(&store).restore().until(Until::Lsn(Lsn::new(2 * SEGMENT + 50_000))).into(&to).unwrap();
    let wal = builder(&to).open().unwrap();
    for n in 0..250 {
        wal.append(&crate::support::payload(n)).unwrap();
    }
    assert!(wal.end().as_u64() > 6 * SEGMENT);
    wal.close().unwrap();
    let by_hook = archiver(&archive(&store)).start().unwrap();
    // The store has an object of that name, so only its content tells.
    let wal = by_hook.attach(builder(&to)).open().unwrap();
    // The first three segments are older than the archive's end; two of them are of both logs.
    let judged = || {
        let stats = by_hook.stats();
        stats.last_error.is_some() || stats.shipped + stats.present > 2
    };
    crate::support::eventually("it is judged", judged);
    let error = by_hook.stats().last_error.unwrap();
    assert!(error.contains("another history") && error.contains("new place"), "{error}");
    crate::support::eventually("it is refused", || wal.stats().sealed_failures > 0);
    by_hook.stop();
    wal.close().unwrap();
    // From outside only names are compared at first. The log has gone beyond the archive's end, so
    // its newest segments have none there.
    let outside = archiver(&archive(&store)).start().unwrap();
    let refused = outside.catch_up(&to, "wal").unwrap_err();
    assert!(matches!(refused, Error::Diverged { .. }), "{refused}");
    assert_eq!(outside.stats().present, 0);
    assert_eq!(objects(&store), left);
    // At a new place it is a log like any other.
    let elsewhere = memory();
    ship(&archive(&elsewhere), &to);
    archive(&elsewhere).restore().into(temp.fresh()).unwrap();
}

#[test]
fn damaged_segment_is_not_shipped() {
    let temp = Temp::new();
    closed_log(&temp.join("log"), 3);
    let path = temp.join("log").join(format!("wal.{:020}.wal", SEGMENT));
    let sound = std::fs::read(&path).unwrap();
    // Where the first group is damaged, nothing says where the segment before it ends.
    for (place, archived) in [(4096, 0), (4096 + 200, 1), (sound.len() / 2, 1)] {
        let mut bytes = sound.clone();
        bytes[place] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let store = memory();
        let archiver = archiver(&archive(&store)).start().unwrap();
        let refused = archiver.catch_up(temp.join("log"), "wal").unwrap_err();
        assert!(
            matches!(&refused, Error::Log(ringwal::Error::Corruption { .. })),
            "{place}: {refused:?}"
        );
        assert_eq!(archive(&store).list().unwrap().segments.len(), archived);
    }
}

#[test]
fn place_without_an_archive_is_said_to_be_one() {
    let temp = Temp::new();
    let store = memory();
    assert!(matches!(archive(&store).list(), Err(Error::NoArchive { .. })));
    let to = temp.fresh();
    assert!(matches!(archive(&store).restore().into(&to), Err(Error::NoArchive { .. })));
    assert_nothing_left(&to);
}

#[test]
fn local_directory_that_is_gone_is_not_created_again() {
    let temp = Temp::new();
    closed_log(&temp.join("log"), 2);
    let place = temp.join("store");
    let archive = ringwal_archive::Archive::at(place.to_str().unwrap()).unwrap();
    let archiver = archiver(&archive).attempts(1).start().unwrap();
    assert_eq!(archiver.catch_up(temp.join("log"), "wal").unwrap().shipped, 2);
    // As if its filesystem was unmounted.
    std::fs::rename(&place, temp.join("unmounted")).unwrap();
    std::fs::create_dir(&place).unwrap();
    let refused = archiver.catch_up(temp.join("log"), "wal").unwrap_err();
    assert!(matches!(refused, Error::NoArchive { .. }), "{refused}");
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
}
