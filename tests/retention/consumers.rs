//! Named consumers: delivery at least once, over restarts and kills, and the segments that
//! retention keeps for them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{SetOnDrop, Temp, backends, copy_dir, eventually, small};
use ringwal::{Consumer, Error, Lsn, Wal, WalBuilder};

/// Bytes that a consumer may lag. Four hundred records stay below it even if each takes a block and
/// a mark of its own, as on a slow machine. They take more segments than retention keeps without a
/// consumer.
const LIMIT: u64 = 4 << 20;

fn payload(n: u32) -> Vec<u8> {
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.resize(4 + (n as usize * 37) % 1200, n as u8);
    bytes
}

fn number(payload: &[u8]) -> u32 {
    u32::from_le_bytes(*payload.first_chunk().unwrap())
}

pub(crate) fn fill(wal: &Wal, from: u32, to: u32) -> Vec<Lsn> {
    let lsns = (from..to).map(|n| wal.append(&payload(n)).unwrap()).collect();
    wal.sync().unwrap();
    lsns
}

pub(crate) fn next(consumer: &mut Consumer) -> (Lsn, u32) {
    let record = consumer.records().unwrap().try_next().unwrap().expect("there is one");
    assert_eq!(record.payload, payload(number(record.payload)));
    (record.lsn, number(record.payload))
}

fn file(dir: &Path, name: &str) -> std::path::PathBuf {
    dir.join(format!("wal.consumer.{name}"))
}

#[test]
fn uncommitted_records_are_delivered_again_over_restarts_and_kills() {
    for backend in backends() {
        let temp = Temp::new();
        let open = |dir: &Path| small(dir).backend(backend).open().unwrap();
        let mut dir = temp.log();
        let mut wal = open(&dir);
        fill(&wal, 0, 400);
        let (mut expected, mut delivered) = (0, 0);
        for round in 0..10 {
            assert_eq!(wal.consumers().len(), usize::from(round > 0));
            let mut consumer = wal.consumer("mailer").unwrap();
            for _ in 0..20 + round {
                let (lsn, n) = next(&mut consumer);
                assert_eq!(n, expected, "round {round}");
                expected += 1;
                delivered += 1;
                if expected % 7 == 0 {
                    consumer.commit(lsn).unwrap();
                    assert!(consumer.position() > lsn);
                }
            }
            expected -= expected % 7;
            drop(consumer);
            if round % 2 == 0 {
                wal.close().unwrap();
                wal = open(&dir);
            } else {
                // A copy of an open log is what a killed process leaves.
                let copy = temp.path().join(format!("copy-{round}"));
                copy_dir(&dir, &copy);
                dir = copy;
                wal = open(&dir);
            }
        }
        assert!(delivered > expected);
        // A seal may move the end between the two looks.
        eventually("the lag reaches to the durable end", || {
            let info = &wal.consumers()[0];
            assert_eq!((info.name.as_str(), info.attached), ("mailer", false));
            info.lag_bytes == wal.durable_end().as_u64() - info.position.as_u64()
        });
    }
}

