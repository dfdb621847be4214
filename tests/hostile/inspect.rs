//! Survey and repair of damaged logs: what a survey finds and reports, and what a repair keeps.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::support::{SetOnDrop, Temp, small};
use ringwal::inspect::{Directory, Finding, Keep, Survey};
use ringwal::{Error, Lsn, ReadOnlyWal, Wal};

type Records = BTreeMap<u64, Vec<u8>>;

/// Writes a closed log of some twenty segments of 64 KiB, with records, batches and a cut. Returns
/// its records.
fn log(dir: &Path) -> Records {
    let wal = small(dir).open().unwrap();
    let mut records = Records::new();
    for n in 0..1200_u32 {
        let payload = n.to_le_bytes().repeat(1 + n as usize % 400);
        let lsn = wal.append(&payload).unwrap();
        records.insert(lsn.as_u64(), payload);
        if n % 100 == 50 {
            wal.sync().unwrap();
        }
        if n == 700 {
            let void = wal.append(b"void").unwrap();
            wal.append(b"void too").unwrap();
            wal.truncate_from(void).unwrap();
        }
    }
    wal.close().unwrap();
    records
}

fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut all: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "wal"))
        .collect();
    all.sort();
    all
}

fn damage(path: &Path, offset: usize, len: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset..offset + len].iter_mut().for_each(|b| *b ^= 0xa5);
    std::fs::write(path, bytes).unwrap();
}

/// Offset in its segment of the first record's payload from `offset` on. Bytes at a fixed offset
/// may be padding, which no reader checks.
fn payload_behind(records: &Records, base: Lsn, offset: usize) -> usize {
    let (lsn, _) = records.range(base.as_u64() + offset as u64..).next().unwrap();
    (lsn - base.as_u64()) as usize + 12
}

fn survey(dir: &Path) -> Survey {
    let mut told = 0;
    let survey = Directory::open(dir, "wal")
        .unwrap()
        .survey(&mut |progress| {
            assert!(progress.done >= told && progress.done <= progress.total, "{progress:?}");
            told = progress.done;
        })
        .unwrap();
    assert!(told > 0);
    survey
}

fn intact(dir: &Path, survey: &Survey) -> Records {
    let mut found = Records::new();
    let log = Directory::open(dir, "wal").unwrap();
    let each =
        &mut |lsn: Lsn, payload: &[u8]| found.insert(lsn.as_u64(), payload.to_vec()).is_none();
    log.intact_records(survey, each).unwrap();
    found
}

fn read_all(dir: &Path) -> Records {
    let log = ReadOnlyWal::open(dir).unwrap();
    let records = log.reader(Lsn::ZERO).unwrap().map(Result::unwrap);
    records.map(|record| (record.lsn.as_u64(), record.payload)).collect()
}

/// Contents of a directory's files by name.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
        .collect()
}

#[test]
fn survey_of_a_sound_log_finds_no_damage_and_changes_nothing() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    let before = contents(&dir);
    let survey = survey(&dir);
    assert!(survey.damage.is_empty() && survey.damaged_places == 0, "{:?}", survey.damage);
    assert_eq!(survey.records, records.len() as u64 + 2, "void ones are there too");
    assert_eq!(survey.cuts.len(), 1);
    assert_eq!(survey.end, ReadOnlyWal::open(&dir).unwrap().durable_end().unwrap());
    assert_eq!(survey.segments.iter().map(|s| s.records).sum::<u64>(), survey.records);
    assert!(survey.segments.iter().all(|s| s.last_written >= s.first_written));
    assert!(intact(&dir, &survey) == records);
    let log = Directory::open(&dir, "wal").unwrap();
    assert!(log.plan_repair(&survey, Keep::Before).unwrap().is_none());
    assert!(contents(&dir) == before);
}

