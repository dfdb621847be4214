//! Conditions of an open (the log must exist, must be new, must have this id), and deletion of a
//! log.

use std::path::Path;

use crate::support::{Temp, eventually, small};
use ringwal::testing::SimulatedDisk;
use ringwal::{Error, Lsn, OptionsError, RecoveryCase, Wal};

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn must_exist_without_a_log_creates_nothing() {
    let temp = Temp::new();
    let dir = temp.log();
    for builder in [
        small(&dir).must_exist(true),
        small(&dir).expect_log_id([7; 16]),
        small(&dir).must_exist(true).expect_log_id([7; 16]),
    ] {
        match builder.clone().open() {
            Err(Error::NoLog { path, prefix }) => {
                assert_eq!((path, &*prefix), (dir.clone(), "wal"))
            }
            other => panic!("{other:?}"),
        }
        assert!(!dir.exists());
        std::fs::create_dir(&dir).unwrap();
        assert!(matches!(builder.open(), Err(Error::NoLog { .. })));
        assert_eq!(names(&dir), [""; 0]);
        std::fs::remove_dir(&dir).unwrap();
    }
    // A volume with only a log of another prefix is the wrong place too.
    small(&dir).prefix("other").open().unwrap().close().unwrap();
    let before = names(&dir);
    assert!(matches!(small(&dir).must_exist(true).open(), Err(Error::NoLog { .. })));
    assert_eq!(names(&dir), before);
}

#[test]
fn must_exist_with_a_log_opens_it() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    assert_eq!(wal.recovery().case, RecoveryCase::New);
    let id = wal.log_id();
    wal.append_durable(b"kept").unwrap();
    wal.close().unwrap();
    for builder in [
        small(&temp.log()).must_exist(true),
        small(&temp.log()).expect_log_id(id),
        small(&temp.log()).create_new(true).must_exist(true),
        small(&temp.log()).must_exist(true).must_exist(false),
    ] {
        let wal = builder.open().unwrap();
        assert_ne!(wal.recovery().case, RecoveryCase::New);
        assert_eq!(wal.log_id(), id);
        assert_eq!(wal.reader(Lsn::ZERO).next().unwrap().unwrap().payload, b"kept");
        wal.close().unwrap();
    }
}

#[test]
fn create_new_over_a_log_changes_nothing_and_does_not_wait_for_its_writer() {
    let temp = Temp::new();
    let wal = small(&temp.log()).create_new(true).open().unwrap();
    wal.append_durable(b"kept").unwrap();
    let began = std::time::Instant::now();
    let hour = std::time::Duration::from_secs(3600);
    let again = small(&temp.log()).create_new(true).lock_wait(hour).open();
    assert!(matches!(again, Err(Error::LogExists { .. })), "{again:?}");
    assert!(began.elapsed() < hour);
    wal.close().unwrap();
    let before = names(&temp.log());
    // On Windows canonical paths have a prefix that the log does not show.
    let is_of_the_log = |path: &std::path::Path| {
        std::fs::canonicalize(path).unwrap() == std::fs::canonicalize(temp.log()).unwrap()
    };
    assert!(matches!(
        small(&temp.log()).create_new(true).open(),
        Err(Error::LogExists { path, prefix }) if is_of_the_log(&path) && prefix == "wal"
    ));
    assert_eq!(names(&temp.log()), before);
    assert_eq!(small(&temp.log()).open().unwrap().reader(Lsn::ZERO).count(), 1);
}

#[test]
fn another_log_than_the_expected_one_is_refused_and_unchanged() {
    let (temp, other) = (Temp::new(), Temp::new());
    let open = |temp: &Temp| small(&temp.log()).open().unwrap();
    let (first, second) = (open(&temp), open(&other));
    let (id, other_id) = (first.log_id(), second.log_id());
    assert_ne!(id, other_id);
    first.append_durable(b"kept").unwrap();
    first.close().unwrap();
    second.close().unwrap();
    let read = || {
        let all = names(&temp.log()).into_iter();
        all.map(|name| std::fs::read(temp.log().join(name)).unwrap()).collect::<Vec<_>>()
    };
    let before = read();
    match small(&temp.log()).expect_log_id(other_id).open() {
        Err(Error::OtherLog { found, expected, .. }) => {
            assert_eq!((found, expected), (id, other_id))
        }
        other => panic!("{other:?}"),
    }
    assert!(read() == before || cfg!(not(unix)), "something was changed");
    let conflict = small(&temp.log()).create_new(true).expect_log_id(id).open();
    assert!(matches!(conflict, Err(Error::Options(OptionsError::Conflict { .. }))));
}

