//! Reading ahead through the public API: damaged, shortened and removed files, a writer beside the
//! reader, and how much is read.
#![cfg(target_os = "linux")]

use std::path::PathBuf;

use crate::support::{Temp, segments};
use ringwal::{Error, Lsn, ReadOnlyWal, Wal};

const SEGMENT: u64 = 8 << 20;

fn payload(n: u32) -> Vec<u8> {
    let mut bytes = vec![n as u8; 3000];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    bytes
}

/// A closed log of several segments, which is not in the page cache where direct I/O exists.
/// Returns the position of every record.
fn write(temp: &Temp, records: u32) -> Vec<Lsn> {
    let wal = Wal::builder(temp.log()).segment_size(SEGMENT).open().unwrap();
    let mut places = Vec::new();
    for n in 0..records {
        places.push(wal.append(&payload(n)).unwrap());
        // Groups of many sizes.
        if n % 97 == 0 || n % 13 == 0 && n < records / 2 {
            wal.sync().unwrap();
        }
    }
    wal.close().unwrap();
    places
}

/// Reads from the start. Returns the number of records before the end or the error.
fn read(temp: &Temp) -> (u32, Option<Error>) {
    let log = ReadOnlyWal::open(temp.log()).unwrap();
    count(log.reader(Lsn::ZERO).unwrap())
}

fn count(reader: impl Iterator<Item = ringwal::Result<ringwal::Record>>) -> (u32, Option<Error>) {
    let mut n = 0;
    for record in reader {
        match record {
            Ok(record) => assert!(record.payload() == payload(n), "record {n}"),
            Err(e) => return (n, Some(e)),
        }
        n += 1;
    }
    (n, None)
}

/// The segment file of a position, and its offset there.
fn place(temp: &Temp, lsn: Lsn) -> (PathBuf, u64) {
    let segment = lsn.as_u64() / SEGMENT;
    (segments(&temp.log())[segment as usize].clone(), lsn.as_u64() % SEGMENT)
}

#[test]
fn log_larger_than_what_is_read_ahead_is_read_whole() {
    let temp = Temp::new();
    let places = write(&temp, 9000);
    assert!(places.last().unwrap().as_u64() > 3 * SEGMENT);
    assert!(matches!(read(&temp), (9000, None)));
    // From the page cache, and with some of it there.
    let files = segments(&temp.log());
    files.iter().for_each(|file| drop(std::fs::read(file).unwrap()));
    assert!(matches!(read(&temp), (9000, None)));
    for (n, file) in files.iter().enumerate() {
        let handle = std::fs::File::open(file).unwrap();
        // The width of an offset is the system's.
        let half = (SEGMENT / 2) as nix::libc::off_t;
        nix::fcntl::posix_fadvise(
            &handle,
            if n % 2 == 0 { half } else { 0 },
            half,
            nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
        )
        .unwrap();
    }
    assert!(matches!(read(&temp), (9000, None)));
    // In the process that writes, by records and by runs of records.
    let wal = Wal::open(temp.log()).unwrap();
    assert!(matches!(count(wal.reader(Lsn::ZERO)), (9000, None)));
    let (mut reader, mut n) = (wal.reader(Lsn::ZERO), 0);
    while let Some(records) = reader.next_records().unwrap() {
        for record in records {
            assert!(record.payload == payload(n), "record {n}");
            n += 1;
        }
    }
    assert_eq!(n, 9000);
}

#[test]
fn damage_that_was_read_ahead_is_reported_when_the_reader_gets_there() {
    use std::os::unix::fs::FileExt;
    let temp = Temp::new();
    let places = write(&temp, 9000);
    let victim = 7000;
    let (file, offset) = place(&temp, places[victim]);
    let handle = std::fs::File::options().read(true).write(true).open(file).unwrap();
    handle.write_all_at(&[0xee; 64], offset + 1000).unwrap();
    handle.sync_all().unwrap();
    let (n, error) = read(&temp);
    // The whole group is in doubt, and none before it.
    assert!(n as usize <= victim && n as usize + 97 > victim, "{n}");
    match error {
        Some(Error::Corruption { lsn, .. }) => assert_eq!(lsn, places[victim]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn file_cut_short_under_the_reader_ends_in_an_error_after_what_is_left() {
    let temp = Temp::new();
    let places = write(&temp, 9000);
    let log = ReadOnlyWal::open(temp.log()).unwrap();
    let mut reader = log.reader(Lsn::ZERO).unwrap();
    for n in 0..100 {
        assert!(reader.next().unwrap().unwrap().payload() == payload(n));
    }
    let (file, offset) = place(&temp, places[6000]);
    std::fs::File::options().write(true).open(file).unwrap().set_len(offset).unwrap();
    let mut n = 100;
    let error = loop {
        match reader.next().expect("an error") {
            Ok(record) => assert!(record.payload() == payload(n), "record {n}"),
            Err(e) => break e,
        }
        n += 1;
    };
    assert!((5902..=6000).contains(&n), "{n}");
    assert!(matches!(error, Error::Corruption { .. }), "{error:?}");
}

#[test]
fn removed_segment_ends_the_reader_after_the_segments_before_it() {
    let temp = Temp::new();
    let places = write(&temp, 9000);
    let log = ReadOnlyWal::open(temp.log()).unwrap();
    let mut reader = log.reader(Lsn::ZERO).unwrap();
    for n in 0..100 {
        assert!(reader.next().unwrap().unwrap().payload() == payload(n));
    }
    // The reader has its own segment open, and reads it to its end.
    let files = segments(&temp.log());
    std::fs::remove_file(&files[0]).unwrap();
    std::fs::remove_file(&files[2]).unwrap();
    let mut n = 100;
    let error = loop {
        match reader.next().expect("an error") {
            Ok(_) => n += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(places[n as usize].as_u64() / SEGMENT, 2, "record {n}");
    assert!(matches!(error, Error::Corruption { .. } | Error::Io { .. }), "{error:?}");
}

/// A reader beside a writer reads up to what was durable, and later ones go on with what was
/// written since.
#[test]
fn readers_beside_a_writer_see_every_record_that_was_durable() {
    let temp = Temp::new();
    let wal = Wal::builder(temp.log()).segment_size(SEGMENT).open().unwrap();
    let outside = ReadOnlyWal::open(temp.log()).unwrap();
    let mut follower = wal.follow(Lsn::ZERO).unwrap();
    let mut followed = 0;
    let mut n = 0;
    for round in 0..12 {
        for _ in 0..300 {
            wal.append(&payload(n)).unwrap();
            n += 1;
        }
        wal.sync().unwrap();
        if round % 3 == 2 {
            assert!(matches!(count(wal.reader(Lsn::ZERO)), (seen, None) if seen == n));
            let reader = outside.reader(Lsn::ZERO).unwrap();
            assert!(matches!(count(reader), (seen, None) if seen == n));
        }
        if round == 5 || round == 11 {
            while followed < n {
                let record = follower.next().unwrap().unwrap();
                assert!(record.payload() == payload(followed), "record {followed}");
                followed += 1;
            }
        }
    }
}