#[test]
fn damaged_group_loses_only_its_records_and_is_reported_exactly() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    let files = segments(&dir);
    assert!(files.len() > 12);
    // Damage the header of a group in the middle, and a record of a later group.
    let reference = survey(&dir);
    let (third, ninth) = (&reference.segments[3], &reference.segments[9]);
    damage(&files[3], third.block as usize, 8);
    damage(&files[9], payload_behind(&records, ninth.base, 2 * ninth.block as usize), 1);
    let found = survey(&dir);
    assert_eq!(found.damage.len(), 2, "{:#?}", found.damage);
    let [first, second] = &found.damage[..] else { unreachable!() };
    assert_eq!(first.segment, third.name);
    assert_eq!((first.offset, first.lsn.as_u64()), (4096, third.base.as_u64() + 4096));
    assert_eq!(first.found, "no group header");
    assert_eq!(second.segment, ninth.name);
    assert_eq!(found.records + found.records_lost, reference.records);
    assert!(first.records_lost.unwrap() > 0 && second.records_lost.unwrap() > 0);
    for place in &found.damage {
        assert_eq!(place.records_before + place.records_after, found.records);
        assert!(place.bytes > 0 && place.bytes <= 64 << 10);
    }
    let left = intact(&dir, &found);
    assert_eq!(left.len() as u64, found.records - 2, "void ones are not handed out");
    assert!(left.iter().all(|(lsn, payload)| records[lsn] == *payload));
}

#[test]
fn damaged_headers_and_missing_segments_are_reported_and_read_around() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    let files = segments(&dir);
    let reference = survey(&dir);
    damage(&files[2], 20, 4);
    std::fs::remove_file(&files[6]).unwrap();
    let found = survey(&dir);
    assert_eq!(found.damage.len(), 2, "{:#?}", found.damage);
    assert_eq!(found.damage[0].found, "segment header checksum");
    assert_eq!(found.damage[0].records_lost, Some(0), "the groups are there");
    assert_eq!(found.damage[1].found, "the segment is missing");
    assert_eq!(found.damage[1].segment, reference.segments[6].name);
    assert_eq!(found.damage[1].records_lost, Some(reference.segments[6].records));
    let left = intact(&dir, &found);
    assert!(left.iter().all(|(lsn, payload)| records[lsn] == *payload));
    assert_eq!(found.records + found.records_lost, reference.records);
}

#[test]
fn repair_keeps_the_records_before_the_damage_and_deletes_nothing() {
    // Damage from the first group of the segment to its last.
    let mut shortened = 0;
    // Damage at a fixed offset, or in the first record after it.
    for (place, inside, len) in
        [(4096, false, 16), (3 * 4096, true, 4), (10 * 4096, true, 4), (0, false, 4096 + 16)]
    {
        let temp = Temp::new();
        let dir = temp.log();
        let records = log(&dir);
        let wal = small(&dir).open().unwrap();
        let mut reads_all = wal.consumer("quick").unwrap();
        reads_all.commit(wal.reader_back(wal.durable_end()).next().unwrap().unwrap().lsn).unwrap();
        drop(reads_all);
        drop(wal.consumer("slow").unwrap());
        wal.close().unwrap();
        let files = segments(&dir);
        let base = survey(&dir).segments[5].base;
        let at = if inside { payload_behind(&records, base, place) } else { place };
        damage(&files[5], at, len);
        assert!(matches!(
            ReadOnlyWal::open(&dir)
                .and_then(|log| log.reader(Lsn::ZERO)?.try_for_each(|r| r.map(drop))),
            Err(Error::Corruption { .. })
        ));
        let before = contents(&dir);
        let found = survey(&dir);
        let log = Directory::open(&dir, "wal").unwrap();
        let plan = log.plan_repair(&found, Keep::Before).unwrap().unwrap();
        assert!(contents(&dir) == before, "a plan changes nothing");
        assert!(plan.to <= plan.damage.lsn);
        shortened += u32::from(plan.cut.is_some());
        assert_eq!(plan.consumers, ["wal.consumer.quick"]);
        {
            // A repair is refused while a process holds the lock. A damaged log does not open, so
            // take the lock by hand.
            let lock = std::fs::File::options().write(true).open(dir.join("wal.lock")).unwrap();
            lock.lock().unwrap();
            assert!(matches!(plan.apply(), Err(Error::Locked { .. })));
        }
        assert!(contents(&dir) == before);
        let done = plan.apply().unwrap();
        // Every byte is in the directory or in the quarantine.
        let (here, there) = (contents(&dir), contents(&plan.quarantine));
        for (name, bytes) in &before {
            let same = here.get(name) == Some(bytes) || there.get(name) == Some(bytes);
            assert!(same || name == "wal.lock", "{name} is neither here nor there");
        }
        assert_eq!(done.quarantined.len(), there.len());

        let kept = read_all(&dir);
        let expected: Records =
            records.range(..plan.to.as_u64()).map(|(lsn, p)| (*lsn, p.clone())).collect();
        assert!(kept == expected, "{} of {}", kept.len(), expected.len());
        assert!(survey(&dir).damage.is_empty());
        let wal = small(&dir).open().unwrap();
        let lsn = wal.append_durable(b"goes on").unwrap();
        assert!(lsn > *expected.keys().last().map(|lsn| Lsn::new(*lsn)).as_ref().unwrap());
        assert_eq!(wal.consumers().len(), 1);
        wal.close().unwrap();
        assert_eq!(read_all(&dir).len(), expected.len() + 1);
    }
    assert!(shortened > 0, "no segment was kept in part");
}

