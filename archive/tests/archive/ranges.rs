//! A restored log has exactly the records of the range.

use std::time::Duration;

use ringwal::{Lsn, ReadOnlyWal, Wal};
use ringwal_archive::{Archive, Error, Until};

use crate::support::{
    Records, SEGMENT, Temp, archive, assert_nothing_left, before, builder, closed_log, contents,
    durable_end, memory, payload, ship, timed,
};

/// Restores, and returns the records of the restored log.
fn restored(archive: &Archive, temp: &Temp, until: Until) -> (Records, Lsn) {
    let to = temp.fresh();
    let restored = archive.restore().until(until).into(&to).unwrap();
    assert_eq!(durable_end(&to), restored.end);
    let records = contents(&to);
    std::fs::remove_dir_all(to).unwrap();
    (records, restored.end)
}

/// A log with single records, batches and pauses, in groups of several records.
fn mixed_log(dir: &std::path::Path) -> Vec<Vec<(Lsn, Vec<u8>)>> {
    let wal = builder(dir).segment_size(64 << 10).open().unwrap();
    let mut units = Vec::new();
    for n in 0..60_u32 {
        let small = payload(n)[..200 + n as usize * 31 % 3000].to_vec();
        if n % 4 == 3 {
            let batch = [small.clone(), vec![1; 10], small];
            let lsns = wal.append_batch_lsns(&batch).unwrap();
            units.push(lsns.into_iter().zip(batch.clone()).collect());
        } else {
            units.push(vec![(wal.append(&small).unwrap(), small)]);
        }
        if n % 5 == 0 {
            wal.sync().unwrap();
        }
    }
    // The last segment is sealed by what follows.
    let end = wal.end();
    while wal.end().as_u64() < end.as_u64() + (128 << 10) {
        wal.append(&[0; 5000]).unwrap();
        wal.sync().unwrap();
    }
    wal.close().unwrap();
    units
}

#[test]
fn log_restored_to_each_position_has_the_records_below_it() {
    let temp = Temp::new();
    let units = mixed_log(&temp.join("log"));
    let store = memory();
    let archive = archive(&store);
    ship(&archive, &temp.join("log"));
    let end = archive.list().unwrap().segments.last().unwrap().groups_end;
    let positions = units.iter().flatten().map(|(lsn, _)| lsn.as_u64());
    // On each record, in it, and between it and the next.
    let targets = positions.flat_map(|lsn| [lsn, lsn + 1, lsn + 8]).filter(|n| *n <= end.as_u64());
    for target in targets.step_by(3).chain([end.as_u64(), 64 << 10, (64 << 10) + 1, 4097]) {
        let target = Lsn::new(target);
        let (found, _) = restored(&archive, &temp, Until::Lsn(target));
        // A batch is there as a whole, or not at all.
        let expected: Records = units
            .iter()
            .filter(|unit| unit.iter().all(|(lsn, _)| *lsn < target))
            .flatten()
            .cloned()
            .collect();
        let found: Records = found.into_iter().take(expected.len() + 1).collect();
        let past = units.last().unwrap().last().unwrap().0;
        let found = if target > past { found[..expected.len()].to_vec() } else { found };
        assert!(found == expected, "{target}: {} and {}", found.len(), expected.len());
    }
}

