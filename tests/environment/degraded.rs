//! Machines that give less than the log would like: the log works, or its error names what is
//! missing. No acknowledged record is lost.
//!
//! `disk_full` has a full disk, `sandbox` a forbidden io_uring and little lockable memory,
//! `stalled` a disk that does not answer.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they did")]

use std::path::Path;
use std::time::Duration;

use crate::child::{
    ALLOW, NUMBER, Statement, become_nobody, case_and_directory, fail, filter_system_calls,
    if_equal, in_a_process,
};
use crate::support::{Temp, backends, eventually, read_all, segments, small};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringwal::{Error, Lsn, Wal};

/// Makes every open with `O_DIRECT` fail, as filesystems without direct I/O do.
fn refuse_direct_io() {
    // The low half of the third argument, the flags.
    let flags: Statement = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 16 + 2 * 8);
    let direct: Statement =
        (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, libc::O_DIRECT as u32);
    let opens = if_equal(libc::SYS_openat as u32, 3);
    filter_system_calls(&[NUMBER, opens, flags, direct, fail(libc::EINVAL), ALLOW]);
}

fn append_many(wal: &Wal, count: u32) {
    for n in 0..count {
        wal.append(&[&n.to_le_bytes()[..], &[3; 900]].concat()).unwrap();
    }
    wal.sync().unwrap();
}

