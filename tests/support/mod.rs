//! Helpers that several test files share.
#![allow(dead_code, unreachable_pub, clippy::print_stderr, reason = "for tests; each uses a part")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringwal::{BackendChoice, Lsn, Wal, WalBuilder};

/// Sets a flag at its end, also when the test fails. The threads that run until then end, and so
/// does the scope that waits for them.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A directory of its own, removed when the test is over.
#[derive(Debug)]
pub struct Temp(PathBuf);

impl Temp {
    pub fn new() -> Self {
        Temp::inside(&std::env::temp_dir())
    }

    /// In memory where the system has a directory for that, and else as [`Temp::new`].
    pub fn new_in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Temp::inside(memory) } else { Temp::new() }
    }

    fn inside(directory: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let n = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("ringwal-test-{}-{n}", std::process::id());
            let path = directory.join(name);
            match std::fs::create_dir(&path) {
                Ok(()) => return Temp(path),
                // A killed process with the same process id left it.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => panic!("{}: {e}", path.display()),
            }
        }
    }

    /// The path of a log's directory inside, which does not exist yet.
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // An open directory may keep its name after its removal, as under Wine: std then tries for
        // ever, if a test has leaked a log.
        let _ = match cfg!(windows) {
            true => remove_once(&self.0),
            false => std::fs::remove_dir_all(&self.0),
        };
    }
}

/// Removes a directory and what is in it, with one try at each name.
fn remove_once(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let _ = match entry.file_type()?.is_dir() {
            true => remove_once(&entry.path()),
            false => std::fs::remove_file(entry.path()),
        };
    }
    std::fs::remove_dir(dir)
}

/// Creates a symbolic link to a file. False: the system has none, or not for this user.
#[must_use]
pub fn symlink(target: &Path, link: &Path) -> bool {
    #[cfg(unix)]
    std::os::unix::fs::symlink(target, link).unwrap();
    #[cfg(windows)]
    if let Err(e) = std::os::windows::fs::symlink_file(target, link) {
        eprintln!("skipped: no symbolic link can be created: {e}");
        return false;
    }
    // Wine reports success, and creates none.
    let is_there = link.symlink_metadata().is_ok();
    if !is_there {
        eprintln!("skipped: no symbolic link was created");
    }
    is_there
}

/// Waits until `done` returns true, for a long time: the machine and its disk may be busy.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Both backends, or the one that this machine supports.
pub fn backends() -> Vec<BackendChoice> {
    let temp = Temp::new();
    let uring = Wal::builder(temp.log()).segment_size(64 << 10).backend(BackendChoice::IoUring);
    match uring.open() {
        Ok(_) => vec![BackendChoice::IoUring, BackendChoice::Std],
        Err(e) => {
            eprintln!("only the std backend is tested here: {e}");
            vec![BackendChoice::Std]
        }
    }
}

/// A builder with small segments, so that rotation happens.
pub fn small(dir: &Path) -> WalBuilder {
    Wal::builder(dir).segment_size(64 << 10)
}

pub fn read_all(wal: &Wal) -> Vec<(Lsn, Vec<u8>)> {
    let mut all = Vec::new();
    wal.replay(|lsn, payload| {
        all.push((lsn, payload.to_vec()));
        Ok::<(), ()>(())
    })
    .unwrap();
    all
}

/// Copies the files of a directory, except those that are removed meanwhile.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match std::fs::copy(entry.path(), to.join(entry.file_name())) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            copied => drop(copied.unwrap()),
        }
    }
}

/// The segment files, oldest first.
pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "wal"))
        .collect();
    files.sort();
    files
}

/// Whether `RINGWAL_LONG` asks for more rounds.
pub fn long() -> bool {
    std::env::var_os("RINGWAL_LONG").is_some()
}
