//! Pruning keeps what a restore to any later point needs, whatever interrupts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use object_store::ObjectStore;
use ringwal::Lsn;
use ringwal_archive::{Archive, Error, KeepFrom, Pruned, Until, object_store};

use crate::faults::{Fault, Faulty, shared};
use crate::support::{
    Records, SEGMENT, Temp, archive, archiver, before, builder, closed_log, contents, delete,
    memory, objects, payload, put, ship, timed,
};

const SEALED: u64 = 5;

fn archived(temp: &Temp) -> (Arc<dyn ObjectStore>, Records) {
    let records = closed_log(&temp.join("log"), SEALED);
    let store = memory();
    ship(&archive(&store), &temp.join("log"));
    (store, records)
}

fn from_segment(n: u64) -> KeepFrom {
    KeepFrom::Lsn(Lsn::new(n * SEGMENT))
}

/// The archive restores to each of these positions, and has the records from `from` on.
fn check_kept(archive: &Archive, temp: &Temp, records: &Records, from: Lsn, case: &str) {
    let listing = archive.list().unwrap();
    assert!(listing.gaps.is_empty(), "{case}: {listing:?}");
    let end = listing.segments.last().unwrap().groups_end;
    let kept = |until: Lsn| -> Records {
        before(records, until).into_iter().filter(|(lsn, _)| *lsn >= from).collect()
    };
    for until in [Lsn::new(from.as_u64() + 40_000), Lsn::new(4 * SEGMENT + 9), end] {
        if until.as_u64() < from.as_u64() + 40_000 {
            continue;
        }
        let to = temp.fresh();
        archive.restore().until(Until::Lsn(until)).into(&to).unwrap();
        let mut found = contents(&to);
        found.retain(|(lsn, _)| *lsn >= from);
        assert!(found == kept(until), "{case}: {until}");
        std::fs::remove_dir_all(to).unwrap();
    }
}

fn counts(pruned: &Pruned) -> (u64, u64, u64) {
    (pruned.segments, pruned.kept_segments, pruned.objects)
}

#[test]
fn prune_to_a_position_removes_the_segments_that_end_at_or_below_it() {
    for (at, goes) in [
        (0, 0),
        (1, 0),
        (SEGMENT - 1, 0),
        (SEGMENT, 1),
        (SEGMENT + 1, 1),
        (2 * SEGMENT, 2),
        (3 * SEGMENT - 1, 2),
        (4 * SEGMENT, 4),
    ] {
        let temp = Temp::new();
        let (store, records) = archived(&temp);
        let archive = archive(&store);
        let (all, keep) = (objects(&store), KeepFrom::Lsn(Lsn::new(at)));
        let planned = archive.prunable(keep).unwrap();
        assert_eq!(objects(&store), all, "nothing changes");
        let pruned = archive.prune(keep).unwrap();
        assert_eq!(planned, pruned);
        assert_eq!(counts(&pruned), (goes, SEALED - goes, 2 * goes), "{at}");
        assert_eq!(pruned.kept_from, Lsn::new(goes * SEGMENT), "{at}");
        let left = objects(&store);
        let floor = usize::from(goes > 0);
        assert_eq!(left.len(), all.len() - 2 * goes as usize + floor, "{at}");
        let bytes = |all: &[(String, Vec<u8>)]| {
            let sizes = all.iter().filter(|(name, _)| !name.ends_with("floor.manifest"));
            sizes.map(|(_, bytes)| bytes.len() as u64).sum::<u64>()
        };
        assert_eq!(pruned.bytes, bytes(&all) - bytes(&left), "{at}");
        check_kept(&archive, &temp, &records, Lsn::new(at), "after the prune");
        // Again it removes nothing, also to an earlier position.
        for again in [keep, from_segment(0)] {
            let pruned = archive.prune(again).unwrap();
            assert_eq!((counts(&pruned), pruned.bytes), ((0, SEALED - goes, 0), 0), "{at}");
            assert_eq!(objects(&store), left, "{at}");
        }
    }
}

