//! `ReadOnlyWal` beside a writer: returns durable records only and changes nothing, whatever the
//! writer does.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crate::support::{Temp, backends, copy_dir, read_all, small};
use ringwal::{Durability, Error, Lsn, ReadOnlyWal, Wal};

fn payload(n: u64) -> Vec<u8> {
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.resize(8 + (n * 37 % 900) as usize, n as u8);
    bytes
}

fn number(payload: &[u8]) -> u64 {
    u64::from_le_bytes(*payload.first_chunk().unwrap())
}

fn found(log: &ReadOnlyWal) -> Vec<(Lsn, Vec<u8>)> {
    let records = log.reader(Lsn::ZERO).unwrap();
    records.map(|r| r.map(|r| (r.lsn, r.payload)).unwrap()).collect()
}

/// Names, lengths and times of all files but the writer's side files.
fn picture(dir: &Path) -> BTreeMap<String, (u64, SystemTime, SystemTime)> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    entries
        .map(|e| {
            let meta = e.metadata().unwrap();
            let times = (
                meta.len(),
                meta.modified().unwrap(),
                meta.created().unwrap_or(SystemTime::UNIX_EPOCH),
            );
            (e.file_name().into_string().unwrap(), times)
        })
        .collect()
}

#[test]
fn closed_crashed_and_copied_logs_are_read_and_unchanged() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        for n in 0..400 {
            wal.append(&payload(n)).unwrap();
        }
        wal.sync().unwrap();
        let expected = read_all(&wal);
        // One copy as a power failure leaves it, without an end file. One copy with an end file
        // that is ahead of its segments.
        let (crashed, less) = (temp.path().join("crashed"), temp.path().join("less"));
        copy_dir(&temp.log(), &less);
        for n in 400..500 {
            wal.append_durable(&payload(n)).unwrap();
        }
        copy_dir(&temp.log(), &crashed);
        std::fs::copy(temp.log().join("wal.end"), less.join("wal.end")).unwrap();
        std::fs::remove_file(crashed.join("wal.end")).unwrap();
        // Without a writer that it can see, a reader goes by the groups' marks.
        let seen = found(&ReadOnlyWal::open(&less).unwrap());
        assert!(seen == expected[..seen.len()] && (seen == expected || !cfg!(ofd_locks)));
        let expected = read_all(&wal);
        assert_eq!(expected.len(), 500);
        wal.close().unwrap();
        for dir in [temp.log(), crashed, less.clone()] {
            let before = picture(&dir);
            let log = ReadOnlyWal::open(&dir).unwrap();
            let seen = found(&log);
            assert!(seen == expected[..seen.len()]);
            assert!(seen.len() == 500 || dir == less || !cfg!(ofd_locks));
            for (lsn, payload) in &seen {
                assert_eq!(log.read(*lsn).unwrap().payload, *payload);
            }
            let end = log.durable_end().unwrap();
            assert!(matches!(log.read(end), Err(Error::NotDurable { .. })));
            let inside = Lsn::new(seen[3].0.as_u64() + 8);
            assert!(matches!(log.read(inside), Err(Error::NoRecord { .. })));
            let mut follow = log.follow(seen[490.min(seen.len() - 10)].0).unwrap();
            let mut rest = 0;
            while follow.next_timeout(Duration::ZERO).unwrap().is_some() {
                rest += 1;
            }
            assert_eq!(rest, 10);
            assert_eq!(picture(&dir), before, "nothing was changed");
        }
    }
}

#[test]
fn outside_reader_sees_only_durable_records() {
    for backend in backends() {
        let temp = Temp::new();
        // Large enough that no rotation requests a sync.
        let manual = Wal::builder(temp.log()).segment_size(1 << 20).durability(Durability::Manual);
        // The test reads the log's end twice, so no idle seal may come between.
        let wal = manual.backend(backend).idle_seal(Duration::MAX).open().unwrap();
        let log = ReadOnlyWal::open(temp.log()).unwrap();
        let mut follow = log.follow(Lsn::ZERO).unwrap();
        for round in 0..5 {
            for n in 0..20 {
                wal.append(&payload(round * 20 + n)).unwrap();
            }
            // The records may be written by now, but are not synced.
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(found(&log).len() as u64, round * 20);
            assert!(follow.try_next().unwrap().is_none());
            let end = wal.sync().unwrap();
            for n in 0..20 {
                let record = follow.next_timeout(Duration::from_secs(60)).unwrap().expect("synced");
                assert_eq!(record.payload, payload(round * 20 + n));
                assert!(record.lsn < end);
            }
            assert_eq!(found(&log).len() as u64, round * 20 + 20);
            assert_eq!(log.durable_end().unwrap(), wal.durable_end());
        }
        // Records that a cut made void are void for the outside reader too.
        let from = found(&log)[50].0;
        wal.truncate_from(from).unwrap();
        wal.append_durable(b"behind the cut").unwrap();
        let seen = found(&log);
        assert_eq!(seen.len(), 51);
        assert_eq!(seen[50].1, b"behind the cut");
        assert!(matches!(log.read(from), Err(Error::Truncated { .. })));
        assert!(matches!(follow.next_ref(), Err(Error::Truncated { .. })));
        assert!(found(&ReadOnlyWal::open(temp.log()).unwrap()) == seen);
    }
}

