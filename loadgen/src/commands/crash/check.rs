//! The check of a log against the acknowledgements.

use std::collections::HashMap;
use std::path::Path;

use ringwal::Lsn;
use ringwal::inspect::Directory;

use super::record::{Acks, Name};
use super::writer::builder;
use crate::error::Error;

/// The content of the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Found {
    /// Records found.
    pub records: u64,
    /// Lives of writers with at least one record.
    pub lives: u64,
}

/// Opens the log, reads all of it, and looks up every acknowledgement.
///
/// # Errors
///
/// [`Error::Verify`] if a record is missing, out of order, or altered; those of the log.
pub fn check(log: &Path, acks: &Acks) -> Result<Found, Error> {
    if !is_there(log)? {
        // An open would create a log.
        return if acks.count() == 0 {
            Ok(Found::default())
        } else {
            let (log, acks) = (log.display(), acks.count());
            Err(Error::Verify(format!(
                "there is no log in {log}, and {acks} records were acknowledged"
            )))
        };
    }
    let wal = builder(log).open()?;
    let mut next: HashMap<(u64, u32), u64> = HashMap::new();
    let mut found = Found::default();
    let mut reader = wal.reader(Lsn::ZERO);
    while let Some(record) = reader.next_ref()? {
        let lsn = record.lsn;
        let Some(name) = Name::of(record.payload) else {
            return Err(Error::Verify(format!("the record at {lsn} is not what a writer wrote")));
        };
        let Name { life, thread, number } = name;
        let expected = next.entry((life, thread)).or_default();
        if number != *expected {
            return Err(Error::Verify(format!(
                "thread {thread} of life {life:x} has record {number} at {lsn}, where {expected} should be"
            )));
        }
        *expected += 1;
        found.records += 1;
    }
    let mut lives: Vec<u64> = next.keys().map(|(life, _)| *life).collect();
    lives.sort_unstable();
    lives.dedup();
    found.lives = lives.len() as u64;
    for Name { life, thread, number } in acks.all() {
        let there = next.get(&(life, thread)).copied().unwrap_or(0);
        if there <= number {
            return Err(Error::Verify(format!(
                "record {number} of thread {thread} of life {life:x} was acknowledged, and the log has only {there} of that thread"
            )));
        }
    }
    wal.close()?;
    Ok(found)
}

/// True if the directory holds a segment.
fn is_there(log: &Path) -> Result<bool, Error> {
    match Directory::open(log, "wal").and_then(|log| log.segment_files()) {
        Err(ringwal::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(false)
        }
        files => Ok(!files?.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_of_a_missing_log_fails_and_creates_nothing() {
        let dir = std::env::temp_dir().join(format!("loadgen-none-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let mut acks = Acks::default();
        assert_eq!(check(&dir, &acks).unwrap().records, 0);
        acks.add(Name { life: 1, thread: 0, number: 0 });
        let e = check(&dir, &acks).unwrap_err();
        assert!(e.to_string().contains("there is no log in "), "{e}");
        assert!(!dir.exists());
        std::fs::create_dir(&dir).unwrap();
        check(&dir, &acks).unwrap_err();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        std::fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn missing_or_reordered_record_is_found() {
        let dir = std::env::temp_dir().join(format!("loadgen-crash-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let append = |life, thread, number| {
            let wal = builder(&dir).open().unwrap();
            let mut record = Vec::new();
            Name { life, thread, number }.fill(100, &mut record);
            wal.append_durable(&record).unwrap();
            wal.close().unwrap();
        };
        let mut acks = Acks::default();
        (0..3).for_each(|number| append(1, 0, number));
        append(2, 5, 0);
        acks.add(Name { life: 1, thread: 0, number: 2 });
        let found = check(&dir, &acks).unwrap();
        assert_eq!((found.records, found.lives), (4, 2));
        acks.add(Name { life: 2, thread: 5, number: 1 });
        let e = check(&dir, &acks).unwrap_err();
        assert!(e.to_string().contains("was acknowledged"), "{e}");
        append(1, 0, 4);
        let e = check(&dir, &Acks::default()).unwrap_err();
        assert!(e.to_string().contains("where 3 should be"), "{e}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
