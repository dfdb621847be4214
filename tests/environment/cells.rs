//! Cells on a full disk, and on one that can only be read.

use std::process::Command;

use ringwal::inspect::Directory;
use ringwal::{Error, ReadOnlyWal, Wal};

use crate::mounted::Mounted;
use crate::skip;
use crate::support::Temp;

#[test]
fn first_store_on_a_full_disk_is_refused_and_later_stores_need_no_room() {
    let temp = Temp::new();
    let Some(mounted) = Mounted::ext4(&temp, 16 << 20, &[]) else {
        return skip("no filesystem can be mounted here");
    };
    let dir = mounted.path.join("log");
    let wal = Wal::builder(&dir).segment_size(256 << 10).open().unwrap();
    wal.append_durable(b"a record").unwrap();
    let fill = || {
        let fillers = (0..).map(|n| mounted.path.join(format!("filler-{n}")));
        let full = |path: std::path::PathBuf| std::fs::write(path, vec![1; 64 << 10]).is_err();
        fillers.map(full).find(|full| *full);
        // The last one took what room was left in smaller steps.
        let rest = mounted.path.join("rest");
        let mut file = std::fs::File::create(rest).unwrap();
        while std::io::Write::write_all(&mut file, &[2; 1024]).is_ok() {}
    };
    fill();
    let full = wal.cell("vote").store(b"1");
    let is_full = |e: &Error| matches!(e, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull);
    assert!(full.as_ref().is_err_and(is_full), "{full:?}");
    assert_eq!(wal.cell("vote").load().unwrap(), None);
    for n in 0..20 {
        let _ = std::fs::remove_file(mounted.path.join(format!("filler-{n}")));
    }
    wal.cell("vote").store(b"2").unwrap();
    fill();
    for n in 0..20_u8 {
        wal.cell("vote").store(&[n; 4096]).unwrap();
        wal.cell(&format!("other-{}", n % 10)).store(&[n; 4096]).unwrap();
    }
    assert_eq!(wal.cell("vote").load().unwrap().unwrap(), [19; 4096]);
    wal.close().unwrap();

    let remount = ["-o", "remount,ro"];
    if !Command::new("mount").args(remount).arg(&mounted.path).status().unwrap().success() {
        return skip("it cannot be mounted for reading only");
    }
    let log = ReadOnlyWal::open(&dir).unwrap();
    assert_eq!(log.load_cell("vote").unwrap().unwrap(), [19; 4096]);
    assert_eq!(log.cells().unwrap().len(), 11);
    let stored = Directory::open(&dir, "wal").unwrap().stored_cells().unwrap().unwrap();
    assert_eq!(stored.cells.unwrap().len(), 11);
    drop(log);
}