/// The child of [`in_a_process`].
#[test]
fn case() {
    let Some((case, dir)) = case_and_directory() else { return };
    match case.as_str() {
        "no direct I/O" => {
            refuse_direct_io();
            for (round, backend) in (1..).zip(backends()) {
                let wal = small(&dir).backend(backend).open().unwrap();
                append_many(&wal, 300);
                assert_eq!(read_all(&wal).len(), 300 * round);
                wal.close().unwrap();
            }
        }
        "few descriptors to open with" => {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            let mut opened = 0;
            for most in 3..30 {
                setrlimit(Resource::RLIMIT_NOFILE, most, hard).unwrap();
                match small(&dir).open() {
                    Ok(wal) => {
                        wal.append_durable(b"with what there is").unwrap();
                        drop(wal);
                        opened += 1;
                    }
                    Err(e @ (Error::Io { .. } | Error::BackendUnavailable { .. })) => {
                        assert!(e.to_string().contains("open files"), "{e}");
                    }
                    Err(e) => panic!("{most}: {e}"),
                }
            }
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
            assert!(opened > 0 && opened < 27, "{opened}");
            assert_eq!(read_all(&small(&dir).open().unwrap()).len(), opened);
        }
        "no descriptors while running" => {
            let wal = small(&dir).open().unwrap();
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
            let other = wal.clone();
            let writer = std::thread::spawn(move || {
                for n in 0..500_u32 {
                    let record = [&n.to_le_bytes()[..], &[3; 900]].concat();
                    // An append is refused after a second, and the limit may last longer where the
                    // machine is busy.
                    while let Err(e) = other.append(&record) {
                        assert!(matches!(e, Error::Obstructed { .. }), "{e}");
                    }
                }
                other.sync().unwrap();
            });
            std::thread::sleep(Duration::from_millis(300));
            assert!(!writer.is_finished(), "segments were made without descriptors");
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
            writer.join().unwrap();
            assert_eq!(read_all(&wal).len(), 500);
        }
        "a limit of file sizes" => {
            // The signal's default action would end the process. A service that sets the limit
            // ignores the signal. SAFETY: no handler is installed.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
            setrlimit(Resource::RLIMIT_FSIZE, 16 << 10, hard).unwrap();
            match small(&dir).open() {
                Err(e @ Error::Io { .. }) => assert!(e.to_string().contains("too large"), "{e}"),
                other => panic!("{other:?}"),
            }
            setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
            small(&dir).open().unwrap().append_durable(b"mended").unwrap();
        }
        "no threads" => {
            if !become_nobody() {
                eprintln!("skipped: only root can become a user without processes");
                return;
            }
            let (_, hard) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
            setrlimit(Resource::RLIMIT_NPROC, 1, hard).unwrap();
            match small(&dir).open() {
                Err(e @ (Error::Io { .. } | Error::BackendUnavailable { .. })) => {
                    assert!(e.to_string().contains("thread"), "{e}");
                }
                other => panic!("{other:?}"),
            }
            setrlimit(Resource::RLIMIT_NPROC, hard, hard).unwrap();
            small(&dir).open().unwrap().append_durable(b"mended").unwrap();
        }
        "read-only" => {
            let mounts = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).and_then(|()| {
                let none = None::<&str>;
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
                mount(Some(&dir), &dir, none, MsFlags::MS_BIND, none)?;
                let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
                mount(none, &dir, none, again, none)
            });
            if let Err(e) = mounts {
                eprintln!("skipped: a read-only mount needs root: {e}");
                return;
            }
            for log in [dir.join("log"), dir.join("new")] {
                match small(&log).open() {
                    Err(e @ Error::Io { .. }) => {
                        let said = e.to_string();
                        assert!(said.contains("Read-only") && said.contains("/"), "{said}");
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        "no permission" => {
            if !become_nobody() {
                eprintln!("skipped: only root can leave its own directory");
                return;
            }
            match small(&dir.join("log")).open() {
                Err(e @ Error::Io { .. }) => assert!(e.to_string().contains("denied"), "{e}"),
                other => panic!("{other:?}"),
            }
        }
        "umask" => {
            use std::os::unix::fs::PermissionsExt;
            let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
            for mask in [0, 0o077, 0o777] {
                let none = nix::sys::stat::Mode::from_bits_truncate(mask);
                let before = nix::sys::stat::umask(none);
                let log = dir.join(mask.to_string());
                if mask == 0o777 && !nix::unistd::geteuid().is_root() {
                    continue;
                }
                append_many(&small(&log).open().unwrap(), 200);
                assert_eq!(mode(&log) & !0o700, 0);
                for entry in std::fs::read_dir(&log).unwrap() {
                    let path = entry.unwrap().path();
                    assert_eq!(mode(&path) & !0o600, 0, "{}", path.display());
                }
                nix::sys::stat::umask(before);
            }
        }
        _ => panic!("{case}"),
    }
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}

#[test]
fn filesystem_without_direct_io_works() {
    let temp = Temp::new();
    in_a_process("no direct I/O", &temp.log());
    let wal = small(&temp.log()).open().unwrap();
    assert_eq!(read_all(&wal).len(), 300 * backends().len(), "direct I/O continues the log");
}

#[test]
fn too_few_descriptors_are_named_in_the_error_and_lose_no_record() {
    for case in ["few descriptors to open with", "no descriptors while running"] {
        let temp = Temp::new();
        in_a_process(case, &temp.log());
    }
}

#[test]
fn file_size_limit_is_named_in_the_error() {
    in_a_process("a limit of file sizes", &Temp::new().log());
}

#[test]
fn threads_that_cannot_start_fail_the_open_and_release_the_lock() {
    let temp = Temp::new();
    open_to_all(temp.path());
    in_a_process("no threads", &temp.log());
}

#[test]
fn read_only_filesystem_is_named_in_the_error_and_unchanged() {
    let temp = Temp::new();
    append_many(&small(&temp.log()).open().unwrap(), 10);
    in_a_process("read-only", temp.path());
    assert_eq!(read_all(&small(&temp.log()).open().unwrap()).len(), 10);
}

#[test]
fn directory_without_permission_is_refused() {
    let temp = Temp::new();
    open_to_all(temp.path());
    append_many(&small(&temp.log()).open().unwrap(), 10);
    in_a_process("no permission", temp.path());
}

#[test]
fn files_are_private_under_any_umask() {
    in_a_process("umask", Temp::new().path());
}

#[test]
fn log_on_tmpfs_works() {
    let memory = Path::new("/dev/shm");
    if !memory.is_dir() {
        eprintln!("skipped: there is no /dev/shm");
        return;
    }
    for backend in backends() {
        let dir = memory.join(format!("ringwal-degraded-{}-{backend:?}", std::process::id()));
        let wal = small(&dir).backend(backend).open().unwrap();
        append_many(&wal, 300);
        wal.close().unwrap();
        assert_eq!(read_all(&small(&dir).open().unwrap()).len(), 300);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

/// Appends until the log fails, which must be with `Poisoned`.
fn until_it_fails(wal: &Wal) -> u32 {
    for n in 0_u32.. {
        match wal.append_durable(&[&n.to_le_bytes()[..], &[3; 900]].concat()) {
            Ok(_) => assert!(n < 100_000, "the log never fails"),
            Err(Error::Poisoned { .. }) => return n,
            Err(e) => panic!("{e}"),
        }
    }
    0
}

#[test]
fn directory_removed_under_the_log_poisons_it() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        append_many(&wal, 10);
        // The removal fails while the segment keeper creates a segment.
        eventually("it is removed", || std::fs::remove_dir_all(temp.log()).is_ok());
        until_it_fails(&wal);
        assert!(matches!(wal.close(), Err(Error::Poisoned { .. })));
        assert_eq!(read_all(&small(&temp.log()).open().unwrap()).len(), 0, "a new log");
    }
}

/// An open log follows its directory, not the path that it was opened by.
#[test]
fn log_in_a_moved_directory_continues_there() {
    for backend in backends() {
        let temp = Temp::new();
        let moved = temp.path().join("moved");
        let wal = small(&temp.log()).backend(backend).max_segments(40).open().unwrap();
        append_many(&wal, 10);
        std::fs::rename(temp.log(), &moved).unwrap();
        if !Path::new("/proc/self/fd").exists() {
            eprintln!("skipped: without /proc a moved log fails when it needs a segment");
            return;
        }
        // Another log is created at the old path.
        let other = small(&temp.log()).open().unwrap();
        append_many(&other, 200);
        append_many(&wal, 500);
        assert_eq!(read_all(&wal).len(), 510);
        wal.close().unwrap();
        other.close().unwrap();
        drop((wal, other));
        assert_eq!(read_all(&small(&moved).open().unwrap()).len(), 510);
        assert_eq!(read_all(&small(&temp.log()).open().unwrap()).len(), 200);
    }
}

#[test]
fn segment_removed_under_the_log_is_an_error_for_readers() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    append_many(&wal, 300);
    let all = segments(&temp.log());
    std::fs::remove_file(&all[1]).unwrap();
    let missed = wal.reader(Lsn::ZERO).find_map(Result::err).expect("nothing is missed");
    assert!(matches!(&missed, Error::Io { .. }), "{missed}");
    assert!(missed.to_string().contains(".wal"), "{missed}");
    wal.append_durable(b"appending goes on").unwrap();
    wal.close().unwrap();
    drop(wal);
    assert!(matches!(small(&temp.log()).open(), Err(Error::Corruption { .. })));
}