#[test]
fn newest_segment_stays_and_positions_beyond_the_end_are_refused() {
    let temp = Temp::new();
    let (store, records) = archived(&temp);
    let archive = archive(&store);
    let all = objects(&store);
    let end = archive.list().unwrap().segments.last().unwrap().end;
    for keep in [Lsn::new(end.as_u64() + 1), Lsn::new(u64::MAX)] {
        for refused in [archive.prunable(KeepFrom::Lsn(keep)), archive.prune(KeepFrom::Lsn(keep))] {
            let refused = refused.unwrap_err();
            assert!(matches!(refused, Error::BeyondEnd { end: at, .. } if at == end), "{refused}");
        }
    }
    assert_eq!(objects(&store), all);
    let later = SystemTime::now() + Duration::from_secs(1_000_000);
    let pruned = archive.prune(KeepFrom::Time(later)).unwrap();
    assert_eq!((pruned.segments, pruned.kept_segments), (SEALED - 1, 1));
    check_kept(&archive, &temp, &records, pruned.kept_from, "the newest segment");
    assert!(matches!(
        crate::support::archive(&memory()).prune(from_segment(0)),
        Err(Error::NoArchive { .. })
    ));
}

#[test]
fn prune_to_a_time_keeps_every_restore_to_that_time_or_later() {
    let temp = Temp::new();
    let dir = temp.join("log");
    let wal = builder(&dir).segment_size(64 << 10).open().unwrap();
    for n in 0..50 {
        wal.append(&payload(n)[..3000]).unwrap();
        wal.sync().unwrap();
    }
    wal.close().unwrap();
    let whole = memory();
    ship(&archive(&whole), &dir);
    let to = temp.fresh();
    archive(&whole).restore().into(&to).unwrap();
    let all = timed(&to);
    let segments = archive(&whole).list().unwrap().segments;
    let tick = Duration::from_nanos(1);
    let edges = segments.iter().flat_map(|segment| [segment.first_written, segment.last_written]);
    for time in edges.flat_map(|time| [time - tick, time, time + tick]) {
        let store = memory();
        ship(&archive(&store), &dir);
        let pruned = archive(&store).prune(KeepFrom::Time(time)).unwrap();
        let kept = archive(&store).list().unwrap().segments;
        // One segment more would be too many.
        if let [_, second, third, ..] = &kept[..] {
            assert!(second.first_written >= time || second.last_written >= time, "{time:?}");
            assert!(third.last_written >= time, "{time:?}");
        }
        for until in [time, time + Duration::from_micros(200)] {
            let expected: Records = all
                .iter()
                .take_while(|(_, _, written)| *written < until)
                .filter(|(lsn, _, _)| *lsn >= pruned.kept_from)
                .map(|(lsn, payload, _)| (*lsn, payload.clone()))
                .collect();
            // Before its first record the log has only the group that its opening wrote.
            assert!(!expected.is_empty() || until <= all[0].2, "{until:?}");
            let to = temp.fresh();
            match archive(&store).restore().until(Until::Time(until)).into(&to) {
                Ok(_) => {
                    assert!(contents(&to) == expected, "{until:?}");
                    std::fs::remove_dir_all(to).unwrap();
                }
                Err(Error::BeforeStart { .. }) => assert!(expected.is_empty(), "{until:?}"),
                Err(e) => panic!("{until:?}: {e}"),
            }
        }
    }
}

/// The request numbered `at` meets a fault, and with it the process ends.
fn crash(
    temp: &Temp,
    records: &Records,
    whole: &[(String, Vec<u8>)],
    at: u64,
    fault: Fault,
) -> bool {
    let case = format!("request {at}: {fault:?}");
    let inner = memory();
    for (name, bytes) in whole {
        put(&inner, name, bytes.clone());
    }
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
    let keep = from_segment(3);
    let done = archive(&shared(&faulty)).prune(keep);
    let crashed = dead.load(Ordering::SeqCst);
    assert_eq!(done.is_err(), crashed, "{case}: {done:?}");
    // Either nothing is pruned, or all of it; and both can be restored.
    let archive = archive(&inner);
    let listing = archive.list().unwrap();
    let kept = listing.segments.len() as u64;
    assert!([SEALED, SEALED - 3].contains(&kept), "{case}: {kept}");
    assert_eq!(listing.floor.as_u64() / SEGMENT, SEALED - kept, "{case}");
    if at.is_multiple_of(3) {
        check_kept(&archive, temp, records, listing.segments[0].base, &case);
    }
    // No archiver ships it again, and the next prune removes what is left.
    let again = ship(&archive, &temp.join("log"));
    assert_eq!((again.shipped, again.pruned), (0, SEALED - kept), "{case}");
    let pruned = archive.prune(keep).unwrap();
    assert_eq!(pruned.kept_from, Lsn::new(3 * SEGMENT), "{case}");
    let listing = archive.list().unwrap();
    assert_eq!(listing.segments.len() as u64, SEALED - 3, "{case}");
    assert!(listing.unconfirmed_objects.is_empty(), "{case}: {listing:?}");
    assert_eq!(objects(&inner).len() as u64, 2 + 2 * (SEALED - 3), "{case}");
    crashed
}