#[test]
fn repair_that_keeps_the_records_after_the_damage_starts_at_a_whole_segment() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    let files = segments(&dir);
    damage(&files[0], payload_behind(&records, Lsn::ZERO, 2 * 4096), 1);
    damage(&files[1], 0, 4096 + 64);
    let found = survey(&dir);
    let log = Directory::open(&dir, "wal").unwrap();
    let plan = log.plan_repair(&found, Keep::After).unwrap().unwrap();
    assert_eq!(plan.moved.len(), 2, "{plan:#?}");
    let whole = found.segments[2..].iter().map(|segment| segment.records).sum::<u64>();
    assert_eq!(plan.records, whole, "the next segment is whole");
    plan.apply().unwrap();
    let kept = read_all(&dir);
    let expected: Records =
        records.range(plan.from.as_u64()..).map(|(lsn, p)| (*lsn, p.clone())).collect();
    assert!(kept == expected, "{} of {}", kept.len(), expected.len());
    let wal = Wal::builder(&dir).segment_size(64 << 10).open().unwrap();
    assert_eq!(wal.oldest_lsn(), plan.from);
    wal.append_durable(b"goes on").unwrap();
    wal.close().unwrap();
    assert!(survey(&dir).damage.is_empty());
}

#[test]
fn interrupted_repair_can_be_repeated() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    let files = segments(&dir);
    damage(&files[5], payload_behind(&records, survey(&dir).segments[5].base, 3 * 4096), 4);
    let log = Directory::open(&dir, "wal").unwrap();
    let plan = log.plan_repair(&survey(&dir), Keep::Before).unwrap().unwrap();
    // As if the power had failed after the first files were moved.
    std::fs::create_dir(&plan.quarantine).unwrap();
    for name in plan.moved.iter().rev().take(2) {
        std::fs::rename(dir.join(name), plan.quarantine.join(name)).unwrap();
    }
    assert!(
        ReadOnlyWal::open(&dir)
            .and_then(|log| log.reader(Lsn::ZERO)?.try_for_each(|r| r.map(drop)))
            .is_err()
    );
    let again = log.plan_repair(&survey(&dir), Keep::Before).unwrap().unwrap();
    assert_eq!(again.to, plan.to);
    again.apply().unwrap();
    let expected = records.range(..plan.to.as_u64()).count();
    assert_eq!(read_all(&dir).len(), expected);
}

#[test]
fn segments_with_only_a_wrong_header_or_length_are_rebuilt_without_loss() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    let files = segments(&dir);
    damage(&files[2], 20, 4);
    damage(&files[4], 0, 4096);
    let mut longer = std::fs::read(&files[7]).unwrap();
    longer.resize(70_000, 9);
    std::fs::write(&files[7], &longer).unwrap();
    let found = survey(&dir);
    assert_eq!(found.damaged_places, 3, "{:#?}", found.damage);
    assert_eq!(found.records_lost, 0);
    let log = Directory::open(&dir, "wal").unwrap();
    for keep in [Keep::Before, Keep::After] {
        let plan = log.plan_repair(&found, keep).unwrap().unwrap();
        assert_eq!((plan.rebuilt.len(), plan.moved.len(), &plan.cut), (3, 0, &None), "{plan:#?}");
        assert_eq!((plan.to, plan.records), (found.end, found.records));
    }
    let before = contents(&dir);
    let plan = log.plan_repair(&found, Keep::Before).unwrap().unwrap();
    plan.apply().unwrap();
    let there = contents(&plan.quarantine);
    assert!(plan.rebuilt.iter().all(|name| there.get(name) == before.get(name)));
    assert!(survey(&dir).damage.is_empty());
    small(&dir).open().unwrap().close().unwrap();
    assert!(read_all(&dir) == records);
}

