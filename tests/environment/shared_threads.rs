//! The logs of a process share threads. They start with the first log, end with the last, and are
//! not inherited by a child of `fork()`.

use crate::child::{case_and_directory, in_a_process};
use crate::support::{Temp, small};
use nix::libc;
use ringwal::{CommitMethod, Wal};

/// Threads of this process whose names start so.
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|of| of.trim().starts_with(name)).count()
}

fn open(dir: &std::path::Path) -> Wal {
    // A pinned method is not timed.
    let wal = small(dir).commit_method(CommitMethod::LinkedFsync).open().unwrap();
    for _ in 0..60 {
        wal.append_durable(&[7; 4000]).unwrap();
    }
    assert!(wal.stats().rotations > 2);
    wal
}

/// The child of [`in_a_process`].
#[test]
fn case() {
    let Some((case, dir)) = case_and_directory() else { return };
    std::fs::create_dir(&dir).unwrap();
    let logs: Vec<_> = (0..12).map(|n| open(&dir.join(n.to_string()))).collect();
    match case.as_str() {
        "counted" => {
            assert_eq!(threads("ringwal-io"), 12);
            let (keepers, watchdogs) = (threads("ringwal-segment"), threads("ringwal-watch"));
            // A step that takes long has another thread step the other logs.
            assert!((1..=4).contains(&keepers), "{keepers}");
            assert!((1..=4).contains(&watchdogs), "{watchdogs}");
            for wal in logs {
                wal.close().unwrap();
            }
            assert_eq!(threads("ringwal-"), 0, "after the last log");
            drop(open(&dir.join("again")));
            assert_eq!(threads("ringwal-"), 0, "after another one");
        }
        "forked" => {
            // SAFETY: the child opens a log of its own and ends at once.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let own = std::panic::catch_unwind(|| {
                    open(&dir.join("child")).close().unwrap();
                    threads("ringwal-")
                });
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(i32::from(!matches!(own, Ok(0)))) };
            }
            let mut status = 0;
            // SAFETY: waits for our own child; the status is a local.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0);
            for wal in logs {
                wal.append_durable(b"the parent goes on").unwrap();
                wal.close().unwrap();
            }
        }
        other => panic!("{other}"),
    }
}

#[test]
fn logs_of_a_process_share_threads_that_end_with_the_last_log() {
    in_a_process("counted", &Temp::new().log());
}

#[test]
fn child_of_fork_has_shared_threads_of_its_own() {
    in_a_process("forked", &Temp::new().log());
}
