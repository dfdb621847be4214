//! `cells`, and cells in a backup and in a salvaged log.

use std::path::Path;

use ringwal::Wal;

use crate::support::{Temp, command, contents, damage, json, log, said};

fn with_cells(dir: &str) {
    log(dir);
    let wal = Wal::builder(dir).segment_size(64 << 10).open().unwrap();
    wal.cell("vote").store(b"\0term 7\xff").unwrap();
    wal.cell("checkpoint").store(b"x").unwrap();
    wal.close().unwrap();
}

#[test]
fn cells_are_listed_and_printed_byte_for_byte() {
    let temp = Temp::new();
    let dir = temp.log();
    log(&dir);
    assert_eq!(said(&["cells", &dir], 0), "there is no cell\n");
    with_cells(&dir);
    let before = contents(&dir);
    assert_eq!(said(&["cells", &dir], 0), "checkpoint  1 byte\nvote  8 bytes\n");
    let all = json(&["cells", "--json", &dir], 0);
    assert_eq!(all[1]["name"], "vote");
    assert_eq!(all[1]["bytes"], 8);
    let raw = command().args(["cells", "--raw", "vote", &dir]).output().unwrap();
    assert_eq!((raw.status.code(), raw.stdout.as_slice()), (Some(0), &b"\0term 7\xff"[..]));
    let none = said(&["cells", "--raw", "voter", &dir], 2);
    assert!(none.contains("the cell voter holds nothing"), "{none}");
    assert!(contents(&dir) == before);
    said(&["cells", &temp.file("nowhere")], 3);
}

#[test]
fn damaged_cells_are_reported_and_moved_away_by_a_repair() {
    let temp = Temp::new();
    let dir = temp.log();
    with_cells(&dir);
    std::fs::write(Path::new(&dir).join("wal.cells"), [7; 9000]).unwrap();
    let text = said(&["cells", &dir], 3);
    assert!(text.contains("wal.cells") && text.contains("ringwal repair"), "{text}");
    let found = json(&["verify", "--json", &dir], 1);
    assert_eq!(found["damage"][0]["segment"], "wal.cells");
    said(&["repair", "--apply", &dir], 0);
    said(&["verify", &dir], 0);
    assert_eq!(said(&["cells", &dir], 0), "there is no cell\n");
}

#[test]
fn backup_and_salvage_take_the_cells_along() {
    let temp = Temp::new();
    let dir = temp.log();
    with_cells(&dir);
    let copy = temp.file("copy");
    said(&["backup", &dir, &copy], 0);
    assert_eq!(said(&["cells", &copy], 0), "checkpoint  1 byte\nvote  8 bytes\n");
    let wal = Wal::builder(&dir).segment_size(64 << 10).open().unwrap();
    wal.cell("checkpoint").store(b"later").unwrap();
    // Beside the writer.
    said(&["backup", &dir, &copy], 0);
    wal.close().unwrap();
    let wal = Wal::open(&copy).unwrap();
    assert_eq!(wal.cell("checkpoint").load().unwrap().unwrap(), b"later");
    wal.close().unwrap();
    damage(&dir, 0, 5000, 8);
    let salvaged = temp.file("salvaged");
    said(&["salvage", &dir, &salvaged], 0);
    assert_eq!(said(&["cells", &salvaged], 0), "checkpoint  5 bytes\nvote  8 bytes\n");
}
