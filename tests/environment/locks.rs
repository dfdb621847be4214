//! The writer's lock: process ids of other namespaces, `exec`, removed, replaced, foreign and
//! read-only lock files, and io_uring that cannot keep the lock.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::libc;
use ringwal::{BackendChoice, BackendKind, Error, FailureKind, Wal, WalBuilder};

use crate::child::{
    ALLOW, CASE, NUMBER, become_nobody, case_and_directory, fail, filter_system_calls, if_equal,
    in_a_process,
};
use crate::skip;
use crate::support::{Temp, backends, read_all, small};

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn run(case: &str, dir: &Path) {
    in_a_process(case, dir);
}

fn at_once(dir: &Path) -> WalBuilder {
    small(dir).lock_wait(Duration::ZERO)
}

/// A command that runs a case of this test binary in a process of its own.
fn this(case: &str) -> Command {
    let mut command = crate::child::this_program();
    command.args(["locks::case", "--exact", "--nocapture", "--test-threads=1"]).env(CASE, case);
    command
}

/// Starts a writer as the first process of a pid namespace. Returns after the writer has opened the
/// log and made a record durable.
fn namespaced_writer() -> std::process::Child {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID).unwrap();
    let mut writer = this("writer").stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).find(|line| line.contains("has the log"));
    assert!(ready.is_some(), "the writer could not open the log");
    writer
}

#[test]
fn case() {
    let Some((case, dir)) = case_and_directory() else { return };
    match case.as_str() {
        "writer" => {
            assert_eq!(std::process::id(), 1, "the first process of its namespace");
            let wal = small(&dir).open().unwrap();
            wal.append_durable(b"of one life").unwrap();
            println!("\nhas the log");
            loop {
                std::thread::park();
            }
        }
        "life" => {
            let mut writer = namespaced_writer();
            writer.kill().unwrap();
            writer.wait().unwrap();
        }
        "foreign" => {
            let mut writer = namespaced_writer();
            match at_once(&dir).open() {
                Err(Error::Locked { pid: None, .. }) => {}
                other => panic!("{other:?}"),
            }
            writer.kill().unwrap();
            writer.wait().unwrap();
        }
        "exec" => {
            let lives = std::env::var("LIVES").map_or(0, |n| n.parse().unwrap());
            let wal = small(&dir).open().unwrap();
            wal.append_durable(b"of one image").unwrap();
            if lives < 10 {
                let failed = this("exec").env("LIVES", (lives + 1).to_string()).exec();
                panic!("{failed}");
            }
            assert_eq!(read_all(&wal).len(), 11);
        }
        "EPERM" => without_registration(&dir, libc::EPERM),
        "EACCES" => without_registration(&dir, libc::EACCES),
        "ENOSYS" => without_registration(&dir, libc::ENOSYS),
        "user" => {
            become_nobody();
            let wal = small(&dir).open().unwrap();
            wal.append_durable(b"as the owner").unwrap();
            assert!(matches!(at_once(&dir).open(), Err(Error::Locked { .. })));
        }
        "kept out" => {
            become_nobody();
            match small(&dir).open() {
                Err(Error::Io { path, .. }) => assert!(path.ends_with("wal.lock"), "{path:?}"),
                other => panic!("{other:?}"),
            }
        }
        _ => panic!("{case}"),
    }
}

/// Makes `io_uring_register` fail, as a seccomp profile that omits it does.
fn without_registration(dir: &Path, errno: i32) {
    let register = if_equal(libc::SYS_io_uring_register as u32, 1);
    filter_system_calls(&[NUMBER, register, fail(errno), ALLOW]);
    match small(dir).backend(BackendChoice::IoUring).open() {
        Err(e @ Error::BackendUnavailable { .. }) => {
            assert!(e.to_string().contains("io_uring_register"), "{e}");
        }
        other => panic!("{other:?}"),
    }
    let wal = small(dir).open().unwrap();
    let info = wal.backend();
    assert_eq!(info.kind, BackendKind::Std);
    assert!(info.reason.contains("lock") && info.reason.contains("io_uring_register"), "{info}");
    wal.append_durable(b"all the same").unwrap();
}

