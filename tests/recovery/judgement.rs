//! Opens, readers, surveys and repairs agree on what is damaged.

use std::path::Path;

use crate::support::{Temp, copy_dir, segments, small};
use ringwal::inspect::{Directory, Keep, Survey};
use ringwal::{Error, Lsn, ReadOnlyWal, Wal};

fn survey(dir: &Path) -> Survey {
    Directory::open(dir, "wal").unwrap().survey(&mut |_| {}).unwrap()
}

/// Writes a closed log of some twelve segments. Returns the positions of its records.
fn log(dir: &Path) -> Vec<Lsn> {
    let wal = small(dir).open().unwrap();
    let lsns = (0..600_u32).map(|n| wal.append(&n.to_le_bytes().repeat(300)).unwrap()).collect();
    wal.close().unwrap();
    lsns
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn count(dir: &Path) -> Result<u64, Error> {
    let wal = small(dir).open()?;
    let mut n = 0;
    let read = wal.reader(Lsn::ZERO).try_for_each(|record| record.map(|_| n += 1));
    wal.close()?;
    read.map(|()| n)
}

#[test]
fn header_of_another_segment_is_damage_in_any_segment_and_is_rebuilt() {
    let temp = Temp::new();
    log(&temp.log());
    let files = segments(&temp.log());
    // The newest segments hold the log's end, or no group yet.
    for at in (1..files.len()).rev() {
        let dir = temp.path().join(format!("copy{at}"));
        copy_dir(&temp.log(), &dir);
        let first = std::fs::read(&files[0]).unwrap();
        edit(&segments(&dir)[at], |bytes| bytes[..128].copy_from_slice(&first[..128]));
        assert!(matches!(small(&dir).open(), Err(Error::Corruption { .. })), "{at}");
        let found = survey(&dir);
        assert_eq!(found.damaged_places, 1, "{at}: {:#?}", found.damage);
        assert_eq!(found.damage[0].found, "the header is of another segment");
        let log = Directory::open(&dir, "wal").unwrap();
        let plan = log.plan_repair(&found, Keep::Before).unwrap().unwrap();
        assert_eq!((plan.records, plan.records_leaving), (600, 0), "{at}: {plan:#?}");
        plan.apply().unwrap();
        assert_eq!(survey(&dir).damaged_places, 0, "{at}");
        assert_eq!(count(&dir).unwrap(), 600, "{at}");
    }
}

/// Writes a log with a consumer near its end. `dir` becomes a copy that ends below the consumer's
/// position.
fn copy_with_a_newer_position(temp: &Temp, dir: &Path) {
    let lsns = log(&temp.log());
    let wal = small(&temp.log()).open().unwrap();
    let mut consumer = wal.consumer("slow").unwrap();
    consumer.commit(lsns[590]).unwrap();
    drop(consumer);
    wal.close().unwrap();
    copy_dir(&temp.log(), dir);
    let base = |path: &Path| -> u64 {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        name.split('.').nth(1).unwrap().parse().unwrap()
    };
    for file in segments(dir).iter().filter(|file| base(file) > lsns[500].as_u64()) {
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn position_above_the_end_is_refused_by_the_name_of_its_file_and_with_what_to_do() {
    let temp = Temp::new();
    let dir = temp.path().join("copy");
    copy_with_a_newer_position(&temp, &dir);
    let refused = [small(&dir).open().map(drop), ReadOnlyWal::open(&dir).map(drop)];
    // A reader refuses it only where it can see that no writer lives.
    for refused in refused.into_iter().take(if cfg!(ofd_locks) { 2 } else { 1 }) {
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("wal.consumer.slow") && said.contains("remove this file"), "{said}");
    }
    let found = survey(&dir);
    assert_eq!(found.damaged_places, 1, "{:#?}", found.damage);
    assert_eq!(found.damage[0].segment, "wal.consumer.slow");
    // Follow the error's advice: remove the file.
    std::fs::remove_file(dir.join("wal.consumer.slow")).unwrap();
    assert_eq!(survey(&dir).damaged_places, 0);
    assert!(count(&dir).unwrap() > 400);
}

#[test]
fn repair_that_keeps_the_records_after_the_damage_moves_positions_above_the_end_away() {
    let temp = Temp::new();
    let dir = temp.path().join("copy");
    copy_with_a_newer_position(&temp, &dir);
    edit(&segments(&dir)[2], |bytes| bytes[8192..12_288].fill(0xa5));
    let found = survey(&dir);
    assert_eq!(found.damaged_places, 2, "{:#?}", found.damage);
    let log = Directory::open(&dir, "wal").unwrap();
    let plan = log.plan_repair(&found, Keep::After).unwrap().unwrap();
    assert_eq!(plan.consumers, ["wal.consumer.slow"], "{plan:#?}");
    plan.apply().unwrap();
    let after = survey(&dir);
    assert_eq!((after.damaged_places, after.records), (0, plan.records), "{:#?}", after.damage);
    assert_eq!(count(&dir).unwrap(), plan.records);
}

/// Writes a log with a cut. Returns the kept positions and the first void one.
fn log_with_void_records(dir: &Path) -> (Vec<Lsn>, Lsn) {
    let wal = small(dir).open().unwrap();
    let append = |n: u32| wal.append_durable(&n.to_le_bytes().repeat(40)).unwrap();
    let mut kept: Vec<Lsn> = (0..10).map(append).collect();
    let void = append(10);
    append(11);
    append(12);
    wal.truncate_from(void).unwrap();
    kept.extend((20..30).map(append));
    wal.close().unwrap();
    (kept, void)
}

#[test]
fn damage_in_void_records_is_ignored() {
    let temp = Temp::new();
    let (kept, void) = log_with_void_records(&temp.log());
    let flip = |lsn: Lsn| {
        let (segment, offset) = (lsn.as_u64() >> 16, lsn.as_u64() & 0xffff);
        edit(&segments(&temp.log())[segment as usize], |b| b[offset as usize + 20] ^= 1);
    };
    flip(void);
    let found = survey(&temp.log());
    assert_eq!((found.damaged_places, found.records_lost), (0, 0), "{:#?}", found.damage);
    let wal = small(&temp.log()).open().unwrap();
    let forward: Vec<Lsn> = wal.reader(Lsn::ZERO).map(|record| record.unwrap().lsn).collect();
    let mut back: Vec<Lsn> =
        wal.reader_back(wal.durable_end()).map(|record| record.unwrap().lsn).collect();
    back.reverse();
    assert!(forward == kept && back == kept, "{forward:?} {back:?}");
    wal.close().unwrap();
    // Damage outside the void range counts, before it and after it.
    for lsn in [kept[9], kept[10]] {
        flip(lsn);
        assert_eq!(survey(&temp.log()).damaged_places, 1, "{lsn}");
        flip(lsn);
    }
}

#[test]
fn repair_that_would_keep_no_record_is_planned_only_when_asked_for() {
    let temp = Temp::new();
    log(&temp.log());
    let intact = survey(&temp.log());
    edit(&segments(&temp.log())[0], |bytes| bytes[2 * 4096 + 60] ^= 1);
    let found = survey(&temp.log());
    assert!(found.damaged_places == 1 && found.records > 500, "{:#?}", found.damage);
    let log = Directory::open(temp.log(), "wal").unwrap();
    let refused = log.plan_repair(&found, Keep::Before);
    assert!(matches!(refused, Err(Error::Corruption { .. })), "{refused:?}");
    let nothing = log.plan_repair_keeping_nothing(&found, Keep::Before).unwrap().unwrap();
    assert_eq!((nothing.records, nothing.records_leaving), (0, found.records));
    // The part after the damage is larger.
    let rest = log.plan_repair(&found, Keep::After).unwrap().unwrap();
    assert_eq!(rest.records + rest.records_leaving, found.records);
    assert_eq!(rest.records, intact.records - intact.segments[0].records);
    nothing.apply().unwrap();
    assert_eq!(count(&temp.log()).unwrap(), 0);
}

#[test]
fn repair_of_several_kinds_of_damage_leaves_what_its_plan_states() {
    let temp = Temp::new();
    log(&temp.log());
    let files = segments(&temp.log());
    for keep in [Keep::Before, Keep::After] {
        let dir = temp.path().join(format!("{keep:?}"));
        copy_dir(&temp.log(), &dir);
        let files: Vec<_> = files.iter().map(|file| dir.join(file.file_name().unwrap())).collect();
        edit(&files[1], |bytes| bytes[20] ^= 1);
        edit(&files[4], |bytes| bytes.truncate(9 * 4096));
        edit(&files[6], |bytes| bytes[4096..8192].fill(0));
        std::fs::copy(&files[2], dir.join("wal.00000000000000004096.wal")).unwrap();
        std::fs::remove_file(&files[8]).unwrap();
        let found = survey(&dir);
        let log = Directory::open(&dir, "wal").unwrap();
        let plan = log.plan_repair(&found, keep).unwrap().unwrap();
        assert_eq!(plan.records + plan.records_leaving, found.records);
        plan.apply().unwrap();
        let after = survey(&dir);
        assert_eq!(after.damaged_places, 0, "{keep:?}: {:#?}", after.damage);
        assert_eq!(after.records, plan.records, "{keep:?}");
        assert_eq!(count(&dir).unwrap(), plan.records, "{keep:?}");
        let wal = Wal::builder(&dir).segment_size(64 << 10).open().unwrap();
        wal.append_durable(b"goes on").unwrap();
        wal.close().unwrap();
    }
}

/// Overwrites the last `blocks` blocks before the log's end: the mark of the close, and groups
/// before it.
fn damage_the_end(dir: &Path, end: Lsn, blocks: usize) {
    let path = segments(dir).into_iter().nth((end.as_u64() - 1) as usize >> 16).unwrap();
    let offset = (end.as_u64() - 1) as usize % (64 << 10) + 1;
    edit(&path, |bytes| bytes[offset - blocks * 4096..offset].fill(0xa5));
}

#[test]
fn damage_to_the_closing_mark_is_found_on_every_boot() {
    for blocks in 2..=7 {
        let temp = Temp::new();
        let dir = temp.log();
        let wal = small(&dir).open().unwrap();
        for n in 0..30_u32 {
            wal.append_durable(&n.to_le_bytes().repeat(40)).unwrap();
        }
        wal.close().unwrap();
        let end = ReadOnlyWal::open(&dir).unwrap().durable_end().unwrap();
        // Where no reader can see a living writer, none believes the end file.
        if !cfg!(ofd_locks) || !dir.join("wal.end").exists() {
            return;
        }
        damage_the_end(&dir, end, blocks);
        // The end file of a closed log holds on every boot.
        let said = std::fs::read(dir.join("wal.end")).unwrap();
        assert!(said[24..40] == [0xff; 16], "{blocks}: {said:?}");
        for refused in [small(&dir).open().map(drop), ReadOnlyWal::open(&dir).map(drop)] {
            assert!(matches!(refused, Err(Error::Corruption { .. })), "{blocks}: {refused:?}");
        }
        let found = survey(&dir);
        assert_eq!(found.damaged_places, 1, "{blocks}: {:#?}", found.damage);
        assert_eq!(found.damage[0].segment, "wal.end");
        // A copy has no valid end file, so it is a shorter log.
        let copy = temp.path().join("copy");
        copy_dir(&dir, &copy);
        assert_eq!(survey(&copy).damaged_places, 0);
        assert!(count(&copy).unwrap() < 30);
        // The repair keeps the rest without the lost records.
        let log = Directory::open(&dir, "wal").unwrap();
        let plan = log.plan_repair(&found, Keep::Before).unwrap().unwrap();
        plan.apply().unwrap();
        assert_eq!(survey(&dir).damaged_places, 0);
        assert_eq!(count(&dir).unwrap(), plan.records);
    }
}

#[test]
fn newest_segment_lost_on_the_boot_that_wrote_it_is_damage_for_every_reader() {
    let temp = Temp::new();
    let dir = temp.log();
    log(&dir);
    let end = ReadOnlyWal::open(&dir).unwrap().durable_end().unwrap();
    // Where no reader can see a living writer, none believes the end file.
    if !cfg!(ofd_locks) || !dir.join("wal.end").exists() {
        return;
    }
    for file in segments(&dir).iter().skip((end.as_u64() - 1) as usize >> 16) {
        std::fs::remove_file(file).unwrap();
    }
    for refused in [small(&dir).open().map(drop), ReadOnlyWal::open(&dir).map(drop)] {
        assert!(matches!(refused, Err(Error::Corruption { .. })), "{refused:?}");
    }
    let found = survey(&dir);
    assert_eq!(found.damaged_places, 1, "{:#?}", found.damage);
    let log = Directory::open(&dir, "wal").unwrap();
    for keep in [Keep::Before, Keep::After] {
        let plan = log.plan_repair(&found, keep).unwrap().unwrap();
        assert_eq!((plan.records_leaving, &plan.moved[..]), (0, &["wal.end".to_owned()][..]));
    }
    log.plan_repair(&found, Keep::Before).unwrap().unwrap().apply().unwrap();
    assert_eq!(survey(&dir).damaged_places, 0);
    assert_eq!(count(&dir).unwrap(), found.records);
}
