//! A log that is written while it is archived: retention waits for the confirmation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringwal::{HeldBy, Lsn};
use ringwal_archive::{Archive, Error};

use crate::faults::{Fault, Faulty, shared};
use crate::support::{
    Records, SEGMENT, Temp, archive, archiver, before, builder, closed_log, contents, eventually,
    memory, payload,
};

#[test]
fn nothing_is_released_before_it_is_confirmed() {
    let temp = Temp::new();
    let inner = memory();
    let down = Arc::new(AtomicBool::new(true));
    let is_down = Arc::clone(&down);
    // Up at times, and never reliable.
    let faulty = Faulty::new(&inner, move |n| match is_down.load(Ordering::SeqCst) {
        true => Some(Fault::Unavailable),
        false if n % 37 == 0 => Some(Fault::Torn),
        false if n % 53 == 0 => Some(Fault::LostAnswer),
        false => None,
    });
    let archiver = archiver(&archive(&shared(&faulty))).start().unwrap();
    let wal = archiver.attach(builder(&temp.join("log")).max_segments(3)).open().unwrap();
    let mut records = Records::new();
    let mut append = |segments: u64| {
        while wal.end().as_u64() < segments * SEGMENT {
            let payload = payload(records.len() as u32);
            records.push((wal.append(&payload).unwrap(), payload));
        }
        wal.sync().unwrap();
        records.clone()
    };
    append(8);
    eventually("the store is asked", || archiver.stats().retries > 2);
    assert_eq!(wal.oldest_lsn(), Lsn::ZERO, "nothing is confirmed");
    assert!(matches!(wal.held_by(), Some(HeldBy::SealedHook { .. })), "{:?}", wal.held_by());
    let stats = archiver.stats();
    assert_eq!((stats.shipped, stats.waiting), (0, 1));
    assert!(stats.last_error.unwrap().contains("503"));
    down.store(false, Ordering::SeqCst);
    // Whatever is gone has a manifest.
    let confirmed = |at_least: u64| {
        let mut seen = Lsn::ZERO;
        eventually("segments are released", || {
            let oldest = wal.oldest_lsn();
            if oldest > seen {
                let segments = archive(&inner).list().unwrap().segments;
                assert!(segments.last().unwrap().end >= oldest, "{oldest}: {segments:?}");
                seen = oldest;
            }
            oldest.as_u64() >= at_least
        });
    };
    confirmed(4 * SEGMENT);
    let records = append(16);
    confirmed(10 * SEGMENT);
    archiver.stop();
    wal.close().unwrap();
    let to = temp.fresh();
    let restored = archive(&inner).restore().into(&to).unwrap();
    assert!(contents(&to) == before(&records, restored.end));
    assert!(restored.end.as_u64() > 9 * SEGMENT, "the end of ten segments");
}

#[test]
fn first_call_ships_what_the_store_lacks_of_earlier_segments() {
    let temp = Temp::new();
    let dir = temp.join("log");
    let (first, second) = (memory(), memory());
    closed_log(&dir, 3);
    for store in [&first, &second] {
        let archiver = archiver(&archive(store)).start().unwrap();
        let wal = archiver.attach(builder(&dir)).open().unwrap();
        for n in 0..40 {
            wal.append(&payload(n)).unwrap();
        }
        wal.sync().unwrap();
        let sealed = wal.end().as_u64() / SEGMENT * SEGMENT;
        let has = || archiver.stats().archived_to.as_u64();
        eventually("everything is archived", || has() >= sealed);
        archiver.stop();
        wal.close().unwrap();
    }
    // The hook had confirmed the first segments elsewhere.
    for store in [&first, &second] {
        let listing = archive(store).list().unwrap();
        assert_eq!(listing.segments[0].base, Lsn::ZERO);
        assert!(listing.gaps.is_empty());
    }
}

#[test]
fn stopped_archiver_holds_the_log_until_the_next_one() {
    let temp = Temp::new();
    let store = memory();
    let first = archiver(&archive(&store)).start().unwrap();
    let wal = first.attach(builder(&temp.join("log")).max_segments(2)).open().unwrap();
    first.stop();
    for n in 0..100 {
        wal.append(&payload(n)).unwrap();
    }
    wal.sync().unwrap();
    eventually("the hook is refused", || wal.stats().sealed_failures > 0);
    assert_eq!(wal.oldest_lsn(), Lsn::ZERO);
    wal.close().unwrap();
    let second = archiver(&archive(&store)).start().unwrap();
    let wal = second.attach(builder(&temp.join("log")).max_segments(2)).open().unwrap();
    eventually("it is released", || wal.oldest_lsn().as_u64() >= SEGMENT);
    drop(second);
    wal.close().unwrap();
}

#[test]
fn log_of_another_process_is_archived_from_outside_and_gaps_are_counted() {
    let temp = Temp::new();
    let dir = temp.join("log");
    let wal = builder(&dir).max_segments(3).open().unwrap();
    let store = memory();
    let outside = archiver(&archive(&store)).start().unwrap();
    let mut overtaken = 0;
    for round in 0..6 {
        for n in 0..60 {
            wal.append(&payload(round * 100 + n)).unwrap();
        }
        wal.sync().unwrap();
        overtaken += outside.catch_up(&dir, "wal").unwrap().overtaken;
    }
    assert_eq!(outside.stats().overtaken, overtaken);
    wal.close().unwrap();
    outside.catch_up(&dir, "wal").unwrap();
    // Retention was faster at times: the archive says where.
    let listing = archive(&store).list().unwrap();
    assert!(listing.segments.len() > 3);
    for gap in &listing.gaps {
        assert!(gap.missing.contains("/manifests/") && gap.from < gap.to, "{gap:?}");
    }
    let newest = listing.gaps.last().map_or(Lsn::ZERO, |gap| gap.to);
    let from = newest.max(listing.segments[0].base);
    archive(&store).restore().from(from).into(temp.fresh()).unwrap();
}

