//! A log is opened, appended to, closed or dropped, and opened again: every record is returned.

use crate::support::{SetOnDrop, Temp, backends, read_all, segments, small};
use ringwal::{Error, Lsn, Wal};

fn payload(n: usize) -> Vec<u8> {
    (0..(n * 131) % 2000).map(|i| (i ^ n) as u8).collect()
}

#[test]
fn every_record_is_returned_with_its_position_on_both_backends() {
    for backend in backends() {
        let temp = Temp::new();
        let mut expected = Vec::new();
        for epoch in 1..=4 {
            let wal = small(&temp.log()).backend(backend).open().unwrap();
            assert_eq!(wal.recovery().epoch, epoch);
            assert_eq!(wal.recovery().clean, epoch > 1);
            assert_eq!(wal.recovery().next_ordinal, expected.len() as u64);
            assert_eq!(read_all(&wal), expected);
            for n in 0..150 {
                let payload = payload(n);
                expected.push((wal.append(&payload).unwrap(), payload));
            }
            wal.close().unwrap();
        }
        assert!(segments(&temp.log()).len() > 4, "it has rotated");
        assert!(expected.windows(2).all(|w| w[0].0 < w[1].0), "positions rise over reopening");
    }
}

#[test]
fn log_of_one_backend_opens_with_the_other() {
    let temp = Temp::new();
    let mut expected = Vec::new();
    for turn in 0..6 {
        let all = backends();
        let wal = small(&temp.log()).backend(all[turn % all.len()]).open().unwrap();
        assert_eq!(read_all(&wal), expected);
        for n in 0..60 {
            let payload = payload(turn * 100 + n);
            expected.push((wal.append_durable(&payload).unwrap(), payload));
        }
        drop(wal);
    }
}

#[test]
fn records_up_to_the_maximum_length_are_accepted_and_longer_ones_refused() {
    let temp = Temp::new();
    let wal = small(&temp.log()).max_record_size(5000).open().unwrap();
    let mut expected = Vec::new();
    for len in [0, 1, 3, 4, 5, 7, 8, 100, 4083, 4084, 4085, 4999, 5000] {
        let payload = vec![len as u8; len];
        expected.push((wal.append(&payload).unwrap(), payload));
    }
    match wal.append(&[0; 5001]) {
        Err(Error::RecordTooLarge { len: 5001, max: 5000 }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(read_all(&wal), expected);
}

#[test]
fn drop_of_the_last_handle_closes_cleanly_and_earlier_drops_do_not() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let second = wal.clone();
    drop(wal);
    second.append(b"after the first drop").unwrap();
    drop(second);
    let wal = small(&temp.log()).open().unwrap();
    assert!(wal.recovery().clean);
    assert_eq!(read_all(&wal).len(), 1);
}

#[test]
fn close_of_one_handle_closes_all_and_leaves_durable_records_readable() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let other = wal.clone();
    let lsn = wal.append(b"kept").unwrap();
    wal.close().unwrap();
    wal.close().unwrap();
    assert!(matches!(other.append(b"late"), Err(Error::Closed)));
    assert!(matches!(other.try_append(b"late"), Err(Error::Closed)));
    assert!(matches!(other.append_batch(&[b"late"]), Err(Error::Closed)));
    assert!(other.wait_durable(lsn).is_ok());
    assert_eq!(other.read(lsn).unwrap().payload, b"kept");
    assert_eq!(read_all(&other).len(), 1);
    // The log can be opened again while old handles exist.
    let again = small(&temp.log()).open().unwrap();
    assert_eq!(read_all(&again).len(), 1);
}

#[test]
fn repeated_reopens_delete_nothing() {
    let temp = Temp::new();
    for n in 0..20_u8 {
        let wal = Wal::builder(temp.log()).segment_size(1 << 20).max_segments(2).open().unwrap();
        assert_eq!(read_all(&wal).len(), usize::from(n));
        wal.append_durable(&[n]).unwrap();
    }
}

