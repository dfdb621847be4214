//! Bad options, bad directories and second openers: each gets a typed error that says what to do,
//! and nothing on disk is changed or lost.
#![allow(clippy::print_stderr, reason = "tests say what they skip")]

use std::path::Path;
use std::time::Duration;

use crate::support::{Temp, copy_dir, read_all, segments, small};
use ringwal::{BackendChoice, Durability, Error, OptionsError, Wal};

fn log_of(dir: &Path, records: u32) {
    let wal = small(dir).open().unwrap();
    for n in 0..records {
        wal.append(&[n as u8; 700]).unwrap();
    }
    wal.close().unwrap();
}

/// Names and contents of all files but the lock file.
fn snapshot(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| !e.file_name().to_string_lossy().ends_with(".lock"))
        .map(|e| {
            (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap_or_default())
        })
        .collect();
    all.sort();
    all
}

fn says(e: &Error, what: &str) {
    assert!(e.to_string().contains(what), "{e:?}: {e}");
}

#[test]
fn options_out_of_range_are_refused_before_any_file_is_created() {
    let temp = Temp::new();
    let dir = temp.log();
    let builder = || Wal::builder(&dir);
    let refused = [
        builder().segment_size(0).open(),
        builder().segment_size((1 << 20) + 1).open(),
        builder().segment_size(4096).open(),
        builder().segment_size(1 << 20).max_record_size(1 << 20).open(),
        builder().segment_size(1 << 20).ring_capacity(1 << 30).max_record_size(2 << 20).open(),
        builder().max_record_size(0).open(),
        builder().ring_capacity(1).open(),
        builder().depth(0).open(),
        builder().depth(100_000).open(),
        builder().max_segments(1).open(),
        builder().max_total_bytes(4096).open(),
        builder().max_age(Duration::ZERO).open(),
        builder().durability(Durability::Interval(Duration::ZERO)).open(),
        builder().idle_seal(Duration::ZERO).open(),
        builder().commit_delay(Duration::from_secs(3600)).open(),
        builder().prefix("").open(),
        builder().prefix("a/b").open(),
        builder().prefix("..").open(),
        builder().prefix("../../etc/x").open(),
        builder().prefix("nul\0").open(),
        builder().prefix("x".repeat(300)).open(),
    ];
    for (n, result) in refused.into_iter().enumerate() {
        match result {
            Err(Error::Options(e)) => assert!(!e.to_string().is_empty()),
            other => panic!("case {n}: {other:?}"),
        }
    }
    assert!(!dir.exists());
    let zero = builder().durability(Durability::Interval(Duration::ZERO)).open();
    assert!(matches!(zero, Err(Error::Options(OptionsError::ZeroDuration { .. }))));
}

#[test]
fn file_in_place_of_the_directory_is_refused_and_unchanged() {
    let temp = Temp::new();
    std::fs::write(temp.log(), b"precious").unwrap();
    assert!(matches!(Wal::open(temp.log()), Err(Error::Io { .. })));
    assert_eq!(std::fs::read(temp.log()).unwrap(), b"precious");
}

#[test]
fn second_opener_is_refused_with_the_pid_of_the_holder() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    match small(&temp.log()).open() {
        Err(e @ Error::Locked { pid, .. }) => {
            assert_eq!(pid, Some(std::process::id()));
            says(&e, &std::process::id().to_string());
        }
        other => panic!("{other:?}"),
    }
    wal.append(b"the first goes on").unwrap();
    drop(wal);
    assert_eq!(read_all(&small(&temp.log()).open().unwrap()).len(), 1);
}

