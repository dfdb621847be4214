//! The hook on sealed segments: no segment is removed before the hook has accepted it, and none is
//! skipped.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::support::{Temp, eventually, small};
use ringwal::{Durability, Error, Lsn, SealedSegment, Wal, WalBuilder};

const SEGMENT: u64 = 64 << 10;

fn fill(wal: &Wal, records: u32) {
    for n in 0..records {
        wal.append(&vec![n as u8; 1000]).unwrap();
    }
    wal.sync().unwrap();
}

fn bounded(dir: &Path) -> WalBuilder {
    small(dir).max_segments(4)
}

#[test]
fn every_segment_is_archived_before_its_removal_over_restarts() {
    let temp = Temp::new();
    let archive = temp.path().join("archive");
    std::fs::create_dir(&archive).unwrap();
    let seen = Arc::new(Mutex::new(Vec::<SealedSegment>::new()));
    let mut written = Vec::new();
    for round in 0..4_u32 {
        let (to, list) = (archive.clone(), Arc::clone(&seen));
        let wal = bounded(&temp.log())
            .on_sealed(move |segment| {
                std::fs::copy(&segment.path, to.join(format!("{}", segment.base)))?;
                list.lock().unwrap().push(segment.clone());
                Ok(())
            })
            .open()
            .unwrap();
        for n in 0..300_u32 {
            let payload = [round.to_le_bytes(), n.to_le_bytes()].concat().repeat(100);
            written.push((wal.append(&payload).unwrap(), payload));
        }
        wal.sync().unwrap();
        wal.close().unwrap();
    }
    let log = ringwal::ReadOnlyWal::open(temp.log()).unwrap();
    let oldest = log.oldest_lsn().unwrap();
    // Without a hook every segment may be removed, archived or not. The stored position stays.
    let _without = bounded(&temp.log()).open().unwrap();
    assert!(oldest > Lsn::ZERO);
    assert!(temp.log().join("wal.sealed").exists());
    let seen = seen.lock().unwrap();
    let mut end = Lsn::ZERO;
    for segment in seen.iter() {
        // The calls come in order. The last segment before a close may come again.
        assert!(segment.base <= end && segment.end > segment.base, "{segment:?} behind {end}");
        end = end.max(segment.end);
    }
    assert!(end >= oldest, "what is gone was archived");
    // The archive alone is a log with every record up to its end.
    let copy = temp.path().join("restored");
    std::fs::create_dir(&copy).unwrap();
    for segment in seen.iter() {
        let name = segment.path.file_name().unwrap();
        std::fs::copy(archive.join(format!("{}", segment.base)), copy.join(name)).unwrap();
    }
    let restored = ringwal::ReadOnlyWal::open(&copy).unwrap();
    let found: Vec<_> = restored
        .reader(Lsn::ZERO)
        .unwrap()
        .map(|r| r.map(|r| (r.lsn, r.payload)).unwrap())
        .collect();
    assert!(found.len() > 500 && found == written[..found.len()]);
}

#[test]
fn hook_that_fails_or_panics_is_called_again_and_holds_its_segment() {
    let temp = Temp::new();
    let (calls, allowed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, may) = (Arc::clone(&calls), Arc::clone(&allowed));
    let wal = bounded(&temp.log())
        .on_sealed(move |segment| {
            match count.fetch_add(1, Ordering::SeqCst) {
                _ if may.load(Ordering::SeqCst) => return Ok(()),
                0 => panic!("on purpose"),
                _ => {}
            }
            assert_eq!(segment.base, Lsn::ZERO);
            Err("not now".into())
        })
        .open()
        .unwrap();
    fill(&wal, 500);
    eventually("it is called again", || calls.load(Ordering::SeqCst) >= 3);
    assert_eq!(wal.truncate_before(wal.durable_end()).unwrap(), Lsn::ZERO, "the hook holds it");
    assert!(wal.stats().sealed_failures >= 2);
    allowed.store(true, Ordering::SeqCst);
    eventually("it goes", || wal.oldest_lsn() > Lsn::new(2 * SEGMENT));
    wal.close().unwrap();
}

