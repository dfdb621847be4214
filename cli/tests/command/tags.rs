//! Tags and their floors in what the command prints and copies.

use ringwal::{Lsn, ReadOnlyWal, Record, Wal};

use crate::support::{Temp, json, ringwal, said};

/// A closed log of records with and without tags, and two floors. Returns the records.
fn log(dir: &str) -> Vec<Record> {
    let wal = Wal::builder(dir).segment_size(64 << 10).open().unwrap();
    for n in 0..300_u64 {
        let payload = format!("record {n} ").repeat(1 + n as usize % 40);
        match n % 3 {
            0 => _ = wal.append(payload.as_bytes()).unwrap(),
            _ => _ = wal.append_tagged(n % 7, payload.as_bytes()).unwrap(),
        }
    }
    wal.append_batch_tagged(&[(1, "of one"), (u64::MAX, "of the last")]).unwrap();
    wal.sync().unwrap();
    let records = contents(dir);
    wal.hold_tags(&[(1, records[50].lsn()), (9, wal.durable_end())]).unwrap();
    wal.close().unwrap();
    records
}

fn contents(dir: &str) -> Vec<Record> {
    let log = ReadOnlyWal::open(dir).unwrap();
    log.reader(Lsn::ZERO).unwrap().map(Result::unwrap).collect()
}

fn tagged(records: &[Record]) -> Vec<(Option<u64>, Vec<u8>)> {
    records.iter().map(|record| (record.tag(), record.payload.clone())).collect()
}

#[test]
fn dump_with_a_tag_prints_the_records_of_that_tag() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    let raw = |tags: &[u64]| -> String {
        let some = records.iter().filter(|r| r.tag().is_some_and(|tag| tags.contains(&tag)));
        some.map(|record| String::from_utf8(record.payload.clone()).unwrap()).collect()
    };
    assert_eq!(said(&["dump", "--format", "raw", "--tag", "4", &dir], 0), raw(&[4]));
    let two = ["dump", "--format", "raw", "--tag", "1", "--tag", "18446744073709551615", &dir];
    assert_eq!(said(&two, 0), raw(&[1, u64::MAX]));
    assert_eq!(said(&["dump", "--tag", "1000", &dir], 0), "");
    let last = json(&["dump", "--format", "json", "--tag", "18446744073709551615", &dir], 0);
    assert_eq!((&last["tag"], &last["text"]), (&u64::MAX.into(), &"of the last".into()));
    let first = json(&["dump", "--format", "json", "--limit", "1", &dir], 0);
    assert!(first["tag"].is_null());
    for bad in ["-1", "x", "18446744073709551616"] {
        assert_eq!(ringwal(&["dump", "--tag", bad, &dir]).status.code(), Some(2), "{bad}");
    }
}

#[test]
fn export_import_salvage_and_backup_keep_tags_and_floors() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    let (file, copy) = (temp.file("records.jsonl"), temp.file("copy"));
    assert!(ringwal(&["export", "--output", &file, &dir]).status.success());
    said(&["import", &copy, &file], 0);
    assert_eq!(tagged(&contents(&copy)), tagged(&records));
    let (file, copy) = (temp.file("damaged.jsonl"), temp.file("copy of all"));
    assert!(ringwal(&["export", "--damaged", "--output", &file, &dir]).status.success());
    said(&["import", &copy, &file], 0);
    assert_eq!(tagged(&contents(&copy)), tagged(&records));

    let backup = temp.file("backup");
    said(&["backup", &dir, &backup], 0);
    let floors = |dir: &str| Wal::open(dir).unwrap().tag_floors();
    assert_eq!(floors(&backup), floors(&dir));

    let salvaged = temp.file("salvaged");
    let report = json(&["salvage", "--json", &dir, &salvaged], 0);
    assert_eq!(report["salvage"]["tag_floors"], 2);
    let found = contents(&salvaged);
    assert_eq!(tagged(&found), tagged(&records));
    let kept = floors(&salvaged);
    assert_eq!((kept[0].tag, kept[0].floor), (1, found[50].lsn()));
    assert_eq!(kept[1].tag, 9);
    assert!(kept[1].floor > found.last().unwrap().lsn());
}

#[test]
fn info_and_a_dry_run_name_the_tag_that_holds_the_log() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    let floor = records[50].lsn();
    let info = said(&["info", &dir], 0);
    assert!(info.contains(&format!("2 floors, the lowest at {floor}, of 1")), "{info}");
    let info = json(&["info", "--json", &dir], 0);
    assert_eq!((&info["tag_floors"], &info["lowest_tag_floor"]["tag"]), (&2.into(), &1.into()));
    let end = info["durable_end"].to_string();
    let text = said(&["truncate-before", "--dry-run", &dir, &end], 0);
    assert!(text.contains(&format!("the floor of the tag 1 is {floor}")), "{text}");
    said(&["truncate-before", &dir, &end], 0);
    assert!(contents(&dir)[0].lsn() <= floor);
    let file = format!("{dir}/wal.streams");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
    std::fs::write(&file, bytes).unwrap();
    assert!(said(&["info", &dir], 0).contains("their floors are damaged"));
    let verify = said(&["verify", &dir], 1);
    assert!(verify.contains("wal.streams"), "{verify}");
    let salvaged = temp.file("salvaged");
    let text = said(&["salvage", &dir, &salvaged], 0);
    assert!(text.contains("the floors of tags are damaged"), "{text}");
}