#[test]
fn damaged_missing_and_foreign_segments_are_refused_and_unchanged() {
    let temp = Temp::new();
    let good = temp.path().join("good");
    log_of(&good, 400);
    let other = temp.path().join("other");
    log_of(&other, 400);
    let count = segments(&good).len();
    assert!(count >= 5);
    type Damage = fn(&[std::path::PathBuf], &Path);
    let cases: [(&str, Damage); 9] = [
        ("truncated", |s, _| {
            std::fs::OpenOptions::new().write(true).open(&s[1]).unwrap().set_len(5000).unwrap();
        }),
        ("empty", |s, _| std::fs::write(&s[1], b"").unwrap()),
        ("zeroed", |s, _| std::fs::write(&s[1], vec![0; 64 << 10]).unwrap()),
        ("random", |s, _| {
            let noise: Vec<u8> =
                (0..64_u32 << 10).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            std::fs::write(&s[1], noise).unwrap();
        }),
        ("longer", |s, _| {
            std::fs::OpenOptions::new().write(true).open(&s[1]).unwrap().set_len(1 << 20).unwrap();
        }),
        ("missing in the middle", |s, _| std::fs::remove_file(&s[1]).unwrap()),
        ("missing at the front", |s, _| std::fs::remove_file(&s[0]).unwrap()),
        ("of another place", |s, _| _ = std::fs::copy(&s[0], &s[1]).unwrap()),
        ("of another log", |s, other| {
            let name = s[1].file_name().unwrap();
            std::fs::copy(other.join(name), &s[1]).unwrap();
        }),
    ];
    for (name, damage) in cases {
        let dir = temp.path().join(name);
        copy_dir(&good, &dir);
        damage(&segments(&dir), &other);
        let before = snapshot(&dir);
        match small(&dir).open() {
            Err(e @ (Error::Corruption { .. } | Error::ForeignSegment { .. })) => says(&e, ".wal"),
            other => panic!("{name}: {other:?}"),
        }
        assert!(snapshot(&dir) == before, "{name}: the failed open changed a file");
    }
    let wal = small(&good).open().unwrap();
    assert_eq!(read_all(&wal).len(), 400);
}

#[cfg(unix)]
#[test]
fn links_pipes_and_directories_in_a_segments_place_are_not_followed() {
    use std::os::unix::fs::symlink;
    let temp = Temp::new();
    let good = temp.path().join("good");
    log_of(&good, 200);
    let second = segments(&good)[1].file_name().unwrap().to_owned();
    for kind in ["link", "pipe", "directory"] {
        let dir = temp.path().join(kind);
        copy_dir(&good, &dir);
        let place = dir.join(&second);
        std::fs::rename(&place, temp.path().join("moved")).unwrap();
        match kind {
            "link" => symlink(temp.path().join("moved"), &place).unwrap(),
            "directory" => std::fs::create_dir(&place).unwrap(),
            _ => {
                let made = std::process::Command::new("mkfifo").arg(&place).status();
                if !made.is_ok_and(|s| s.success()) {
                    eprintln!("no mkfifo here: the pipe is not tested");
                    continue;
                }
            }
        }
        match small(&dir).open() {
            Err(e @ (Error::Io { .. } | Error::Corruption { .. })) => says(&e, "wal"),
            other => panic!("{kind}: {other:?}"),
        }
    }
    let dir = temp.path().join("linked-lock");
    std::fs::create_dir(&dir).unwrap();
    let target = temp.path().join("target");
    std::fs::write(&target, b"precious").unwrap();
    symlink(&target, dir.join("wal.lock")).unwrap();
    assert!(matches!(small(&dir).open(), Err(Error::Io { .. })));
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");
}