#[test]
fn batch_has_a_position_for_each_record_and_is_returned_whole() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let items: Vec<Vec<u8>> = (0..40).map(payload).map(|p| p[..p.len().min(100)].into()).collect();
    let first = wal.append_batch(&items).unwrap();
    let after = wal.append(b"after").unwrap();
    let all = read_all(&wal);
    assert_eq!(all.len(), 41);
    assert_eq!(all[0].0, first);
    assert_eq!(all[40], (after, b"after".to_vec()));
    for (i, (lsn, payload)) in all.iter().enumerate() {
        assert_eq!(wal.read(*lsn).unwrap().payload, *payload, "{i}");
    }
    assert!(matches!(wal.append_batch::<&[u8]>(&[]), Err(Error::EmptyBatch)));
    let huge = vec![vec![0; 4000]; 40];
    assert!(matches!(wal.append_batch(&huge), Err(Error::RecordTooLarge { .. })));
}

#[test]
fn read_at_a_position_that_is_no_records_is_refused() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let lsns: Vec<Lsn> = (0..200).map(|n| wal.append(&payload(n)).unwrap()).collect();
    wal.sync().unwrap();
    for (n, lsn) in lsns.iter().enumerate() {
        assert_eq!(wal.read(*lsn).unwrap().payload, payload(n));
        for off in [1, 4, 8] {
            let beside = Lsn::new(lsn.as_u64() + off);
            if !lsns.contains(&beside) && beside < wal.durable_end() {
                assert!(matches!(wal.read(beside), Err(Error::NoRecord { .. })), "{beside}");
            }
        }
        // A reader starts at the first record at or after its position.
        let from = Lsn::new(lsn.as_u64() - 1);
        let first = wal.reader(from).next().unwrap().unwrap();
        assert_eq!(first.lsn, *lsn);
        assert_eq!(wal.reader(*lsn).count(), lsns.len() - n);
    }
    let end = wal.durable_end();
    assert!(wal.reader(end).next().is_none());
    assert!(matches!(wal.read(Lsn::new(end.as_u64() + (1 << 30))), Err(Error::NotAppended { .. })));
}

#[test]
fn several_logs_share_a_directory_with_foreign_files() {
    let temp = Temp::new();
    std::fs::create_dir_all(temp.log()).unwrap();
    let foreign =
        ["wal.wal", "notes.txt", "a.b.lock.old", "wal.1.wal", "a.00000000000000000000.wax"];
    for name in foreign {
        std::fs::write(temp.log().join(name), name).unwrap();
    }
    for round in 0..3 {
        for prefix in ["a", "a.b", "a.b.c", "wal", "with space"] {
            let wal = small(&temp.log()).prefix(prefix).open().unwrap();
            assert_eq!(read_all(&wal).len(), round);
            wal.append(prefix.as_bytes()).unwrap();
        }
    }
    for name in foreign {
        assert_eq!(std::fs::read(temp.log().join(name)).unwrap(), name.as_bytes());
    }
}

#[test]
fn replay_while_others_append_sees_a_prefix_without_gaps() {
    let temp = Temp::new();
    let wal = Wal::builder(temp.log()).segment_size(1 << 20).open().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            // A bound: where appends are faster than a replay, as under an emulator, each replay
            // would find several times as many records as the one before.
            for n in 1..=50_000_u64 {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                wal.append(&(n - 1).to_le_bytes()).unwrap();
                if n.is_multiple_of(100) {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
        });
        let _ends = SetOnDrop(&stop);
        let mut before = 0;
        for _ in 0..20 {
            let mut next = 0_u64;
            let count = wal
                .replay(|_, p| {
                    assert_eq!(p, next.to_le_bytes());
                    next += 1;
                    Ok::<(), ()>(())
                })
                .unwrap();
            assert!(count >= before);
            before = count;
        }
    });
}

#[test]
fn error_of_the_function_ends_the_replay() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let lsns: Vec<_> = (0..5_u8).map(|n| wal.append(&[n]).unwrap()).collect();
    let refused = wal.replay(|_, p| if p == [3] { Err("three") } else { Ok(()) });
    match refused {
        Err(ringwal::ReplayError::Apply { lsn, error: "three" }) => assert_eq!(lsn, lsns[3]),
        other => panic!("{other:?}"),
    }
}