#[test]
fn invalid_names_and_positions_of_consumers_are_refused() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let lsns = fill(&wal, 0, 10);
    let long = "x".repeat(65);
    for name in ["", "../x", "a/b", "a.b", ".", "nul\0", "ü", " ", long.as_str()] {
        assert!(matches!(wal.consumer(name), Err(Error::ConsumerName { .. })), "{name:?}");
        assert!(matches!(wal.remove_consumer(name), Err(Error::ConsumerName { .. })), "{name:?}");
    }
    let mut one = wal.consumer(&"x".repeat(64)).unwrap();
    assert!(matches!(wal.consumer(one.name()), Err(Error::ConsumerInUse { .. })));
    assert!(matches!(wal.remove_consumer(one.name()), Err(Error::ConsumerInUse { .. })));
    assert!(matches!(wal.remove_consumer("nobody"), Err(Error::NoConsumer { .. })));
    one.commit(lsns[5]).unwrap();
    one.commit(lsns[5]).unwrap();
    match one.commit(lsns[4]) {
        Err(Error::ConsumerBackwards { lsn, position }) => assert!(lsn < position),
        other => panic!("{other:?}"),
    }
    assert!(matches!(one.commit(Lsn::new(1 << 40)), Err(Error::NotAppended { .. })));
    assert!(matches!(one.seek(Lsn::new(1 << 40)), Err(Error::NotAppended { .. })));
    assert_eq!(next(&mut one).1, 6);
    one.seek(lsns[2]).unwrap();
    assert_eq!(next(&mut one).1, 2);
    one.seek(Lsn::ZERO).unwrap();
    assert_eq!(next(&mut one).1, 0);
    // A cut of committed records is refused.
    one.commit(lsns[5]).unwrap();
    match wal.truncate_from(lsns[5]) {
        Err(Error::Consumed { name, position }) => {
            assert_eq!((name.as_str(), position), (one.name(), one.position()))
        }
        other => panic!("{other:?}"),
    }
    wal.truncate_from(lsns[6]).unwrap();
    fill(&wal, 50, 51);
    one.seek(lsns[5]).unwrap();
    assert_eq!((next(&mut one).1, next(&mut one).1), (5, 50), "what was cut is not delivered");
    wal.close().unwrap();
    assert!(matches!(one.commit(lsns[5]), Err(Error::Closed)));
    assert!(matches!(wal.consumer("late"), Err(Error::Closed)));
}

