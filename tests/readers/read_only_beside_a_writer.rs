//! Reading beside a writer that opens with other settings, cuts and removes records; in read-only
//! directories; and in a process that a seccomp filter kills if it changes anything.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stderr, reason = "a test says why it was skipped")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::child::{ALLOW, NUMBER, Statement, case_and_directory, if_equal, in_a_process};
use crate::support::{Temp, backends, read_all, small};
use nix::libc;
use nix::mount::{MsFlags, mount};
use ringwal::{Error, Lsn, ReadOnlyWal, Wal};

fn payload(n: u32) -> Vec<u8> {
    n.to_le_bytes().repeat(250)
}

fn fill(wal: &Wal, from: u32, to: u32) {
    for n in from..to {
        wal.append(&payload(n)).unwrap();
    }
    wal.sync().unwrap();
}

fn found(log: &ReadOnlyWal) -> Vec<(Lsn, Vec<u8>)> {
    let records = log.reader(Lsn::ZERO).unwrap();
    records.map(|r| r.map(|r| (r.lsn, r.payload)).unwrap()).collect()
}

/// The next writer replaces spares that the reader has seen: by larger ones, smaller ones, or ones
/// for larger groups.
#[test]
fn follower_continues_when_the_next_writer_has_other_settings() {
    let settings = [(128 << 10, 8 << 20), (64 << 10, 2 << 20), (256 << 10, 1 << 20), (32 << 10, 0)];
    for (size, ring) in settings {
        let temp = Temp::new();
        let wal = small(&temp.log()).open().unwrap();
        fill(&wal, 0, 1);
        let log = ReadOnlyWal::open(temp.log()).unwrap();
        let mut follow = log.follow(Lsn::ZERO).unwrap();
        assert_eq!(follow.next_ref().unwrap().unwrap().payload, payload(0));
        wal.close().unwrap();
        let builder = Wal::builder(temp.log()).segment_size(size);
        let builder = if ring == 0 { builder } else { builder.ring_capacity(ring) };
        let wal = builder.open().unwrap();
        fill(&wal, 1, 600);
        for n in 1..600 {
            let next = follow.next_timeout(Duration::from_secs(30));
            match next {
                Ok(Some(record)) => assert_eq!(record.payload, payload(n)),
                other => panic!("segments of {size}, a ring of {ring}, record {n}: {other:?}"),
            }
        }
        assert!(found(&log) == read_all(&wal));
        let mut runs = log.follow(Lsn::ZERO).unwrap();
        let mut seen = 0;
        while seen < 600 {
            let records = runs.next_records().unwrap().expect("all are durable");
            seen += records.inspect(|r| assert!(r.payload.len() == 1000)).count();
        }
        assert_eq!(runs.try_next().unwrap(), None);
    }
}

/// A reader finds a new cut although the cut before it lies in a segment that was removed
/// meanwhile.
#[test]
fn outside_reader_finds_a_cut_after_retention_removed_the_one_before() {
    // The reader finds it at once, without a retry of a second. The least of five counts, because
    // the disk may be slow.
    let mut took: Vec<_> = (0..5).map(|_| learning_of_cuts()).collect();
    took.sort_unstable();
    assert!(took[0] < Duration::from_millis(500), "{took:?}");
}

fn learning_of_cuts() -> Duration {
    let temp = Temp::new();
    // The test reads the log's end twice, so no idle seal may come between.
    let wal = small(&temp.log()).idle_seal(Duration::MAX).open().unwrap();
    fill(&wal, 0, 1);
    // Two more segments are prepared by then.
    std::thread::sleep(Duration::from_millis(200));
    let log = ReadOnlyWal::open(temp.log()).unwrap();
    let from = wal.append_durable(b"void").unwrap();
    wal.truncate_from(from).unwrap();
    while wal.durable_end() < Lsn::new(70 << 10) {
        wal.append_durable(&payload(1)).unwrap();
    }
    wal.truncate_before(wal.durable_end()).unwrap();
    assert!(wal.oldest_lsn() > Lsn::ZERO);
    let from = wal.append_durable(b"void").unwrap();
    wal.truncate_from(from).unwrap();
    let begun = Instant::now();
    assert_eq!(log.durable_end().unwrap(), wal.durable_end());
    let took = begun.elapsed();
    assert!(matches!(log.read(from), Err(Error::Truncated { .. })));
    took
}

#[test]
fn backward_reader_ends_where_a_later_writer_removed_segments() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        fill(&wal, 0, 600);
        let log = ReadOnlyWal::open(temp.log()).unwrap();
        let mut back = log.reader_back(wal.durable_end()).unwrap();
        let newest = back.next().unwrap().unwrap();
        assert_eq!(newest.payload, payload(599));
        wal.close().unwrap();
        let wal = small(&temp.log()).backend(backend).max_segments(3).open().unwrap();
        fill(&wal, 600, 1200);
        assert!(wal.oldest_lsn() > newest.lsn);
        for record in back {
            assert!(record.unwrap().lsn < newest.lsn);
        }
    }
}

#[test]
fn emptied_directory_is_an_error_for_an_outside_reader() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    fill(&wal, 0, 300);
    let log = ReadOnlyWal::open(temp.log()).unwrap();
    wal.close().unwrap();
    for entry in std::fs::read_dir(temp.log()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let not_found = |e: Error| match e {
        Error::Io { source, .. } => assert_eq!(source.kind(), std::io::ErrorKind::NotFound),
        e => panic!("{e:?}"),
    };
    not_found(log.durable_end().unwrap_err());
    not_found(log.reader(Lsn::ZERO).unwrap_err());
    not_found(ReadOnlyWal::open(temp.log()).unwrap_err());
}