#[test]
fn missing_first_segment_is_reported_also_beside_other_damage() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    let reference = survey(&dir);
    std::fs::remove_file(&segments(&dir)[0]).unwrap();
    assert!(small(&dir).open().is_err());
    for also in [false, true] {
        if also {
            damage(&segments(&dir)[4], 2 * 4096, 16);
        }
        let found = survey(&dir);
        assert_eq!(found.damage.len(), 1 + usize::from(also), "{:#?}", found.damage);
        let first = &found.damage[0];
        assert_eq!((first.found, first.lsn), ("the segment is missing", Lsn::ZERO));
        assert_eq!((first.records_before, first.bytes), (0, 64 << 10));
        assert_eq!(first.records_lost, Some(reference.segments[0].records));
    }
    let log = Directory::open(&dir, "wal").unwrap();
    let found = survey(&dir);
    assert!(log.plan_repair(&found, Keep::Before).is_err());
    let plan = log.plan_repair(&found, Keep::After).unwrap().unwrap();
    plan.apply().unwrap();
    let kept: Records =
        records.range(plan.from.as_u64()..).map(|(lsn, p)| (*lsn, p.clone())).collect();
    assert!(read_all(&dir) == kept);
}

#[test]
fn damaged_consumer_position_is_reported_and_moved_away_by_a_repair() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    let wal = small(&dir).open().unwrap();
    drop(wal.consumer("slow").unwrap());
    wal.close().unwrap();
    std::fs::write(dir.join("wal.consumer.slow"), [7; 8192]).unwrap();
    assert!(matches!(small(&dir).open(), Err(Error::ConsumerDamaged { .. })));
    let found = survey(&dir);
    assert_eq!(found.damaged_places, 1, "{:#?}", found.damage);
    assert_eq!(found.damage[0].segment, "wal.consumer.slow");
    let log = Directory::open(&dir, "wal").unwrap();
    let plan = log.plan_repair(&found, Keep::Before).unwrap().unwrap();
    assert_eq!(plan.consumers, ["wal.consumer.slow"]);
    assert!(plan.moved.is_empty() && plan.cut.is_none(), "{plan:#?}");
    plan.apply().unwrap();
    assert_eq!(contents(&plan.quarantine)["wal.consumer.slow"], [7; 8192]);
    small(&dir).open().unwrap().close().unwrap();
    assert!(read_all(&dir) == records);
}

#[test]
fn repair_after_retention_opens_although_no_kept_group_states_the_oldest() {
    let temp = Temp::new();
    let dir = temp.log();
    let mut records = log(&dir);
    let wal = small(&dir).open().unwrap();
    let oldest = wal.truncate_before(Lsn::new(500_000)).unwrap();
    wal.close().unwrap();
    records.retain(|lsn, _| *lsn >= oldest.as_u64());
    // The damage lies before the group that states the oldest position.
    damage(&segments(&dir)[3], 2 * 4096, 4096);
    let log = Directory::open(&dir, "wal").unwrap();
    let plan = log.plan_repair(&survey(&dir), Keep::Before).unwrap().unwrap();
    plan.apply().unwrap();
    assert!(survey(&dir).damage.is_empty());
    let wal = small(&dir).open().unwrap();
    assert_eq!(wal.oldest_lsn(), oldest);
    wal.close().unwrap();
    records.retain(|lsn, _| *lsn < plan.to.as_u64());
    assert!(read_all(&dir) == records && !records.is_empty());
}

