//! The directory of a restored log.
//!
//! 1. The log is put together in `<prefix>.restoring` inside it, which a lock of the process keeps
//!    for one restore. While it exists, the segments beside it are those that were moved out last.
//! 2. A restore that was killed leaves it. The next one takes what is there into account: segments
//!    that are whole are not read again.
//! 3. Anything else in the directory is another program's: it is refused, and stays.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use ringwal::Lsn;
use ringwal::inspect::Directory;

use crate::error::{Error, Result, io};
use crate::layout;
use crate::manifest::Manifest;

/// The file that a restore locks. No name of a log's file has this form.
const LOCK: &str = "in-progress";
/// Zeros written at once.
const ZEROS: u64 = 1 << 20;

pub(crate) struct Target {
    dir: PathBuf,
    /// Where the log is put together.
    pub(crate) inner: PathBuf,
    prefix: String,
    /// The directory was created here.
    is_new: bool,
    /// Locked until the restore ends.
    lock: File,
}

/// What a directory for a restored log holds.
enum Held {
    /// It does not exist.
    Missing,
    Nothing,
    /// What a restore that was killed has left: segments in their place, by their base.
    Interrupted(Vec<u64>),
}

/// A file of a log is for its owner only, as the log's own are.
fn new_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn new_dir(path: &Path, and_parents: bool) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(and_parents);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn sync_dir(path: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(path).and_then(|dir| dir.sync_all()).map_err(io("sync", path))?;
    }
    Ok(())
}

fn inner_name(prefix: &str) -> String {
    format!("{prefix}.restoring")
}

fn held(dir: &Path, prefix: &str) -> Result<Held> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Held::Missing),
        entries => entries.map_err(io("list", dir))?,
    };
    let (inner, mut is_interrupted) = (inner_name(prefix), false);
    let (mut segments, mut others) = (Vec::new(), Vec::new());
    for entry in entries {
        let name = entry.map_err(io("list", dir))?.file_name().to_string_lossy().into_owned();
        match layout::base_of_log_file(prefix, &name) {
            // A new filesystem has it.
            _ if name == "lost+found" => {}
            _ if name == inner => is_interrupted = true,
            Some(base) => segments.push((base, name)),
            None => others.push(name),
        }
    }
    if !is_interrupted {
        others.extend(segments.drain(..).map(|(_, name)| name));
    }
    match others.into_iter().next() {
        Some(found) => Err(Error::NotEmpty { path: dir.into(), found }),
        None if !is_interrupted => Ok(Held::Nothing),
        None => Ok(Held::Interrupted(segments.into_iter().map(|(base, _)| base).collect())),
    }
}

impl Target {
    /// Refuses a directory that holds something else than an interrupted restore.
    pub(crate) fn check(dir: &Path, prefix: &str) -> Result<()> {
        held(dir, prefix).map(drop)
    }

    pub(crate) fn create(dir: &Path, prefix: &str) -> Result<Self> {
        let held = held(dir, prefix)?;
        let is_new = matches!(held, Held::Missing);
        if is_new {
            new_dir(dir, true).map_err(io("create", dir))?;
        }
        let made = Self::within(dir, prefix, is_new, held);
        if made.is_err() && is_new {
            let _ = fs::remove_dir(dir);
        }
        made
    }

