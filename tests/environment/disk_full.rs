//! A full filesystem: appends are refused, no record is lost, and appends work again once there is
//! space. Root mounts a small filesystem; others mount one in a namespace where the system allows
//! it. Elsewhere the tests skip with a message.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they did")]

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Temp, backends, read_all};
use ringwal::{Error, Wal};

struct Mounted(Temp);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

/// Mounts a filesystem of this size. `None`: the test ran in a namespace, or skipped with a
/// message.
fn small_filesystem(test: &str, size: &str) -> Option<Mounted> {
    const INSIDE: &str = "RINGWAL_IN_A_NAMESPACE";
    let temp = Temp::new();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(temp.path());
    if mount.output().is_ok_and(|mounted| mounted.status.success()) {
        return Some(Mounted(temp));
    }
    if std::env::var_os(INSIDE).is_none() {
        let mut again = Command::new("unshare");
        again.arg("-rm").arg(std::env::current_exe().unwrap()).env(INSIDE, "1");
        let out = again.args(["--exact", &format!("disk_full::{test}"), "--nocapture"]).output();
        let said = out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
        let said = said.unwrap_or_default();
        assert!(!said.contains("FAILED"), "in a namespace of its own: {said}");
        if said.contains("1 passed") && !said.contains("skipped") {
            return None;
        }
    }
    println!("skipped: no small filesystem can be mounted here");
    eprintln!("skipped: no small filesystem can be mounted here");
    None
}

#[test]
fn full_filesystem_refuses_appends_and_recovers_without_a_reopen() {
    for backend in backends() {
        let name = "full_filesystem_refuses_appends_and_recovers_without_a_reopen";
        let Some(mounted) = small_filesystem(name, "3m") else { return };
        let temp = &mounted.0;
        let filler = temp.path().join("filler");
        std::fs::write(&filler, vec![1; 1 << 20]).unwrap();

        let builder = || Wal::builder(temp.log()).segment_size(256 << 10).backend(backend);
        let wal = builder().open().unwrap();
        let mut expected = Vec::new();
        let refused = loop {
            let payload = vec![expected.len() as u8; 3000];
            match wal.append(&payload) {
                Ok(lsn) => expected.push((lsn, payload)),
                Err(e) => break e,
            }
            assert!(expected.len() < 10_000, "it never fills up");
        };
        assert!(matches!(refused, Error::NoSpace), "{refused:?}");
        assert!(matches!(wal.append(&[0; 3000]), Err(Error::NoSpace)));
        let stats = wal.stats();
        assert!(stats.out_of_space && stats.no_space == 1, "{stats:?}");
        // Accepted records are durable and readable meanwhile.
        wal.sync().unwrap();
        assert_eq!(read_all(&wal), expected);

        std::fs::remove_file(&filler).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let payload = vec![expected.len() as u8; 3000];
            match wal.append_durable(&payload) {
                Ok(lsn) => break expected.push((lsn, payload)),
                Err(Error::NoSpace) => assert!(Instant::now() < deadline, "it never heals"),
                Err(e) => panic!("{e}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(read_all(&wal), expected);
        let stats = wal.stats();
        assert!(!stats.out_of_space && stats.no_space == 1, "{stats:?}");
        wal.close().unwrap();
        assert_eq!(read_all(&builder().open().unwrap()), expected);
    }
}

#[test]
fn calls_that_need_no_new_segment_work_on_a_full_filesystem() {
    for backend in backends() {
        let name = "calls_that_need_no_new_segment_work_on_a_full_filesystem";
        let Some(mounted) = small_filesystem(name, "1m") else { return };
        let temp = &mounted.0;
        let filler = temp.path().join("filler");
        // There is room for one segment, not for two.
        std::fs::write(&filler, vec![1; 600 << 10]).unwrap();
        let builder = || Wal::builder(temp.log()).segment_size(256 << 10).backend(backend);
        let wal = builder().open().unwrap();
        wal.append_durable(b"kept").unwrap();
        let cut = wal.append_durable(b"cut").unwrap();
        // The segment keeper needs time to find that there is no space.
        std::thread::sleep(Duration::from_millis(300));
        wal.truncate_from(cut).unwrap();
        wal.append_durable(b"instead").unwrap();
        wal.close().unwrap();
        std::fs::remove_file(&filler).unwrap();
        let again = builder().open().unwrap();
        assert!(again.recovery().clean, "there was room for the mark");
        let read: Vec<_> = read_all(&again).into_iter().map(|(_, payload)| payload).collect();
        assert_eq!(read, [&b"kept"[..], b"instead"]);
    }
}

#[test]
fn new_log_on_a_full_filesystem_fails_with_no_space() {
    let Some(mounted) = small_filesystem("new_log_on_a_full_filesystem_fails_with_no_space", "64k")
    else {
        return;
    };
    let opened = Wal::builder(mounted.0.log()).segment_size(256 << 10).open();
    assert!(matches!(opened, Err(Error::NoSpace)), "{opened:?}");
}

/// Retention writes a durable group with the oldest position before it removes a segment. It uses
/// the rest of the last segment for it. If there is no rest, the call fails with an error that says
/// so.
#[test]
fn truncate_before_frees_a_full_filesystem() {
    for backend in backends() {
        for (size, is_left) in [(64 << 10, true), (16 << 10, false)] {
            let name = "truncate_before_frees_a_full_filesystem";
            let Some(mounted) = small_filesystem(name, "600k") else { return };
            let temp = &mounted.0;
            let filler = temp.path().join("filler");
            std::fs::write(&filler, vec![1; 128 << 10]).unwrap();
            let wal = Wal::builder(temp.log()).segment_size(size).backend(backend).open().unwrap();
            let mut last = wal.append_durable(b"first").unwrap();
            let refused = loop {
                match wal.append_durable(b"a block each") {
                    Ok(lsn) => last = lsn,
                    Err(e) => break e,
                }
            };
            assert!(matches!(refused, Error::NoSpace), "{refused:?}");
            let (send, receive) = std::sync::mpsc::channel();
            let truncating = wal.clone();
            std::thread::spawn(move || send.send(truncating.truncate_before(last)).unwrap());
            let truncated = receive.recv_timeout(Duration::from_secs(20)).expect("it hangs");
            if is_left {
                assert!(truncated.unwrap().as_u64() > 0);
            } else {
                assert!(matches!(truncated, Err(Error::NoSpace)), "{truncated:?}");
                std::fs::remove_file(&filler).unwrap();
            }
            let deadline = Instant::now() + Duration::from_secs(20);
            while let Err(e) = wal.append_durable(b"there is room") {
                assert!(matches!(e, Error::NoSpace) && Instant::now() < deadline, "{e:?}");
                std::thread::sleep(Duration::from_millis(5));
            }
            while wal.oldest_lsn().as_u64() == 0 {
                assert!(Instant::now() < deadline, "what was asked for is not done");
                std::thread::sleep(Duration::from_millis(5));
            }
            let kept = read_all(&wal);
            wal.close().unwrap();
            let wal = Wal::builder(temp.log()).segment_size(size).backend(backend).open().unwrap();
            let again = read_all(&wal);
            // The truncation may have been incomplete at the first read.
            assert!(kept.ends_with(&again), "{again:?} of {kept:?}");
            assert!(again.iter().any(|(lsn, _)| *lsn == last) && again.len() >= 2, "{again:?}");
        }
    }
}
