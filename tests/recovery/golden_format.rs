//! Logs written by released versions stay readable, byte for byte, and the files are what
//! docs/format.md says.
//!
//! Version 0.1.0 wrote `tests/golden/v1`. `tests/golden/v1.records` lists its records: position,
//! length and CRC-32 of each. Neither is ever rewritten. A new format version writes its own
//! directory:
//!
//! `RINGWAL_GOLDEN_WRITE=tests/golden/v2 cargo test --test recovery golden_format -- --ignored`
//!
//! The second decoder, `tests/golden/decoder.rs`, was written from the document alone. It reads
//! what the library writes today. Of damaged files both must report the same.

#[allow(unreachable_pub, reason = "a module of one test")]
#[path = "../golden/decoder.rs"]
pub(crate) mod decoder;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{Temp, backends, copy_dir, eventually, read_all, segments};
use decoder::{Header, Log, Records, crc32, hash};
use ringwal::{BackendChoice, CommitMethod, Durability, Error, Lsn, Wal, WalBuilder};

const PREFIX: &str = "golden";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn payload(n: u32) -> Vec<u8> {
    (0..(n * 97) % 1500).map(|i| (i * 7 + n) as u8).collect()
}

/// The payloads of the golden log, in order.
fn expected() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..12).map(payload).collect();
    all.extend([b"batch one".to_vec(), Vec::new(), b"batch three is longer".to_vec()]);
    all.extend((20..30).map(payload));
    all
}

fn builder(dir: &Path) -> WalBuilder {
    Wal::builder(dir).segment_size(16 << 10).prefix(PREFIX)
}

fn aborted_append(wal: &Wal, len: usize) {
    let outcome = std::panic::catch_unwind(|| wal.append_with(len, |_| panic!("on purpose")));
    assert!(outcome.is_err());
}

/// Waits until the idle log has written its seal, after `written` groups.
fn idle(wal: &Wal, written: u64) {
    wal.sync().unwrap();
    eventually("it seals itself", || wal.stats().control_groups > written);
}

/// One line for each record: position, length, CRC-32.
fn listing(records: &Records) -> String {
    records.iter().fold(String::new(), |mut text, (lsn, payload)| {
        writeln!(text, "{lsn} {} {:08x}", payload.len(), crc32(&[payload])).unwrap();
        text
    })
}

fn plain(records: Vec<(Lsn, Vec<u8>)>) -> Records {
    records.into_iter().map(|(lsn, payload)| (lsn.as_u64(), payload)).collect()
}

fn payloads(records: &Records) -> Vec<Vec<u8>> {
    records.iter().map(|(_, payload)| payload.clone()).collect()
}

#[test]
#[ignore = "writes golden files: RINGWAL_GOLDEN_WRITE=DIR cargo test --test recovery golden_format -- --ignored"]
fn write_golden_files_of_a_new_format_version() {
    let Some(dir) = std::env::var_os("RINGWAL_GOLDEN_WRITE").map(PathBuf::from) else { return };
    std::fs::create_dir(&dir).expect("a directory that does not exist yet");
    let wal = builder(&dir).open().unwrap();
    for n in 0..6 {
        wal.append_durable(&payload(n)).unwrap();
    }
    idle(&wal, 1);
    wal.close().unwrap();
    let wal = builder(&dir).open().unwrap();
    for n in 6..12 {
        wal.append(&payload(n)).unwrap();
    }
    wal.append_batch(&expected()[12..15]).unwrap();
    aborted_append(&wal, 50);
    for n in 20..30 {
        wal.append(&payload(n)).unwrap();
    }
    wal.close().unwrap();
    std::fs::remove_file(dir.join("golden.lock")).unwrap();
    let records = Log::decode(&dir, PREFIX).unwrap().records;
    std::fs::write(dir.with_extension("records"), listing(&records)).unwrap();
}

#[test]
fn golden_log_has_the_records_that_were_written() {
    for backend in backends() {
        let temp = Temp::new();
        copy_dir(&golden(), &temp.log());
        let wal = builder(&temp.log()).backend(backend).open().unwrap();
        assert!(wal.recovery().clean);
        assert_eq!(wal.recovery().epoch, 3);
        assert_eq!(wal.recovery().next_ordinal, expected().len() as u64);
        let found = plain(read_all(&wal));
        assert_eq!(payloads(&found), expected());
        assert_eq!(listing(&found), include_str!("../golden/v1.records"));
        for (lsn, payload) in &found {
            assert_eq!(wal.read(Lsn::new(*lsn)).unwrap().payload, *payload);
        }
        // The position of the first record, as docs/format.md makes it: a header block, an epoch
        // group's block, a group header.
        assert_eq!(found[0].0, 4096 + 4096 + 128);
    }
}