#[test]
fn open_conditions_hold_on_the_simulated_disk_too() {
    let settings = || Wal::builder("log").segment_size(64 << 10).ring_capacity(32 << 10);
    let disk = SimulatedDisk::new(1);
    assert!(matches!(disk.open(&settings().must_exist(true)), Err(Error::NoLog { .. })));
    let wal = disk.open(&settings().create_new(true)).unwrap();
    let id = wal.log_id();
    wal.close().unwrap();
    assert!(matches!(disk.open(&settings().create_new(true)), Err(Error::LogExists { .. })));
    assert!(matches!(disk.open(&settings().expect_log_id([0; 16])), Err(Error::OtherLog { .. })));
    assert_eq!(disk.open(&settings().expect_log_id(id)).unwrap().log_id(), id);
}

#[test]
fn remove_deletes_one_log_and_nothing_else() {
    let temp = Temp::new();
    let dir = temp.log();
    let wal = small(&dir).on_sealed(|_| Ok(())).open().unwrap();
    for n in 0..200 {
        wal.append(&vec![n; 2000]).unwrap();
    }
    wal.sync().unwrap();
    let first = wal.reader(Lsn::ZERO).next().unwrap().unwrap().lsn;
    wal.consumer("mailer").unwrap().commit(first).unwrap();
    let held = Wal::remove(&dir, "wal");
    assert!(matches!(held, Err(Error::Locked { .. })), "{held:?}");
    assert_eq!(wal.reader(Lsn::ZERO).count(), 200, "a log with a writer is whole");
    wal.close().unwrap();
    let other = small(&dir).prefix("wal2").open().unwrap();
    other.append_durable(b"kept").unwrap();
    std::fs::write(dir.join("wal.txt"), b"of the application").unwrap();

    Wal::remove(&dir, "wal").unwrap();
    let left = names(&dir);
    assert!(left.iter().all(|name| name.starts_with("wal2.") || name == "wal.txt"), "{left:?}");
    assert!(left.contains(&"wal.txt".to_owned()));
    assert!(matches!(Wal::remove(&dir, "wal"), Err(Error::NoLog { .. })));
    assert!(matches!(Wal::remove(temp.path().join("none"), "wal"), Err(Error::NoLog { .. })));
    assert!(matches!(Wal::remove(&dir, "../wal"), Err(Error::Options(_))));
    other.append_durable(b"kept").unwrap();
    assert_eq!(other.reader(Lsn::ZERO).count(), 2);
    let again = small(&dir).create_new(true).open().unwrap();
    assert_eq!(again.recovery().case, RecoveryCase::New);
    assert!(again.consumers().is_empty());
}

/// A log whose deletion was interrupted must not open as a shorter log.
#[test]
fn remove_that_was_interrupted_leaves_damage_and_can_be_repeated() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    for n in 0..200 {
        wal.append(&vec![n; 2000]).unwrap();
    }
    wal.close().unwrap();
    let all = crate::support::segments(&temp.log());
    assert!(all.len() > 4);
    for segment in &all[..2] {
        std::fs::remove_file(segment).unwrap();
    }
    assert!(matches!(small(&temp.log()).open(), Err(Error::Corruption { .. })));
    Wal::remove(temp.log(), "wal").unwrap();
    assert_eq!(names(&temp.log()), [""; 0]);
}

#[test]
fn creators_at_the_same_time_make_one_log() {
    let temp = Temp::new();
    let (made, refused) = (std::sync::Mutex::new(Vec::new()), std::sync::atomic::AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| match small(&temp.log()).create_new(true).open() {
                Ok(wal) => made.lock().unwrap().push(wal),
                Err(Error::LogExists { .. } | Error::Locked { .. }) => {
                    refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                Err(e) => panic!("{e}"),
            });
        }
    });
    eventually("all have an answer", || {
        made.lock().unwrap().len() as u32 + refused.load(std::sync::atomic::Ordering::Relaxed) == 4
    });
    assert_eq!(made.lock().unwrap().len(), 1);
}

