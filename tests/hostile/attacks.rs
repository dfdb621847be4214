//! Hostile files in a log's directory, or in place of its files: nothing outside is written, no
//! call hangs, and no two writers open one log.
#![cfg(unix)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they did")]

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{SetOnDrop, Temp, copy_dir, read_all, segments, small};
use ringwal::{CommitMethod, Error, Lsn, Wal};

fn fill(dir: &Path, records: u32) {
    let wal = small(dir).open().unwrap();
    append(&wal, records);
    wal.close().unwrap();
}

fn append(wal: &Wal, records: u32) {
    for n in 0..records {
        wal.append(&[&n.to_le_bytes()[..], &[9; 900]].concat()).unwrap();
    }
    wal.sync().unwrap();
}

/// A file outside that must stay as it is.
fn precious(temp: &Temp) -> PathBuf {
    let path = temp.path().join("precious");
    std::fs::write(&path, b"precious").unwrap();
    path
}

#[test]
fn links_in_place_of_any_file_of_the_log_are_not_written_through() {
    let temp = Temp::new();
    let target = precious(&temp);
    let next = |dir: &Path, ending: &str| {
        let last = segments(dir).pop().unwrap();
        let base: u64 = last.file_stem().unwrap().to_str().unwrap()[4..].parse().unwrap();
        dir.join(format!("wal.{:020}.{ending}", base + (64 << 10)))
    };
    type Name = fn(&dyn Fn(&Path, &str) -> PathBuf, &Path) -> PathBuf;
    let names: [(&str, Name); 5] = [
        ("the next segment's temporary name", |next, dir| next(dir, "tmp")),
        ("the probe", |_, dir| dir.join(format!("wal.{:020}.tmp", u64::MAX))),
        ("the scratch file", |_, dir| dir.join(format!("wal.{:020}.tmp", u64::MAX - 1))),
        ("the remembered method", |_, dir| dir.join("wal.commit")),
        ("the durable end", |_, dir| dir.join("wal.end")),
    ];
    for (what, name) in names {
        for dangling in [false, true] {
            let dir = temp.path().join(format!("{what} {dangling}"));
            fill(&dir, 100);
            let name = name(&next, &dir);
            let _ = std::fs::remove_file(&name);
            let to = if dangling { temp.path().join("not there") } else { target.clone() };
            symlink(&to, &name).unwrap();
            // A link may be replaced, left alone or refused. It is never followed.
            if let Ok(wal) = small(&dir).commit_method(CommitMethod::Auto).open() {
                append(&wal, 300);
                assert_eq!(read_all(&wal).len(), 400, "{what}");
                let until = std::time::Instant::now() + Duration::from_millis(300);
                while std::time::Instant::now() < until && !name.is_file() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            assert_eq!(std::fs::read(&target).unwrap(), b"precious", "{what}");
            assert!(!temp.path().join("not there").exists(), "{what}: made through a link");
        }
    }
}

/// Files written in place must not have a second name.
#[test]
fn hard_link_in_place_of_the_end_file_is_not_written() {
    let temp = Temp::new();
    let target = precious(&temp);
    let dir = temp.log();
    fill(&dir, 10);
    std::fs::remove_file(dir.join("wal.end")).unwrap();
    std::fs::hard_link(&target, dir.join("wal.end")).unwrap();
    let wal = small(&dir).open().unwrap();
    append(&wal, 10);
    assert_eq!(read_all(&wal).len(), 20);
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    // Without an end file a reader searches for the end.
    wal.close().unwrap();
    let outside = ringwal::ReadOnlyWal::open(&dir).unwrap();
    assert_eq!(outside.reader(Lsn::ZERO).unwrap().count(), 20);
}

#[test]
fn sockets_and_devices_in_a_segments_place_are_refused_at_once() {
    let temp = Temp::new();
    for kind in ["socket", "device"] {
        let dir = temp.path().join(kind);
        fill(&dir, 200);
        let place = segments(&dir).swap_remove(1);
        std::fs::remove_file(&place).unwrap();
        let mut listener = None;
        if kind == "socket" {
            listener = Some(UnixListener::bind(&place).unwrap());
        } else {
            let made =
                std::process::Command::new("mknod").arg(&place).args(["c", "1", "3"]).status();
            if !made.is_ok_and(|s| s.success()) {
                eprintln!("skipped: a device node needs root");
                continue;
            }
        }
        match small(&dir).open() {
            Err(e @ (Error::Io { .. } | Error::Corruption { .. })) => {
                assert!(e.to_string().contains(".wal"), "{e}");
            }
            other => panic!("{kind}: {other:?}"),
        }
        drop(listener);
    }
}

#[test]
fn one_log_under_two_paths_has_one_writer() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let alias = temp.path().join("alias");
    symlink(temp.log(), &alias).unwrap();
    for path in [alias.clone(), alias.join("."), temp.log().join("../log")] {
        match small(&path).open() {
            Err(Error::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{}: {other:?}", path.display()),
        }
    }
    // Other prefixes are other logs. A hard link to another log's lock file is locked with it.
    small(&temp.log()).prefix("other").open().unwrap();
    std::fs::hard_link(temp.log().join("wal.lock"), temp.log().join("third.lock")).unwrap();
    assert!(matches!(small(&temp.log()).prefix("third").open(), Err(Error::Locked { .. })));
    wal.append_durable(b"undisturbed").unwrap();
}

#[test]
fn copy_of_a_log_is_a_log_of_its_own() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    append(&wal, 300);
    wal.close().unwrap();
    drop(wal);
    let copy = temp.path().join("copy");
    copy_dir(&temp.log(), &copy);
    let (one, two) = (small(&temp.log()).open().unwrap(), small(&copy).open().unwrap());
    append(&one, 100);
    append(&two, 200);
    assert_eq!((read_all(&one).len(), read_all(&two).len()), (400, 500));
    one.close().unwrap();
    two.close().unwrap();
    // A segment of the one log in place of the other's: the same log id, and another history. The
    // open detects this, or the log ends before that segment, or the log continues with the other
    // history from where both were equal. It never mixes the histories.
    let (own, other) = (read_all(&one), read_all(&two));
    let place = (own[350].0.as_u64() >> 16) as usize;
    std::fs::copy(&segments(&copy)[place], &segments(&temp.log())[place]).unwrap();
    drop((one, two));
    let replayed = small(&temp.log()).open().and_then(|wal| {
        let mut found = Vec::new();
        for record in wal.reader(Lsn::ZERO) {
            let record = record?;
            found.push((record.lsn, record.payload));
        }
        Ok(found)
    });
    match replayed {
        Err(Error::Corruption { .. }) => {}
        Err(e) => panic!("{e}"),
        Ok(found) => {
            let one_history = own.starts_with(&found) || other.starts_with(&found);
            assert!(one_history, "{} records of two histories", found.len());
        }
    }
}

