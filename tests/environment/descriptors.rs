//! No file descriptor is left when the log needs its next segment: the log reports it, and
//! recovers.

use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringwal::{Error, Wal};

use super::child::{CASE, DIRECTORY, case_and_directory, in_a_process};
use super::support::{Temp, read_all};

#[test]
fn rotation_without_descriptors_is_reported_and_continues_with_some() {
    let temp = Temp::new();
    in_a_process("rotation", &temp.log());
}

#[test]
fn case() {
    let Some((_, dir)) = case_and_directory() else { return };
    let _ = (CASE, DIRECTORY);
    let wal = Wal::builder(&dir).segment_size(64 << 10).open().unwrap();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Open files stay open, and no further file can be opened.
    setrlimit(Resource::RLIMIT_NOFILE, 3, most).unwrap();
    let mut appended = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    let refused = loop {
        assert!(Instant::now() < deadline, "{appended} records, and no end");
        match wal.append(&[7; 1000]) {
            Ok(_) => appended += 1,
            Err(e) => break e,
        }
    };
    let is_said = |e: &Error| matches!(e, Error::Obstructed { path, .. } if path.starts_with(&dir));
    assert!(is_said(&refused), "{refused:?}");
    assert!(is_said(&wal.try_append(&[7; 1000]).unwrap_err()));
    assert!(is_said(&wal.health().unwrap_err()));
    let stats = wal.stats();
    assert!(stats.obstructed && !stats.out_of_space && stats.obstructions == 1, "{stats:?}");
    assert!(wal.sync().unwrap() <= wal.durable_end());
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    while let Err(e) = wal.append_durable(&[7; 1000]) {
        assert!(is_said(&e) && Instant::now() < deadline, "{e:?}");
    }
    while wal.health().is_err() {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(read_all(&wal).len(), appended + 1);
    wal.close().unwrap();
}
