//! Logs with tags stay readable, byte for byte, and the files are what docs/format.md says.
//!
//! `tests/golden/v1-tags` was written once, and is never rewritten. `tests/golden/v1-tags.records`
//! lists its records: position, tag, length and CRC-32 of each.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::golden_format::decoder::{Log, crc32};
use crate::support::{Temp, backends, copy_dir};
use ringwal::{Error, Lsn, Record, Wal, WalBuilder};

const PREFIX: &str = "golden";
const LISTING: &str = include_str!("../golden/v1-tags.records");

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1-tags")
}

fn builder(dir: &Path) -> WalBuilder {
    Wal::builder(dir).segment_size(16 << 10).prefix(PREFIX)
}

fn payload(n: usize) -> Vec<u8> {
    (0..(n * 97) % 1500).map(|i| (i * 7 + n) as u8).collect()
}

/// Appends records without a tag, with one, and batches of both kinds.
fn fill(wal: &Wal) {
    for n in 0..40_usize {
        let tag = [0, 1, 7, u64::MAX][n % 4];
        match n % 5 {
            0 => _ = wal.append(&payload(n)).unwrap(),
            1 | 2 => _ = wal.append_tagged(tag, &payload(n)).unwrap(),
            3 => {
                let items: Vec<_> = (0..n % 7 + 1).map(|i| (tag ^ i as u64, payload(i))).collect();
                wal.append_batch_tagged(&items).unwrap();
            }
            _ => _ = wal.append_batch(&[payload(n), Vec::new()]).unwrap(),
        }
        if n % 6 == 0 {
            wal.sync().unwrap();
        }
    }
    let cut = wal.append_tagged(9, b"void").unwrap();
    wal.truncate_from(cut).unwrap();
    wal.append_tagged(9, b"").unwrap();
    wal.sync().unwrap();
}

fn read(wal: &Wal) -> Vec<Record> {
    wal.reader(Lsn::ZERO).map(Result::unwrap).collect()
}

/// One line for each record: position, tag, length, CRC-32.
fn listing<'a>(records: impl Iterator<Item = (u64, Option<u64>, &'a [u8])>) -> String {
    records.fold(String::new(), |mut text, (lsn, tag, payload)| {
        let tag = tag.map_or_else(|| "-".to_owned(), |tag| tag.to_string());
        writeln!(text, "{lsn} {tag} {} {:08x}", payload.len(), crc32(&[payload])).unwrap();
        text
    })
}

fn of_library(records: &[Record]) -> String {
    listing(records.iter().map(|r| (r.lsn().as_u64(), r.tag(), r.payload())))
}

fn of_decoder(log: &Log) -> String {
    let record =
        |(lsn, payload): &'_ (u64, Vec<u8>)| (*lsn, log.tags.get(lsn).copied(), payload.clone());
    let records: Vec<_> = log.records.iter().map(record).collect();
    listing(records.iter().map(|(lsn, tag, payload)| (*lsn, *tag, &payload[..])))
}

#[test]
#[ignore = "writes golden files: RINGWAL_GOLDEN_WRITE=DIR cargo test --test recovery golden_tags -- --ignored"]
fn write_golden_files_with_tags() {
    let Some(dir) = std::env::var_os("RINGWAL_GOLDEN_WRITE").map(PathBuf::from) else { return };
    std::fs::create_dir(&dir).expect("a directory that does not exist yet");
    let wal = builder(&dir).open().unwrap();
    fill(&wal);
    wal.hold_tags(&[(7, Lsn::ZERO), (u64::MAX, wal.durable_end())]).unwrap();
    wal.close().unwrap();
    std::fs::remove_file(dir.join("golden.lock")).unwrap();
    let log = Log::decode(&dir, PREFIX).unwrap();
    std::fs::write(dir.with_extension("records"), of_decoder(&log)).unwrap();
}

#[test]
fn golden_log_with_tags_has_the_records_tags_and_floors_that_were_written() {
    for backend in backends() {
        let temp = Temp::new();
        copy_dir(&golden(), &temp.log());
        let wal = builder(&temp.log()).backend(backend).open().unwrap();
        assert_eq!(of_library(&read(&wal)), LISTING);
        let tags: Vec<u64> = wal.tag_floors().iter().map(|floor| floor.tag).collect();
        assert_eq!(tags, [7, u64::MAX]);
    }
}

#[test]
fn independent_decoder_reads_the_golden_log_with_tags_and_one_written_today() {
    let log = Log::decode(&golden(), PREFIX).unwrap();
    log.check_what_a_writer_promises().unwrap();
    assert_eq!(of_decoder(&log), LISTING);
    assert!(log.tags.len() > 20 && log.records.len() > log.tags.len());
    for backend in backends() {
        let temp = Temp::new();
        let wal = builder(&temp.log()).backend(backend).open().unwrap();
        fill(&wal);
        let library = of_library(&read(&wal));
        wal.close().unwrap();
        let log = Log::decode(&temp.log(), PREFIX).unwrap();
        log.check_what_a_writer_promises().unwrap();
        assert_eq!(of_decoder(&log), library);
    }
}

#[test]
fn both_decoders_agree_on_every_kind_of_damage_to_a_tagged_record() {
    let log = Log::decode(&golden(), PREFIX).unwrap();
    let lsns: Vec<u64> = log.tags.keys().copied().collect();
    let temp = Temp::new();
    for (round, lsn) in lsns.iter().enumerate().step_by(8) {
        // The bytes before the payload of a record: length, sum, kind, flags, check and tag.
        for at in (round % 3..24).step_by(3) {
            let dir = temp.path().join(format!("{lsn}-{at}"));
            copy_dir(&golden(), &dir);
            let segment = log.segments.iter().rfind(|s| s.base <= *lsn).unwrap();
            let path = dir.join(format!("{PREFIX}.{:020}.wal", segment.base));
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[(lsn - segment.base) as usize + at] ^= 0x10;
            std::fs::write(&path, bytes).unwrap();
            let document = Log::decode(&dir, PREFIX);
            let library = builder(&dir)
                .open()
                .and_then(|wal| wal.reader(Lsn::ZERO).collect::<Result<Vec<_>, _>>());
            let (Err(_), Err(Error::Corruption { .. })) = (&document, &library) else {
                panic!("byte {at} of {lsn}: {:?}, but {library:?}", document.map(|log| log.end));
            };
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
}