#[test]
fn what_retention_removed_before_a_call_is_counted_once() {
    let temp = Temp::new();
    let dir = temp.join("log");
    closed_log(&dir, 3);
    let store = memory();
    let archiver_of_now = || archiver(&archive(&store)).start().unwrap();
    let first = archiver_of_now().catch_up(&dir, "wal").unwrap();
    assert_eq!((first.shipped, first.missing), (3, 0), "an archive begins where the log does");
    let following = archiver_of_now();
    assert_eq!(following.catch_up(&dir, "wal").unwrap().missing, 0);

    let go_on = |segments: u64, removed: u64| {
        let wal = builder(&dir).open().unwrap();
        while wal.end().as_u64() < segments * SEGMENT + 8192 {
            wal.append(&payload(7)).unwrap();
        }
        wal.sync().unwrap();
        wal.truncate_before(Lsn::new(removed * SEGMENT + 8192)).unwrap();
        assert_eq!(wal.oldest_lsn().as_u64() / SEGMENT, removed);
        wal.close().unwrap();
    };
    // Segments 3 and 4 are removed before the archiver looks.
    go_on(7, 5);
    let found = following.catch_up(&dir, "wal").unwrap();
    assert_eq!((found.shipped, found.missing, found.overtaken), (2, 2 * SEGMENT, 0));
    assert_eq!(following.catch_up(&dir, "wal").unwrap().missing, 0, "counted already");
    assert_eq!(following.stats().missing, 2 * SEGMENT);
    let gaps = archive(&store).list().unwrap().gaps;
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!((gaps[0].from.as_u64(), gaps[0].to.as_u64()), (3 * SEGMENT, 5 * SEGMENT));
    // Another run finds it archived beyond the gap.
    assert_eq!(archiver_of_now().catch_up(&dir, "wal").unwrap().missing, 0);
    // One that begins after the next gap asks the store where the archive ends.
    go_on(12, 9);
    assert_eq!(archiver_of_now().catch_up(&dir, "wal").unwrap().missing, 2 * SEGMENT);
}

#[test]
fn place_of_another_log_is_refused_before_a_segment_is_sealed() {
    let temp = Temp::new();
    let store = memory();
    let (one, other) = (temp.join("one"), temp.join("other"));
    closed_log(&one, 0);
    let archiver = archiver(&archive(&store)).start().unwrap();
    assert_eq!(archiver.catch_up(&one, "wal").unwrap().shipped, 0);
    assert!(archive(&store).list().unwrap().segments.is_empty());
    closed_log(&other, 0);
    let refused = archiver.catch_up(&other, "wal").unwrap_err();
    assert!(matches!(refused, Error::AnotherLog { .. }), "{refused}");
}

#[test]
fn local_directory_holds_the_archive_and_nothing_else() {
    let temp = Temp::new();
    let records = closed_log(&temp.join("log"), 3);
    let place = temp.join("a store");
    for url in [place.to_str().unwrap().to_owned(), url(&place)] {
        let archive = Archive::at(&url).unwrap();
        let done = crate::support::ship(&archive, &temp.join("log"));
        assert_eq!(done.archived_to, Lsn::new(3 * SEGMENT));
        let to = temp.fresh();
        let restored = archive.restore().into(&to).unwrap();
        assert!(contents(&to) == before(&records, restored.end));
    }
    let files = |folder: &str| std::fs::read_dir(place.join(folder)).unwrap().count();
    assert_eq!((files(""), files("segments"), files("manifests")), (3, 3, 3));
    for bad in ["", "ftp://x/y", "https://x/y", "memory:///x"] {
        assert!(Archive::at(bad).unwrap_err().to_string().contains("names no store"), "{bad}");
    }
    assert!(Archive::existing(temp.join("none").to_str().unwrap()).is_err());
    assert!(!temp.join("none").exists());
    #[cfg(not(feature = "s3"))]
    {
        let without = Archive::at("s3://bucket/orders").unwrap_err().to_string();
        assert!(without.contains("--features s3"), "{without}");
    }
}

fn url(path: &std::path::Path) -> String {
    format!("file://{}", path.to_str().unwrap().replace(' ', "%20"))
}

#[test]
fn settings_out_of_range_are_refused() {
    use std::time::Duration;

    let store = memory();
    let start = |part, first, longest| {
        let settings = archiver(&archive(&store)).part_bytes(part);
        settings.backoff(Duration::from_millis(first), Duration::from_millis(longest)).start()
    };
    assert!(start(65536, 1, 1).is_ok());
    for (part, first, longest) in [(65535, 1, 1), (1 << 30, 1, 1), (65536, 0, 1), (65536, 2, 1)] {
        let refused = start(part, first, longest).unwrap_err();
        assert!(refused.to_string().contains("must be") || refused.to_string().contains("needs"));
    }
}