#[test]
fn killed_writer_of_another_pid_namespace_is_succeeded_at_once() {
    if !is_root() {
        return skip("a PID namespace can only be made by root");
    }
    let temp = Temp::new();
    for _ in 0..30 {
        run("life", &temp.log());
    }
    assert_eq!(read_all(&small(&temp.log()).open().unwrap()).len(), 30);
}

#[test]
fn lock_held_in_another_pid_namespace_is_refused_without_a_pid() {
    if !is_root() {
        return skip("a PID namespace can only be made by root");
    }
    run("foreign", &Temp::new().log());
}

#[test]
fn process_that_executes_itself_opens_its_log_again() {
    run("exec", &Temp::new().log());
}

#[test]
fn io_uring_that_cannot_keep_the_lock_is_not_chosen() {
    if backends().len() < 2 {
        return skip("io_uring does not run here");
    }
    for case in ["EPERM", "EACCES", "ENOSYS"] {
        let temp = Temp::new();
        run(case, &temp.log());
        let wal = small(&temp.log()).backend(BackendChoice::IoUring).open().unwrap();
        assert_eq!(read_all(&wal).len(), 1);
    }
}

/// Ways to remove or replace a lock file.
const WAYS: [fn(&Path); 3] = [
    |lock| fs::remove_file(lock).unwrap(),
    |lock| {
        fs::remove_file(lock).unwrap();
        fs::write(lock, "1\n").unwrap();
    },
    |lock| fs::rename(lock, lock.with_extension("gone")).unwrap(),
];

#[test]
fn removed_lock_file_admits_no_second_writer_and_stops_the_first_before_its_next_segment() {
    for backend in backends() {
        for (way, remove) in WAYS.into_iter().enumerate() {
            let temp = Temp::new();
            let open = |prefix| at_once(&temp.log()).backend(backend).prefix(prefix).open();
            let wal = open("wal").unwrap();
            let other = open("other").unwrap();
            wal.append_durable(b"before").unwrap();
            remove(&temp.log().join("wal.lock"));
            let mut kept = 1;
            let failed = loop {
                // This holds also after the writer has moved to other segments.
                let second = open("wal");
                let is_locked = matches!(second, Err(Error::Locked { .. }));
                match (0..8).try_for_each(|_| wal.append_durable(&[7; 2000]).map(|_| kept += 1)) {
                    // The second may have come after the first had found that its lock is lost.
                    Ok(()) => assert!(is_locked, "{way}: {second:?}"),
                    Err(e) => break e,
                }
            };
            match &failed {
                Error::Poisoned { cause } => assert_eq!(cause.kind, FailureKind::LockLost),
                other => panic!("{way}: {other}"),
            }
            assert!(failed.to_string().contains("lock file"), "{failed}");
            other.append_durable(b"another log in the directory").unwrap();
            assert!(matches!(wal.close(), Err(Error::Poisoned { .. })));
            let wal = open("wal").unwrap();
            assert!(read_all(&wal).len() >= kept, "{way}: what was acknowledged is there");
            wal.close().unwrap();
            open("wal").unwrap();
            other.close().unwrap();
        }
    }
}

#[test]
fn new_log_without_its_lock_file_is_locked_by_its_first_segment() {
    let temp = Temp::new();
    let wal = at_once(&temp.log()).open().unwrap();
    fs::remove_file(temp.log().join("wal.lock")).unwrap();
    match at_once(&temp.log()).open() {
        Err(Error::Locked { .. }) => {}
        // On a slow machine, the first writer has found that its lock is lost, and has ended.
        second => {
            assert!(matches!(wal.append(b"late"), Err(Error::Poisoned { .. })), "{second:?}");
        }
    }
    let _ = wal.close();
    at_once(&temp.log()).open().unwrap();
}

