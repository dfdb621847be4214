//! Where io_uring is forbidden, memory may not be locked, or the process forks: the log works, or says
//! what to do.
//!
//! Each case runs in a process of its own: this test binary, with `RINGWAL_CASE` set.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they did")]

mod support;

use std::process::Command;

use nix::libc;
use ringwal::{BackendChoice, BackendKind, Error, Wal};
use support::{Temp, backends, read_all, small};

fn in_a_process(case: &str, dir: &std::path::Path) {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["case", "--exact", "--nocapture", "--test-threads=1"])
        .env("RINGWAL_CASE", case)
        .env("RINGWAL_CASE_DIR", dir)
        .status()
        .unwrap();
    assert!(status.success(), "{case}: {status}");
}

/// Makes `io_uring_setup` fail with `errno` in this process from now on.
fn forbid_io_uring(errno: i32) {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        // The system call's number is the first word.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            libc::SYS_io_uring_setup as u32,
        ),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: plain prctl calls; the program and its filter outlive them. The filter is taken by
    // every thread started from here on, and the log's are.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let set = libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program);
        assert_eq!(set, 0);
    }
}

/// The child of [`in_a_process`].
#[test]
fn case() {
    let Ok(case) = std::env::var("RINGWAL_CASE") else { return };
    let dir = std::path::PathBuf::from(std::env::var("RINGWAL_CASE_DIR").unwrap());
    match case.as_str() {
        "EPERM" | "ENOSYS" => {
            forbid_io_uring(if case == "EPERM" { libc::EPERM } else { libc::ENOSYS });
            let asked = small(&dir).backend(BackendChoice::IoUring).open();
            match asked {
                Err(e @ Error::BackendUnavailable { .. }) => {
                    assert!(e.to_string().contains("seccomp"), "{e}");
                }
                other => panic!("{other:?}"),
            }
            let wal = small(&dir).open().unwrap();
            let info = wal.backend();
            assert_eq!(info.kind, BackendKind::Std);
            assert!(info.reason.contains("seccomp"), "{info}");
            wal.append_durable(b"all the same").unwrap();
        }
        "memlock" => {
            use nix::sys::resource::{Resource, setrlimit};
            setrlimit(Resource::RLIMIT_MEMLOCK, 64 << 10, 64 << 10).unwrap();
            if nix::unistd::geteuid().is_root() {
                nix::unistd::setgid(65534.into()).unwrap();
                nix::unistd::setuid(65534.into()).unwrap();
            }
            let wal = Wal::open(&dir).unwrap();
            wal.append_durable(b"with plain buffers if need be").unwrap();
            assert_eq!(read_all(&wal).len(), 1);
        }
        _ => panic!("{case}"),
    }
}

#[test]
fn a_forbidden_io_uring_falls_back_and_says_what_to_do() {
    if backends().len() < 2 {
        return;
    }
    for case in ["EPERM", "ENOSYS"] {
        let temp = Temp::new();
        in_a_process(case, &temp.log());
        let wal = small(&temp.log()).backend(BackendChoice::IoUring).open().unwrap();
        assert_eq!(read_all(&wal).len(), 1, "and io_uring opens what std wrote");
    }
}

#[test]
fn an_ordinary_user_with_little_lockable_memory_can_write() {
    use std::os::unix::fs::PermissionsExt;
    let temp = Temp::new();
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    in_a_process("memlock", &temp.log());
}

#[test]
fn a_child_of_fork_is_refused_and_its_drop_does_nothing() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    wal.append_durable(b"before").unwrap();
    // SAFETY: the child only makes calls that touch no lock of another thread: a refused append reads
    // one word, the drop of a handle in a child forgets it, and _exit runs nothing.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = matches!(wal.append(b"from the child"), Err(Error::Forked))
            && matches!(wal.try_append(b"from the child"), Err(Error::Forked))
            && matches!(wal.close(), Err(Error::Forked));
        drop(wal);
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(if refused { 7 } else { 1 }) };
    }
    assert!(child > 0);
    let mut status = 0;
    // SAFETY: waits for our own child; the status is a local.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 7);
    wal.append_durable(b"after").unwrap();
    assert_eq!(read_all(&wal).len(), 2);
    wal.close().unwrap();
    assert!(small(&temp.log()).open().unwrap().recovery().clean);
}