#[test]
fn plan_for_changed_files_is_refused_and_each_repair_has_its_own_quarantine() {
    let temp = Temp::new();
    let dir = temp.log();
    log(&dir);
    damage(&segments(&dir)[5], 2 * 4096, 16);
    let log = Directory::open(&dir, "wal").unwrap();
    let plan = log.plan_repair(&survey(&dir), Keep::Before).unwrap().unwrap();
    let later = segments(&dir).pop().unwrap();
    let kept = std::fs::read(&later).unwrap();
    std::fs::remove_file(&later).unwrap();
    let before = contents(&dir);
    assert!(matches!(plan.apply(), Err(Error::Io { .. })));
    std::fs::write(dir.join("wal.lock"), &before["wal.lock"]).unwrap();
    assert!(contents(&dir) == before && !plan.quarantine.exists());
    std::fs::write(&later, kept).unwrap();
    let plan = log.plan_repair(&survey(&dir), Keep::Before).unwrap().unwrap();
    plan.apply().unwrap();
    let first = contents(&plan.quarantine);
    // A second repair in the same second moves the replaced file to another quarantine.
    damage(&segments(&dir)[3], 2 * 4096, 16);
    let again = log.plan_repair(&survey(&dir), Keep::Before).unwrap().unwrap();
    assert_ne!(again.quarantine, plan.quarantine);
    again.apply().unwrap();
    assert!(contents(&plan.quarantine) == first);
    assert!(plan.apply().is_err(), "a plan applies once");
}

#[test]
fn survey_takes_the_log_id_of_most_segments() {
    let temp = Temp::new();
    let (dir, other) = (temp.log(), temp.path().join("other"));
    log(&dir);
    log(&other);
    let reference = survey(&dir);
    std::fs::copy(&segments(&other)[0], &segments(&dir)[0]).unwrap();
    let found = survey(&dir);
    assert_eq!(found.log_id, reference.log_id);
    assert_eq!(found.damage.len(), 1, "{:#?}", found.damage);
    assert_eq!(found.damage[0].found, "a segment of another log");
    assert_eq!(found.damage[0].records_lost, Some(reference.segments[0].records));
}

#[test]
fn log_without_a_valid_segment_header_is_read_by_its_groups() {
    let temp = Temp::new();
    let dir = temp.log();
    let wal = small(&dir).open().unwrap();
    let lsn = wal.append_durable(b"still here").unwrap();
    wal.close().unwrap();
    for file in segments(&dir) {
        damage(&file, 0, 128);
    }
    let found = survey(&dir);
    assert!(found.damaged_places > 0);
    // The epoch group is in the first block after the segment header.
    damage(&segments(&dir)[0], 4096, 128);
    assert_eq!(survey(&dir).records, 1);
    let found = survey(&dir);
    assert_eq!(intact(&dir, &found), Records::from([(lsn.as_u64(), b"still here".to_vec())]));
}

#[test]
fn repair_that_can_keep_nothing_is_refused() {
    let temp = Temp::new();
    let dir = temp.log();
    log(&dir);
    let files = segments(&dir);
    damage(&files[0], 4096, 16);
    let log = Directory::open(&dir, "wal").unwrap();
    let refused = log.plan_repair(&survey(&dir), Keep::Before);
    assert!(matches!(refused, Err(Error::Corruption { .. })), "{refused:?}");
    assert!(matches!(Directory::open(&dir, "../x"), Err(Error::Options(_))));
    assert!(Directory::open(dir.join("none"), "wal").is_err());
    let empty = temp.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let nothing = Directory::open(&empty, "wal").unwrap().survey(&mut |_| {});
    assert!(matches!(nothing, Err(Error::Io { .. })), "{nothing:?}");
}

#[test]
fn survey_beside_rotation_and_retention_finds_no_damage() {
    let temp = Temp::new();
    let wal = small(&temp.log()).max_segments(6).open().unwrap();
    wal.append_durable(b"first").unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for _ in 0..50 {
                    wal.append(&[5; 900]).unwrap();
                }
                wal.sync().unwrap();
            }
        });
        let _ends = SetOnDrop(&stop);
        let log = Directory::open(temp.log(), "wal").unwrap();
        for round in 0..40 {
            let survey = log.survey(&mut |_| {}).unwrap();
            assert!(survey.damage.is_empty(), "round {round}: {:#?}", survey.damage);
        }
    });
}