    fn within(dir: &Path, prefix: &str, is_new: bool, held: Held) -> Result<Self> {
        // A bad prefix shows before anything is read.
        Directory::open(dir, prefix)?;
        let inner = dir.join(inner_name(prefix));
        if !matches!(held, Held::Interrupted(_)) {
            new_dir(&inner, false).map_err(io("create", &inner))?;
        }
        let path = inner.join(LOCK);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = opened.map_err(io("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Restoring { path: dir.into() }),
            Err(TryLockError::Error(source)) => return Err(io("lock", &path)(source)),
        }
        let target = Target { dir: dir.into(), inner, prefix: prefix.into(), is_new, lock };
        if let Held::Interrupted(mut moved) = held {
            // Oldest first, so that a log without its front stays one.
            moved.sort_unstable();
            for base in moved {
                let (from, to) = (target.place(base), target.segment(base));
                fs::rename(&from, &to).map_err(io("rename", &from))?;
            }
        }
        Ok(target)
    }

    /// The segment's file while the log is put together.
    pub(crate) fn segment(&self, base: u64) -> PathBuf {
        self.inner.join(layout::log_file(&self.prefix, base))
    }

    /// The segment's place in the log.
    fn place(&self, base: u64) -> PathBuf {
        self.dir.join(layout::log_file(&self.prefix, base))
    }

    /// Removes what an interrupted restore of another range has left.
    pub(crate) fn keep_only(&self, chosen: &[Manifest]) -> Result<()> {
        for file in Directory::open(&self.inner, &self.prefix)?.segment_files()? {
            let base = file.base.as_u64();
            if chosen.binary_search_by_key(&base, |manifest| manifest.base).is_err() {
                let path = self.segment(base);
                fs::remove_file(&path).map_err(io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Moves the log to its place, newest segment first.
    pub(crate) fn publish(&self, chosen: &[Manifest], end: Lsn) -> Result<()> {
        sync_dir(&self.inner)?;
        for manifest in chosen.iter().rev().filter(|manifest| manifest.base < end.as_u64()) {
            let (from, to) = (self.segment(manifest.base), self.place(manifest.base));
            fs::rename(&from, &to).map_err(io("rename", &from))?;
            sync_dir(&self.dir)?;
        }
        fs::remove_dir_all(&self.inner).map_err(io("remove", &self.inner))?;
        sync_dir(&self.dir)?;
        if let (true, Some(parent)) = (self.is_new, self.dir.parent()) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            sync_dir(parent)?;
        }
        // Only now another restore may look at the directory.
        let _ = self.lock.unlock();
        Ok(())
    }

    /// Removes what was created, oldest segment first.
    pub(crate) fn remove(&self, chosen: &[Manifest]) {
        for manifest in chosen {
            let _ = fs::remove_file(self.place(manifest.base));
        }
        let _ = fs::remove_dir_all(&self.inner);
        if self.is_new {
            // Fails if another program has put something there.
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

/// Whether the file holds the whole segment, as the manifest states it.
pub(crate) fn is_whole(path: &Path, manifest: &Manifest) -> Result<bool> {
    let mut file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        file => file.map_err(io("open", path))?,
    };
    if file.metadata().map_err(io("look at", path))?.len() != manifest.size {
        return Ok(false);
    }
    let mut bytes = Vec::new();
    for (range, crc) in manifest.ranges().into_iter().zip(manifest.crcs().unwrap_or_default()) {
        bytes.clear();
        let len = range.end - range.start;
        let read = (&mut file).take(len).read_to_end(&mut bytes).map_err(io("read", path))?;
        if read as u64 != len || crc32fast::hash(&bytes) != crc {
            return Ok(false);
        }
    }
    loop {
        bytes.clear();
        if (&mut file).take(ZEROS).read_to_end(&mut bytes).map_err(io("read", path))? == 0 {
            break;
        }
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    // It may not have been synced before the restore was interrupted.
    file.sync_all().map_err(io("sync", path))?;
    Ok(true)
}

/// The file of a segment that is being read from the store.
pub(crate) struct SegmentWriter {
    file: File,
    path: PathBuf,
    left: u64,
}

impl SegmentWriter {
    /// Creates the file of a segment of so many bytes, in place of one that is not whole.
    pub(crate) fn create(path: &Path, size: u64) -> Result<Self> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(io("remove", path)(e)),
            _ => {}
        }
        let file = new_file(path).map_err(io("create", path))?;
        Ok(SegmentWriter { file, path: path.into(), left: size })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        self.file.write_all(bytes).map_err(io("write", &self.path))
    }

    /// Fills the rest with zeros, and makes the file durable.
    pub(crate) fn finish(mut self) -> Result<()> {
        // Written, not skipped: a log that reuses the file relies on its blocks.
        let zeros = vec![0; ZEROS as usize];
        while self.left > 0 {
            let len = self.left.min(ZEROS);
            self.write(&zeros[..len as usize])?;
        }
        self.file.sync_all().map_err(io("sync", &self.path))
    }
}