#[cfg(unix)]
#[test]
fn files_and_a_new_directory_are_accessible_to_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let temp = Temp::new();
    log_of(&temp.log(), 100);
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&temp.log()), 0o700);
    for entry in std::fs::read_dir(temp.log()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn log_written_with_other_sizes_opens_and_continues() {
    let temp = Temp::new();
    let mut expected = 0;
    for (segment, record) in
        [(64_u64 << 10, 4000), (1 << 20, 200_000), (16 << 10, 1000), (256 << 10, 9000)]
    {
        let wal = Wal::builder(temp.log())
            .segment_size(segment)
            .max_record_size(record)
            .backend(BackendChoice::Auto)
            .open()
            .unwrap();
        assert_eq!(read_all(&wal).len(), expected);
        for _ in 0..20 {
            wal.append(&vec![7; record]).unwrap();
            expected += 1;
        }
        assert_eq!(read_all(&wal).len(), expected);
    }
}

#[test]
fn damaged_epoch_group_after_a_clean_close_is_corruption() {
    let temp = Temp::new();
    log_of(&temp.log(), 10);
    let closed = ringwal::ReadOnlyWal::open(temp.log()).unwrap().durable_end().unwrap();
    log_of(&temp.log(), 10);
    // Damage the epoch group of the second life.
    let first = &segments(&temp.log())[0];
    let mut bytes = std::fs::read(first).unwrap();
    bytes[closed.as_u64() as usize] ^= 1;
    std::fs::write(first, &bytes).unwrap();
    let before = snapshot(&temp.log());
    match small(&temp.log()).open() {
        Err(Error::Corruption { lsn, .. }) => assert_eq!(lsn, closed),
        other => panic!("{other:?}"),
    }
    assert!(snapshot(&temp.log()) == before);
}

/// Each is within its own limit. Together they make a file name that is too long for every
/// filesystem.
#[test]
fn prefix_and_consumer_name_too_long_together_are_refused() {
    let temp = Temp::new();
    for (prefix, longest) in [(200, 41), (180, 61), (178, 63), (177, 64), (1, 64)] {
        let prefix = "p".repeat(prefix);
        let wal = small(&temp.log()).prefix(prefix).open().unwrap();
        for len in longest + 1..=64 {
            match wal.consumer(&"c".repeat(len)) {
                Err(Error::ConsumerNameTooLong { longest: said, .. }) => assert_eq!(said, longest),
                other => panic!("{other:?}"),
            }
        }
        drop(wal.consumer(&"c".repeat(longest)).unwrap());
        assert!(matches!(wal.consumer(&"c".repeat(65)), Err(Error::ConsumerName { .. })));
        wal.close().unwrap();
    }
}

/// Some filesystems have one file for both names, and every filesystem may be copied to such a one.
#[test]
fn new_names_that_differ_from_others_in_case_alone_are_refused() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let lsn = wal.append_durable(b"kept").unwrap();
    let mut mailer = wal.consumer("mailer").unwrap();
    mailer.commit(lsn).unwrap();
    let position = mailer.position();
    let files = || {
        let entries = std::fs::read_dir(temp.log()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        // The log prepares segments meanwhile.
        let mut names: Vec<_> = names.filter(|name| !name.starts_with("wal.0")).collect();
        names.sort();
        names
    };
    let before = files();
    for name in ["Mailer", "MAILER", "maileR"] {
        // While the other is attached, and while it is not.
        match wal.consumer(name) {
            Err(Error::NameTaken { path }) => {
                assert!(path.ends_with(format!("wal.consumer.{name}")), "{path:?}");
            }
            other => panic!("{name}: {other:?}"),
        }
        assert!(matches!(wal.remove_consumer(name), Err(Error::NoConsumer { .. })), "{name}");
    }
    drop(mailer);
    assert!(matches!(wal.consumer("Mailer"), Err(Error::NameTaken { .. })));
    assert_eq!(wal.consumer("mailer").unwrap().position(), position);
    assert_eq!(wal.consumers().len(), 1);
    for prefix in ["WAL", "Wal", "waL"] {
        let refused = small(&temp.log()).prefix(prefix).open();
        assert!(matches!(refused, Err(Error::NameTaken { .. })), "{prefix}: {refused:?}");
    }
    assert_eq!(files(), before, "nothing was created");
    // Once the name is free, it may be taken in another case.
    wal.remove_consumer("mailer").unwrap();
    drop(wal.consumer("Mailer").unwrap());
    wal.close().unwrap();
    let refused = small(&temp.log()).prefix("WAL").open();
    assert!(matches!(refused, Err(Error::NameTaken { .. })), "{refused:?}");
    small(&temp.log()).prefix("wal2").open().unwrap().append_durable(b"beside").unwrap();
    // Where the filesystem ignores case, this name is the first log's.
    if temp.log().join("WAL.lock").exists() {
        eprintln!("skipped: the filesystem has no two names that differ in case alone");
        return;
    }
    // Both were there before: each goes on.
    std::fs::rename(temp.log().join("wal2.lock"), temp.log().join("WAL.lock")).unwrap();
    drop(small(&temp.log()).prefix("wal").open().unwrap());
    drop(small(&temp.log()).prefix("WAL").open().unwrap());
}
