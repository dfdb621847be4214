//! `backup`.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ringwal::Wal;

use crate::support::{Temp, contents, damage, json, log, payloads, ringwal, said};

fn append(dir: &str, records: u32) {
    let wal = Wal::builder(dir).segment_size(64 << 10).open().unwrap();
    for n in 0..records {
        wal.append(format!("more {n} ").repeat(50).as_bytes()).unwrap();
    }
    wal.close().unwrap();
}

fn inode(dir: &str, segment: u64) -> u64 {
    let name = format!("wal.{:020}.wal", segment * (64 << 10));
    std::fs::metadata(Path::new(dir).join(name)).unwrap().ino()
}

#[test]
fn backup_holds_the_log_at_the_same_positions_and_opens() {
    let temp = Temp::new();
    let (dir, copy) = (temp.log(), temp.file("copy"));
    let records = log(&dir);
    let before = contents(&dir);
    let report = json(&["backup", "--json", &dir, &copy], 0);
    assert!(contents(&dir) == before);
    assert_eq!(report["verified"]["sound"], true);
    assert_eq!(report["verified"]["records"], 600);
    assert_eq!(report["durable_end"], json(&["info", "--json", &dir], 0)["durable_end"]);
    assert_eq!(json(&["consumers", "--json", &copy], 0), json(&["consumers", "--json", &dir], 0));
    let wal = Wal::builder(&copy).segment_size(64 << 10).open().unwrap();
    for (lsn, payload) in &records {
        assert_eq!(&wal.read(*lsn).unwrap().payload, payload);
    }
    wal.append_durable(b"goes on").unwrap();
    wal.close().unwrap();
    assert_eq!(payloads(&copy).len(), 601);
    // It has a history of its own now.
    assert!(said(&["backup", &dir, &copy], 2).contains("was opened as a log"));
}

#[test]
fn second_backup_copies_only_segments_that_changed() {
    let temp = Temp::new();
    let (dir, copy) = (temp.log(), temp.file("copy"));
    log(&dir);
    let first = json(&["backup", "--json", &dir, &copy], 0);
    let sealed = first["copied_segments"].as_u64().unwrap() - 1;
    let inodes: Vec<_> = (0..sealed).map(|segment| inode(&copy, segment)).collect();
    append(&dir, 400);
    let second = json(&["backup", "--json", &dir, &copy], 0);
    assert_eq!(second["kept_segments"], sealed);
    assert!(inodes.iter().enumerate().all(|(n, inode_)| inode(&copy, n as u64) == *inode_));
    assert_eq!(payloads(&copy), payloads(&dir));
    // What the copy's disk has lost is copied again.
    damage(&copy, 1, 8192, 8);
    let third = json(&["backup", "--json", &dir, &copy], 0);
    assert_eq!(third["verified"]["sound"], true);
    assert_eq!(payloads(&copy), payloads(&dir));
}

/// Ends the writer also where an assertion fails, so that the test ends.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn backup_beside_a_writer_and_retention_is_consistent() {
    let temp = Temp::new();
    let (dir, copy) = (temp.log(), temp.file("copy"));
    let options = Wal::builder(&dir).segment_size(64 << 10);
    let wal = options.max_total_bytes(1 << 20).open().unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0_u64;
            while !over.load(Ordering::Relaxed) {
                let lsn = wal.append(&[&n.to_le_bytes()[..], &[7; 600]].concat()).unwrap();
                n += 1;
                if n.is_multiple_of(8) {
                    wal.wait_durable(lsn).unwrap();
                }
            }
        });
        let _ends = Ends(&over);
        let mut last = 0;
        for _ in 0..4 {
            // On a busy machine the copy may be slower than the writer for as long as it tries.
            let copied =
                std::iter::repeat_with(|| ringwal(&["backup", "--json", "--prune", &dir, &copy]))
                    .find(|out| {
                        !String::from_utf8_lossy(&out.stderr)
                            .contains("faster than they are copied")
                    })
                    .unwrap();
            assert!(copied.status.success(), "{copied:?}");
            let report: serde_json::Value = serde_json::from_slice(&copied.stdout).unwrap();
            let end = report["durable_end"].as_u64().unwrap();
            assert!(end >= last);
            last = end;
            let found = payloads(&copy);
            let number = |payload: &[u8]| u64::from_le_bytes(payload[..8].try_into().unwrap());
            let mut pairs = found.windows(2);
            assert!(pairs.all(|pair| number(&pair[1]) == number(&pair[0]) + 1), "no gap");
            assert!(report["verified"]["end"].as_u64().unwrap() >= end);
        }
    });
    wal.close().unwrap();
}

#[test]
fn backup_into_a_foreign_directory_is_refused() {
    let temp = Temp::new();
    let (dir, other, copy) = (temp.log(), temp.file("other"), temp.file("copy"));
    log(&dir);
    log(&other);
    let link = temp.file("link");
    std::os::unix::fs::symlink(&dir, &link).unwrap();
    for dest in [&dir, &link] {
        assert!(said(&["backup", &dir, dest], 2).contains("is the log itself"));
    }
    said(&["backup", &other, &copy], 0);
    let (before, copied) = (contents(&dir), contents(&copy));
    assert!(said(&["backup", &dir, &copy], 2).contains("holds another log"));
    assert!(said(&["backup", &dir, &other], 2).contains("name another directory"));
    assert!(contents(&dir) == before && contents(&copy) == copied);
    // A log that lost its end and went on is another one.
    let cut = temp.file("cut");
    said(&["backup", &dir, &cut], 0);
    damage(&dir, 2, 4096, 8);
    said(&["repair", "--apply", "--keep", "before", &dir], 0);
    assert!(said(&["backup", &dir, &cut], 2).contains("name another directory"));
}

#[test]
fn backup_of_a_damaged_log_fails_and_spares_the_earlier_copy() {
    let temp = Temp::new();
    let (dir, copy, new) = (temp.log(), temp.file("copy"), temp.file("new"));
    log(&dir);
    said(&["backup", &dir, &copy], 0);
    append(&dir, 100);
    damage(&dir, 1, 8192, 8);
    let failed = said(&["backup", &dir, &new], 1);
    assert!(failed.contains("ringwal verify"), "{failed}");
    // The segments that were copied while they were sound are sound.
    let survey = json(&["backup", "--json", &dir, &copy], 0);
    assert_eq!(survey["verified"]["records"], 700);
    let none = temp.file("none");
    said(&["backup", &none, &temp.file("nowhere")], 3);
    assert!(!Path::new(&none).exists() && !Path::new(&temp.file("nowhere")).exists());
}