#[test]
fn hook_that_blocks_holds_retention_and_neither_appends_nor_close() {
    let temp = Temp::new();
    let (inside, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (entered, end) = (Arc::clone(&inside), Arc::clone(&over));
    let wal = bounded(&temp.log())
        .on_sealed(move |_| {
            entered.store(true, Ordering::SeqCst);
            while !end.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        })
        .open()
        .unwrap();
    fill(&wal, 600);
    eventually("it is called", || inside.load(Ordering::SeqCst));
    fill(&wal, 300);
    assert_eq!(wal.oldest_lsn(), Lsn::ZERO);
    wal.close().unwrap();
    let before = std::fs::read(temp.log().join("wal.sealed")).unwrap();
    // The hook accepts the segment after the close. The position is not stored, and the next open
    // is not disturbed.
    over.store(true, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(100));
    assert!(std::fs::read(temp.log().join("wal.sealed")).unwrap() == before);
    let again = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&again);
    let wal = bounded(&temp.log())
        .on_sealed(move |segment| {
            list.lock().unwrap().push(segment.base);
            Ok(())
        })
        .open()
        .unwrap();
    eventually("all come", || again.lock().unwrap().len() > 5);
    assert_eq!(again.lock().unwrap()[0], Lsn::ZERO);
    wal.close().unwrap();
}

#[test]
fn calls_from_the_hook_that_would_wait_for_the_hook_are_refused() {
    let temp = Temp::new();
    let log: Arc<Mutex<Option<Wal>>> = Arc::default();
    let (inside, told) = (Arc::clone(&log), Arc::new(Mutex::new(None)));
    let tell = Arc::clone(&told);
    let wal = small(&temp.log())
        .on_sealed(move |_| {
            if let Some(wal) = &*inside.lock().unwrap() {
                *tell.lock().unwrap() = Some(wal.sync().map(|_| ()).and(wal.close()));
            }
            Ok(())
        })
        .open()
        .unwrap();
    *log.lock().unwrap() = Some(wal.clone());
    // A record that is not durable, whenever the hook is called.
    eventually("it is called", || {
        wal.append(&[0; 1000]).unwrap();
        told.lock().unwrap().is_some()
    });
    let told = told.lock().unwrap().take().unwrap();
    assert!(matches!(told, Err(Error::WouldDeadlock)), "{told:?}");
    log.lock().unwrap().take();
    wal.close().unwrap();
}

/// A segment that the hook accepted was durable, so the log must end after it.
#[test]
fn log_that_ends_below_the_hooks_position_is_corruption() {
    let temp = Temp::new();
    let wal = small(&temp.log()).on_sealed(|_| Ok(())).open().unwrap();
    fill(&wal, 300);
    let released = SEGMENT * 3;
    eventually("three segments are let go", || {
        let stored = std::fs::read(temp.log().join("wal.sealed")).unwrap();
        [32, 4096 + 32].iter().any(|&at| {
            stored[at..at + 8].first_chunk().is_some_and(|b| u64::from_le_bytes(*b) >= released)
        })
    });
    wal.close().unwrap();
    for lost in &crate::support::segments(&temp.log())[2..] {
        std::fs::remove_file(lost).unwrap();
    }
    match small(&temp.log()).open() {
        Err(Error::Corruption { lsn, .. }) => assert!(lsn.as_u64() <= 2 * SEGMENT),
        other => panic!("{:?}", other.map(drop)),
    }
}

#[test]
fn damaged_hook_position_refuses_every_open() {
    let temp = Temp::new();
    let open = || {
        let builder = small(&temp.log()).idle_seal(Duration::from_secs(1000));
        builder.on_sealed(|_| Ok(())).open()
    };
    let wal = open().unwrap();
    for _ in 0..8 {
        wal.append_durable(b"a block each").unwrap();
    }
    wal.close().unwrap();
    // No spare is left for the epoch group, and the open fails before the segment keeper could
    // prepare one.
    for spare in &crate::support::segments(&temp.log())[1..] {
        std::fs::remove_file(spare).unwrap();
    }
    std::fs::write(temp.log().join("wal.sealed"), b"damaged").unwrap();
    for attempt in 0..8 {
        let (send, receive) = std::sync::mpsc::channel();
        let builder = small(&temp.log()).on_sealed(|_| Ok(()));
        std::thread::spawn(move || send.send(builder.open().map(drop)));
        let opened = receive.recv_timeout(Duration::from_secs(300));
        assert!(matches!(opened, Ok(Err(Error::ConsumerDamaged { .. }))), "{attempt}: {opened:?}");
    }
}

