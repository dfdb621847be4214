//! Deleting a log.

use std::path::Path;

use crate::error::{Error, Result};
use crate::io::fs::{Dir, OsDir};
use crate::options::{DEFAULT_LOCK_WAIT, validate_prefix};
use crate::segment::{DirLock, Names, SegmentName, newest_segment};
use crate::wal::Wal;

impl Wal {
    /// Deletes the log with this prefix: its segments, the positions of its consumers, and all its
    /// other files. Files of others, and the directory, stay. Blocks until the deletion is durable.
    ///
    /// The oldest segment goes first. If the call is interrupted, the log that is left lacks its
    /// beginning: opening it is `Corruption`, never a shorter log, and calling `remove` again
    /// completes the deletion.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-remove-{}", std::process::id()));
    /// use ringwal::Wal;
    /// let wal = Wal::builder(&dir).prefix("orders").open()?;
    /// wal.append_durable(b"an order")?;
    /// wal.close()?;
    /// Wal::remove(&dir, "orders")?;
    /// assert!(std::fs::read_dir(&dir).unwrap().next().is_none());
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `NoLog` if the directory holds no file of the log. `Locked` if a writer has the log open
    /// after two seconds of waiting; nothing was deleted. `Options` for a prefix that no log can
    /// have. `Io` for anything that the system refuses; a part may be deleted.
    pub fn remove(dir: impl AsRef<Path>, prefix: &str) -> Result<()> {
        let path = dir.as_ref();
        validate_prefix(prefix)?;
        let names = Names::new(prefix);
        let no_log = || Error::NoLog { path: path.into(), prefix: prefix.into() };
        let dir = OsDir::open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => no_log(),
            _ => Error::io("open directory", path, e),
        })?;
        let list = || dir.list().map_err(|e| Error::io("list", path, e));
        if !list()?.iter().any(|entry| names.are_of(&entry.name)) {
            return Err(no_log());
        }
        if let Ok(Some(newest)) = newest_segment(&dir, &names) {
            dir.create_like_neighbour(&names.segment(newest));
        }
        let lock = DirLock::acquire(&dir, &names, DEFAULT_LOCK_WAIT)?;
        remove_files(&dir, &names)?;
        // The lock file last, and while it is locked: an opener that waits for it opens a new one.
        let name = names.lock();
        dir.remove(&name).map_err(|e| Error::io("remove", dir.path_of(&name), e))?;
        drop(lock);
        dir.sync().map_err(|e| Error::io("sync directory", path, e))
    }
}

/// Removes all files of the log but its lock: segments in the order of their positions, on the disk
/// too, and then the files that have no meaning without segments.
fn remove_files(dir: &dyn Dir, names: &Names) -> Result<()> {
    let entries = dir.list().map_err(|e| Error::io("list", dir.path_of(""), e))?;
    let mut files: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
    files.retain(|name| names.are_of(name) && *name != names.lock());
    files.sort_by_key(|name| match names.parse(name) {
        SegmentName::Segment(base) => (0, base),
        SegmentName::Temporary | SegmentName::Foreign => (1, 0),
    });
    for name in &files {
        let removed = match names.parse(name) {
            SegmentName::Segment(_) => dir.remove(name).and_then(|()| dir.sync()),
            SegmentName::Temporary | SegmentName::Foreign => dir.remove(name),
        };
        removed.map_err(|e| Error::io("remove", dir.path_of(name), e))?;
    }
    Ok(())
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::io::fs::hooked::{Call, HookedDir, TempPath};

    #[test]
    fn removal_interrupted_at_any_file_leaves_no_shorter_log() {
        let mut removals = 0;
        loop {
            let path = TempPath::new();
            let builder = Wal::builder(&*path).segment_size(16 << 10).ring_capacity(16 << 10);
            let wal = builder.clone().open().unwrap();
            for n in 0..20 {
                wal.append_durable(&[n; 3000]).unwrap();
            }
            wal.close().unwrap();
            let segments = std::fs::read_dir(&*path).unwrap().count();
            assert!(segments > 5);
            let calls = AtomicUsize::new(0);
            let dir: Arc<dyn Dir> = Arc::new(OsDir::open(&path).unwrap());
            let dir = HookedDir::new(dir, move |call, _| match call {
                Call::Remove if calls.fetch_add(1, Ordering::Relaxed) == removals => {
                    Err(std::io::ErrorKind::Other.into())
                }
                _ => Ok(()),
            });
            let names = Names::new("wal");
            let interrupted = remove_files(&dir, &names).is_err();
            let left = newest_segment(&dir, &names).unwrap();
            // No result depends on this file.
            let _ = std::fs::remove_file(path.join(names.end()));
            match builder.open() {
                Ok(wal) if removals == 0 => {
                    assert_eq!(wal.reader(crate::Lsn::ZERO).count(), 20);
                }
                Ok(_) => assert!(left.is_none(), "a shorter log after {removals} removals"),
                Err(e) => {
                    assert!(matches!(e, Error::Corruption { .. }), "{e}");
                    Wal::remove(&*path, "wal").unwrap();
                }
            }
            removals += 1;
            if !interrupted {
                break;
            }
        }
        assert!(removals > 5);
    }
}
