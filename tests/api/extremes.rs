//! Options at the ends of their ranges.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they did")]

use std::time::{Duration, Instant};

use crate::support::{Temp, backends, read_all, small};
use ringwal::{Durability, Wal};

#[test]
fn longest_durations_mean_never() {
    for backend in backends() {
        for durability in [
            Durability::EveryGroup,
            Durability::Interval(Duration::MAX),
            Durability::Interval(Duration::from_secs(u64::MAX / 1_000_000_000)),
        ] {
            let temp = Temp::new();
            let builder = small(&temp.log()).backend(backend).durability(durability);
            let wal = builder.idle_seal(Duration::MAX).max_age(Duration::MAX).open().unwrap();
            wal.append_durable(b"one").unwrap();
            let two = wal.append(b"two").unwrap();
            std::thread::sleep(Duration::from_millis(60));
            if durability != Durability::EveryGroup {
                assert!(wal.durable_end() <= two, "{durability:?}");
            }
            wal.append_durable(b"three").unwrap();
            assert_eq!(wal.stats().control_groups, 1, "the epoch alone");
            wal.close().unwrap();
            assert_eq!(read_all(&wal).len(), 3);
        }
    }
}

#[test]
fn commit_delay_ends_while_producers_wait_for_room() {
    for backend in backends() {
        let temp = Temp::new();
        let builder = Wal::builder(temp.log()).segment_size(64 << 10).ring_capacity(8192);
        let builder = builder.max_record_size(3000).commit_delay(Duration::from_secs(1));
        let wal = builder.backend(backend).open().unwrap();
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..60 {
                scope.spawn(|| wal.append_durable(&[1; 3000]).unwrap());
            }
        });
        // Only the last append may wait for the commit delay. If each waited, they would take a
        // second each.
        let taken = begun.elapsed();
        assert!(taken < Duration::from_secs(50), "{taken:?}");
        wal.close().unwrap();
    }
}

#[test]
fn smallest_ring_of_the_largest_records_appends_every_record() {
    for backend in backends() {
        for depth in [1, 256] {
            let temp = Temp::new();
            // A segment of four blocks: three are left for one group of one record.
            let builder = Wal::builder(temp.log()).segment_size(16 << 10).depth(depth);
            let largest = (12 << 10) - 128 - 12 - 7;
            let builder = builder.ring_capacity(24 << 10).max_record_size(largest);
            let wal = builder.backend(backend).open().unwrap();
            let mut expected = Vec::new();
            for n in 0..10_u8 {
                let len = [0, largest, 1, largest - 1, 8][usize::from(n) % 5];
                let payload = vec![n; len];
                expected.push((wal.append(&payload).unwrap(), payload));
                let filled = wal.append_with(largest, |bytes| bytes.fill(n)).unwrap();
                expected.push((filled, vec![n; largest]));
                let batch = wal.append_batch(&[&[n; 0][..], &[n]]).unwrap();
                let read = [(batch, vec![]), (ringwal::Lsn::new(batch.as_u64() + 8), vec![n])];
                expected.extend(read);
            }
            wal.sync().unwrap();
            assert_eq!(read_all(&wal), expected);
            wal.close().unwrap();
        }
    }
}

/// The child of `in_a_process`.
#[test]
#[cfg(target_os = "linux")]
fn case() {
    use nix::sys::resource::{Resource, setrlimit};
    let Some((case, dir)) = crate::child::case_and_directory() else { return };
    assert_eq!(case, "little memory");
    setrlimit(Resource::RLIMIT_AS, 1 << 30, 1 << 30).unwrap();
    let opened = Wal::builder(&dir).ring_capacity(8 << 30).open();
    let said = opened.unwrap_err().to_string();
    assert!(said.contains("ring_capacity"), "{said}");
    small(&dir).open().unwrap().append_durable(b"with less").unwrap();
}

#[test]
#[cfg(target_os = "linux")]
fn ring_larger_than_memory_is_an_error() {
    if crate::child::is_emulated() {
        eprintln!("skipped: an emulator limits no memory");
        return;
    }
    let temp = Temp::new();
    crate::child::in_a_process("little memory", &temp.log());
}

const ENDS: [u64; 7] = [0, 1, 1 << 32, 1 << 62, 1 << 63, u64::MAX - 1, u64::MAX];