/// A copy, or a log of another boot, has no valid end file. A follower of it sleeps until a file
/// changes, and a new writer wakes it.
#[test]
fn follower_of_a_log_without_a_writer_sleeps() {
    use nix::sys::resource::{UsageWho, getrusage};
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    fill(&wal, 0, 40);
    wal.close().unwrap();
    std::fs::remove_file(temp.log().join("wal.end")).unwrap();
    let log = ReadOnlyWal::open(temp.log()).unwrap();
    let mut follow = log.follow(log.durable_end().unwrap()).unwrap();
    let switches = || {
        let used = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
        used.voluntary_context_switches()
    };
    // Each check reads the device a few times, or finds the blocks in memory. A check every two
    // milliseconds would make 750 switches.
    let before = switches();
    assert!(follow.try_next().unwrap().is_none());
    let look = switches() - before;
    let before = switches();
    assert!(follow.next_timeout(Duration::from_millis(1500)).unwrap().is_none());
    let woken = switches() - before;
    assert!(woken <= (20 * look).max(600), "it woke {woken} times; {look} times are one look");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            let wal = small(&temp.log()).open().unwrap();
            fill(&wal, 40, 50);
        });
        for n in 40..50 {
            let record = follow.next_timeout(Duration::from_secs(30)).unwrap().expect("written");
            assert_eq!(record.payload, payload(n));
        }
    });
}

/// Kills this process if it makes a call that could change a file, a name or a lock.
fn die_of_changes() {
    const DIE: Statement = (libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_KILL_PROCESS);
    let changing = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND;
    let any: Statement = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, changing as u32);
    let mut steps = vec![NUMBER];
    // The call that opens a file, and which of its arguments has the flags.
    for (open, at) in [
        (libc::SYS_openat, 2),
        // musl opens by this call.
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_open, 1),
    ] {
        // The low half of the argument.
        let flags: Statement = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 16 + at * 8);
        steps.extend([if_equal(open as u32, 4), flags, any, DIE, ALLOW]);
    }
    for call in [
        libc::SYS_pwrite64,
        libc::SYS_pwritev,
        libc::SYS_pwritev2,
        libc::SYS_ftruncate,
        libc::SYS_truncate,
        libc::SYS_fallocate,
        libc::SYS_unlinkat,
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_mkdirat,
        libc::SYS_linkat,
        libc::SYS_symlinkat,
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        libc::SYS_fchownat,
        libc::SYS_utimensat,
        libc::SYS_flock,
        libc::SYS_io_uring_setup,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rename,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mkdir,
    ] {
        steps.extend([if_equal(call as u32, 1), DIE]);
    }
    steps.push(ALLOW);
    crate::child::filter_system_calls(&steps);
}

/// Calls everything that a `ReadOnlyWal` offers.
fn use_it_all(dir: &Path) {
    let log = ReadOnlyWal::open(dir).unwrap();
    let all = found(&log);
    assert!(all.len() >= 300);
    let end = log.durable_end().unwrap();
    assert!(log.oldest_lsn().unwrap() <= all[0].0);
    assert_eq!(log.read(all[7].0).unwrap().payload, all[7].1);
    assert_eq!(log.reader_back(end).unwrap().count(), all.len());
    assert_eq!(log.replay(|_, _| Ok::<(), ()>(())).unwrap(), all.len() as u64);
    let mut follow = log.follow(Lsn::ZERO).unwrap();
    for (lsn, _) in &all {
        assert_eq!(follow.next_ref().unwrap().unwrap().lsn, *lsn);
    }
    assert!(follow.next_timeout(Duration::from_millis(20)).unwrap().is_none());
}

/// The child of [`in_a_process`].
#[test]
fn case() {
    let Some((case, dir)) = case_and_directory() else { return };
    match case.as_str() {
        "beside a writer" => {
            let wal = small(&dir).open().unwrap();
            fill(&wal, 0, 300);
            std::thread::scope(|scope| {
                // The filter is for the thread that sets it.
                scope.spawn(|| {
                    die_of_changes();
                    use_it_all(&dir);
                });
            });
        }
        "closed" => {
            die_of_changes();
            use_it_all(&dir);
        }
        "of another user" => {
            crate::child::become_nobody();
            assert!(std::fs::write(dir.join("x"), b"x").is_err(), "it may only read");
            use_it_all(&dir);
        }
        "mounted read-only" => {
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
            assert!(std::fs::write(dir.join("x"), b"x").is_err(), "it may only read");
            use_it_all(&dir);
        }
        _ => panic!("{case}"),
    }
}

#[test]
fn outside_reader_makes_no_call_that_changes_a_file() {
    let temp = Temp::new();
    in_a_process("beside a writer", &temp.log());
    in_a_process("closed", &temp.log());
    // As after another boot: no end file states the durable end.
    std::fs::remove_file(temp.log().join("wal.end")).unwrap();
    in_a_process("closed", &temp.log());
}

#[test]
fn log_in_a_read_only_directory_can_be_read() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    fill(&wal, 0, 300);
    wal.close().unwrap();
    in_a_process("mounted read-only", &temp.log());
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for entry in std::fs::read_dir(temp.log()).unwrap() {
        mode(&entry.unwrap().path(), 0o444);
    }
    mode(temp.path(), 0o755);
    mode(&temp.log(), 0o555);
    in_a_process("of another user", &temp.log());
    mode(&temp.log(), 0o755);
}
