//! Retention: which segments it removes, which it never removes, and which errors readers get.

use std::time::{Duration, Instant};

use crate::support::{SetOnDrop, Temp, backends, eventually, read_all, segments, small};
use ringwal::{Durability, Error, Lsn, ReadOnlyWal, Wal};

fn fill(wal: &Wal, from: u32, count: u32) -> Vec<(Lsn, u32)> {
    (from..from + count)
        .map(|n| {
            let payload = [&n.to_le_bytes()[..], &[0xAB; 700]].concat();
            (wal.append(&payload).unwrap(), n)
        })
        .collect()
}

fn numbers(wal: &Wal) -> Vec<u32> {
    read_all(wal).iter().map(|(_, p)| u32::from_le_bytes(p[..4].try_into().unwrap())).collect()
}

/// The records are a suffix without gaps that ends with the last record.
fn assert_suffix(found: &[u32], total: u32) {
    assert_eq!(found.last(), Some(&(total - 1)));
    assert_suffix_or_nothing(found, total);
}

/// The records are such a suffix, or there is none: the segment with the newest durable group may
/// hold no record yet.
fn assert_suffix_or_nothing(found: &[u32], total: u32) {
    assert!(found.last().is_none_or(|last| *last == total - 1));
    assert!(found.windows(2).all(|w| w[1] == w[0] + 1), "no gap");
}

#[test]
fn retention_without_limits_removes_nothing() {
    let temp = Temp::new();
    for round in 0..3 {
        let wal = small(&temp.log()).open().unwrap();
        fill(&wal, round * 500, 500);
        assert_eq!(numbers(&wal).len(), (round as usize + 1) * 500);
        assert_eq!(wal.stats().segments_removed, 0);
    }
}

#[test]
fn max_segments_limits_the_segments_and_keeps_a_whole_suffix() {
    for backend in backends() {
        for durability in [Durability::EveryGroup, Durability::Manual] {
            let temp = Temp::new();
            let builder = || small(&temp.log()).backend(backend).durability(durability);
            let wal = builder().max_segments(5).open().unwrap();
            for chunk in 0..20 {
                fill(&wal, chunk * 100, 100);
                // Two spares come on top. The limit is exceeded by one segment while a rotation
                // would otherwise block.
                assert!(segments(&temp.log()).len() <= 8);
            }
            let found = numbers(&wal);
            assert_suffix(&found, 2000);
            assert!(found.len() < 2000 && wal.stats().segments_recycled > 0);
            assert!(wal.oldest_lsn() > Lsn::ZERO);
            wal.close().unwrap();
            assert!(segments(&temp.log()).len() <= 7);
            let wal = builder().max_segments(5).open().unwrap();
            assert_suffix(&numbers(&wal), 2000);
        }
    }
}

#[test]
fn max_total_bytes_limits_the_bytes_of_all_files() {
    let temp = Temp::new();
    let wal = small(&temp.log()).max_total_bytes(400 << 10).open().unwrap();
    for chunk in 0..20 {
        fill(&wal, chunk * 100, 100);
        let sizes = segments(&temp.log()).into_iter().filter_map(|p| p.metadata().ok());
        // The limit is exceeded by one segment while a rotation would otherwise block.
        assert!(sizes.map(|m| m.len()).sum::<u64>() <= 464 << 10);
    }
    assert_suffix(&numbers(&wal), 2000);
}

#[test]
fn max_age_removes_old_segments() {
    let temp = Temp::new();
    let wal = small(&temp.log()).max_age(Duration::from_millis(200)).open().unwrap();
    fill(&wal, 0, 500);
    wal.sync().unwrap();
    eventually("old segments go", || segments(&temp.log()).len() <= 3);
    assert_suffix_or_nothing(&numbers(&wal), 500);
}