#[test]
fn damaged_position_of_a_consumer_is_an_error() {
    let temp = Temp::new();
    let open = || small(&temp.log()).open();
    let wal = open().unwrap();
    let lsns = fill(&wal, 0, 10);
    let mut consumer = wal.consumer("c").unwrap();
    consumer.commit(lsns[2]).unwrap();
    consumer.commit(lsns[6]).unwrap();
    drop(consumer);
    wal.close().unwrap();
    let path = file(&temp.log(), "c");
    let sound = std::fs::read(&path).unwrap();
    let position = || open().map(|wal| wal.consumers()[0].position.as_u64());
    let (before, last) = (lsns[2].as_u64() + 1, lsns[6].as_u64() + 1);
    for slot in 0..2 {
        for at in [0, 5, 9, 24, 33, 39] {
            let mut bytes = sound.clone();
            bytes[slot * 4096 + at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            let found = position().unwrap();
            assert!(found == last || found == before, "slot {slot}, byte {at}: {found}");
            bytes[(1 - slot) * 4096 + at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            match position() {
                Err(Error::ConsumerDamaged { file }) => assert!(file.ends_with("wal.consumer.c")),
                other => panic!("{other:?}"),
            }
        }
    }
    for len in [0, 10, 39] {
        std::fs::write(&path, &sound[..len]).unwrap();
        assert!(matches!(position(), Err(Error::ConsumerDamaged { .. })), "{len} bytes");
    }
    // A position of another log is refused.
    let other = Temp::new();
    let stranger = small(&other.log()).open().unwrap();
    fill(&stranger, 0, 3);
    drop(stranger.consumer("c").unwrap());
    stranger.close().unwrap();
    std::fs::copy(file(&other.log(), "c"), &path).unwrap();
    assert!(matches!(position(), Err(Error::ConsumerDamaged { .. })));
    std::fs::remove_file(&path).unwrap();
    if crate::support::symlink(&file(&other.log(), "c"), &path) {
        assert!(matches!(position(), Err(Error::Io { .. })), "links are not followed");
        std::fs::remove_file(&path).unwrap();
    }
    assert!(open().unwrap().consumers().is_empty(), "given up");
}

/// Everything below a position was durable when it was stored. So a log that ends below it has lost
/// its end.
#[test]
fn log_that_ends_below_a_position_is_corruption() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let lsns = fill(&wal, 0, 400);
    let mut consumer = wal.consumer("c").unwrap();
    consumer.commit(lsns[300]).unwrap();
    drop(consumer);
    wal.close().unwrap();
    let keep = |dir: &Path, segments: usize| {
        for lost in &crate::support::segments(dir)[segments..] {
            std::fs::remove_file(lost).unwrap();
        }
    };
    let committed = (lsns[300].as_u64() >> 16) as usize;
    // The lost end lies above the position, so no file proves the loss.
    let copy = temp.path().join("behind");
    copy_dir(&temp.log(), &copy);
    keep(&copy, committed + 1);
    assert_eq!(
        small(&copy).open().unwrap().consumers()[0].position.as_u64(),
        lsns[300].as_u64() + 1
    );
    let copy = temp.path().join("before");
    copy_dir(&temp.log(), &copy);
    keep(&copy, committed);
    for _ in 0..2 {
        match small(&copy).open() {
            Err(Error::Corruption { lsn, reason, .. }) => {
                assert!(lsn <= lsns[300] && reason.contains("consumer"), "{lsn}: {reason}");
            }
            other => panic!("{:?}", other.map(drop)),
        }
    }
    // A reader refuses it only where it can see that no writer lives.
    let read = ringwal::ReadOnlyWal::open(&copy);
    assert!(matches!(read, Err(Error::Corruption { .. })) || !cfg!(ofd_locks));
    // A repair moves the position away. Then no file proves the loss.
    let log = ringwal::inspect::Directory::open(&copy, "wal").unwrap();
    let survey = log.survey(&mut |_| {}).unwrap();
    assert_eq!(survey.damage.len(), 1, "{:?}", survey.damage);
    let plan = log.plan_repair(&survey, ringwal::inspect::Keep::Before).unwrap().unwrap();
    assert_eq!(plan.consumers, ["wal.consumer.c"]);
    plan.apply().unwrap();
    let wal = small(&copy).open().unwrap();
    assert!(crate::support::read_all(&wal).len() < 300);
}

fn bounded(dir: &Path) -> WalBuilder {
    small(dir).max_segments(4)
}

#[test]
fn segments_stay_for_a_consumer_attached_or_not() {
    let temp = Temp::new();
    let wal = bounded(&temp.log()).open().unwrap();
    let lsns = fill(&wal, 0, 20);
    let mut consumer = wal.consumer("slow").unwrap();
    consumer.commit(lsns[10]).unwrap();
    drop(consumer);
    wal.close().unwrap();
    // The consumer is not attached, and the log was opened again.
    let wal = bounded(&temp.log()).open().unwrap();
    fill(&wal, 20, 1500);
    assert_eq!(wal.oldest_lsn(), Lsn::ZERO);
    assert_eq!(wal.truncate_before(wal.durable_end()).unwrap(), Lsn::ZERO);
    // No group states the segments as removed, or the next open would remove them.
    wal.close().unwrap();
    let wal = bounded(&temp.log()).open().unwrap();
    assert_eq!(wal.oldest_lsn(), Lsn::ZERO);
    let mut consumer = wal.consumer("slow").unwrap();
    let mut last = lsns[10];
    for n in 11..1500 {
        let (lsn, found) = next(&mut consumer);
        assert_eq!(found, n);
        last = lsn;
    }
    consumer.commit(last).unwrap();
    assert_eq!(consumer.lag(), 0);
    drop(consumer);
    let oldest = wal.truncate_before(wal.durable_end()).unwrap();
    assert!(oldest > Lsn::ZERO, "now it may go");
    // A removed consumer holds no segment.
    drop(wal.consumer("gone").unwrap());
    fill(&wal, 1500, 2500);
    assert_eq!(wal.truncate_before(wal.durable_end()).unwrap(), oldest);
    wal.remove_consumer("gone").unwrap();
    wal.remove_consumer("slow").unwrap();
    assert!(wal.truncate_before(wal.durable_end()).unwrap() > oldest);
    assert!(!file(&temp.log(), "gone").exists());
}

#[test]
fn consumer_that_lags_beyond_the_limit_is_overtaken_with_an_error() {
    let temp = Temp::new();
    let builder = || bounded(&temp.log()).consumer_limit(LIMIT);
    let wal = builder().open().unwrap();
    fill(&wal, 0, 20);
    let mut consumer = wal.consumer("slow").unwrap();
    assert_eq!(next(&mut consumer).1, 0);
    drop(consumer);
    fill(&wal, 20, 400);
    assert_eq!(wal.oldest_lsn(), Lsn::ZERO, "within the limit it is waited for");
    let mut written = 400;
    while wal.durable_end().as_u64() < 2 * LIMIT {
        fill(&wal, written, written + 500);
        written += 500;
    }
    wal.truncate_before(wal.durable_end()).unwrap();
    fill(&wal, written, written + 10);
    let mut consumer = wal.consumer("slow").unwrap();
    match consumer.records().map(|_| ()) {
        Err(Error::Pruned { oldest }) => assert_eq!(oldest, wal.oldest_lsn()),
        other => panic!("{other:?}"),
    }
    let first = consumer.position();
    assert!(matches!(consumer.seek(first), Err(Error::Pruned { .. })));
    assert_eq!(consumer.position(), first);
    consumer.seek(Lsn::ZERO).unwrap();
    let (lsn, n) = next(&mut consumer);
    assert!(n > 400 && lsn >= wal.oldest_lsn());
    consumer.commit(lsn).unwrap();
    drop(consumer);
    wal.close().unwrap();
    let wal = builder().open().unwrap();
    assert_eq!(next(&mut wal.consumer("slow").unwrap()).1, n + 1);
}

#[test]
fn consumer_waits_for_the_next_record() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let mut consumer = wal.consumer("c").unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut seen = Vec::new();
            while let Some(record) = consumer.records().unwrap().next_ref().unwrap() {
                let (lsn, n) = (record.lsn, number(record.payload));
                seen.push(n);
                if n == 99 {
                    consumer.commit(lsn).unwrap();
                }
            }
            seen
        });
        fill(&wal, 0, 100);
        // Close only after the commit: a closed log stores no position.
        while wal.consumers()[0].position <= Lsn::new(1) {
            std::thread::yield_now();
        }
        wal.close().unwrap();
        assert_eq!(reader.join().unwrap(), (0..100).collect::<Vec<_>>());
    });
}