/// A segment archived before it is durable could hold records that a crash discards.
#[test]
fn segment_is_archived_only_after_all_of_it_is_durable() {
    for durability in [Durability::EveryGroup, Durability::Manual] {
        let temp = Temp::new();
        let log: Arc<OnceLock<Wal>> = Arc::default();
        let early = Arc::new(AtomicU32::new(0));
        let called = Arc::new(AtomicU32::new(0));
        let hook = {
            let (log, early, called) = (Arc::clone(&log), Arc::clone(&early), Arc::clone(&called));
            move |segment: &SealedSegment| {
                called.fetch_add(1, Ordering::SeqCst);
                let durable_end = log.get().ok_or("not opened yet")?.durable_end();
                early.fetch_add(u32::from(durable_end <= segment.end), Ordering::SeqCst);
                Ok(())
            }
        };
        let wal = small(&temp.log()).durability(durability).on_sealed(hook).open().unwrap();
        log.set(wal.clone()).unwrap();
        for round in 1..=20 {
            // Append a little into the next segment, without a sync.
            while wal.append(&[7; 3000]).unwrap().as_u64() < round * SEGMENT + (20 << 10) {}
            std::thread::sleep(Duration::from_millis(3));
        }
        wal.sync().unwrap();
        eventually("segments are archived", || called.load(Ordering::SeqCst) > 10);
        assert_eq!(early.load(Ordering::SeqCst), 0, "{durability:?}");
        wal.close().unwrap();
    }
}

/// Number of times that the thread of this name in this process has gone to sleep.
#[cfg(target_os = "linux")]
fn sleeps_of(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |path: std::path::PathBuf| {
        let comm = std::fs::read_to_string(path.join("comm")).ok()?;
        let status = std::fs::read_to_string(path.join("status")).ok()?;
        let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"))?;
        (comm.trim() == name).then(|| line.trim().parse::<u64>().unwrap())
    };
    tasks.filter_map(|task| of(task.unwrap().path())).sum()
}

/// Runs in a process of its own, because logs of other tests have threads of this name too.
#[cfg(target_os = "linux")]
#[test]
fn hook_thread_of_an_idle_log_sleeps_until_a_sync() {
    crate::child::in_a_process("idle", &Temp::new().log());
}

/// Without a sync, the segment that the log has left is not durable. The hook's thread sleeps until
/// it is.
#[cfg(target_os = "linux")]
#[test]
fn case() {
    let Some((_, dir)) = crate::child::case_and_directory() else { return };
    let (send, receive) = std::sync::mpsc::channel();
    let manual = small(&dir).durability(ringwal::Durability::Manual);
    let hook = move |segment: &ringwal::SealedSegment| {
        let _ = send.send(segment.base);
        Ok(())
    };
    let wal = manual.idle_seal(Duration::MAX).on_sealed(hook).open().unwrap();
    eventually("a segment is left", || {
        wal.append(&[7; 1000]).unwrap();
        wal.stats().rotations > 0
    });
    std::thread::sleep(Duration::from_millis(300));
    let quietest = (0..5).map(|_| {
        let before = sleeps_of("ringwal-sealed");
        std::thread::sleep(Duration::from_millis(400));
        sleeps_of("ringwal-sealed").saturating_sub(before)
    });
    assert!(quietest.min().unwrap() < 10, "the thread polls");
    wal.sync().unwrap();
    assert_eq!(receive.recv_timeout(Duration::from_secs(30)).unwrap(), ringwal::Lsn::ZERO);
    wal.close().unwrap();
}