#[test]
fn truncate_before_removes_whole_segments_and_returns_the_oldest() {
    for durability in [Durability::EveryGroup, Durability::Manual] {
        let temp = Temp::new();
        let wal = small(&temp.log()).durability(durability).open().unwrap();
        let lsns = fill(&wal, 0, 600);
        wal.sync().unwrap();
        let (middle, _) = lsns[300];
        let oldest = wal.truncate_before(middle).unwrap();
        assert!(oldest <= middle && oldest > Lsn::ZERO && oldest == wal.oldest_lsn());
        let found = numbers(&wal);
        assert_suffix(&found, 600);
        assert!(found[0] <= 300 && found[0] > 200, "{}", found[0]);
        assert_eq!(wal.read(middle).unwrap().payload[..4], 300_u32.to_le_bytes());
        for below in [lsns[0].0, lsns[10].0] {
            assert!(matches!(wal.read(below), Err(Error::Pruned { oldest: o }) if o == oldest));
            let first = wal.reader(below).next();
            assert!(matches!(first, Some(Err(Error::Pruned { oldest: o })) if o == oldest));
        }
        // A second call, above the end: the newest durable segment stays.
        let oldest = wal.truncate_before(Lsn::new(u64::MAX)).unwrap();
        assert!(oldest < wal.durable_end());
        wal.close().unwrap();
        let wal = small(&temp.log()).open().unwrap();
        assert_suffix_or_nothing(&numbers(&wal), 600);
        assert_eq!(wal.oldest_lsn(), oldest);
    }
}

#[test]
fn reader_pins_its_segment_until_it_leaves_it() {
    let temp = Temp::new();
    let wal = small(&temp.log()).max_segments(4).open().unwrap();
    fill(&wal, 0, 50);
    wal.sync().unwrap();
    let mut reader = wal.reader(Lsn::ZERO);
    let first = reader.next().unwrap().unwrap();
    fill(&wal, 50, 1000);
    wal.sync().unwrap();
    assert_eq!(wal.oldest_lsn(), Lsn::ZERO, "pinned");
    assert_eq!(wal.read(first.lsn).unwrap(), first);
    assert_eq!(reader.count(), 49, "to the end that was durable when it was made");
    fill(&wal, 1050, 200);
    wal.sync().unwrap();
    eventually("retention goes on", || segments(&temp.log()).len() <= 6);
    assert_suffix(&numbers(&wal), 1250);
}

#[cfg(unix)]
#[test]
fn hard_linked_segment_is_removed_and_never_recycled() {
    let temp = Temp::new();
    // An idle seal would be written into a free block of the linked segment.
    let wal = small(&temp.log()).max_segments(4).idle_seal(Duration::MAX).open().unwrap();
    fill(&wal, 0, 60);
    wal.sync().unwrap();
    let first = segments(&temp.log())[0].clone();
    let backup = temp.path().join("backup");
    std::fs::hard_link(&first, &backup).unwrap();
    let before = std::fs::read(&backup).unwrap();
    fill(&wal, 60, 1500);
    wal.sync().unwrap();
    assert!(wal.stats().segments_recycled > 0 && wal.oldest_lsn() > Lsn::ZERO);
    assert!(std::fs::read(&backup).unwrap() == before);
}

#[test]
fn recycled_bytes_never_return_after_a_reopen() {
    let temp = Temp::new();
    let mut total = 0;
    for _ in 0..15 {
        let wal = small(&temp.log()).max_segments(3).open().unwrap();
        if total > 0 {
            assert_suffix(&numbers(&wal), total);
        }
        fill(&wal, total, 130);
        total += 130;
    }
}

#[test]
fn appends_faster_than_the_segment_keeper_lose_no_record() {
    for backend in backends() {
        let temp = Temp::new();
        let open = || Wal::builder(temp.log()).segment_size(256 << 10).backend(backend).open();
        let wal = open().unwrap();
        // Sixty-four segments at full speed. Most are only allocated, because the log does not wait
        // until they are zeroed.
        let count = (16 << 20) / 1024_u64;
        for n in 0..count {
            wal.append(&[&n.to_le_bytes()[..], &[n as u8; 1000]].concat()).unwrap();
        }
        wal.sync().unwrap();
        let stats = wal.stats();
        assert!(stats.rotations >= 60, "{stats:?}");
        assert!(stats.segments_hurried <= stats.segments_prepared, "{stats:?}");
        wal.close().unwrap();
        let found = read_all(&open().unwrap());
        assert_eq!(found.len() as u64, count);
        for ((_, payload), n) in found.iter().zip(0_u64..) {
            assert!(payload[..8] == n.to_le_bytes() && payload[8..].iter().all(|&b| b == n as u8));
        }
    }
}

