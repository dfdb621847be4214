//! `truncate_from`: void records never return, and records before and after the cut stay.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{SetOnDrop, Temp, backends, copy_dir, eventually, read_all, small};
use ringwal::{Durability, Error, Lsn, Wal};

fn payloads(wal: &Wal) -> Vec<Vec<u8>> {
    read_all(wal).into_iter().map(|(_, payload)| payload).collect()
}

fn numbered(n: u32) -> Vec<u8> {
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.resize(4 + (n as usize * 131) % 2500, n as u8);
    bytes
}

#[test]
fn void_records_stay_void_over_rotation_and_reopen() {
    for backend in backends() {
        for durability in [
            Durability::EveryGroup,
            Durability::Manual,
            Durability::Interval(Duration::from_millis(2)),
        ] {
            let temp = Temp::new();
            let open =
                || small(&temp.log()).backend(backend).durability(durability).open().unwrap();
            let mut expected: Vec<Vec<u8>> = Vec::new();
            let mut next = 0;
            for round in 0..4 {
                let wal = open();
                assert_eq!(payloads(&wal), expected, "round {round}");
                let mut cut = None;
                for n in 0..300 {
                    let lsn = wal.append(&numbered(next)).unwrap();
                    if n == 40 + 60 * round {
                        cut = Some((lsn, expected.len()));
                    }
                    expected.push(numbered(next));
                    next += 1;
                }
                let (from, kept) = cut.unwrap();
                let to = wal.truncate_from(from).unwrap();
                assert!(to > from && wal.durable_end() > to);
                expected.truncate(kept);
                assert_eq!(payloads(&wal), expected, "round {round}");
                let again = wal.append(b"behind the cut").unwrap();
                assert!(again > to, "positions are not given out again");
                expected.push(b"behind the cut".to_vec());
                // A copy has no mark of a close, as after a kill.
                wal.sync().unwrap();
                let copy = temp.path().join(format!("copy-{round}"));
                copy_dir(&temp.log(), &copy);
                let copied = small(&copy).open().unwrap();
                assert_eq!(payloads(&copied), expected, "round {round}");
                wal.close().unwrap();
            }
        }
    }
}

#[test]
fn read_of_a_void_position_is_truncated() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let kept = wal.append(b"kept").unwrap();
    let mark = wal.sync().unwrap();
    let void = wal.append(b"void").unwrap();
    let mut ahead = wal.follow(Lsn::ZERO).unwrap();
    let mut behind = wal.follow(Lsn::ZERO).unwrap();
    wal.sync().unwrap();
    for _ in 0..2 {
        assert!(ahead.next_ref().unwrap().is_some());
    }
    assert_eq!(behind.next_ref().unwrap().unwrap().lsn, kept);
    // A former durable end is a valid place to cut.
    let to = wal.truncate_from(mark).unwrap();
    for error in [
        wal.read(void).map(|_| ()).unwrap_err(),
        wal.wait_durable(void).unwrap_err(),
        ahead.next_ref().map(|_| ()).unwrap_err(),
    ] {
        assert!(
            matches!(error, Error::Truncated { from, to: t } if from <= void && t == to),
            "{error}"
        );
    }
    assert!(ahead.next_ref().unwrap().is_none(), "it has ended");
    wal.wait_durable(kept).unwrap();
    assert_eq!(wal.read(kept).unwrap().payload, b"kept");
    let new = wal.append_durable(b"new").unwrap();
    assert_eq!(behind.next_ref().unwrap().unwrap().lsn, new, "it never sees what was cut");
    assert_eq!(wal.reader(void).next().unwrap().unwrap().lsn, new);
    assert_eq!(wal.follow(void).unwrap().next().unwrap().unwrap().lsn, new);
}