#[test]
fn prune_that_ends_at_any_request_leaves_an_archive_that_is_whole_and_is_continued() {
    let temp = Temp::new();
    let (store, records) = archived(&temp);
    let whole = objects(&store);
    for fault in [Fault::Unavailable, Fault::LostAnswer, Fault::Torn] {
        let mut at = 0;
        while crash(&temp, &records, &whole, at, fault) {
            at += 1;
        }
        assert!(at > 15, "only {at} requests");
    }
}

#[test]
fn archiver_does_not_ship_again_what_was_pruned() {
    let temp = Temp::new();
    let (store, _) = archived(&temp);
    let archive = archive(&store);
    archive.prune(from_segment(3)).unwrap();
    let left = objects(&store);
    let again = ship(&archive, &temp.join("log"));
    assert_eq!((again.shipped, again.present, again.pruned), (0, 2, 3));
    assert_eq!(again.archived_to, Lsn::new(SEALED * SEGMENT));
    // Nor does the hook, and the log is released.
    std::fs::remove_file(temp.join("log").join("wal.sealed")).ok();
    let archiver = archiver(&archive).start().unwrap();
    let wal = archiver.attach(builder(&temp.join("log")).max_segments(2)).open().unwrap();
    for _ in 0..150 {
        wal.append(&payload(100)).unwrap();
    }
    wal.sync().unwrap();
    crate::support::eventually("it is released", || wal.oldest_lsn().as_u64() >= 5 * SEGMENT);
    // What was released was in the archive before.
    crate::support::eventually("more is shipped", || objects(&store).len() > left.len());
    archiver.stop();
    wal.close().unwrap();
    let now = objects(&store);
    assert!(left.iter().all(|object| now.contains(object)));
    let lowest = format!("logs/orders/manifests/{:020}.manifest", 3 * SEGMENT);
    assert!(now.iter().filter(|(name, _)| name.contains("/manifests/")).all(|(n, _)| *n >= lowest));
}

fn is_segment(file: &std::io::Result<std::fs::DirEntry>) -> bool {
    file.as_ref().is_ok_and(|file| file.file_name().to_string_lossy().ends_with(".wal"))
}