/// A reader from zero starts at the oldest record at that moment, and is never `Pruned`.
#[test]
fn reader_from_the_oldest_beside_retention_is_never_pruned() {
    let temp = Temp::new();
    let wal = small(&temp.log()).max_segments(4).open().unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::SeqCst) {
                wal.append(&[7; 4000]).unwrap();
            }
        });
        let ends = SetOnDrop(&over);
        let first = wal.stats().segments_removed;
        let mut n = 0;
        let end = Instant::now() + Duration::from_secs(30);
        let mut failed = None;
        let enough = |n| n >= 2000 && wal.stats().segments_removed - first >= 100;
        while failed.is_none() && !enough(n) && Instant::now() < end {
            let read = wal.reader(Lsn::ZERO).next().transpose();
            failed = read.err().or(wal.follow(Lsn::ZERO).err());
            n += 1;
        }
        drop(ends);
        assert!(failed.is_none(), "after {n} times: {failed:?}");
        assert!(wal.stats().segments_removed > first, "nothing was removed meanwhile");
    });
}

#[test]
fn truncate_before_in_manual_mode_syncs_itself() {
    for backend in backends() {
        let temp = Temp::new();
        let builder = small(&temp.log()).backend(backend).durability(Durability::Manual);
        let wal = builder.open().unwrap();
        let appended = fill(&wal, 0, 500);
        wal.sync().unwrap();
        fill(&wal, 500, 3);
        let (send, done) = std::sync::mpsc::channel();
        let (other, upto) = (wal.clone(), appended[400].0);
        std::thread::spawn(move || send.send(other.truncate_before(upto)));
        let kept = done
            .recv_timeout(Duration::from_secs(300))
            .expect("truncate_before waits for a sync")
            .unwrap();
        assert!(kept > Lsn::ZERO && kept <= upto);
        assert_eq!(numbers(&wal).last(), Some(&502));
    }
}

#[test]
fn truncate_before_removes_a_formerly_pinned_segment_on_the_next_call() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    for n in 0..300 {
        wal.append(&vec![n as u8; 1000]).unwrap();
    }
    let end = wal.sync().unwrap();
    let mut reader = wal.reader(Lsn::ZERO);
    reader.next_ref().unwrap().unwrap();
    assert_eq!(wal.truncate_before(end).unwrap(), Lsn::ZERO, "it is being read");
    drop(reader);
    assert!(wal.truncate_before(end).unwrap() > Lsn::ZERO);
}

/// The retention of the next writer does not know the old readers. They must get `Pruned` for a
/// removed segment, never `Corruption`.
#[test]
fn readers_of_a_closed_log_get_pruned_for_segments_that_the_next_writer_removed() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        let (first, _) = fill(&wal, 0, 600)[0];
        let end = wal.sync().unwrap();
        let mut reader = wal.reader(Lsn::ZERO);
        reader.next().unwrap().unwrap();
        let mut follower = wal.follow(Lsn::ZERO).unwrap();
        follower.next_ref().unwrap().unwrap();
        let mut back = wal.reader_back(end);
        back.next().unwrap().unwrap();
        wal.close().unwrap();
        assert_eq!(numbers(&wal).len(), 600, "what is durable can still be read");
        let next = small(&temp.log()).backend(backend).max_segments(3).open().unwrap();
        fill(&next, 600, 600);
        next.sync().unwrap();
        assert!(next.oldest_lsn() > end && next.stats().segments_recycled > 0);
        let failed = reader.find_map(Result::err);
        assert!(matches!(failed, Some(Error::Pruned { .. })), "{failed:?}");
        let failed = loop {
            match follower.next_ref() {
                Ok(Some(record)) => assert!(record.lsn < end),
                ended => break ended.map(|_| ()),
            }
        };
        assert!(matches!(failed, Err(Error::Pruned { .. })), "{failed:?}");
        assert!(back.all(|record| record.unwrap().lsn < end), "a backward reader ends there");
        assert!(matches!(wal.read(first), Err(Error::Pruned { .. })));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn single_reads_of_many_segments_take_few_descriptors() {
    let temp = Temp::new();
    let wal = Wal::builder(temp.log()).segment_size(16 << 10).open().unwrap();
    let lsns = fill(&wal, 0, 3000);
    wal.sync().unwrap();
    assert!(segments(&temp.log()).len() > 200);
    let open = || open_files(temp.path()).len();
    for round in 0..2 {
        for (lsn, n) in &lsns {
            assert_eq!(wal.read(*lsn).unwrap().payload[..4], n.to_le_bytes(), "{round}");
        }
        assert!(open() < 90, "{}", open());
    }
}