#[test]
fn independent_decoder_reads_the_golden_log() {
    let log = Log::decode(&golden(), PREFIX).unwrap();
    log.check_what_a_writer_promises().unwrap();
    assert_eq!(payloads(&log.records), expected());
    assert_eq!(listing(&log.records), include_str!("../golden/v1.records"));
    assert_eq!(log.flags() & 7, 7, "an epoch, an idle seal and a clean close");
    assert_eq!(log.chain.last().unwrap().epoch, 2);
    assert!(log.kinds.contains(&2) && log.kinds.contains(&0x83), "a batch and an abort");
}

/// A log under construction, and the records that it must hold.
struct Written {
    wal: Wal,
    records: Records,
}

impl Written {
    fn open(builder: WalBuilder) -> Self {
        Written { wal: builder.open().unwrap(), records: Vec::new() }
    }

    fn reopen(self, builder: WalBuilder) -> Self {
        self.wal.close().unwrap();
        Written { wal: builder.open().unwrap(), records: self.records }
    }

    fn append(&mut self, payload: Vec<u8>) {
        let lsn = self.wal.append(&payload).unwrap();
        self.records.push((lsn.as_u64(), payload));
    }

    fn batch(&mut self, payloads: &[Vec<u8>]) {
        let mut lsn = self.wal.append_batch(payloads).unwrap().as_u64();
        for payload in payloads {
            self.records.push((lsn, payload.clone()));
            lsn += (8 + payload.len() as u64).next_multiple_of(8);
        }
    }

    fn every_size(&mut self, seed: u32) {
        let max = match self.wal.append(&vec![0; 300 << 20]) {
            Err(Error::RecordTooLarge { max, .. }) => max,
            other => panic!("{other:?}"),
        };
        for len in [0, 1, 3, 4, 5, 8, 12, 100, 1000, max - 1, max, 3000, 0] {
            self.append((0..len as u32).map(|i| (i.wrapping_mul(31) ^ seed) as u8).collect());
            if len % 3 == 0 {
                self.wal.sync().unwrap();
            }
        }
        self.batch(&[vec![1], vec![], vec![2; 12], vec![3; 777]]);
        // Cut the batch and the records after it.
        self.append(vec![9; 500]);
        let from = self.records[self.records.len() - 5].0;
        self.wal.truncate_from(Lsn::new(from)).unwrap();
        self.records.truncate(self.records.len() - 5);
        self.batch(&[vec![1], vec![], vec![2; 12], vec![3; 777]]);
        aborted_append(&self.wal, 50 + seed as usize);
        self.batch(&[vec![]]);
        self.append(b"behind the batches".to_vec());
    }
}

#[test]
fn independent_decoder_reads_a_log_written_today() {
    for backend in backends() {
        for (size, method) in
            [(16 << 10, CommitMethod::LinkedFsync), (64 << 10, CommitMethod::Dsync)]
        {
            let temp = Temp::new();
            let open = || {
                let builder = Wal::builder(temp.log()).segment_size(size).backend(backend);
                if backend == BackendChoice::Std { builder } else { builder.commit_method(method) }
            };
            let mut written = Written::open(open());
            written.every_size(1);
            // The epoch group and the cut.
            idle(&written.wal, 2);
            let mut written = written.reopen(open().durability(Durability::Manual));
            written.every_size(2);
            let mut written = written.reopen(open().depth(1));
            (0..40).for_each(|n| written.append(payload(n)));
            written.wal.close().unwrap();

            let log = Log::decode(&temp.log(), "wal").unwrap();
            log.check_what_a_writer_promises().unwrap();
            assert_eq!(log.records, written.records);
            assert_eq!(log.flags() & 7, 7, "an epoch, an idle seal and a clean close");
            let last = log.chain.last().unwrap();
            assert_eq!((last.epoch, last.flags & 4), (3, 4));
            assert!(log.segment_count_on_chain() > 1, "rotation");
            let mut kinds = log.kinds.clone();
            kinds.sort_unstable();
            kinds.dedup();
            assert_eq!(kinds, [1, 2, 0x83]);
            assert_eq!(plain(read_all(&open().open().unwrap())), log.records);
        }
    }
}

