//! `CommitMethod::Auto`: how it chooses a method, what it stores, and which files it leaves.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a child's answers; what is skipped")]

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Temp, read_all};
use ringwal::{BackendInfo, BackendKind, CommitMethod, Durability, MethodReason, Wal};

/// The backend's report once no measurement is in progress.
fn settled(wal: &Wal) -> BackendInfo {
    let begun = Instant::now();
    loop {
        let info = wal.backend();
        if info.commit_method_reason != MethodReason::Measuring {
            return info;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "still measuring: {info}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// Whether io_uring runs. In some sandboxes it does not, and there is no method to choose.
fn chooses(wal: &Wal) -> bool {
    let info = wal.backend();
    if info.kind == BackendKind::Std {
        eprintln!("skipped: {}", info.reason);
    }
    info.kind == BackendKind::IoUring
}

#[test]
fn auto_method_measures_beside_appends_and_leaves_only_its_memo() {
    let temp = Temp::new();
    let wal = Wal::open(temp.log()).unwrap();
    if !chooses(&wal) {
        return;
    }
    // Append during the measurement, and across the switch of the method.
    let mut count = 0_u64;
    while wal.backend().commit_method_reason == MethodReason::Measuring || count < 200 {
        wal.append_durable(&count.to_le_bytes()).unwrap();
        count += 1;
    }
    let info = settled(&wal);
    assert!(!info.commit_method_detail.is_empty());
    assert!(["dsync", "linked-fsync"].contains(&info.commit_method), "{info}");
    let stats = wal.stats();
    assert_eq!(stats.commit_method, info.commit_method);
    assert_eq!(stats.commit_method_reason, info.commit_method_reason);
    wal.close().unwrap();
    let left = names(&temp.log());
    assert!(left.iter().all(|n| !n.ends_with(".tmp")), "{left:?}");
    let wal = Wal::open(temp.log()).unwrap();
    let found = read_all(&wal);
    assert_eq!(found.len() as u64, count);
    assert!(found.iter().zip(0_u64..).all(|((_, p), n)| p[..] == n.to_le_bytes()));
}

#[test]
fn pinned_method_is_used_without_a_measurement() {
    for (pinned, name) in
        [(CommitMethod::Dsync, "dsync"), (CommitMethod::LinkedFsync, "linked-fsync")]
    {
        let temp = Temp::new();
        let wal = Wal::builder(temp.log()).commit_method(pinned).open().unwrap();
        if !chooses(&wal) {
            return;
        }
        for _ in 0..20 {
            wal.append_durable(b"x").unwrap();
        }
        let stats = wal.stats();
        assert_eq!((stats.commit_method, stats.commit_method_reason), (name, MethodReason::Pinned));
        assert_eq!(stats.dsync_groups > 0, pinned == CommitMethod::Dsync);
        assert_eq!(stats.dsync_groups == stats.groups + stats.control_groups, name == "dsync");
    }
}

#[test]
fn modes_without_a_sync_for_every_group_measure_nothing() {
    let temp = Temp::new();
    let wal = Wal::builder(temp.log()).durability(Durability::Manual).open().unwrap();
    assert_ne!(wal.backend().commit_method_reason, MethodReason::Measuring);
    assert!(!wal.backend().commit_method_detail.is_empty());
}

#[test]
fn close_does_not_wait_for_the_measurement() {
    // Opens and closes twenty logs. Each measurement would take tens of milliseconds.
    let temp = Temp::new();
    for n in 0..20 {
        let dir = temp.path().join(n.to_string());
        let wal = Wal::builder(&dir).segment_size(64 << 10).open().unwrap();
        wal.append_durable(b"x").unwrap();
        wal.close().unwrap();
        let left = names(&dir);
        assert!(left.iter().all(|n| !n.ends_with(".tmp")), "{left:?}");
    }
}

/// Another process knows only what the file states. It is this program, with an environment
/// variable that selects its part.
#[test]
fn another_process_uses_the_remembered_method() {
    const DIR: &str = "RINGWAL_TEST_COMMIT_METHOD_DIR";
    if let Some(dir) = std::env::var_os(DIR) {
        let wal = Wal::open(dir).unwrap();
        let first = wal.backend().commit_method_reason;
        println!("first {first:?}, then {:?}", settled(&wal).commit_method_reason);
        return;
    }
    let temp = Temp::new();
    let child = || {
        let output = crate::child::this_program()
            .args([
                "commit_method::another_process_uses_the_remembered_method",
                "--exact",
                "--nocapture",
            ])
            .env(DIR, temp.log())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("running 1 test"), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // A measurement is abandoned if the machine stalls for seconds.
    let measured = || {
        let mut tries = (0..5).map(|_| child());
        tries.find(|said| said.contains("then Measured")).unwrap_or_else(child)
    };
    let first = measured();
    let memo = temp.log().join("wal.commit");
    if !first.contains("then Measured") {
        eprintln!("skipped: nothing can be measured here: {first}");
        assert!(!memo.exists());
        return;
    }
    assert!(first.contains("first Measuring"), "{first}");
    if !memo.exists() {
        eprintln!("skipped: the methods are equally fast here");
        return;
    }
    assert!(child().contains("first Remembered"));
    // A damaged, foreign or invalid file is ignored and replaced.
    let good = std::fs::read(&memo).unwrap();
    let mut damaged = good.clone();
    damaged[40] ^= 1;
    for bad in [damaged, good[..30].to_vec(), vec![], vec![0xFF; 100_000]] {
        std::fs::write(&memo, bad).unwrap();
        let said = measured();
        assert!(said.contains("first Measuring") && said.contains("then Measured"), "{said}");
    }
    std::fs::write(&memo, &good).unwrap();
    assert!(child().contains("first Remembered"));
    // A link is followed neither for reading nor for writing.
    let elsewhere = temp.path().join("elsewhere");
    std::fs::write(&elsewhere, &good).unwrap();
    std::fs::remove_file(&memo).unwrap();
    if !crate::support::symlink(&elsewhere, &memo) {
        return;
    }
    assert!(child().contains("first Measuring"));
    assert_eq!(std::fs::read(&elsewhere).unwrap(), good);
}