/// A copy of a log that is being written has its files from different moments. The copy is a prefix
/// of the log, or is refused.
#[test]
fn copy_of_a_live_log_is_a_prefix_or_refused() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let over = AtomicBool::new(false);
    let mut opened = [0, 0];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0_u32.. {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                wal.append_durable(&[&n.to_le_bytes()[..], &[9; 900]].concat()).unwrap();
            }
        });
        let _over = SetOnDrop(&over);
        for round in 0..20 {
            let copy = temp.path().join(format!("copy{round}"));
            std::thread::sleep(Duration::from_millis(10));
            std::fs::create_dir(&copy).unwrap();
            // Copy in any order, or newest first: then a segment that continues in another is
            // complete.
            let mut files: Vec<_> = std::fs::read_dir(temp.log()).unwrap().flatten().collect();
            if round % 2 == 0 {
                files.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
            }
            for entry in files {
                // The writer creates and removes files meanwhile.
                let _ = std::fs::copy(entry.path(), copy.join(entry.file_name()));
            }
            match small(&copy).open() {
                Ok(wal) => {
                    let mut records = 0_u32;
                    let whole = wal.reader(Lsn::ZERO).try_for_each(|record| {
                        assert_eq!(record?.payload[..4], records.to_le_bytes());
                        records += 1;
                        Ok(())
                    });
                    match whole {
                        Ok(()) => opened[round % 2] += 1,
                        Err(Error::Corruption { .. }) => {}
                        Err(e) => panic!("{e}"),
                    }
                }
                Err(Error::Corruption { .. }) => {}
                Err(e) => panic!("{e}"),
            }
            std::fs::remove_dir_all(&copy).unwrap();
        }
    });
    println!("newest first, {} of 10 copies were a log; in any order, {}", opened[0], opened[1]);
}
