//! Directories of the tests. A test that is killed leaves its own; the next one removes it.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

const PREFIX: &str = "replicated-kv-";

/// The disk that a test may have mounted in its directory.
pub(crate) const DISK: &str = "small";

/// A directory of this process in the target folder, which is created.
pub(crate) fn directory(name: &str) -> PathBuf {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    remove_stale(parent);
    let dir = parent.join(format!("{PREFIX}{}-{name}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Removes the directories of processes that are gone, where the system names its processes.
pub(crate) fn remove_stale(parent: &Path) {
    if !Path::new("/proc/self").exists() {
        return;
    }
    for path in fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str());
        let process = name.and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = umount2(&path.join(DISK), MntFlags::MNT_DETACH);
            let _ = fs::remove_dir_all(path);
        }
    }
}
