//! Different names of one file: a filesystem may ignore case, or how a letter is composed.
//!
//! On every filesystem, names that are equal but for case are refused for what is new.

use std::collections::HashSet;
use std::io;

use super::Names;
use crate::error::{Error, Result};
use crate::io::fs::{Access, Dir};

/// Rejects a log whose files are, or on another filesystem would be, another log's:
///
///  - A name of this log opens a file, and the directory lists no such name.
///  - The log would be new, and another log's prefix differs from its own in case alone. The
///    directory cannot be copied then to a filesystem that ignores case. Logs that are both there
///    already go on.
pub(crate) fn check_names(dir: &dyn Dir, names: &Names) -> Result<()> {
    let list = || -> Result<HashSet<String>> {
        let entries = dir.list().map_err(|e| Error::io("list", dir.path_of(""), e))?;
        Ok(entries.into_iter().map(|entry| entry.name).collect())
    };
    let there = list()?;
    let is_taken = there.iter().any(|name| names.differ_in_case(name));
    if is_taken && !there.iter().any(|name| names.are_of(name)) {
        return Err(Error::NameTaken { path: dir.path_of(&names.lock()) });
    }
    // One segment of each other log is enough: all of its names begin with one prefix.
    let mut prefixes = HashSet::new();
    let of_others = there.iter().filter_map(|name| {
        let ours = names.as_if_ours(name)?;
        prefixes.insert(&name[..name.len() - (ours.len() - names.prefix().len())]).then_some(ours)
    });
    for name in of_others.chain([names.lock()]) {
        // A writer of this log may have created the file since.
        if !there.contains(&name) && leads_somewhere(dir, &name) && !list()?.contains(&name) {
            return Err(Error::NameTaken { path: dir.path_of(&name) });
        }
    }
    Ok(())
}

fn leads_somewhere(dir: &dyn Dir, name: &str) -> bool {
    match dir.open(name, Access::Read) {
        Ok(_) => true,
        // The file exists, and is unreadable or not regular.
        Err(e) => matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput),
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::io::fs::sim::SimDisk;
    use crate::io::fs::{Entry, File};

    /// Opens names without regard to case, and lists them as they were created.
    #[derive(Debug)]
    struct Folding(Arc<dyn Dir>);

    impl Dir for Folding {
        fn list(&self) -> io::Result<Vec<Entry>> {
            self.0.list()
        }
        fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
            let listed = self.0.list()?.into_iter().map(|entry| entry.name);
            let as_it_is = listed.into_iter().find(|is| is.to_lowercase() == name.to_lowercase());
            self.0.open(as_it_is.as_deref().unwrap_or(name), access)
        }
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }
        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }
        fn block_size(&self) -> u32 {
            self.0.block_size()
        }
        fn path_of(&self, name: &str) -> PathBuf {
            self.0.path_of(name)
        }
    }

    #[test]
    fn log_whose_names_open_another_logs_files_is_rejected() {
        let segment = Names::new("wal").segment(4096);
        for there in ["wal.lock", &segment] {
            let disk = SimDisk::new();
            disk.dir().open(there, Access::Create).unwrap();
            disk.dir().open("unrelated", Access::Create).unwrap();
            let folding = Folding(disk.dir());
            for prefix in ["WAL", "Wal", "wAl"] {
                let refused = check_names(&folding, &Names::new(prefix));
                assert!(matches!(refused, Err(Error::NameTaken { .. })), "{there}, {prefix}");
                // A filesystem that respects case has room for both, and a copy of it may not.
                let refused = check_names(&*disk.dir(), &Names::new(prefix));
                assert!(matches!(refused, Err(Error::NameTaken { .. })), "{there}, {prefix}");
            }
            for prefix in ["wal", "wal2", "WAL2", "a"] {
                check_names(&folding, &Names::new(prefix)).unwrap();
            }
        }
    }

    #[test]
    fn logs_that_differ_in_case_and_are_both_there_go_on() {
        let disk = SimDisk::new();
        for name in ["wal.lock", "WAL.lock", &Names::new("Wal").segment(0)] {
            disk.dir().open(name, Access::Create).unwrap();
        }
        for prefix in ["wal", "WAL", "Wal", "other"] {
            check_names(&*disk.dir(), &Names::new(prefix)).unwrap();
        }
        let refused = check_names(&*disk.dir(), &Names::new("wAL"));
        assert!(matches!(refused, Err(Error::NameTaken { .. })), "{refused:?}");
    }
}
