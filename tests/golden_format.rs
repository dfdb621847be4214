//! Logs written by released versions stay readable, byte for byte.
//!
//! `tests/golden/v1` was written by version 0.1.0 with `RINGWAL_GOLDEN_WRITE=1 cargo test --test
//! golden_format`, which writes it anew: only for a new format version, into a new directory.

mod support;

use std::path::{Path, PathBuf};

use ringwal::{Error, Wal};
use support::{Temp, backends, copy_dir, read_all, segments};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn payload(n: u32) -> Vec<u8> {
    (0..(n * 97) % 1500).map(|i| (i * 7 + n) as u8).collect()
}

/// What the golden log holds, in order.
fn expected() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..12).map(payload).collect();
    all.extend([b"batch one".to_vec(), Vec::new(), b"batch three is longer".to_vec()]);
    all.extend((20..30).map(payload));
    all
}

fn builder(dir: &Path) -> ringwal::WalBuilder {
    Wal::builder(dir).segment_size(16 << 10).prefix("golden")
}

fn write(dir: &Path) {
    let _ = std::fs::remove_dir_all(dir);
    let wal = builder(dir).open().unwrap();
    for n in 0..6 {
        wal.append_durable(&payload(n)).unwrap();
    }
    // Long enough for an idle seal, then a second epoch.
    std::thread::sleep(std::time::Duration::from_millis(200));
    wal.close().unwrap();
    let wal = builder(dir).open().unwrap();
    for n in 6..12 {
        wal.append(&payload(n)).unwrap();
    }
    wal.append_batch(&expected()[12..15]).unwrap();
    let aborted = std::panic::catch_unwind(|| wal.append_with(50, |_| panic!("on purpose")));
    assert!(aborted.is_err());
    for n in 20..30 {
        wal.append(&payload(n)).unwrap();
    }
    wal.close().unwrap();
    std::fs::remove_file(dir.join("golden.lock")).unwrap();
}