#[test]
fn read_only_open_of_a_bad_place_is_a_typed_error() {
    let temp = Temp::new();
    let not_found = |result: Result<ReadOnlyWal, Error>| match result {
        Err(Error::Io { source, .. }) => assert_eq!(source.kind(), std::io::ErrorKind::NotFound),
        other => panic!("{other:?}"),
    };
    not_found(ReadOnlyWal::open(temp.path().join("nowhere")));
    not_found(ReadOnlyWal::open(temp.path()));
    assert!(!temp.path().join("nowhere").exists());
    assert!(matches!(ReadOnlyWal::open_with_prefix(temp.path(), "../x"), Err(Error::Options(_))));
    let wal = small(&temp.log()).max_segments(3).open().unwrap();
    let first = wal.append(&payload(0)).unwrap();
    let log = ReadOnlyWal::open(temp.log()).unwrap();
    let mut slow = log.follow(Lsn::ZERO).unwrap();
    wal.sync().unwrap();
    assert_eq!(number(slow.next_ref().unwrap().unwrap().payload), 0);
    while wal.oldest_lsn() < Lsn::new(5 * (64 << 10)) {
        wal.append(&payload(7)).unwrap();
    }
    // A reader that retention has overtaken gets an error, and the rest can be read.
    let overtaken = loop {
        match slow.next_ref() {
            Ok(Some(record)) => assert_eq!(record.payload, payload(7)),
            Ok(None) => panic!("it does not end"),
            Err(e) => break e,
        }
    };
    assert!(matches!(overtaken, Error::Pruned { oldest } if oldest > first), "{overtaken}");
    assert!(matches!(log.read(first), Err(Error::Pruned { .. })));
    assert!(matches!(log.follow(first), Err(Error::Pruned { .. })));
    assert!(matches!(log.reader(first).unwrap().next(), Some(Err(Error::Pruned { .. }))));
    assert!(matches!(log.follow(Lsn::new(1 << 50)), Err(Error::NotDurable { .. })));
    let mut above = log.reader(Lsn::new(1 << 50)).unwrap();
    assert!(matches!(above.next(), Some(Err(Error::NotDurable { .. }))));
    assert!(above.next().is_none());
    assert!(!found(&log).is_empty());
}

