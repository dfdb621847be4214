//! A log whose last group is torn, opened with settings that its last segment does not fit.

use std::time::Duration;

use crate::support::{Temp, copy_dir, read_all, segments, small};

#[test]
fn torn_group_stays_discarded_when_the_log_continues_in_the_next_segment() {
    let (first, torn) = (Temp::new(), Temp::new());
    // No idle seal follows the last group.
    let wal = small(&first.log()).idle_seal(Duration::from_secs(60)).open().unwrap();
    for n in 0..5 {
        wal.append_durable(format!("record {n}").as_bytes()).unwrap();
    }
    copy_dir(&first.log(), &torn.log());
    drop(wal);
    let segment = &segments(&torn.log())[0];
    let mut bytes = std::fs::read(segment).unwrap();
    let at = bytes.windows(8).position(|b| b == b"record 4").unwrap();
    bytes[at] ^= 1;
    std::fs::write(segment, bytes).unwrap();

    // These settings need larger groups than the segment allows.
    let open = || small(&torn.log()).max_record_size(40_000).open().unwrap();
    let wal = open();
    assert!(wal.recovery().cut, "{:?}", wal.recovery());
    wal.append_durable(b"acknowledged").unwrap();
    let payloads = |wal: &ringwal::Wal| -> Vec<Vec<u8>> {
        read_all(wal).into_iter().map(|(_, payload)| payload).collect()
    };
    let expected: [&[u8]; 5] =
        [b"record 0", b"record 1", b"record 2", b"record 3", b"acknowledged"];
    assert_eq!(payloads(&wal), expected, "in the same run");
    wal.close().unwrap();
    assert_eq!(payloads(&open()), expected, "in the next");
}

/// The log continues in the next segment, but writes nothing there before the first append.
#[test]
fn sync_of_a_log_opened_with_other_settings_writes_nothing() {
    let disk = ringwal::testing::SimulatedDisk::new(1);
    let settings = |record: usize| {
        let builder = ringwal::Wal::builder("not looked at").segment_size(64 << 10);
        builder.ring_capacity(64 << 10).max_record_size(record)
    };
    let wal = disk.open(&settings(1000)).unwrap();
    let lsn = wal.append_durable(b"kept").unwrap();
    wal.close().unwrap();
    for n in 0..20 {
        let wal = disk.open(&settings([9000, 1000][n % 2])).unwrap();
        assert!(wal.sync().unwrap() <= wal.durable_end());
        assert_eq!(wal.read(lsn).unwrap().payload, b"kept");
        assert!(matches!(
            wal.wait_durable(wal.durable_end()),
            Err(ringwal::Error::NotAppended { .. })
        ));
        wal.close().unwrap();
        assert!(disk.names().len() < 6, "{:?}", disk.names());
    }
}