#[test]
fn cut_at_an_invalid_place_is_refused_and_changes_nothing() {
    let temp = Temp::new();
    // Long enough that no idle seal is written before the test reads the end.
    let idle = Duration::from_secs(1);
    let wal = small(&temp.log()).max_segments(3).idle_seal(idle).open().unwrap();
    let first = wal.append_durable(b"first").unwrap();
    let batch = wal.append_batch(&["a", "b", "c"]).unwrap();
    // Each record in a group of its own, or some of them together.
    wal.sync().unwrap();
    let last = wal.append(&[7; 100]).unwrap();
    let end = wal.sync().unwrap();
    let inside = Lsn::new(batch.as_u64() + 16);
    assert_eq!(wal.read(inside).unwrap().payload, b"b");
    match wal.truncate_from(inside) {
        Err(Error::InsideBatch { lsn, first }) => assert_eq!((lsn, first), (inside, batch)),
        other => panic!("{other:?}"),
    }
    for lsn in [first, last, batch].map(|lsn| Lsn::new(lsn.as_u64() + 4)) {
        assert!(matches!(wal.truncate_from(lsn), Err(Error::NoRecord { .. })), "{lsn}");
    }
    for beyond in [wal.durable_end().as_u64() + (1 << 30), u64::MAX].map(Lsn::new) {
        match wal.truncate_from(beyond) {
            Err(Error::NotAppended { lsn, end }) => assert!(lsn == beyond && end < beyond),
            other => panic!("{other:?}"),
        }
    }
    // With no record to cut, the call does nothing.
    assert!(wal.truncate_from(end).unwrap() >= end);
    eventually("it seals itself", || wal.durable_end() > end);
    assert!(wal.truncate_from(end).unwrap() > end, "behind the seal");
    assert_eq!(payloads(&wal).len(), 5);
    // A batch is cut as a whole.
    wal.truncate_from(batch).unwrap();
    assert_eq!(payloads(&wal), [b"first"]);
    for n in 0..400 {
        wal.append(&numbered(n)).unwrap();
    }
    wal.sync().unwrap();
    while wal.oldest_lsn() == Lsn::ZERO {
        std::thread::yield_now();
    }
    assert!(matches!(wal.truncate_from(first), Err(Error::Pruned { .. })));
    let before = payloads(&wal);
    wal.close().unwrap();
    assert!(matches!(wal.truncate_from(last), Err(Error::Closed)));
    assert!(before.ends_with(&payloads(&wal)), "retention may have gone on");
}

/// Cuts while other threads append. The position alone decides whether a record is void.
#[test]
fn cut_beside_appends_voids_records_by_position_alone() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        let over = AtomicBool::new(false);
        let (appended, cuts) = std::thread::scope(|scope| {
            let producers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut lsns = Vec::new();
                        while !over.load(Ordering::Relaxed) {
                            lsns.push(wal.append(&numbered(lsns.len() as u32)).unwrap());
                        }
                        lsns
                    })
                })
                .collect();
            let ends = SetOnDrop(&over);
            let mut cuts = Vec::new();
            for _ in 0..25 {
                let from = wal.append(b"from here").unwrap();
                wal.append(b"void").unwrap();
                cuts.push((from, wal.truncate_from(from).unwrap()));
            }
            drop(ends);
            let appended: Vec<_> = producers.into_iter().flat_map(|p| p.join().unwrap()).collect();
            (appended, cuts)
        });
        let mut kept: Vec<_> = appended
            .into_iter()
            .filter(|lsn| !cuts.iter().any(|(from, to)| (from..to).contains(&lsn)))
            .collect();
        kept.sort_unstable();
        let lsns = |wal: &Wal| read_all(wal).into_iter().map(|(lsn, _)| lsn).collect::<Vec<_>>();
        assert_eq!(lsns(&wal), kept);
        wal.close().unwrap();
        assert_eq!(lsns(&small(&temp.log()).open().unwrap()), kept);
    }
}

/// Retention may have removed the cut group's segment. Or the cut group is kept while its void
/// records are removed.
#[test]
fn retention_removes_segments_with_cuts() {
    let temp = Temp::new();
    let builder = || small(&temp.log()).max_segments(4);
    let wal = builder().open().unwrap();
    for round in 0..40 {
        let from = wal.append(b"void").unwrap();
        for n in 0..20 {
            wal.append(&numbered(n + round)).unwrap();
        }
        wal.truncate_from(from).unwrap();
        wal.append(format!("round {round}").as_bytes()).unwrap();
    }
    wal.sync().unwrap();
    let found = payloads(&wal);
    assert!(found.len() < 40 && found.last().unwrap() == b"round 39");
    wal.close().unwrap();
    let again = payloads(&builder().open().unwrap());
    assert!(found.ends_with(&again) && again.last().unwrap() == b"round 39");
}

