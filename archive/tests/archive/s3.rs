//! A server that speaks S3: `archive/check-s3` starts one and runs this.
#![cfg(feature = "s3")]

use ringwal::Lsn;
use ringwal_archive::{Archive, Archiver, KeepFrom, Until};

use crate::support::{SEGMENT, Temp, before, closed_log, contents};

/// `RINGWAL_S3_URL` names a bucket and a prefix in it that is empty.
#[test]
#[ignore = "needs a server; archive/check-s3 starts one"]
fn log_is_archived_and_restored_through_a_server() {
    let url = std::env::var("RINGWAL_S3_URL").unwrap();
    let temp = Temp::new();
    let wal = ringwal::Wal::builder(temp.join("large")).segment_size(12 << 20).open().unwrap();
    let mut large = Vec::new();
    for n in 0..300_u32 {
        let payload = vec![n as u8; 100_000];
        large.push((wal.append(&payload).unwrap(), payload));
    }
    wal.close().unwrap();
    // Parts of 5 MiB: each segment is a multipart upload.
    let place = Archive::at(&format!("{url}/large")).unwrap();
    let archiver = Archiver::builder(place.clone()).part_bytes(5 << 20);
    // The second server of the script fails at times.
    let archiver = archiver.on_error(|e| eprintln!("{e}")).start().unwrap();
    let done = archiver.catch_up(temp.join("large"), "wal").unwrap();
    assert_eq!((done.shipped, done.archived_to), (2, Lsn::new(24 << 20)));
    let to = temp.fresh();
    let restored = place.restore().into(&to).unwrap();
    assert!(contents(&to) == before(&large, restored.end));
    let part = Until::Lsn(large[100].0);
    let to = temp.fresh();
    place.restore().until(part).into(&to).unwrap();
    assert!(contents(&to) == large[..100]);

    let small = closed_log(&temp.join("log"), 4);
    let place = Archive::at(&format!("{url}/small")).unwrap();
    let archiver = Archiver::builder(place.clone()).start().unwrap();
    let done = archiver.catch_up(temp.join("log"), "wal").unwrap();
    assert_eq!(done.archived_to, Lsn::new(4 * SEGMENT));
    assert_eq!(archiver.catch_up(temp.join("log"), "wal").unwrap().present, 4);
    let to = temp.fresh();
    let restored = place.restore().into(&to).unwrap();
    assert!(contents(&to) == before(&small, restored.end));
    // A prune is repeated until it succeeds: no request of it does harm twice.
    let keep = KeepFrom::Lsn(Lsn::new(2 * SEGMENT));
    let mut attempts = (0..20).map(|_| place.prune(keep));
    let pruned = attempts.find_map(Result::ok).expect("one of twenty succeeds");
    assert_eq!(pruned.kept_from, Lsn::new(2 * SEGMENT));
    let listing = place.list().unwrap();
    assert_eq!((listing.segments.len(), listing.unconfirmed_objects.len()), (2, 0));
    let verified = place.verify(|_| std::ops::ControlFlow::Continue(())).unwrap();
    assert!(verified.findings.is_empty(), "{:?}", verified.findings);
    assert_eq!(archiver.catch_up(temp.join("log"), "wal").unwrap().pruned, 2);
    // Two logs at one place.
    let other = archiver.catch_up(temp.join("large"), "wal").unwrap_err();
    assert!(matches!(other, ringwal_archive::Error::AnotherLog { .. }), "{other}");
}