#[test]
fn sizes_beyond_their_ranges_are_typed_errors_before_any_file_is_created() {
    let temp = Temp::new();
    let builder = || Wal::builder(temp.log());
    for size in ENDS {
        for other in ENDS {
            let other_size = usize::try_from(other).unwrap_or(usize::MAX);
            let refused = [
                builder().segment_size(size).max_total_bytes(other).segment_size(size | 1),
                builder().segment_size(size).max_total_bytes(other).depth(0),
                builder().segment_size(size | 1).ring_capacity(other_size),
                builder().segment_size(size | 1).max_record_size(other_size),
                builder().segment_size(size | 1).max_segments(other_size),
                builder().segment_size(size | 1).consumer_limit(other),
            ];
            for refused in refused {
                match refused.open() {
                    Err(ringwal::Error::Options(_)) => {}
                    other => panic!("{size}, {other:?}"),
                }
            }
        }
    }
    let found = builder().segment_size(u64::MAX).max_total_bytes(1).open().unwrap_err().to_string();
    assert!(found.contains("segment_size"), "{found}");
    let found = builder().segment_size(1 << 40).max_total_bytes(1).open().unwrap_err().to_string();
    assert!(found.contains("max_total_bytes") && found.contains("2199023255552"), "{found}");
    assert!(!temp.log().exists(), "nothing was made");
}

#[test]
fn limits_at_the_ends_of_their_ranges_remove_nothing() {
    let temp = Temp::new();
    let most = [usize::MAX, usize::MAX - 1];
    for (segments, bytes) in most.into_iter().zip([u64::MAX, u64::MAX - 1]) {
        let builder = small(&temp.log()).max_segments(segments).max_total_bytes(bytes);
        let wal = builder.consumer_limit(bytes).open().unwrap();
        let mut last = ringwal::Lsn::ZERO;
        for n in 0..300_u32 {
            last = wal.append(&vec![n as u8; 1000]).unwrap();
        }
        wal.wait_durable(last).unwrap();
        assert_eq!(wal.oldest_lsn(), ringwal::Lsn::ZERO);
        wal.close().unwrap();
    }
}

#[test]
fn positions_and_times_at_the_ends_of_their_ranges_give_results_or_typed_errors() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let first = wal.append_durable(b"first").unwrap();
    let mut consumer = wal.consumer("all").unwrap();
    for at in ENDS {
        let lsn = ringwal::Lsn::new(at);
        let inside = lsn <= first;
        let mut reader = wal.reader(lsn);
        if inside {
            assert_eq!(reader.next().unwrap().unwrap().lsn, first, "{at}");
        } else {
            let above = reader.next();
            let refused = matches!(&above, Some(Err(ringwal::Error::NotAppended { .. })));
            assert!(refused || (lsn <= wal.end() && above.is_none()), "{at}: {above:?}");
        }
        assert!(reader.next().is_none(), "{at}");
        assert_eq!(wal.reader_back(lsn).count(), usize::from(!inside), "{at}");
        assert!(wal.read(lsn).is_err(), "{at}");
        assert_eq!(wal.wait_durable(lsn).is_ok(), inside, "{at}");
        wal.on_durable(lsn, |_| ());
        drop(wal.when_durable(lsn));
        match wal.follow(lsn) {
            Ok(mut follow) => {
                assert_eq!(follow.try_next().unwrap().is_some(), inside, "{at}");
                assert!(follow.next_timeout(Duration::ZERO).unwrap().is_none(), "{at}");
                let _ = follow.lag();
            }
            Err(e) => assert!(matches!(e, ringwal::Error::NotAppended { .. }) && !inside, "{e}"),
        }
        assert!(
            wal.append_with(usize::try_from(at).unwrap_or(usize::MAX).max(1 << 30), |_| ())
                .is_err()
        );
        if !inside {
            assert!(wal.truncate_from(lsn).is_err(), "{at}");
            assert!(consumer.commit(lsn).is_err() && consumer.seek(lsn).is_err(), "{at}");
        }
    }
    let mut follow = wal.follow(ringwal::Lsn::ZERO).unwrap();
    assert_eq!(follow.next_timeout(Duration::MAX).unwrap().unwrap().payload, b"first");
    wal.close().unwrap();
    let outside = ringwal::ReadOnlyWal::open(temp.log()).unwrap();
    for at in ENDS {
        let lsn = ringwal::Lsn::new(at);
        let inside = lsn <= first;
        let above = lsn > outside.durable_end().unwrap();
        let mut reader = outside.reader(lsn).unwrap();
        match reader.next() {
            Some(Ok(record)) => assert!(inside && record.lsn == first, "{at}"),
            Some(Err(e)) => assert!(above && matches!(e, ringwal::Error::NotDurable { .. }), "{e}"),
            None => assert!(!inside && !above, "{at}"),
        }
        assert!(reader.next().is_none(), "{at}");
        assert_eq!(outside.reader_back(lsn).unwrap().count(), usize::from(!inside), "{at}");
        assert!(outside.read(lsn).is_err(), "{at}");
        match outside.follow(lsn) {
            Ok(mut follow) => {
                assert_eq!(follow.try_next().unwrap().is_some(), inside, "{at}");
                assert!(follow.next_timeout(Duration::ZERO).unwrap().is_none(), "{at}");
            }
            Err(e) => assert!(matches!(e, ringwal::Error::NotDurable { .. }) && !inside, "{e}"),
        }
    }
}
