//! Sandboxes: io_uring is forbidden, memory may not be locked, or the process forks. The log works,
//! or its error says what to do.
//!
//! Each case runs in a process of its own: this test binary, with `RINGWAL_CASE` set.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they did")]

use crate::child::{
    ALLOW, NUMBER, become_nobody, case_and_directory, fail, filter_system_calls, if_equal,
    in_a_process,
};
use crate::support::{Temp, backends, read_all, small};
use nix::libc;
use ringwal::{BackendChoice, BackendKind, CommitMethod, Error, Wal};

/// Makes `io_uring_setup` fail with `errno` in this process from now on.
fn forbid_io_uring(errno: i32) {
    filter_system_calls(&[
        NUMBER,
        if_equal(libc::SYS_io_uring_setup as u32, 1),
        fail(errno),
        ALLOW,
    ]);
}

/// The child of [`in_a_process`].
#[test]
fn case() {
    let Some((case, dir)) = case_and_directory() else { return };
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
        "pwritev2" => {
            // Of the threads that exist from now on: the log's own are unaffected.
            let wal = small(&dir).commit_method(CommitMethod::Dsync).open().unwrap();
            wal.append_durable(b"before").unwrap();
            filter_system_calls(&[
                NUMBER,
                if_equal(libc::SYS_pwritev2 as u32, 1),
                fail(libc::EPERM),
                ALLOW,
            ]);
            for _ in 0..100 {
                wal.append_durable(b"by write and fdatasync").unwrap();
            }
            wal.close().unwrap();
            assert_eq!(read_all(&Wal::open(&dir).unwrap()).len(), 101);
        }
        "memlock" => {
            use nix::sys::resource::{Resource, setrlimit};
            setrlimit(Resource::RLIMIT_MEMLOCK, 64 << 10, 64 << 10).unwrap();
            become_nobody();
            let wal = Wal::open(&dir).unwrap();
            wal.append_durable(b"with plain buffers if need be").unwrap();
            assert_eq!(read_all(&wal).len(), 1);
        }
        _ => panic!("{case}"),
    }
}

#[test]
fn forbidden_io_uring_falls_back_and_the_reason_says_what_to_do() {
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
fn committer_whose_thread_may_not_write_durably_in_one_call_uses_two() {
    let temp = Temp::new();
    in_a_process("pwritev2", &temp.log());
}

#[test]
fn ordinary_user_with_little_lockable_memory_can_write() {
    use std::os::unix::fs::PermissionsExt;
    let temp = Temp::new();
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    in_a_process("memlock", &temp.log());
}

#[test]
fn append_in_a_child_of_fork_is_refused_and_its_drop_has_no_effect() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    wal.append_durable(b"before").unwrap();
    // SAFETY: the child only makes calls that touch no lock of another thread: a refused append
    // reads one word, the drop of a handle in a child forgets it, and _exit runs nothing.
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

#[test]
fn child_of_fork_may_drop_futures_and_read_statistics() {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake, Waker};

    #[derive(Default)]
    struct Flag(AtomicBool);
    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    let temp = Temp::new();
    let builder = Wal::builder(temp.log()).segment_size(64 << 10).ring_capacity(8192);
    let wal = builder.max_record_size(3000).open().unwrap();
    let record = [1; 3000];
    // A future that was granted room and has not claimed it, and one that waits until a record is
    // durable.
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(Arc::clone(&flag));
    let mut granted = loop {
        let mut future = wal.append_async(&record);
        if Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending() {
            break future;
        }
    };
    let other = wal.durable_end();
    let mut durable = wal.when_durable(other);
    let _ = Pin::new(&mut durable).poll(&mut Context::from_waker(Waker::noop()));
    let follower = wal.follow(other).unwrap();
    while !flag.0.load(Ordering::SeqCst) {
        std::hint::spin_loop();
    }
    // SAFETY: as above: drops in the child touch no lock of another thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let polled = Pin::new(&mut granted).poll(&mut Context::from_waker(Waker::noop()));
        let refused = matches!(polled, std::task::Poll::Ready(Err(Error::Forked)))
            && matches!(wal.sync(), Err(Error::Forked))
            && matches!(wal.read(other), Err(Error::Forked));
        drop((granted, durable));
        std::mem::forget(follower);
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(if refused { 7 } else { 1 }) };
    }
    assert!(child > 0);
    let ended = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let mut status = 0;
    // SAFETY: checks our own child; the status is a local.
    while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0 {
        if std::time::Instant::now() > ended {
            // SAFETY: our own child, which hangs.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
        std::thread::yield_now();
    }
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "status {status:#x}");
    drop((granted, durable, follower));
    wal.append_durable(b"after").unwrap();
    wal.close().unwrap();
}