#[test]
fn log_with_nothing_in_common_with_what_was_kept_is_refused() {
    let temp = Temp::new();
    let dir = temp.join("log");
    // A copy of the log from an earlier time, which goes on by itself.
    closed_log(&dir, 1);
    let copy = temp.join("copy");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let extend = |dir: &std::path::Path, segments: u64, fill: u8| {
        let wal = builder(dir).open().unwrap();
        while wal.end().as_u64() < segments * SEGMENT + 9000 {
            wal.append(&vec![fill; 9000]).unwrap();
        }
        // A fast log has two segments without groups, at the place of archived ones. If this one is
        // not fast, the test goes on without them.
        let start = std::time::Instant::now();
        let with_spares = segments as usize + 3;
        while std::fs::read_dir(dir).unwrap().filter(is_segment).count() < with_spares
            && start.elapsed() < std::time::Duration::from_secs(3)
        {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        wal.close().unwrap();
    };
    extend(&dir, 5, 1);
    let store = memory();
    let archive = archive(&store);
    ship(&archive, &dir);
    archive.prune(from_segment(4)).unwrap();
    extend(&copy, 3, 2);
    let left = objects(&store);
    let outside = archiver(&archive).start().unwrap();
    let refused = outside.catch_up(&copy, "wal").unwrap_err();
    assert!(matches!(refused, Error::Diverged { .. }), "{refused}");
    let hook = archiver(&archive).start().unwrap();
    let wal = hook.attach(builder(&copy).max_segments(2)).open().unwrap();
    crate::support::eventually("it is refused", || wal.stats().sealed_failures > 0);
    assert_eq!(wal.oldest_lsn(), Lsn::ZERO, "nothing is released");
    hook.stop();
    wal.close().unwrap();
    assert_eq!(objects(&store), left);
}

#[test]
fn gap_where_the_archive_begins_is_listed_and_filled_while_the_log_has_it() {
    let temp = Temp::new();
    let (store, records) = archived(&temp);
    let archive = archive(&store);
    let manifest = format!("logs/orders/manifests/{:020}.manifest", 2 * SEGMENT);
    delete(&store, &manifest);
    // The position lies in the segment that is missing.
    let pruned = archive.prune(KeepFrom::Lsn(Lsn::new(2 * SEGMENT + 100))).unwrap();
    assert_eq!((pruned.segments, pruned.kept_from), (2, Lsn::new(2 * SEGMENT)));
    let gaps = archive.list().unwrap().gaps;
    assert!(gaps.len() == 1 && gaps[0].missing == manifest, "{gaps:?}");
    assert_eq!(ship(&archive, &temp.join("log")).shipped, 1);
    check_kept(&archive, &temp, &records, Lsn::new(2 * SEGMENT), "filled");
}

#[test]
fn objects_of_others_stay() {
    let temp = Temp::new();
    let (store, _) = archived(&temp);
    let foreign = [
        "logs/orders/manifests/notes.txt".to_owned(),
        "logs/orders/manifests/00000000000000000000.manifest.bak".to_owned(),
        "logs/orders/segments/00000000000000000000.wal".to_owned(),
        "logs/orders/readme".to_owned(),
        format!("logs/other/manifests/{:020}.manifest", 0),
    ];
    for name in &foreign {
        put(&store, name, b"mine".to_vec());
    }
    archive(&store).prune(from_segment(4)).unwrap();
    let left = objects(&store);
    for name in &foreign {
        assert!(left.iter().any(|(found, _)| found == name), "{name}");
    }
    assert_eq!(left.len(), foreign.len() + 2 + 2);
}

#[test]
fn torn_floor_hides_nothing_and_is_replaced() {
    let temp = Temp::new();
    let (store, records) = archived(&temp);
    let archive = archive(&store);
    archive.prune(from_segment(2)).unwrap();
    let name = "logs/orders/floor.manifest";
    let (_, sound) = objects(&store).into_iter().find(|(found, _)| found == name).unwrap();
    for len in [0, 1, sound.len() - 1] {
        put(&store, name, sound[..len].to_vec());
        check_kept(&archive, &temp, &records, Lsn::new(2 * SEGMENT), "a torn floor");
    }
    archive.prune(from_segment(3)).unwrap();
    assert_eq!(archive.list().unwrap().floor, Lsn::new(3 * SEGMENT));
    // One of another log is none of this archive.
    let other = String::from_utf8(sound).unwrap();
    let id = archive.list().unwrap().log_id;
    let line = other.lines().next().unwrap().replace(&id, &"0".repeat(32)) + "\n";
    let text = format!("{line}{:08x}\n", crc32fast::hash(line.as_bytes()));
    put(&store, name, text.into_bytes());
    assert!(matches!(archive.list(), Err(Error::AnotherLog { .. })));
}

#[test]
fn list_beside_a_prune_has_no_gap() {
    let temp = Temp::new();
    let (store, _) = archived(&temp);
    let whole = objects(&store);
    // Another prune runs between two requests of a list.
    for at in 0..40 {
        let inner = memory();
        for (name, bytes) in &whole {
            put(&inner, name, bytes.clone());
        }
        let pruner = archive(&inner);
        let faulty = Faulty::new(&inner, move |n| {
            if n == at {
                let pruner = pruner.clone();
                std::thread::spawn(move || pruner.prune(from_segment(3)).unwrap()).join().unwrap();
            }
            None
        });
        let listing = archive(&shared(&faulty)).list().unwrap();
        assert!(listing.gaps.is_empty(), "{at}: {listing:?}");
        assert!([2, 5].contains(&listing.segments.len()), "{at}");
    }
}
