//! What an operator of an archive does besides: verifies it, has two archivers at once, and starts
//! a restore again that was killed.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringwal::Lsn;
use ringwal_archive::{Error, RestoreProgress, Until};

use crate::faults::{Faulty, shared};
use crate::support::{
    PART, SEGMENT, Temp, archive, archiver, assert_nothing_left, before, builder, closed_log,
    contents, delete, memory, objects, put, ship,
};

fn go_on(_: RestoreProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn whole_archive_is_verified_and_all_damage_is_reported() {
    let temp = Temp::new();
    closed_log(&temp.join("log"), 5);
    let store = memory();
    let archive = archive(&store);
    ship(&archive, &temp.join("log"));
    let listing = archive.list().unwrap();
    let mut seen = RestoreProgress::default();
    let note = |at: RestoreProgress| {
        assert!(at.done > seen.done && at.done <= at.total);
        seen = at;
        ControlFlow::Continue(())
    };
    let verified = archive.verify(note).unwrap();
    assert!(verified.findings.is_empty(), "{:?}", verified.findings);
    assert_eq!((verified.segments, verified.bytes), (5, seen.total));
    assert_eq!(seen.done, seen.total);
    assert_eq!(verified.records, listing.segments.iter().map(|s| s.records).sum::<u64>());
    assert!(matches!(archive.verify(|_| ControlFlow::Break(())), Err(Error::Stopped)));
    // One is changed in two places, one is too long, one too short, and one is missing.
    let names: Vec<String> = listing.segments.iter().map(|s| s.object.clone()).collect();
    let all = objects(&store);
    let of = |name: &String| all.iter().find(|(found, _)| found == name).unwrap().1.clone();
    let mut changed = of(&names[0]);
    changed[PART as usize + 5] ^= 1;
    changed[2 * PART as usize] ^= 1;
    put(&store, &names[0], changed);
    put(&store, &names[1], [of(&names[1]), vec![0]].concat());
    put(&store, &names[2], of(&names[2])[..70_000].to_vec());
    delete(&store, &names[3]);
    let left = objects(&store);
    let findings = archive.verify(go_on).unwrap().findings;
    assert_eq!(findings.len(), 4, "{findings:?}");
    let found: Vec<(String, u64)> = findings
        .iter()
        .map(|finding| match finding {
            Error::DamagedObject { object, offset, .. } => (object.clone(), *offset),
            Error::MissingObject { object, from, .. } => (object.clone(), from.as_u64()),
            other => panic!("{other}"),
        })
        .collect();
    let expected = [
        (names[3].clone(), 3 * SEGMENT),
        (names[0].clone(), PART),
        (names[1].clone(), of(&names[1]).len() as u64),
        (names[2].clone(), 70_000),
    ];
    assert_eq!(found, expected);
    assert_eq!(objects(&store), left, "nothing changes");
}

#[test]
fn two_archivers_of_one_log_at_once_make_one_archive() {
    let temp = Temp::new();
    let records = closed_log(&temp.join("log"), 6);
    for _ in 0..4 {
        let store = memory();
        let archive = archive(&store);
        // With parts of different sizes, so that their manifests differ.
        let parts = [PART, 2 * PART, 3 * PART];
        let archivers = parts.map(|part| archiver(&archive).part_bytes(part).start().unwrap());
        std::thread::scope(|scope| {
            for one in &archivers {
                scope.spawn(|| one.catch_up(temp.join("log"), "wal").unwrap());
            }
        });
        assert_eq!(objects(&store).len(), 1 + 2 * 6);
        assert!(archive.verify(go_on).unwrap().findings.is_empty());
        let to = temp.fresh();
        let restored = archive.restore().into(&to).unwrap();
        assert!(contents(&to) == before(&records, restored.end));
    }
}

#[test]
fn followed_log_does_not_ask_again_for_what_is_confirmed() {
    let temp = Temp::new();
    closed_log(&temp.join("log"), 8);
    let inner = memory();
    let faulty = Faulty::new(&inner, |_| None);
    let archiver = archiver(&archive(&shared(&faulty))).start().unwrap();
    assert_eq!(archiver.catch_up(temp.join("log"), "wal").unwrap().shipped, 8);
    let shipped = faulty.requests();
    for _ in 0..5 {
        assert_eq!(archiver.catch_up(temp.join("log"), "wal").unwrap().present, 8);
    }
    let each = (faulty.requests() - shipped) / 5;
    assert!(each <= 4, "{each} requests each time");
}

/// Copies a directory as it is now, as if its process was killed.
fn snapshot(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let at = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            snapshot(&entry.path(), &at);
        } else {
            std::fs::copy(entry.path(), at).unwrap();
        }
    }
}

