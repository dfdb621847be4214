//! The thread that reads ahead: it is there only while a long log is read, and reading works where
//! it cannot be started, where the page cache cannot be asked, and after `fork()`.

use std::path::Path;

use crate::child::{
    ALLOW, NUMBER, case_and_directory, fail, filter_system_calls, if_equal, in_a_process,
};
use crate::support::Temp;
use nix::libc;
use ringwal::{Error, Lsn, ReadOnlyWal, Wal};

const RECORDS: usize = 4000;
const RECORD: usize = 4000;

fn long_log(dir: &Path) {
    let wal = Wal::builder(dir).segment_size(8 << 20).open().unwrap();
    for n in 0..RECORDS {
        wal.append(&[n as u8; RECORD]).unwrap();
    }
    wal.close().unwrap();
}

/// Threads of this process that read ahead.
fn helpers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default()
    };
    tasks.map(name).filter(|name| name.trim() == "ringwal-ahead").count()
}

fn read_all_of(dir: &Path) {
    let log = ReadOnlyWal::open(dir).unwrap();
    let mut n = 0;
    for record in log.reader(Lsn::ZERO).unwrap() {
        assert!(record.unwrap().payload == [n as u8; RECORD], "record {n}");
        n += 1;
    }
    assert_eq!(n, RECORDS);
}

/// The child of [`in_a_process`].
#[test]
fn case() {
    let Some((case, dir)) = case_and_directory() else { return };
    match case.as_str() {
        "threads" => {
            let log = ReadOnlyWal::open(&dir).unwrap();
            assert_eq!(helpers(), 0, "after opening");
            let mut reader = log.reader(Lsn::ZERO).unwrap();
            reader.next().unwrap().unwrap();
            assert_eq!(helpers(), 0, "after one record");
            let most = (&mut reader).take(RECORDS - 100).map(|_| helpers()).step_by(50).max();
            assert!(most <= Some(1), "{most:?}");
            if most == Some(0) {
                crate::skip("there is no direct I/O in the temporary directory");
            }
            drop(reader);
            assert_eq!(helpers(), 0, "after the reader was dropped");
            let mut reader = log.reader(Lsn::ZERO).unwrap();
            assert_eq!(reader.by_ref().count(), RECORDS);
            assert_eq!(helpers(), 0, "at the end");
        }
        "no threads" => {
            for call in [libc::SYS_clone, libc::SYS_clone3] {
                filter_system_calls(&[NUMBER, if_equal(call as u32, 1), fail(libc::EAGAIN), ALLOW]);
            }
            assert!(std::thread::Builder::new().spawn(|| ()).is_err());
            read_all_of(&dir);
        }
        "preadv2" => {
            for errno in [libc::EPERM, libc::ENOSYS] {
                filter_system_calls(&[
                    NUMBER,
                    if_equal(libc::SYS_preadv2 as u32, 1),
                    fail(errno),
                    ALLOW,
                ]);
                read_all_of(&dir);
            }
        }
        "fork" => {
            let wal = Wal::open(&dir).unwrap();
            let mut reader = wal.reader(Lsn::ZERO);
            for _ in 0..RECORDS / 2 {
                reader.next().unwrap().unwrap();
            }
            // SAFETY: the child runs the log's code for children, and ends without its parent's
            // exit handlers. What would wait for ever is ended by the alarm.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: plain system calls.
                unsafe { libc::alarm(20) };
                let forked = loop {
                    match reader.next() {
                        Some(Ok(_)) => {}
                        Some(Err(Error::Forked)) => break true,
                        _ => break false,
                    }
                };
                drop(reader);
                // SAFETY: as above.
                unsafe { libc::_exit(if forked { 0 } else { 1 }) };
            }
            let mut status = 0;
            // SAFETY: the child of this process, and room for its status.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "the child ended with {status:#x}");
            assert_eq!(reader.count(), RECORDS - RECORDS / 2);
        }
        _ => panic!("{case}"),
    }
}

fn with_a_long_log(case: &str) {
    let temp = Temp::new();
    long_log(&temp.log());
    in_a_process(case, &temp.log());
}

#[test]
fn thread_that_reads_ahead_ends_with_the_reading() {
    with_a_long_log("threads");
}

#[test]
fn reader_that_may_start_no_thread_reads_all_the_same() {
    with_a_long_log("no threads");
}

#[test]
fn reader_that_may_not_ask_the_page_cache_reads_all_the_same() {
    with_a_long_log("preadv2");
}

#[test]
fn reader_in_a_child_of_fork_fails_and_is_dropped_without_waiting() {
    with_a_long_log("fork");
}