#[test]
fn log_restored_to_a_time_ends_before_the_first_group_of_that_time() {
    let temp = Temp::new();
    let wal = builder(&temp.join("log")).segment_size(64 << 10).open().unwrap();
    for n in 0..40 {
        wal.append(&payload(n)[..3000]).unwrap();
        wal.sync().unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    wal.close().unwrap();
    let store = memory();
    let archive = archive(&store);
    ship(&archive, &temp.join("log"));
    let to = temp.fresh();
    archive.restore().into(&to).unwrap();
    let all = timed(&to);
    assert!(all.len() > 15);
    for (at, (_, _, time)) in all.iter().enumerate() {
        for (time, inclusive) in [
            (*time, false),
            (*time + Duration::from_nanos(1), true),
            (*time - Duration::from_micros(1), false),
        ] {
            let expected = at + usize::from(inclusive);
            if expected == 0 {
                continue;
            }
            let (found, _) = restored(&archive, &temp, Until::Time(time));
            assert_eq!(found.len(), expected, "{at}: {time:?}");
        }
    }
    // A time after everything is no error: nothing was written since.
    let later = Until::Time(all.last().unwrap().2 + Duration::from_secs(3600));
    assert_eq!(restored(&archive, &temp, later).0.len(), all.len());
    // There is nothing before the log began.
    let fresh = temp.fresh();
    let early = archive.restore().until(Until::Time(std::time::UNIX_EPOCH)).into(&fresh);
    assert!(matches!(early, Err(Error::BeforeStart { .. })), "{early:?}");
    assert_nothing_left(&fresh);
}

#[test]
fn whole_history_returns_although_the_log_has_removed_its_front() {
    let temp = Temp::new();
    let (dir, store) = (temp.join("log"), memory());
    let archive = archive(&store);
    let mut records = Records::new();
    for round in 0..3 {
        let archiver = crate::support::archiver(&archive).start().unwrap();
        let wal = archiver.attach(builder(&dir).max_segments(3)).open().unwrap();
        let end = wal.end().as_u64() + 6 * SEGMENT;
        for n in 0.. {
            if wal.end().as_u64() > end {
                break;
            }
            let payload = payload(round * 1000 + n);
            records.push((wal.append(&payload).unwrap(), payload));
        }
        wal.sync().unwrap();
        crate::support::eventually("the front is removed", || wal.oldest_lsn() > Lsn::ZERO);
        archiver.stop();
        wal.close().unwrap();
    }
    let oldest = ReadOnlyWal::open(&dir).unwrap().oldest_lsn().unwrap();
    assert!(oldest.as_u64() >= 2 * SEGMENT);
    let to = temp.fresh();
    let restored = archive.restore().into(&to).unwrap();
    assert_eq!((restored.from, restored.records), (Lsn::ZERO, restored.records));
    let found = contents(&to);
    assert!(found == before(&records, restored.end));
    assert!(found.len() > records.len() / 2);
    // Opening has removed nothing, and the log goes on at the next position.
    let wal = builder(&to).open().unwrap();
    assert_eq!(wal.oldest_lsn(), Lsn::ZERO);
    assert!(wal.append_durable(b"goes on").unwrap() >= restored.end);
    wal.close().unwrap();
    assert_eq!(contents(&to).len(), found.len() + 1);
    // A part of it begins with the segment of the asked position.
    let to = temp.fresh();
    let part = archive.restore().from(Lsn::new(SEGMENT + 10)).into(&to).unwrap();
    assert_eq!(part.from, Lsn::new(SEGMENT));
    let expected: Records =
        found.iter().filter(|(lsn, _)| lsn.as_u64() >= SEGMENT).cloned().collect();
    assert!(contents(&to) == expected);
}

#[test]
fn cuts_count_if_they_were_made_before_the_end() {
    let temp = Temp::new();
    let (dir, store) = (temp.join("log"), memory());
    let wal = builder(&dir).segment_size(64 << 10).open().unwrap();
    let append = |n: u32| {
        let lsn = wal.append(&payload(n)[..3000]).unwrap();
        wal.sync().unwrap();
        lsn
    };
    let first: Vec<Lsn> = (0..30).map(append).collect();
    wal.truncate_from(first[20]).unwrap();
    let second: Vec<Lsn> = (100..150).map(append).collect();
    wal.close().unwrap();
    let archive = archive(&store);
    ship(&archive, &dir);
    let numbers = |until| {
        let (records, _) = restored(&archive, &temp, until);
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
        records.iter().map(|(_, bytes)| number(bytes)).collect::<Vec<_>>()
    };
    let kept: Vec<u32> = (0..20).collect();
    let newest = numbers(Until::Newest);
    assert_eq!(newest[..20], kept);
    assert_eq!(newest[20], 100);
    assert_eq!(
        numbers(Until::Lsn(second[10])),
        [&kept[..], &[100, 101, 102, 103, 104, 105, 106, 107, 108, 109]].concat()
    );
    // Before the cut its records were there.
    assert_eq!(numbers(Until::Lsn(first[29])), (0..29).collect::<Vec<_>>());
}

#[test]
fn positions_outside_of_the_archive_are_refused_and_nothing_is_created() {
    let temp = Temp::new();
    closed_log(&temp.join("log"), 3);
    let store = memory();
    let archive = archive(&store);
    ship(&archive, &temp.join("log"));
    let to = temp.fresh();
    let end = archive.list().unwrap().segments.last().unwrap().end;
    let beyond = archive.restore().until(Until::Lsn(Lsn::new(end.as_u64() + 1))).into(&to);
    assert!(matches!(beyond, Err(Error::BeyondEnd { end: at, .. }) if at == end), "{beyond:?}");
    let reversed =
        archive.restore().from(Lsn::new(9000)).until(Until::Lsn(Lsn::new(8000))).into(&to);
    assert!(matches!(reversed, Err(Error::Setting(_))), "{reversed:?}");
    let late = archive.restore().from(end).into(&to).unwrap_err().to_string();
    assert!(late.contains(&format!("nothing from {end} on")), "{late}");
    for early in [0, 1, 4096] {
        let early = archive.restore().until(Until::Lsn(Lsn::new(early))).into(&to);
        assert!(matches!(early, Err(Error::BeforeStart { .. })), "{early:?}");
    }
    assert_nothing_left(&to);
    // A directory with anything in it stays as it is.
    std::fs::create_dir(&to).unwrap();
    std::fs::write(to.join("notes"), "mine").unwrap();
    let full = archive.restore().into(&to);
    assert!(matches!(&full, Err(Error::NotEmpty { found, .. }) if found == "notes"), "{full:?}");
    assert_eq!(std::fs::read(to.join("notes")).unwrap(), b"mine");
    // A new filesystem is empty.
    std::fs::remove_file(to.join("notes")).unwrap();
    std::fs::create_dir(to.join("lost+found")).unwrap();
    archive.restore().into(&to).unwrap();
    assert!(Wal::builder(&to).must_exist(true).open().is_ok());
    let again = archive.restore().into(&to);
    assert!(matches!(again, Err(Error::NotEmpty { .. })), "{again:?}");
}

#[test]
fn position_that_an_archiver_publishes_is_one_that_a_restore_and_a_prune_take() {
    let temp = Temp::new();
    let records = closed_log(&temp.join("log"), 3);
    let store = memory();
    let archive = archive(&store);
    let to = ship(&archive, &temp.join("log")).archived_to;
    let last = archive.list().unwrap().segments.pop().unwrap();
    assert!(to == last.end && to > last.groups_end, "{last:?}");
    let restored = archive.restore().until(Until::Lsn(to)).into(temp.join("all")).unwrap();
    assert_eq!(restored.end, last.groups_end);
    assert!(contents(&temp.join("all")) == before(&records, to));
    let pruned = archive.prune(ringwal_archive::KeepFrom::Lsn(to)).unwrap();
    assert_eq!((pruned.kept_from, pruned.kept_segments), (last.base, 1));
}

#[test]
fn restore_that_is_ended_leaves_nothing() {
    let temp = Temp::new();
    closed_log(&temp.join("log"), 3);
    let store = memory();
    let archive = archive(&store);
    ship(&archive, &temp.join("log"));
    let mut steps = 0;
    archive
        .restore()
        .progress(|at| {
            assert!(at.done <= at.total);
            steps += 1;
            std::ops::ControlFlow::Continue(())
        })
        .into(temp.fresh())
        .unwrap();
    assert!(steps > 10);
    for end in 0..steps {
        let (to, mut left) = (temp.fresh(), end);
        let ended = archive
            .restore()
            .progress(|_| {
                let stop = left == 0;
                left -= i32::from(!stop);
                if stop {
                    std::ops::ControlFlow::Break(())
                } else {
                    std::ops::ControlFlow::Continue(())
                }
            })
            .into(&to);
        assert!(matches!(ended, Err(Error::Stopped)), "{end}: {ended:?}");
        assert_nothing_left(&to);
    }
}

#[test]
fn restore_that_cannot_move_a_segment_leaves_nothing() {
    let temp = Temp::new();
    closed_log(&temp.join("log"), 3);
    let store = memory();
    let archive = archive(&store);
    ship(&archive, &temp.join("log"));
    // Another program's directory has the name of the segment that is moved last.
    let to = temp.fresh();
    let taken = to.join(format!("wal.{:020}.wal", 0));
    let failed = archive
        .restore()
        .progress(|_| {
            let _ = std::fs::create_dir(&taken);
            std::ops::ControlFlow::Continue(())
        })
        .into(&to);
    assert!(matches!(failed, Err(Error::Io { op: "rename", .. })), "{failed:?}");
    std::fs::remove_dir(&taken).unwrap();
    assert_nothing_left(&to);
}

/// A process that is killed while it moves segments to their place leaves the newest ones.
#[test]
fn half_moved_log_does_not_open() {
    let temp = Temp::new();
    closed_log(&temp.join("log"), 4);
    let store = memory();
    let archive = archive(&store);
    ship(&archive, &temp.join("log"));
    for from in [0, 1] {
        let to = temp.fresh();
        archive.restore().from(Lsn::new(from * SEGMENT)).into(&to).unwrap();
        for missing in from..3 {
            std::fs::remove_file(to.join(format!("wal.{:020}.wal", missing * SEGMENT))).unwrap();
            let opened = builder(&to).open();
            assert!(matches!(opened, Err(ringwal::Error::Corruption { .. })), "{missing}");
        }
    }
}