/// A former durable end is a valid place to cut, whatever follows it: an idle seal, the mark of a
/// close, an epoch group, or an earlier cut.
#[test]
fn cut_at_a_former_end_voids_everything_after_it() {
    for backend in backends() {
        let temp = Temp::new();
        let idle = Duration::from_millis(500);
        let open = || small(&temp.log()).backend(backend).idle_seal(idle).open().unwrap();
        let wal = open();
        wal.append(b"kept").unwrap();
        let mark = wal.sync().unwrap();
        eventually("it seals itself", || wal.durable_end() > mark);
        let behind = wal.append_durable(b"behind the mark of an idle log").unwrap();
        assert!(behind > Lsn::new(mark.as_u64() + 4096));
        wal.truncate_from(mark).unwrap();
        assert_eq!(payloads(&wal), [b"kept"]);
        // Cut at the same place again, and at a void record: everything appended since is cut.
        for from in [mark, behind] {
            wal.append_durable(b"once more").unwrap();
            wal.truncate_from(from).unwrap();
            assert_eq!(payloads(&wal), [b"kept"]);
        }
        let end = wal.durable_end();
        wal.close().unwrap();
        let wal = open();
        wal.append_durable(b"behind an opening").unwrap();
        wal.close().unwrap();
        let wal = open();
        wal.append_batch(&["and", "another"]).unwrap();
        wal.truncate_from(end).unwrap();
        assert_eq!(payloads(&wal), [b"kept"]);
        // Cut every record.
        for (n, everything) in [Lsn::ZERO, wal.oldest_lsn()].into_iter().enumerate() {
            wal.append_batch(&["first", "second"]).unwrap();
            wal.truncate_from(everything).unwrap();
            assert!(payloads(&wal).is_empty(), "{n}");
        }
        wal.append_durable(b"a new beginning").unwrap();
        wal.close().unwrap();
        let wal = open();
        assert_eq!(payloads(&wal), [b"a new beginning"]);
        // Zero means the oldest record, in a log whose first records retention removed.
        for n in 0..200 {
            wal.append(&numbered(n)).unwrap();
        }
        wal.truncate_before(wal.sync().unwrap()).unwrap();
        assert!(wal.oldest_lsn() > Lsn::ZERO);
        wal.truncate_from(Lsn::ZERO).unwrap();
        assert!(payloads(&wal).is_empty());
    }
}

#[test]
fn cut_inside_the_last_record_is_refused() {
    for backend in backends() {
        let temp = Temp::new();
        let open = || small(&temp.log()).backend(backend).open().unwrap();
        let mut wal = open();
        let lsn = wal.append_durable(&[7; 166]).unwrap();
        for _ in 0..2 {
            for inside in [1, 76, 166] {
                let refused = wal.truncate_from(Lsn::new(lsn.as_u64() + inside));
                assert!(matches!(refused, Err(Error::NoRecord { .. })), "{inside}: {refused:?}");
            }
            assert_eq!(payloads(&wal), [vec![7; 166]]);
            // The close and the open append groups without records.
            wal.close().unwrap();
            wal = open();
        }
        let refused = wal.truncate_from(Lsn::new(lsn.as_u64() + 76));
        assert!(matches!(refused, Err(Error::NoRecord { .. })), "{refused:?}");
        assert_eq!(payloads(&wal), [vec![7; 166]]);
    }
}

/// A sync or a replay covers the records at its call. A concurrent cut makes some of them void,
/// which is no error of either.
#[test]
fn sync_and_replay_beside_cuts_never_return_truncated() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        wal.append(b"perhaps void").unwrap();
                        wal.sync().unwrap();
                    }
                });
            }
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    wal.append(b"perhaps void").unwrap();
                    let replayed = wal.replay(|_, _| Ok::<(), Error>(()));
                    assert!(replayed.is_ok(), "{replayed:?}");
                }
            });
            let _ends = SetOnDrop(&over);
            for _ in 0..150 {
                let from = wal.append(b"void").unwrap();
                wal.truncate_from(from).unwrap();
            }
        });
    }
}