#[test]
fn the_golden_log_reads_as_it_was_written() {
    if std::env::var_os("RINGWAL_GOLDEN_WRITE").is_some() {
        write(&golden());
    }
    for backend in backends() {
        let temp = Temp::new();
        copy_dir(&golden(), &temp.log());
        let wal = builder(&temp.log()).backend(backend).open().unwrap();
        assert!(wal.recovery().clean);
        assert_eq!(wal.recovery().epoch, 3);
        assert_eq!(wal.recovery().next_ordinal, expected().len() as u64);
        let found = read_all(&wal);
        assert_eq!(found.iter().map(|(_, p)| p.clone()).collect::<Vec<_>>(), expected());
        for (lsn, payload) in &found {
            assert_eq!(wal.read(*lsn).unwrap().payload, *payload);
        }
        // The position of the first record, as docs/format.md makes it: a header block, an epoch
        // group's block, a group header.
        assert_eq!(found[0].0.as_u64(), 4096 + 4096 + 128);
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for &b in bytes {
        crc ^= u32::from(b);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().unwrap())
}

/// A second decoder, from docs/format.md alone: it must find the same records in the same places.
#[test]
fn an_independent_decoder_agrees_with_the_document() {
    let mut records = Vec::new();
    let (mut previous, mut hash, mut ordinal) = (0, 0, 0);
    let (mut epoch, mut flags_seen) = (0, 0);
    let files = segments(&golden());
    for (index, path) in files.iter().enumerate() {
        let file = std::fs::read(path).unwrap();
        assert_eq!(&file[..8], b"ringwal\x1a");
        assert_eq!((file[8], file[9], file[10], file[11]), (1, 0, 1, 0));
        let mut header = file[..128].to_vec();
        header[12..16].fill(0);
        assert_eq!(crc32(&header), u32_at(&file, 12));
        let log_id = &file[32..48];
        let base = u64_at(&file, 56);
        assert_eq!((u32_at(&file, 28), u32_at(&file, 68)), (4096, 4096));
        assert_eq!(u64_at(&file, 48), file.len() as u64);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(name, format!("golden.{base:020}.wal"));
        assert_eq!(base, index as u64 * (16 << 10));

        let mut at = 4096;
        while at + 128 <= file.len() && &file[at..at + 4] == b"RWGp" {
            let group = &file[at..at + 128];
            let mut summed = group[..4].to_vec();
            summed.extend(&group[8..]);
            assert_eq!(crc32(&summed), u32_at(group, 4));
            let lsn = u64_at(group, 8);
            assert_eq!(lsn, base + at as u64);
            assert_eq!(&group[16..32], log_id);
            assert_eq!((u64_at(group, 56), u64_at(group, 64)), (previous, hash), "the chain");
            let (used, count) = (u32_at(group, 72) as usize, u32_at(group, 76));
            assert_eq!(u64_at(group, 80), ordinal);
            let flags = u32_at(group, 104);
            assert!(u64_at(group, 48) <= lsn && group[108..].iter().all(|&b| b == 0));
            if flags != 0 {
                assert_eq!((used, count), (128, 0));
                flags_seen |= flags;
            }
            if flags & 1 != 0 {
                assert!(u64_at(group, 32) > epoch);
                epoch = u64_at(group, 32);
            }
            assert_eq!(u64_at(group, 32), epoch);
            previous = lsn;
            hash = group.chunks(8).fold(0x9E37_79B9_7F4A_7C15_u64, |h, w| {
                let h = (h ^ u64_at(w, 0)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
                h ^ h >> 32
            });
            let before = records.len();
            let mut r = at + 128;
            while r < at + used {
                let length = u32_at(&file, r) as usize;
                let payload = &file[r + 12..r + 12 + length];
                let place = base + r as u64;
                let mut summed = log_id.to_vec();
                summed.extend(payload);
                summed.extend(place.to_le_bytes());
                summed.extend(&file[r..r + 4]);
                summed.extend(&file[r + 8..r + 12]);
                assert_eq!(crc32(&summed), u32_at(&file, r + 4), "record at {place}");
                assert_eq!(u16::from_le_bytes([file[r + 10], file[r + 11]]), epoch as u16);
                match file[r + 8] {
                    1 => records.push((place, payload.to_vec())),
                    2 => {
                        let mut i = r + 16;
                        for _ in 0..u32_at(&file, r + 12) {
                            let len = u32_at(&file, i) as usize;
                            assert_eq!(u32_at(&file, i + 4) as usize, i - r);
                            let item = file[i + 8..i + 8 + len].to_vec();
                            records.push((base + i as u64, item));
                            i += (8 + len).next_multiple_of(8);
                        }
                        assert_eq!(i, r + 12 + length);
                    }
                    0x83 => {}
                    kind => panic!("kind {kind}"),
                }
                let end = r + (12 + length).next_multiple_of(8);
                assert!(file[r + 12 + length..end].iter().all(|&b| b == 0));
                r = end;
            }
            assert_eq!(r, at + used, "records tile the group");
            assert_eq!(records.len() - before, count as usize);
            ordinal += u64::from(count);
            let end = (at + used).next_multiple_of(4096);
            assert!(file[at + used..end].iter().all(|&b| b == 0));
            at = end;
        }
    }
    assert_eq!(epoch, 2);
    assert_eq!(flags_seen & 7, 7, "an epoch, an idle seal and a clean close");
    assert_eq!(records.iter().map(|(_, p)| p.clone()).collect::<Vec<_>>(), expected());
    let temp = Temp::new();
    copy_dir(&golden(), &temp.log());
    let wal = builder(&temp.log()).open().unwrap();
    let found: Vec<_> = read_all(&wal).into_iter().map(|(l, p)| (l.as_u64(), p)).collect();
    assert_eq!(found, records);
}

#[test]
fn newer_versions_and_unknown_features_are_refused_as_such() {
    for (at, value) in [(8, 2_u8), (16, 1), (20, 1)] {
        let temp = Temp::new();
        copy_dir(&golden(), &temp.log());
        let path = segments(&temp.log())[0].clone();
        let mut file = std::fs::read(&path).unwrap();
        file[at] = value;
        file[12..16].fill(0);
        let crc = crc32(&file[..128]);
        file[12..16].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&path, &file).unwrap();
        match builder(&temp.log()).open() {
            Err(e @ Error::Unsupported { .. }) => assert!(e.to_string().contains("newer")),
            other => panic!("{other:?}"),
        }
    }
}