#[test]
fn survey_reports_damage_as_it_is_found_and_stops_on_request() {
    let temp = Temp::new();
    let records = log(temp.path());
    let files = segments(temp.path());
    let sound = survey(temp.path());
    for n in [2, 5, 9] {
        damage(&files[n], payload_behind(&records, sound.segments[n].base, 4 * 4096), 4);
    }
    let log = Directory::open(temp.path(), "wal").unwrap();
    let whole = log.survey(&mut |_| {}).unwrap();
    assert!(!whole.interrupted);
    let mut found = Vec::new();
    let mut end = |most: usize| {
        found.clear();
        let mut left = 0_u64;
        let survey = log.survey_with(&mut |seen| {
            match seen {
                Finding::Damage(place) => found.push(place.lsn),
                Finding::Progress(at) => left = at.total - at.done,
                _ => {}
            }
            if found.len() >= most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (survey.unwrap(), found.clone(), left)
    };
    let (survey, mut all, _) = end(usize::MAX);
    all.sort();
    assert_eq!(all, whole.damage.iter().map(|place| place.lsn).collect::<Vec<_>>());
    assert_eq!((survey.records, survey.interrupted), (whole.records, false));
    let (survey, some, left) = end(1);
    assert!(survey.interrupted && left > 0 && survey.records < whole.records);
    assert!(!some.is_empty() && survey.damaged_places > 0);
}

#[test]
fn position_at_a_time_is_found_also_after_damage() {
    let temp = Temp::new();
    let wal = small(temp.path()).open().unwrap();
    let mut marks = Vec::new();
    for round in 0..6_u32 {
        std::thread::sleep(Duration::from_millis(3));
        let time = SystemTime::now();
        std::thread::sleep(Duration::from_millis(3));
        let first = wal.append_durable(&round.to_le_bytes()).unwrap();
        marks.push((time, first));
        for _ in 0..40 {
            wal.append(&[7; 3000]).unwrap();
        }
        wal.sync().unwrap();
    }
    let log = Directory::open(temp.path(), "wal").unwrap();
    let check = || {
        for (time, first) in &marks {
            let found = log.position_at(*time).unwrap();
            // The position found is that of the group's header, before its first record.
            assert!(found < *first && first.as_u64() - found.as_u64() < 4096, "{found} {first}");
            let written = log.written_at(*first).unwrap().unwrap();
            assert!(written >= *time && written < *time + Duration::from_secs(60));
        }
    };
    check();
    assert_eq!(log.position_at(SystemTime::UNIX_EPOCH).unwrap(), Lsn::new(4096));
    let later = SystemTime::now() + Duration::from_secs(3600);
    // An idle log may write a mark at any time.
    let before = wal.durable_end();
    let end = log.position_at(later).unwrap();
    assert!((before..=wal.durable_end()).contains(&end), "{end}");
    wal.close().unwrap();
    check();
    let files = segments(temp.path());
    damage(&files[1], 0, 100);
    damage(&files[3], 7 * 4096, 100);
    check();
}

#[test]
fn stored_consumers_of_a_damaged_log_are_listed_and_removed_without_an_invented_position() {
    let temp = Temp::new();
    let records = log(temp.path());
    let wal = small(temp.path()).open().unwrap();
    let last = Lsn::new(*records.keys().last().unwrap());
    wal.consumer("slow").unwrap();
    wal.consumer("mailer").unwrap().commit(last).unwrap();
    wal.consumer("torn").unwrap();
    let log = Directory::open(temp.path(), "wal").unwrap();
    assert!(matches!(log.remove_consumer("slow"), Err(Error::Locked { .. })));
    wal.close().unwrap();
    std::fs::write(temp.path().join("wal.consumer.torn"), [3; 8192]).unwrap();
    damage(&segments(temp.path())[0], 0, 100);
    damage(&segments(temp.path())[3], 5 * 4096, 100);
    let stored = log.stored_consumers().unwrap();
    let names: Vec<_> = stored.iter().map(|consumer| consumer.name.as_str()).collect();
    assert_eq!(names, ["mailer", "slow", "torn"]);
    assert!(stored[0].position.unwrap() > last);
    assert_eq!(stored[2].position, None);
    assert!(matches!(log.remove_consumer("nobody"), Err(Error::NoConsumer { .. })));
    for name in ["torn", "slow"] {
        assert_eq!(log.remove_consumer(name).unwrap().name, name);
    }
    assert_eq!(log.stored_consumers().unwrap(), stored[..1]);
}