#[test]
fn handles_that_outlive_a_closed_log_lock_no_segment() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = at_once(&temp.log()).backend(backend).open().unwrap();
        wal.append_durable(b"one").unwrap();
        let follower = wal.follow(ringwal::Lsn::ZERO).unwrap();
        let reader = wal.reader(ringwal::Lsn::ZERO);
        wal.close().unwrap();
        let again = at_once(&temp.log()).backend(backend).open().unwrap();
        again.append_durable(b"two").unwrap();
        assert_eq!((follower.count(), reader.count()), (1, 1));
        drop(wal);
        assert!(matches!(at_once(&temp.log()).open(), Err(Error::Locked { .. })));
    }
}

#[test]
fn removed_lock_file_ends_the_wait_of_an_opener() {
    let temp = Temp::new();
    fs::create_dir(temp.log()).unwrap();
    let path = temp.log().join("wal.lock");
    let holder = fs::File::create(&path).unwrap();
    holder.lock().unwrap();
    let (dir, (begun, has_begun)) = (temp.log(), mpsc::channel());
    let opener = std::thread::spawn(move || {
        begun.send(()).unwrap();
        small(&dir).lock_wait(Duration::MAX).open()
    });
    has_begun.recv().unwrap();
    // The opener waits, or will: a second opener finds the log locked.
    assert!(matches!(at_once(&temp.log()).open(), Err(Error::Locked { .. })));
    fs::remove_file(&path).unwrap();
    opener.join().unwrap().unwrap().append_durable(b"in").unwrap();
    drop(holder);
}

#[test]
fn read_only_lock_file_is_locked() {
    let temp = Temp::new();
    fs::create_dir(temp.log()).unwrap();
    fs::write(temp.log().join("wal.lock"), "4711\n").unwrap();
    fs::set_permissions(temp.log().join("wal.lock"), fs::Permissions::from_mode(0o444)).unwrap();
    open_to_nobody(&temp);
    run("user", &temp.log());
}

#[test]
fn lock_file_of_root_in_a_users_directory_does_not_exclude_the_owner() {
    if !is_root() {
        return skip("only root can make another user's file");
    }
    let temp = Temp::new();
    fs::create_dir(temp.log()).unwrap();
    let lock = temp.log().join("wal.lock");
    fs::write(&lock, "1\n").unwrap();
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o600)).unwrap();
    open_to_nobody(&temp);
    {
        // The lock still excludes the owner while a process holds it.
        let holder = fs::File::open(&lock).unwrap();
        holder.lock().unwrap();
        run("kept out", &temp.log());
    }
    run("user", &temp.log());
}

/// Gives the log's directory to an ordinary user, if this process is root.
fn open_to_nobody(temp: &Temp) {
    if is_root() {
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(temp.log(), Some(65534), Some(65534)).unwrap();
    }
}

/// The crate promises that a log has one writer; nothing holds for a directory with two.
#[test]
fn log_has_one_writer_while_openers_remove_the_lock_file() {
    let temp = Temp::new();
    small(&temp.log()).open().unwrap().append_durable(b"there").unwrap();
    let dir = temp.log();
    std::thread::scope(|scope| {
        let openers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut opened = 0;
                    for _ in 0..25 {
                        let _ = fs::remove_file(dir.join("wal.lock"));
                        let Ok(wal) = at_once(&dir).open() else { continue };
                        opened += usize::from(wal.append_durable(b"one more").is_ok());
                        drop::<Wal>(wal);
                    }
                    opened
                })
            })
            .collect();
        let opened: usize = openers.into_iter().map(|opener| opener.join().unwrap()).sum();
        let wal = small(&dir).open().unwrap();
        // Each opener may have lost its lock to the next, so `opened` may be 0.
        assert!(read_all(&wal).len() > opened, "nothing acknowledged is lost");
    });
}
