//! A backward reader returns the records of a forward reader, from every position.

use crate::support::{Temp, backends, read_all, small};
use ringwal::{Error, Lsn, ReadOnlyWal, Wal};

fn back(wal: &Wal, before: Lsn) -> Vec<(Lsn, Vec<u8>)> {
    let mut found: Vec<_> =
        wal.reader_back(before).map(|r| r.map(|r| (r.lsn, r.payload)).unwrap()).collect();
    found.reverse();
    found
}

#[test]
fn backward_reader_returns_the_forward_records_from_every_position() {
    for backend in backends() {
        let temp = Temp::new();
        for round in 0..3_u32 {
            let wal = small(&temp.log()).backend(backend).open().unwrap();
            assert!(back(&wal, wal.durable_end()) == read_all(&wal));
            for n in 0..150 {
                let len = (n * 977 + round * 131) as usize % 2500;
                if n % 20 == 3 {
                    wal.append_batch(&[vec![1; len], vec![], vec![3; 9]]).unwrap();
                } else {
                    wal.append(&vec![n as u8; len]).unwrap();
                }
                if n % 7 == 0 {
                    wal.sync().unwrap();
                }
            }
            let all = read_all(&wal);
            let from = all.iter().rev().skip(30).find(|(lsn, _)| wal.truncate_from(*lsn).is_ok());
            assert!(from.is_some());
            wal.append_durable(b"behind the cut").unwrap();
            let all = read_all(&wal);
            assert!(back(&wal, Lsn::new(u64::MAX)) == all);
            for (at, (lsn, _)) in all.iter().enumerate().step_by(7) {
                assert!(back(&wal, *lsn) == all[..at], "before {lsn}");
                assert!(back(&wal, Lsn::new(lsn.as_u64() + 1)) == all[..=at], "with {lsn}");
            }
            for place in (0..wal.durable_end().as_u64()).step_by(12_345) {
                let expected = all.partition_point(|(lsn, _)| lsn.as_u64() < place);
                assert!(back(&wal, Lsn::new(place)) == all[..expected], "before {place}");
            }
            let outside = ReadOnlyWal::open(temp.log()).unwrap();
            let records = outside.reader_back(wal.durable_end()).unwrap();
            assert!(records.map(|r| r.unwrap().lsn).eq(all.iter().rev().map(|(lsn, _)| *lsn)));
            wal.close().unwrap();
        }
    }
}

#[test]
fn backward_reader_ends_at_the_oldest_kept_record() {
    let temp = Temp::new();
    let wal = small(&temp.log()).max_segments(4).open().unwrap();
    for n in 0..800_u32 {
        wal.append(&vec![n as u8; 1000]).unwrap();
    }
    wal.sync().unwrap();
    let mut reader = wal.reader_back(wal.durable_end());
    let newest = reader.next().unwrap().unwrap();
    assert_eq!(newest.payload, vec![799_u32 as u8; 1000]);
    wal.truncate_before(newest.lsn).unwrap();
    let oldest = wal.oldest_lsn();
    let last = reader.map(|r| r.unwrap().lsn).last().unwrap_or(newest.lsn);
    assert!(last >= oldest);
    assert_eq!(wal.reader(Lsn::ZERO).next().unwrap().unwrap().lsn, last);
}

#[test]
fn backward_reader_from_below_the_oldest_is_pruned() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let first = wal.append_durable(b"first").unwrap();
    for n in 0..300_u32 {
        wal.append(&vec![n as u8; 1000]).unwrap();
    }
    wal.truncate_before(wal.sync().unwrap()).unwrap();
    let oldest = wal.oldest_lsn();
    assert!(oldest > first);
    let outside = ReadOnlyWal::open(temp.log()).unwrap();
    for mut reader in [wal.reader_back(first), outside.reader_back(first).unwrap()] {
        match reader.next() {
            Some(Err(Error::Pruned { oldest: told })) => assert_eq!(told, oldest),
            other => panic!("{other:?}"),
        }
        assert!(reader.next().is_none());
    }
    assert!(wal.reader_back(oldest).next().is_none(), "all that is kept lies above");
    assert!(wal.reader_back(Lsn::ZERO).next().is_none());
}