/// The limit holds also for an attached consumer that stops reading.
#[test]
fn attached_consumer_beyond_the_limit_is_overtaken_with_an_error() {
    let temp = Temp::new();
    let wal = bounded(&temp.log()).consumer_limit(LIMIT).open().unwrap();
    fill(&wal, 0, 20);
    let mut consumer = wal.consumer("hangs").unwrap();
    assert_eq!(next(&mut consumer).1, 0);
    fill(&wal, 20, 400);
    assert_eq!(wal.oldest_lsn(), Lsn::ZERO, "within the limit it is waited for");
    let mut written = 400;
    while wal.oldest_lsn() == Lsn::ZERO {
        fill(&wal, written, written + 100);
        written += 100;
        let end = wal.durable_end().as_u64();
        assert!(end < 8 * LIMIT, "what it holds stays beyond the limit");
    }
    wal.truncate_before(wal.durable_end()).unwrap();
    // Appended so that the log has records above the oldest.
    fill(&wal, written, written + 10);
    let mut expected = 1;
    let failed = loop {
        match consumer.records().unwrap().try_next() {
            Ok(Some(record)) => assert_eq!(record.payload, payload(expected)),
            other => break other.map(|found| found.map(|r| r.lsn)),
        }
        expected += 1;
    };
    assert!(matches!(failed, Err(Error::Pruned { .. })), "{failed:?}");
    for _ in 0..2 {
        let again = consumer.records().map(|_| ());
        assert!(matches!(again, Err(Error::Pruned { .. })), "{again:?}");
    }
    consumer.seek(Lsn::ZERO).unwrap();
    let (lsn, n) = next(&mut consumer);
    assert!(lsn >= wal.oldest_lsn() && n > 0);
}

#[test]
fn consumer_of_a_cut_record_gets_truncated_once_and_continues() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let lsns = fill(&wal, 0, 4);
    let mut consumer = wal.consumer("c").unwrap();
    for n in 0..3 {
        assert_eq!(next(&mut consumer).1, n);
    }
    consumer.commit(lsns[0]).unwrap();
    wal.truncate_from(lsns[2]).unwrap();
    fill(&wal, 7, 8);
    let told = consumer.records().unwrap().next_ref().map(|_| ());
    assert!(matches!(told, Err(Error::Truncated { .. })), "{told:?}");
    assert_eq!((next(&mut consumer).1, next(&mut consumer).1), (1, 7), "from the position on");
    // A commit above the last delivered record skips the records between.
    let lsns = fill(&wal, 8, 20);
    consumer.commit(lsns[5]).unwrap();
    assert_eq!(next(&mut consumer).1, 14);
}