#[test]
fn independent_decoder_reads_recycled_segments() {
    for backend in backends() {
        let temp = Temp::new();
        let open = || Wal::builder(temp.log()).segment_size(16 << 10).backend(backend);
        let mut written = Written::open(open().max_segments(4));
        for n in 0..120 {
            written.append(payload(n));
            written.wal.sync().unwrap();
        }
        written.wal.close().unwrap();
        let log = Log::decode(&temp.log(), "wal").unwrap();
        log.check_what_a_writer_promises().unwrap();
        assert!(log.segments[0].base > 0, "retention");
        assert!(log.chain.iter().all(|h| h.oldest <= log.segments[0].base), "stated before done");
        assert!(!log.records.is_empty() && written.records.ends_with(&log.records));
        assert_eq!(plain(read_all(&open().open().unwrap())), log.records);
    }
}

/// Copies the segment files of an open log, as a crash of the machine leaves them. Other files are
/// not copied.
fn snapshot(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for path in segments(from) {
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn write_at(dir: &Path, prefix: &str, log: &Log, lsn: u64, bytes: &[u8]) {
    let segment = log.segments.iter().rfind(|s| s.base <= lsn).unwrap();
    let path = dir.join(format!("{prefix}.{:020}.wal", segment.base));
    let mut file = std::fs::read(&path).unwrap();
    let at = (lsn - segment.base) as usize;
    file[at..at + bytes.len()].copy_from_slice(bytes);
    std::fs::write(path, file).unwrap();
}

/// Creates a log whose last group holds one record, without a seal or a close.
fn crashed(temp: &Temp) -> (PathBuf, Records) {
    let open = Wal::builder(temp.log()).segment_size(64 << 10).idle_seal(Duration::from_secs(600));
    let mut written = Written::open(open);
    for n in 1..5 {
        written.append(payload(n));
        written.wal.sync().unwrap();
    }
    let copy = temp.path().join("crashed");
    snapshot(&temp.log(), &copy);
    (copy, written.records)
}

fn open_crashed(dir: &Path) -> Wal {
    Wal::builder(dir).segment_size(64 << 10).open().unwrap()
}

#[test]
fn independent_decoder_reads_past_a_torn_tail_and_the_next_epoch() {
    let temp = Temp::new();
    let (dir, mut records) = crashed(&temp);
    let log = Log::decode(&dir, "wal").unwrap();
    log.check_what_a_writer_promises().unwrap();
    assert_eq!(log.records, records);
    let torn = *log.chain.last().unwrap();
    write_at(&dir, "wal", &log, torn.lsn + torn.used - 8, &[0xFF; 8]);
    records.pop();
    assert_eq!(Log::decode(&dir, "wal").unwrap().records, records);

    let wal = open_crashed(&dir);
    assert!(wal.recovery().cut);
    let mut written = Written { wal, records };
    written.append(b"in the torn one's place".to_vec());
    written.wal.close().unwrap();
    let log = Log::decode(&dir, "wal").unwrap();
    log.check_what_a_writer_promises().unwrap();
    assert_eq!(log.records, written.records);
    let cut = log.chain.iter().find(|h| h.epoch == 2).unwrap();
    assert_eq!((cut.lsn, cut.flags), (torn.lsn, 1), "an epoch group at the cut");
}

/// Changes the kind of the last group's record, and recomputes every checksum over it.
fn with_last_kind(dir: &Path, kind: u8) -> Log {
    let log = Log::decode(dir, "wal").unwrap();
    let last = *log.chain.last().unwrap();
    let segment = log.segments.iter().rfind(|s| s.base <= last.lsn).unwrap();
    let mut group = segment.at(last.lsn, last.end).to_vec();
    let at = 128;
    let length = u32::from_le_bytes(group[at..at + 4].try_into().unwrap()) as usize;
    group[at + 8] = kind;
    let lsn = last.lsn + at as u64;
    let payload = &group[at + 12..at + 12 + length];
    let position = [&lsn.to_le_bytes()[..], &group[at..at + 4], &group[at + 8..at + 12]].concat();
    let crc = crc32(&[&segment.log_id, payload, &position]);
    group[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
    group[76..80].fill(0);
    let crc = crc32(&[&group[..4], &group[8..128]]);
    group[4..8].copy_from_slice(&crc.to_le_bytes());
    write_at(dir, "wal", &log, last.lsn, &group);
    log
}

#[test]
fn record_of_an_unknown_kind_is_skipped_if_the_kind_allows_it() {
    for (kind, kept) in [(0x85, true), (0xFF, true), (0x05, false), (0, false)] {
        let temp = Temp::new();
        let (dir, mut records) = crashed(&temp);
        let last = *with_last_kind(&dir, kind).chain.last().unwrap();
        records.pop();
        let log = Log::decode(&dir, "wal").unwrap();
        assert_eq!(log.end, if kept { last.end } else { last.lsn }, "kind {kind:#x}");
        assert_eq!(log.records, records);
        let wal = open_crashed(&dir);
        assert_eq!(wal.recovery().cut, !kept, "kind {kind:#x}");
        assert_eq!(plain(read_all(&wal)), records);
    }
}

/// Opens the directory with the library. Returns all records, or the error.
fn library(dir: &Path) -> Result<Records, Error> {
    let wal = builder(dir).backend(BackendChoice::Std).open()?;
    let mut all = Records::new();
    for record in wal.reader(Lsn::ZERO) {
        let record = record?;
        all.push((record.lsn.as_u64(), record.payload));
    }
    Ok(all)
}

/// Runs both decoders on the golden log with some bytes changed.
fn both(change: impl FnOnce(&Path)) -> (Result<Records, &'static str>, Result<Records, Error>) {
    let temp = Temp::new();
    copy_dir(&golden(), &temp.log());
    change(&temp.log());
    let document = Log::decode(&temp.log(), PREFIX).map(|log| log.records);
    (document, library(&temp.log()))
}

#[test]
fn damage_to_any_group_of_a_closed_log_is_found_by_both_decoders() {
    let log = Log::decode(&golden(), PREFIX).unwrap();
    let (last, chain) = log.chain.split_last().unwrap();
    for group in chain {
        let mut places: Vec<u64> = (0..16).map(|word| group.lsn + word * 8).collect();
        places.extend((group.lsn + 128..group.lsn + group.used).step_by(509));
        for lsn in places {
            let segment = log.segments.iter().rfind(|s| s.base <= lsn).unwrap();
            let flipped = segment.at(lsn, lsn + 1)[0] ^ 0x10;
            let (document, library) = both(|dir| write_at(dir, PREFIX, &log, lsn, &[flipped]));
            assert!(document.is_err(), "the document lets {lsn} pass: {group:?}");
            match library {
                Err(Error::Corruption { lsn: at, .. }) => {
                    // The error names the group or its record; for a first group, perhaps the
                    // segment.
                    let first = group.lsn == segment.base + segment.block;
                    let from = if first { segment.base } else { group.lsn };
                    assert!((from..=lsn).contains(&at.as_u64()), "{lsn}: {at} is named");
                }
                other => panic!("{lsn} in {group:?}: {other:?}"),
            }
        }
    }
    // No caller was told that the close's own mark is durable.
    let (document, library) = both(|dir| write_at(dir, PREFIX, &log, last.lsn, &[0]));
    assert_eq!(payloads(&document.unwrap()), expected());
    assert_eq!(payloads(&library.unwrap()), expected());
}

#[test]
fn both_decoders_agree_on_random_damage() {
    let rounds = if crate::support::long() { 20_000 } else { 150 };
    let log = Log::decode(&golden(), PREFIX).unwrap();
    let seed = std::env::var("RINGWAL_GOLDEN_SEED").map_or(1, |s| s.parse().expect("a number"));
    for round in seed..seed + rounds {
        let mut random = fastrand::Rng::with_seed(round);
        let segment = random.choice(&log.segments).unwrap();
        let len = *random.choice(&[1, 8, 512, 4096]).unwrap();
        let lsn = segment.base + random.u64(..(segment.size / len as u64)) * len as u64;
        let any = random.u8(..);
        let fill = *random.choice(&[0, 0xFF, any]).unwrap();
        let change = |dir: &Path| write_at(dir, PREFIX, &log, lsn, &vec![fill; len]);
        let (document, library) = both(change);
        match (document, library) {
            (Ok(document), Ok(library)) => assert_eq!(document, library, "seed {round}"),
            (
                Err(_),
                Err(
                    Error::Corruption { .. }
                    | Error::Unsupported { .. }
                    | Error::ForeignSegment { .. },
                ),
            ) => {}
            // Without its header, a spare looks like the chain's next segment. Only the library
            // must decide; it assumes the worse.
            (Ok(_), Err(Error::Corruption { offset: 0, reason, .. }))
                if lsn < segment.base + 128 =>
            {
                assert!(reason.contains("segment header"), "seed {round}: {reason}");
            }
            (d, l) => {
                let (d, l) = (d.map(|r| r.len()), l.map(|r| r.len()));
                panic!("seed {round}: {len} bytes of {fill:#x} at {lsn}: {d:?}, but {l:?}")
            }
        }
    }
}

#[test]
fn independent_decoder_rejects_each_wrong_field() {
    // Every checksum is recomputed, so that the field's own rule fails. Each entry: the offset, the
    // bits to flip in its byte (a fixed value could equal a random field), and the rule.
    let wrong = [
        (8, 1, "LSN is the position"),
        (16, 0x5A, "log id is the segment's"),
        (32, 8, "epoch tag"),
        (40, 0x5A, "the predecessor's epoch, or a greater one begins"),
        (50, 0xFF, "durable end is not above the LSN"),
        (56, 1, "previous is the predecessor"),
        (64, 0x5A, "previous hash is the predecessor's"),
        (72, 0x11, "a record inside the used length"),
        (74, 0xFF, "used length"),
        (76, 76, "items sum to the record count"),
        (80, 96, "ordinals follow"),
        (98, 0xFF, "oldest is not above the LSN"),
        (104, 32, "flags known"),
        (108, 1, "group reserved fields are zero"),
        (112, 1, "the last cut is the predecessor's, or the predecessor"),
        (119, 1, "the last cut is below the LSN"),
        (120, 1, "cut from is zero without CUT"),
        (104, 16, "cut from is below the LSN"),
    ];
    for (offset, bits, name) in wrong {
        let temp = Temp::new();
        let (dir, _) = crashed(&temp);
        let log = Log::decode(&dir, "wal").unwrap();
        let [.., before, last] = &log.chain[..] else { panic!("a chain") };
        let mut header = log.segments[0].at(last.lsn, last.lsn + 128).to_vec();
        header[offset] ^= bits;
        let crc = crc32(&[&header[..4], &header[8..]]);
        header[4..8].copy_from_slice(&crc.to_le_bytes());
        write_at(&dir, "wal", &log, last.lsn, &header);
        let changed = Log::decode(&dir, "wal").unwrap();
        assert_eq!(changed.end, last.lsn, "{name}: the group is not on the chain");
        assert_eq!(changed.why_not(before, last.lsn), Err(name), "offset {offset}");
        assert_ne!(hash(&header), last.hash);
        // The library ends at the same position.
        assert_eq!(plain(read_all(&open_crashed(&dir))), changed.records, "{name}");
    }
}

#[test]
fn newer_versions_and_unknown_features_are_refused_as_unsupported() {
    let on_chain = Log::decode(&golden(), PREFIX).unwrap().segment_count_on_chain();
    for (at, value) in [(8, 2_u8), (9, 1), (16, 1), (16, 4), (19, 0x80), (20, 1), (23, 0x80)] {
        for index in 0..on_chain {
            let (_, library) = both(|dir| patch_header(&segments(dir)[index], at, value));
            match library {
                Err(e @ Error::Unsupported { .. }) => assert!(e.to_string().contains("newer")),
                other => panic!("offset {at}, segment {index}: {other:?}"),
            }
        }
    }
}

#[test]
fn unknown_compatible_feature_is_ignored() {
    for (at, value) in [(24, 1_u8), (27, 0x80)] {
        let (document, library) = both(|dir| {
            segments(dir).iter().for_each(|path| patch_header(path, at, value));
        });
        assert_eq!(payloads(&document.unwrap()), expected());
        assert_eq!(payloads(&library.unwrap()), expected());
    }
}

fn patch_header(path: &Path, at: usize, value: u8) {
    let mut file = std::fs::read(path).unwrap();
    file[at] = value;
    let crc = crc32(&[&file[..12], &[0; 4], &file[16..128]]);
    file[12..16].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(path, &file).unwrap();
}

impl Log {
    fn segment_count_on_chain(&self) -> usize {
        let last = self.chain.last().unwrap().lsn;
        self.segments.iter().filter(|s| s.base <= last).count()
    }

    /// Returns the reason why the group at `lsn` does not follow `before`.
    fn why_not(&self, before: &Header, lsn: u64) -> Result<(), &'static str> {
        self.group(lsn).and_then(|(header, ..)| header.follows(before))
    }
}