/// A log on tmpfs opens and reports that it is in memory.
#[cfg(target_os = "linux")]
#[test]
fn log_on_tmpfs_reports_that_it_is_in_memory() {
    let shm = Path::new("/dev/shm");
    let in_memory = std::fs::read_to_string("/proc/mounts")
        .is_ok_and(|mounts| mounts.lines().any(|line| line.contains(" /dev/shm tmpfs ")));
    if !in_memory {
        eprintln!("skipped: /dev/shm is no tmpfs here");
        return;
    }
    let dir = shm.join(format!("ringwal-test-volatile-{}", std::process::id()));
    let wal = small(&dir).open().unwrap();
    let volatility = wal.backend().volatility;
    let text = wal.backend().to_string();
    wal.close().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    // The feature alone does not say it: not every architecture has the calls.
    if cfg!(linux_calls) || volatility.is_some() {
        assert!(volatility.is_some_and(|reason| reason.contains("in memory")), "{volatility:?}");
        assert!(text.contains("in memory"), "{text}");
    }
}

#[test]
fn path_that_is_no_directory_is_refused_with_that_reason() {
    let temp = Temp::new();
    let file = temp.path().join("file");
    std::fs::write(&file, b"of the application").unwrap();
    for path in [file.clone(), file.join("below")] {
        match Wal::open(&path) {
            Err(Error::Io { source, .. }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::NotADirectory, "{}", path.display());
                assert!(source.raw_os_error().is_some(), "{source}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"of the application");
    let empty = Wal::open("").unwrap_err().to_string();
    assert!(empty.contains("the path is empty"), "{empty}");
}

/// The number of the system goes to callers in other languages.
#[cfg(unix)]
#[test]
fn link_that_leads_nowhere_is_refused_with_the_error_of_the_system() {
    let temp = Temp::new();
    for (name, target) in [("loop", "loop"), ("dangling", "nothing")] {
        let link = temp.path().join(name);
        std::os::unix::fs::symlink(target, &link).unwrap();
        let system = std::fs::metadata(&link).unwrap_err().raw_os_error();
        assert!(system.is_some());
        let must_exist = Wal::builder(&link).must_exist(true).open().unwrap_err();
        assert!(matches!(must_exist, Error::NoLog { .. }) || must_exist.os_error() == system);
        let refused = Wal::open(&link).unwrap_err();
        assert!(matches!(refused, Error::Io { .. }), "{refused}");
        assert_eq!(refused.os_error(), system, "{refused}");
    }
}

#[cfg(unix)]
#[test]
fn log_that_this_process_has_open_is_locked_by_this_process() {
    let temp = Temp::new();
    let _open = small(&temp.log()).open().unwrap();
    let again = small(&temp.log()).lock_wait(std::time::Duration::ZERO).open().unwrap_err();
    assert!(matches!(again, Error::Locked { .. }));
    assert!(again.to_string().contains("this process: use the handle"), "{again}");
}

#[test]
fn every_bad_option_is_reported_at_once() {
    let temp = Temp::new();
    let bad = Wal::builder(temp.log())
        .prefix("")
        .segment_size(1024)
        .depth(0)
        .max_segments(1)
        .idle_seal(std::time::Duration::ZERO)
        .max_age(std::time::Duration::ZERO)
        .open();
    let Err(Error::Options(OptionsError::Several(all))) = bad else { panic!("{bad:?}") };
    let text = Error::Options(OptionsError::Several(all.clone())).to_string();
    assert_eq!(all.len(), 6, "{text}");
    for part in ["prefix", "segment_size", "16384", "depth", "max_segments", "idle_seal", "max_age"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!temp.log().exists());
    // The error names the smallest valid sizes, and those work.
    let small = Wal::builder(temp.log()).segment_size(16 << 10).ring_capacity(1024).open();
    let text = small.unwrap_err().to_string();
    assert!(text.contains("8192 bytes"), "{text}");
    Wal::builder(temp.log()).segment_size(16 << 10).ring_capacity(8192).open().unwrap();
}
