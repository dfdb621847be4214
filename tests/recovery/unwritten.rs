//! A log that was prepared and never written: its first open stopped before the first group.

use crate::support::{Temp, read_all, segments, small};

/// Creates the files of a log between the first preparation and the first group.
fn unwritten() -> Temp {
    let temp = Temp::new();
    small(&temp.log()).open().unwrap().close().unwrap();
    let files = segments(&temp.log());
    for spare in &files[1..] {
        std::fs::remove_file(spare).unwrap();
    }
    let mut first = std::fs::read(&files[0]).unwrap();
    first[4096..].fill(0);
    std::fs::write(&files[0], first).unwrap();
    // The end file states a close, which an unwritten log never had.
    std::fs::remove_file(temp.log().join("wal.end")).unwrap();
    temp
}

#[test]
fn unwritten_log_opens_with_settings_that_its_segment_does_not_fit() {
    for closed in [true, false] {
        let temp = unwritten();
        // These settings need larger groups than the segment allows.
        let open = || small(&temp.log()).max_record_size(40_000).open();
        let wal = open().unwrap();
        let lsn = wal.append_durable(b"acknowledged").unwrap();
        let expected = [(lsn, b"acknowledged".to_vec())];
        assert_eq!(read_all(&wal), expected, "in the same run");
        assert_eq!(wal.read(lsn).unwrap().payload, b"acknowledged");
        let copy = Temp::new();
        crate::support::copy_dir(&temp.log(), &copy.log());
        let again = if closed {
            wal.close().unwrap();
            open().unwrap()
        } else {
            // As after a crash.
            small(&copy.log()).max_record_size(40_000).open().unwrap()
        };
        assert_eq!(read_all(&again), expected, "closed: {closed}");
    }
}