/// Retention may have chosen segments before the consumer is attached. It must not remove the
/// consumer's first segment afterwards.
#[test]
fn new_consumer_is_not_overtaken_by_a_removal_in_progress() {
    let temp = Temp::new();
    let wal = small(&temp.log()).max_segments(3).ring_capacity(32 << 10).open().unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                wal.append(&[7; 3900]).unwrap();
            }
        });
        let ends = SetOnDrop(&over);
        let begun = Instant::now();
        let attempts = || {
            for n in 0..2000 {
                let mut new = wal.consumer("new").map_err(|e| e.to_string())?;
                let position = new.position();
                // The consumer holds its segment now. A removal in progress completes.
                let looked = Instant::now();
                while looked.elapsed() < Duration::from_micros(300) {
                    if wal.oldest_lsn() > position.max(Lsn::new(1)) {
                        return Err(format!("{n}: at {position}, kept from {}", wal.oldest_lsn()));
                    }
                }
                new.records().map_err(|e| format!("{n}: {e}"))?;
                drop(new);
                wal.remove_consumer("new").map_err(|e| e.to_string())?;
                if begun.elapsed() > Duration::from_secs(6) {
                    break;
                }
            }
            Ok::<(), String>(())
        };
        let attempted = attempts();
        drop(ends);
        // The appends go on until the thread sees the flag, so no consumer may hold segments.
        let _ = wal.remove_consumer("new");
        attempted.unwrap();
    });
}

/// A cut and a commit of one of its records: one of them must fail, whichever comes first.
#[test]
fn commit_beside_a_cut_of_its_record_fails_or_makes_the_cut_fail() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        let (mut consumed, mut cut) = (0, 0);
        for round in 0..60 {
            let lsns = fill(&wal, 0, 4);
            let mut consumer = wal.consumer("c").unwrap();
            let together = std::sync::Barrier::new(2);
            let (stored, made) = std::thread::scope(|scope| {
                let truncating = scope.spawn(|| {
                    together.wait();
                    wal.truncate_from(lsns[2])
                });
                together.wait();
                // In some rounds the cut has begun already.
                (0..round % 4 * 500).for_each(|_| std::hint::spin_loop());
                let stored = match round % 3 {
                    0 => consumer.commit(lsns[2]),
                    1 => consumer.commit(lsns[3]),
                    _ => consumer.seek(lsns[3]),
                };
                (stored, truncating.join().unwrap())
            });
            match (stored, made) {
                (Ok(()), Err(Error::Consumed { name, position })) => {
                    assert_eq!(name, "c");
                    assert!(position > lsns[2]);
                    consumed += 1;
                }
                (Err(Error::Truncated { from, .. }), Ok(_)) => {
                    assert_eq!(from, lsns[2]);
                    cut += 1;
                }
                other => panic!("round {round}: {other:?}"),
            }
            // Afterwards as well.
            if wal.read(lsns[2]).is_err() {
                let before = consumer.position();
                for lsn in &lsns[2..] {
                    let void = consumer.commit(*lsn);
                    assert!(matches!(void, Err(Error::Truncated { .. })), "{void:?}");
                    assert_eq!(consumer.position(), before);
                }
                assert!(matches!(consumer.seek(lsns[3]), Err(Error::Truncated { .. })));
                consumer.seek(wal.durable_end()).unwrap();
            } else {
                consumer.commit(lsns[3]).unwrap();
            }
            assert_eq!(wal.consumers()[0].position, consumer.position());
        }
        assert_eq!(consumed + cut, 60);
    }
}

/// A consumer at the first record of a batch has consumed nothing of the batch.
#[test]
fn cut_at_the_batch_that_a_consumer_reads_next_is_made() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let first = wal.append_batch(&["a", "b"]).unwrap();
    wal.sync().unwrap();
    let mut consumer = wal.consumer("c").unwrap();
    consumer.seek(first).unwrap();
    wal.truncate_from(first).unwrap();
    assert!(matches!(consumer.commit(first), Err(Error::Truncated { .. })));
    wal.append_durable(b"c").unwrap();
    assert_eq!(consumer.records().unwrap().next_ref().unwrap().unwrap().payload, b"c");
}
