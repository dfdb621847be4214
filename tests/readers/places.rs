//! Ordinals and times: every reader states them, and finds records by them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{Temp, backends, small};
use ringwal::{Error, Lsn, ReadOnlyWal, Wal};

/// What was appended: the position of each ordinal, `None` once it was cut.
type Known = Vec<Option<(Lsn, Vec<u8>)>>;

fn append(wal: &Wal, known: &mut Known, round: usize) {
    let payload = |n: usize| vec![n as u8; n * 37 % 900];
    match round % 5 {
        0 => {
            let records: Vec<_> = (0..4).map(|n| payload(round + n)).collect();
            let lsns = wal.append_batch_lsns(&records).unwrap();
            known.extend(lsns.zip(records.clone()).map(Some));
        }
        1 => {
            // An aborted append has no ordinal.
            let panics = std::panic::AssertUnwindSafe(|| {
                wal.append_with(9, |_| std::panic::resume_unwind(Box::new(())))
            });
            assert!(std::panic::catch_unwind(panics).is_err());
            known.push(Some((wal.append(&payload(round)).unwrap(), payload(round))));
        }
        _ => known.push(Some((wal.append(&payload(round)).unwrap(), payload(round)))),
    }
    if round.is_multiple_of(7) {
        wal.sync().unwrap();
    }
}

/// A log of many segments and groups, with a cut and a restart in it.
fn filled(temp: &Temp, backend: ringwal::BackendChoice) -> (Wal, Known) {
    let open = || small(&temp.log()).backend(backend).open().unwrap();
    let (mut wal, mut known) = (open(), Known::new());
    for round in 0..600 {
        append(&wal, &mut known, round);
        if round == 203 {
            wal.sync().unwrap();
            let last = known.iter().rposition(|record| record.is_some()).unwrap();
            wal.truncate_from(known[last].as_ref().unwrap().0).unwrap();
            known[last] = None;
        }
        if round == 400 {
            wal.close().unwrap();
            wal = open();
            assert_eq!(wal.recovery().next_ordinal, known.len() as u64);
        }
    }
    wal.sync().unwrap();
    (wal, known)
}

#[test]
fn ordinal_of_a_record_is_its_number_in_every_reader() {
    for backend in backends() {
        let temp = Temp::new();
        let (wal, known) = filled(&temp, backend);
        let kept: Vec<_> =
            (0..).zip(&known).filter_map(|(n, r)| r.as_ref().map(|r| (n, r.0))).collect();
        let mut reader = wal.reader(Lsn::ZERO);
        let mut found = Vec::new();
        while let Some(record) = reader.next_ref().unwrap() {
            assert_eq!((record.lsn(), record.payload()), (record.lsn, record.payload));
            found.push((record.ordinal(), record.lsn()));
        }
        assert_eq!(found, kept);
        found.clear();
        let mut reader = wal.reader(Lsn::ZERO);
        while let Some(records) = reader.next_records().unwrap() {
            found.extend(records.map(|r| (r.ordinal(), r.lsn)));
        }
        assert_eq!(found, kept);
        // From a place within a group, and with times.
        let (n, lsn) = kept[kept.len() / 2 + 1];
        let record = wal.reader(lsn).next().unwrap().unwrap();
        assert_eq!((record.ordinal(), record.lsn()), (Some(n), lsn));
        let mut follow = wal.follow(lsn).unwrap();
        let followed = follow.try_next().unwrap().unwrap();
        assert_eq!(followed.ordinal(), n);
        assert_eq!(followed.written_at(), record.written_at().unwrap());
        let age = SystemTime::now().duration_since(record.written_at().unwrap()).unwrap();
        assert!(age < Duration::from_secs(3600));
        let mut back: Vec<_> = wal.reader_back(wal.durable_end()).map(Result::unwrap).collect();
        back.reverse();
        let back: Vec<_> = back.iter().map(|r| (r.ordinal().unwrap(), r.lsn)).collect();
        assert_eq!(back, kept);
        let outside = ReadOnlyWal::open(temp.log()).unwrap();
        let outside = outside.reader(Lsn::ZERO).unwrap().map(Result::unwrap);
        let outside: Vec<_> = outside.map(|r| (r.ordinal().unwrap(), r.lsn)).collect();
        assert_eq!(outside, kept);
        // Reading one record reads no group. It is the same record.
        let one = wal.read(lsn).unwrap();
        assert_eq!((one.ordinal(), one.written_at()), (None, None));
        assert_eq!(one, record);
    }
}

#[test]
fn read_ordinal_finds_every_record_and_says_why_it_does_not() {
    for backend in backends() {
        let temp = Temp::new();
        let (wal, known) = filled(&temp, backend);
        let outside = ReadOnlyWal::open(temp.log()).unwrap();
        let mut consumer = wal.consumer("c").unwrap();
        for (n, record) in (0..).zip(&known) {
            match record {
                Some((lsn, payload)) => {
                    let found = wal.read_ordinal(n).unwrap();
                    assert_eq!((found.lsn, &found.payload), (*lsn, payload), "{n}");
                    assert_eq!(found.ordinal(), Some(n));
                    assert_eq!(outside.read_ordinal(n).unwrap(), found);
                    if n % 50 == 0 {
                        consumer.seek_ordinal(n).unwrap();
                        let next = consumer.records().unwrap().try_next().unwrap().unwrap();
                        assert_eq!((next.lsn, next.ordinal()), (*lsn, n));
                    }
                }
                None => {
                    for cut in [wal.read_ordinal(n), outside.read_ordinal(n)] {
                        assert!(matches!(cut, Err(Error::Truncated { .. })), "{n}: {cut:?}");
                    }
                }
            }
        }
        for beyond in [known.len() as u64, known.len() as u64 + 1, u64::MAX] {
            let found = wal.read_ordinal(beyond);
            assert!(matches!(found, Err(Error::NoOrdinal { ordinal }) if ordinal == beyond));
            assert!(matches!(outside.read_ordinal(beyond), Err(Error::NoOrdinal { .. })));
            let before = consumer.position();
            assert!(matches!(consumer.seek_ordinal(beyond), Err(Error::NoOrdinal { .. })));
            assert_eq!(consumer.position(), before);
        }
        consumer.seek(wal.durable_end()).unwrap();
        let oldest = wal.truncate_before(known[known.len() / 2].as_ref().unwrap().0).unwrap();
        assert!(oldest > Lsn::ZERO);
        for (n, record) in (0..).zip(&known) {
            let Some((lsn, _)) = record else { continue };
            match wal.read_ordinal(n) {
                Ok(found) => assert!(found.lsn == *lsn && *lsn >= oldest),
                Err(Error::Pruned { oldest: kept }) => assert!(kept == oldest && *lsn < oldest),
                Err(e) => panic!("{n}: {e}"),
            }
            assert_eq!(outside.read_ordinal(n).is_ok(), *lsn >= oldest);
        }
    }
}