/// The writing process: appends numbered records until it is killed, and reports each that is
/// durable.
#[test]
fn writer_process() {
    let Some((case, dir)) = crate::child::case_and_directory() else { return };
    let builder = small(&dir).max_segments(6);
    let builder =
        if case == "std" { builder.backend(ringwal::BackendChoice::Std) } else { builder };
    // Windows frees the locks of a killed process some time after its end.
    let wal = loop {
        match builder.clone().open() {
            Err(Error::Locked { .. }) => std::thread::sleep(Duration::from_millis(5)),
            opened => break opened.unwrap(),
        }
    };
    let mut next = wal.recovery().next_ordinal;
    loop {
        for _ in 0..7 {
            wal.append(&payload(next)).unwrap();
            next += 1;
        }
        wal.sync().unwrap();
        if cfg!(windows) {
            // Under Wine retention would overtake the reader again and again.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn writer(case: &str, dir: &Path) -> Killed {
    let mut command = crate::child::this_program();
    command.args(["--exact", "read_only::writer_process", "--nocapture"]);
    command.env(crate::child::CASE, case).env(crate::child::DIRECTORY, dir);
    Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// Other processes write, rotate, remove segments and are killed in turn. A reader beside them gets
/// every record once, in order, or an error that retention overtook it; never `Corruption`.
#[test]
fn follower_continues_over_killed_writers_and_their_successors() {
    let temp = Temp::new();
    let dir = temp.log();
    let mut first = Some(writer("auto", &dir));
    let until = Instant::now() + Duration::from_secs(60);
    let log = loop {
        match ReadOnlyWal::open(&dir) {
            Ok(log) => break log,
            Err(Error::Io { .. }) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => panic!("{e}"),
        }
    };
    let (mut seen, mut overtaken, mut next) = (0_u64, 0, None::<u64>);
    let mut follow = log.follow(Lsn::ZERO).unwrap();
    let mut lives = 0;
    let rounds = if crate::support::long() { 200 } else { 12 };
    let mut switch = Instant::now() + Duration::from_millis(150);
    let mut seen_before = 0;
    while lives < rounds {
        // Every second life gets time to write some records, however slow the disk is.
        let early = lives % 2 == 0 && seen < seen_before + 20;
        if Instant::now() > switch + Duration::from_secs(if early { 120 } else { 0 }) {
            seen_before = seen;
            drop(first.take());
            first = Some(writer(if lives % 2 == 0 { "std" } else { "auto" }, &dir));
            lives += 1;
            switch = Instant::now() + Duration::from_millis(150);
        }
        match follow.next_timeout(Duration::from_millis(20)) {
            Ok(Some(record)) => {
                let n = number(record.payload);
                assert_eq!(record.payload, payload(n));
                assert!(next.is_none_or(|next| n == next), "{n} instead of {next:?}");
                next = Some(n + 1);
                seen += 1;
                let lsn = record.lsn;
                if seen.is_multiple_of(500) {
                    match log.read(lsn) {
                        Ok(record) => assert_eq!(record.payload, payload(n)),
                        Err(Error::Pruned { .. }) => {}
                        Err(e) => panic!("read of {lsn}: {e}"),
                    }
                    // Open and read everything again.
                    let again = ReadOnlyWal::open(&dir).unwrap();
                    let mut before = None;
                    for record in again.reader(Lsn::ZERO).unwrap() {
                        let n = match record {
                            Ok(record) => number(&record.payload),
                            Err(Error::Pruned { .. }) => break,
                            Err(e) => panic!("again: {e}"),
                        };
                        assert!(before.is_none_or(|before| n == before + 1));
                        before = Some(n);
                    }
                }
            }
            Ok(None) => {}
            Err(Error::Pruned { .. }) => {
                overtaken += 1;
                next = None;
                follow = log.follow(Lsn::ZERO).unwrap();
            }
            Err(e) => {
                panic!("after {seen} records, {lives} lives, overtaken {overtaken} times: {e}")
            }
        }
    }
    drop(first);
    assert!(seen > 100, "{seen} records");
    // A writer in this process continues the log of the killed writers.
    let wal = small(&dir).open().unwrap();
    let lsn = wal.append_durable(b"the last").unwrap();
    assert_eq!(log.read(lsn).unwrap().payload, b"the last");
    let (here, there) = (read_all(&wal), found(&log));
    assert!(here == there);
    assert_eq!(there.last().unwrap().1, b"the last");
}

/// A record that is written but not synced is not reported as durable, also while a sync is in
/// flight.
#[test]
fn outside_durable_end_is_never_above_the_synced_end() {
    let temp = Temp::new();
    let wal = small(&temp.log())
        .durability(Durability::Manual)
        .idle_seal(Duration::from_secs(3600))
        .open()
        .unwrap();
    let log = ReadOnlyWal::open(temp.log()).unwrap();
    let mut ahead = 0;
    for round in 0..60 {
        std::thread::scope(|scope| {
            let syncing = scope.spawn(|| wal.sync().unwrap());
            // These groups are written during the sync.
            while !syncing.is_finished() {
                wal.append(&[7; 100]).unwrap();
                std::thread::yield_now();
            }
        });
        wal.append(&[8; 100]).unwrap();
        let told = log.durable_end().unwrap();
        // The writer publishes the end to other processes a moment before this process sees it.
        let until = Instant::now() + Duration::from_secs(2);
        while told > wal.durable_end() {
            assert!(Instant::now() < until, "round {round}: {told}, not {}", wal.durable_end());
            std::thread::yield_now();
        }
        ahead += u32::from(wal.stats().ring_bytes > 0);
    }
    assert!(ahead > 0, "all was always durable");
}

/// This holds also if the end file of this boot states the durable end, so that the reader does not
/// search for it.
#[test]
fn lost_first_segment_is_corruption_for_an_outside_reader() {
    for said in [true, false] {
        let temp = Temp::new();
        let wal = small(&temp.log()).open().unwrap();
        for n in 0..200 {
            wal.append(&[&payload(n)[..], &[0; 1000]].concat()).unwrap();
        }
        wal.close().unwrap();
        if !said {
            std::fs::remove_file(temp.log().join("wal.end")).unwrap();
        }
        assert_eq!(ReadOnlyWal::open(temp.log()).unwrap().reader(Lsn::ZERO).unwrap().count(), 200);
        std::fs::remove_file(temp.log().join("wal.00000000000000000000.wal")).unwrap();
        match ReadOnlyWal::open(temp.log()) {
            Err(Error::Corruption { segment, offset: 0, lsn: Lsn::ZERO, .. }) => {
                assert_eq!(segment, "wal.00000000000000000000.wal");
            }
            other => panic!("{said}: {other:?}"),
        }
    }
}