#[test]
fn restore_that_was_killed_is_continued_by_the_next_one() {
    let temp = Temp::new();
    let records = closed_log(&temp.join("log"), 4);
    let store = memory();
    ship(&archive(&store), &temp.join("log"));
    let reads = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&reads);
    let counted = Faulty::new(&store, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        None
    });
    let archive = archive(&shared(&counted));
    let (to, mut killed) = (temp.fresh(), Vec::new());
    let copy = |_: RestoreProgress| {
        let copy = temp.fresh();
        snapshot(&to, &copy);
        killed.push(copy);
        ControlFlow::Continue(())
    };
    let whole = archive.restore().progress(copy).into(&to).unwrap();
    let mut requests = Vec::new();
    for dir in &killed {
        // Not a log until the restore is done.
        assert!(builder(dir).must_exist(true).open().is_err());
        let start = reads.load(Ordering::SeqCst);
        assert_eq!(archive.restore().into(dir).unwrap(), whole);
        requests.push(reads.load(Ordering::SeqCst) - start);
        assert!(contents(dir) == before(&records, whole.end));
        assert!(!dir.join("wal.restoring").exists());
    }
    // What is there is not read again.
    assert!(requests.last() < requests.first(), "{requests:?}");
    assert!(requests.is_sorted_by(|a, b| a >= b), "{requests:?}");
    // Killed while it moves segments to their place, newest first; and then another range is asked.
    for moved in 0..=4 {
        for until in [Until::Newest, Until::Lsn(Lsn::new(2 * SEGMENT + 7))] {
            let dir = temp.fresh();
            archive.restore().into(&dir).unwrap();
            let inner = dir.join("wal.restoring");
            std::fs::create_dir(&inner).unwrap();
            for n in 0..moved {
                let name = format!("wal.{:020}.wal", n * SEGMENT);
                let _ = std::fs::rename(dir.join(&name), inner.join(&name));
            }
            let restored = archive.restore().until(until).into(&dir).unwrap();
            assert!(contents(&dir) == before(&records, restored.end), "{moved}");
            assert!(!inner.exists());
        }
    }
}

#[test]
fn damaged_segment_of_an_interrupted_restore_is_read_again() {
    let temp = Temp::new();
    let records = closed_log(&temp.join("log"), 3);
    let store = memory();
    let archive = archive(&store);
    ship(&archive, &temp.join("log"));
    let listing = archive.list().unwrap();
    let in_a_group = listing.segments[1].bytes as usize - 1;
    // In a group, after the groups, and a file that is too short or too long.
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let changes: [Change<'_>; 4] = [
        &|bytes| bytes[in_a_group] ^= 1,
        &|bytes| *bytes.last_mut().unwrap() = 1,
        &|bytes| bytes.truncate(PART as usize),
        &|bytes| bytes.push(0),
    ];
    for (n, change) in changes.iter().enumerate() {
        let dir = temp.fresh();
        archive.restore().into(&dir).unwrap();
        let inner = dir.join("wal.restoring");
        std::fs::create_dir(&inner).unwrap();
        for segment in 0..2 {
            let name = format!("wal.{:020}.wal", segment * SEGMENT);
            std::fs::rename(dir.join(&name), inner.join(&name)).unwrap();
        }
        let path = inner.join(format!("wal.{:020}.wal", SEGMENT));
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let restored = archive.restore().into(&dir).unwrap();
        assert!(contents(&dir) == before(&records, restored.end), "{n}");
        let whole = temp.fresh();
        archive.restore().into(&whole).unwrap();
        let segment = format!("wal.{:020}.wal", SEGMENT);
        assert!(
            std::fs::read(dir.join(&segment)).unwrap()
                == std::fs::read(whole.join(&segment)).unwrap(),
            "{n}"
        );
    }
}

#[test]
fn interrupted_restore_with_anything_else_beside_it_is_left_alone() {
    let temp = Temp::new();
    closed_log(&temp.join("log"), 2);
    let store = memory();
    let archive = archive(&store);
    ship(&archive, &temp.join("log"));
    for other in ["notes", "wal.lock", "wal.00000000000000000000.tmp", "other.restoring"] {
        let dir = temp.fresh();
        std::fs::create_dir_all(dir.join("wal.restoring")).unwrap();
        std::fs::write(dir.join(other), b"mine").unwrap();
        let refused = archive.restore().into(&dir).unwrap_err();
        assert!(matches!(&refused, Error::NotEmpty { found, .. } if found == other), "{refused}");
        assert_eq!(std::fs::read(dir.join(other)).unwrap(), b"mine");
    }
    // Segments without the mark of a restore are a log.
    let dir = temp.fresh();
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join(format!("wal.{:020}.wal", 0)), b"mine").unwrap();
    assert!(matches!(archive.restore().into(&dir), Err(Error::NotEmpty { .. })));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
}

#[test]
fn two_restores_into_one_directory_do_not_meet() {
    let temp = Temp::new();
    let records = closed_log(&temp.join("log"), 3);
    let store = memory();
    let archive = archive(&store);
    ship(&archive, &temp.join("log"));
    let to = temp.fresh();
    let mut refused = 0;
    let other = |_: RestoreProgress| {
        let second = archive.restore().into(&to).unwrap_err();
        assert!(matches!(second, Error::Restoring { .. }), "{second}");
        refused += 1;
        ControlFlow::Continue(())
    };
    let restored = archive.restore().progress(other).into(&to).unwrap();
    assert!(refused > 3);
    assert!(contents(&to) == before(&records, restored.end));
    // Where it was refused, it has left nothing of its own.
    std::fs::remove_dir_all(&to).unwrap();
    assert_nothing_left(&to);
}