#[test]
fn reader_from_a_time_begins_at_the_first_group_that_was_written_then_or_later() {
    for backend in backends() {
        let temp = Temp::new();
        let (wal, _) = filled(&temp, backend);
        let outside = ReadOnlyWal::open(temp.log()).unwrap();
        let mut consumer = wal.consumer("c").unwrap();
        let records: Vec<_> = wal.reader(Lsn::ZERO).map(Result::unwrap).collect();
        let mut times: Vec<_> = records.iter().map(|r| r.written_at().unwrap()).collect();
        assert!(times.is_sorted(), "the clock was set back meanwhile");
        times.dedup();
        assert!(times.len() > 60, "too few groups");
        let step = Duration::from_nanos(1);
        let asked = times.iter().flat_map(|&time| [time - step, time, time + step]);
        for time in asked.chain([UNIX_EPOCH, UNIX_EPOCH - Duration::from_secs(9)]) {
            let expected = records.iter().find(|r| r.written_at().unwrap() >= time);
            let expected = expected.map(|r| (r.lsn, r.ordinal()));
            let found = wal.reader_from_time(time).unwrap().next().transpose().unwrap();
            assert_eq!(found.map(|r| (r.lsn, r.ordinal())), expected, "{time:?}");
            let found = outside.reader_from_time(time).unwrap().next().transpose().unwrap();
            assert_eq!(found.map(|r| (r.lsn, r.ordinal())), expected, "{time:?}");
        }
        for time in times.iter().step_by(25) {
            consumer.seek_time(*time).unwrap();
            let expected = records.iter().find(|r| r.written_at().unwrap() >= *time).unwrap();
            let next = consumer.records().unwrap().try_next().unwrap().unwrap();
            assert_eq!(next.lsn, expected.lsn);
        }
        let future = SystemTime::now() + Duration::from_secs(1 << 30);
        assert!(wal.reader_from_time(future).unwrap().next().is_none());
        assert!(outside.reader_from_time(future).unwrap().next().is_none());
        consumer.seek_time(future).unwrap();
        assert!(consumer.is_caught_up());
        assert!(matches!(Wal::open(temp.log()), Err(Error::Locked { .. })));
    }
}

#[test]
fn places_in_an_empty_log_are_typed_errors_or_nothing() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    assert!(matches!(wal.read_ordinal(0), Err(Error::NoOrdinal { ordinal: 0 })));
    assert!(wal.reader_from_time(UNIX_EPOCH).unwrap().next().is_none());
    assert!(wal.reader_from_time(SystemTime::now()).unwrap().next().is_none());
    wal.append(b"not durable").unwrap();
    wal.close().unwrap();
    assert_eq!(wal.read_ordinal(0).unwrap().payload(), b"not durable");
}

/// A group whose header is damaged moves no place.
#[test]
fn damaged_group_header_is_corruption_and_not_another_place() {
    let temp = Temp::new();
    let (wal, known) = filled(&temp, ringwal::BackendChoice::Std);
    wal.close().unwrap();
    let first = known[0].as_ref().unwrap().0.as_u64();
    let segment = temp.log().join(format!("wal.{:020}.wal", 0));
    let segment = if segment.exists() {
        segment
    } else {
        let mut all: Vec<_> =
            std::fs::read_dir(temp.log()).unwrap().map(|e| e.unwrap().path()).collect();
        all.retain(|path| path.extension().is_some_and(|e| e == "wal"));
        all.sort();
        all.remove(0)
    };
    // The second group with records begins in a later block.
    let bytes = std::fs::read(&segment).unwrap();
    let is_header = |at: &usize| bytes[*at..].starts_with(b"RWGp");
    let headers: Vec<_> = (first as usize / 4096 * 4096 + 4096..bytes.len())
        .step_by(4096)
        .filter(is_header)
        .collect();
    let mut damaged = bytes.clone();
    damaged[headers[0] + 40] ^= 1;
    std::fs::write(&segment, damaged).unwrap();
    let outside = ReadOnlyWal::open(temp.log()).unwrap();
    let mut corrupt = 0;
    for n in 0..60 {
        match outside.read_ordinal(n) {
            Ok(found) => {
                let (lsn, payload) = known[n as usize].as_ref().unwrap();
                assert_eq!((found.lsn, &found.payload), (*lsn, payload), "{n}");
            }
            Err(Error::Corruption { .. }) => corrupt += 1,
            Err(e) => panic!("{n}: {e}"),
        }
    }
    assert!(corrupt > 0);
}
