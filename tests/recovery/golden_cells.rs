//! The file of cells that version 0.1.0 wrote, and a decoder written from docs/format.md alone.
//!
//! `RINGWAL_GOLDEN_WRITE=1 cargo test --test recovery golden_cells -- --ignored` writes the file.

use std::path::{Path, PathBuf};

use ringwal::{ReadOnlyWal, Wal};

use crate::support::{Temp, copy_dir};

const SLOT: usize = 65536;

type Cells = Vec<(String, Vec<u8>)>;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

/// The values that the golden cells hold.
fn expected() -> Cells {
    let large: Vec<u8> = (0..4096_u32).map(|n| (n * 7) as u8).collect();
    let cells = [("A_9", large), ("checkpoint", Vec::new()), ("vote", b"term 3".to_vec())];
    cells.map(|(name, value)| (name.to_owned(), value)).into()
}

fn open(dir: &Path) -> Wal {
    Wal::builder(dir).prefix("golden").segment_size(16 << 10).open().unwrap()
}

#[test]
#[ignore = "writes a golden file: RINGWAL_GOLDEN_WRITE=1 cargo test --test recovery golden_cells -- --ignored"]
fn write_golden_cells() {
    if std::env::var_os("RINGWAL_GOLDEN_WRITE").is_none() {
        return;
    }
    let temp = Temp::new();
    copy_dir(&golden(), &temp.log());
    let wal = open(&temp.log());
    wal.cell("gone").store(b"removed later").unwrap();
    for (name, value) in expected() {
        wal.cell(&name).store(&value).unwrap();
    }
    wal.cell("gone").remove().unwrap();
    std::fs::copy(temp.log().join("golden.cells"), golden().join("golden.cells")).unwrap();
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte))
}

fn crc32(bytes: &[u8]) -> usize {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    let crc =
        bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |c, _| step(c)));
    !crc as usize
}

/// A slot's counter and cells, if every rule of the document holds.
fn slot(bytes: &[u8], odd: bool, log_id: &[u8]) -> Option<(usize, Cells)> {
    let (counter, used) = (number(&bytes[24..32]), number(&bytes[32..36]));
    let sound = &bytes[..4] == b"RWCl" && &bytes[8..24] == log_id && (40..=SLOT).contains(&used);
    if !sound || number(&bytes[4..8]) != crc32(&bytes[8..used]) {
        return None;
    }
    let (mut at, mut cells) = (40, Vec::new());
    while at < used {
        let (name, value) = (number(&bytes[at..at + 2]), number(&bytes[at + 2..at + 4]));
        at += 4 + name + value;
        let name = String::from_utf8(bytes[at - value - name..at - value].to_vec()).ok()?;
        cells.push((name, bytes[at - value..at].to_vec()));
    }
    let tiled = at == used && cells.len() == number(&bytes[36..40]);
    let ordered = cells.is_sorted_by(|a, b| a.0 < b.0);
    (tiled && ordered && (counter % 2 == 1) == odd).then_some((counter, cells))
}

fn decoded(file: &[u8], log_id: &[u8]) -> Option<Cells> {
    assert_eq!(file.len(), 2 * SLOT);
    let slots = [slot(&file[..SLOT], false, log_id), slot(&file[SLOT..], true, log_id)];
    slots.into_iter().flatten().max_by_key(|(counter, _)| *counter).map(|(_, cells)| cells)
}

#[test]
fn golden_cells_hold_the_values_that_were_written() {
    let temp = Temp::new();
    copy_dir(&golden(), &temp.log());
    let log = ReadOnlyWal::open_with_prefix(temp.log(), "golden").unwrap();
    let wal = open(&temp.log());
    assert_eq!(wal.cells().unwrap().len(), expected().len());
    for (name, value) in expected() {
        assert_eq!(wal.cell(&name).load().unwrap().unwrap(), value);
        assert_eq!(log.load_cell(&name).unwrap().unwrap(), value);
    }
}

#[test]
fn independent_decoder_reads_the_golden_cells() {
    let temp = Temp::new();
    copy_dir(&golden(), &temp.log());
    let wal = open(&temp.log());
    let file = || std::fs::read(temp.log().join("golden.cells")).unwrap();
    assert_eq!(decoded(&file(), &wal.log_id()).unwrap(), expected());
    // What this version writes, too.
    wal.cell("vote").store(b"term 4").unwrap();
    assert_eq!(decoded(&file(), &wal.log_id()).unwrap()[2].1, b"term 4");
}