/// The files below this directory that this process has open. A removed one ends with `(deleted)`.
#[cfg(target_os = "linux")]
fn open_files(dir: &std::path::Path) -> Vec<String> {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = links.filter_map(|link| std::fs::read_link(link.path()).ok());
    let names = targets.filter(|to| to.starts_with(dir) && to.extension().is_some());
    names.map(|to| to.file_name().unwrap().to_str().unwrap().into()).collect()
}

#[cfg(target_os = "linux")]
fn removed_and_open(dir: &std::path::Path) -> usize {
    open_files(dir).iter().filter(|name| name.ends_with(" (deleted)")).count()
}

/// The next writer may remove a spare, or recycle it.
#[cfg(target_os = "linux")]
#[test]
fn handle_of_a_closed_log_keeps_no_file_open() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        let (first, _) = fill(&wal, 0, 300)[0];
        wal.sync().unwrap();
        assert_eq!(wal.read(first).unwrap().payload[..4], 0_u32.to_le_bytes());
        eventually("a spare is prepared", || open_files(temp.path()).len() > 3);
        wal.close().unwrap();
        assert_eq!(open_files(temp.path()), [""; 0]);
        assert_eq!(numbers(&wal).len(), 300, "what is durable can still be read");
    }
}

/// A file that stays open after its removal occupies the disk until its last handle is closed.
#[cfg(target_os = "linux")]
#[test]
fn removed_segments_are_closed_so_that_their_space_is_free() {
    for backend in backends() {
        let temp = Temp::new();
        // The first segment of a new log, and then the active segment of an older one.
        for round in 0..2 {
            let wal = small(&temp.log()).backend(backend).max_segments(100).open().unwrap();
            let outside = ReadOnlyWal::open(temp.log()).unwrap();
            let lsns = fill(&wal, round * 600, 600);
            wal.sync().unwrap();
            let mut follower = wal.follow(wal.oldest_lsn()).unwrap();
            let mut behind = outside.follow(outside.oldest_lsn().unwrap()).unwrap();
            let mut consumer = wal.consumer("c").unwrap();
            for (lsn, n) in &lsns {
                assert_eq!(wal.read(*lsn).unwrap().payload[..4], n.to_le_bytes());
                assert_eq!(outside.read(*lsn).unwrap().payload[..4], n.to_le_bytes());
            }
            while follower.try_next().unwrap().is_some() {}
            while behind.try_next().unwrap().is_some() {}
            let end = fill(&wal, 0, 200)[199].0;
            wal.sync().unwrap();
            consumer.commit(end).unwrap();
            while follower.try_next().unwrap().is_some() {}
            while behind.try_next().unwrap().is_some() {}
            wal.truncate_before(end).unwrap();
            // A reader in another process learns of removals when the writer has begun a segment.
            let last = *fill(&wal, 800, 100).last().unwrap();
            wal.sync().unwrap();
            assert_eq!(outside.read(last.0).unwrap().payload[..4], last.1.to_le_bytes());
            while behind.try_next().unwrap().is_some() {}
            assert!(wal.oldest_lsn() > lsns[500].0 && wal.stats().segments_removed > 5);
            eventually("removed segments are closed", || removed_and_open(temp.path()) == 0);
            drop((follower, behind, consumer));
            wal.close().unwrap();
        }
    }
}
