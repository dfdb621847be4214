//! An unnamed file, written from end to end, and memory aligned for direct I/O.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::random::SplitMix;

/// Alignment that every device accepts.
const ALIGN: usize = 4096;
const CHUNK: usize = 1 << 20;
/// Writes that a file has room for, at least.
const LEAST_GROUPS: u64 = 16;

/// Bytes at a stable, aligned address.
#[derive(Debug)]
pub(crate) struct Aligned {
    bytes: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub(crate) fn random(len: usize) -> Self {
        let mut random = SplitMix(len as u64);
        let mut bytes: Vec<u8> = Vec::with_capacity(len + ALIGN + 8);
        while bytes.len() < len + ALIGN {
            bytes.extend_from_slice(&random.next().to_le_bytes());
        }
        let bytes = bytes.into_boxed_slice();
        let start = bytes.as_ptr().align_offset(ALIGN);
        Aligned { bytes, start, len }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

/// A nameless file whose blocks are allocated, written and synced. Several measurements share it.
#[derive(Debug, Clone)]
pub struct RawFile {
    file: Arc<File>,
    /// The same file, open with `O_DSYNC`; `None` where the system has no such flag.
    synced: Option<Arc<File>>,
    direct: bool,
    len: u64,
}

impl RawFile {
    /// Writes and syncs a file of at least `bytes` bytes in `directory`. It has room for 16 writes
    /// of `largest` bytes. `direct` bypasses the page cache where the filesystem supports that.
    ///
    /// # Errors
    ///
    /// The error of the system call that failed.
    pub fn create(directory: &Path, direct: bool, largest: usize, bytes: u64) -> io::Result<Self> {
        let len = bytes.max(LEAST_GROUPS * largest as u64).next_multiple_of(ALIGN as u64);
        let name = directory.join(format!(".loadgen-baseline-{}", unique()));
        let Opened { file, synced, direct } = open(&name, direct)?;
        let content = Aligned::random(CHUNK);
        let mut at = 0;
        while at < len {
            let piece = (CHUNK as u64).min(len - at) as usize;
            write_all_at(&file, &content.as_slice()[..piece], at)?;
            at += piece as u64;
        }
        file.sync_all()?;
        Ok(RawFile { file: Arc::new(file), synced: synced.map(Arc::new), direct, len })
    }

    /// Whether the file has room for 16 writes of `group` bytes.
    #[must_use]
    pub fn has_room_for(&self, group: usize) -> bool {
        self.len / LEAST_GROUPS >= group as u64
    }
}

/// The places of one measurement in a [`RawFile`]. The measurement writes them over and over.
#[derive(Debug)]
pub(crate) struct Area {
    raw: RawFile,
    groups: u64,
    group: usize,
    next: u64,
}

impl Area {
    /// Divides the file into places of `group` bytes.
    pub(crate) fn new(raw: &RawFile, group: usize) -> io::Result<Self> {
        if !raw.has_room_for(group) {
            return Err(io::Error::other("the file is too small for 16 writes"));
        }
        Ok(Area { raw: raw.clone(), groups: raw.len / group as u64, group, next: 0 })
    }

    pub(crate) fn file(&self) -> &File {
        &self.raw.file
    }

    /// The file whose writes are durable when they return.
    pub(crate) fn synced_file(&self) -> Option<&File> {
        self.raw.synced.as_deref()
    }

    pub(crate) fn direct(&self) -> bool {
        self.raw.direct
    }

    /// Returns the offset of the next group: in sequence, then from the start again.
    pub(crate) fn next_offset(&mut self) -> u64 {
        let offset = self.next * self.group as u64;
        self.next = (self.next + 1) % self.groups;
        offset
    }
}

fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

struct Opened {
    file: File,
    synced: Option<File>,
    direct: bool,
}

/// Opens a new file and unlinks it. Uses buffered I/O if the filesystem does not support direct
/// I/O.
fn open(name: &Path, direct: bool) -> io::Result<Opened> {
    let opened = open_both(name, direct);
    let refused = matches!(&opened, Err(e) if direct && e.kind() == io::ErrorKind::InvalidInput);
    if refused { open_both(name, false) } else { opened }
}

/// Opens a new file, opens it again with `O_DSYNC`, and unlinks it.
fn open_both(name: &Path, direct: bool) -> io::Result<Opened> {
    let file = open_with(name, true, flags(direct));
    let synced = match &file {
        Ok(_) => durable_flag().map(|flag| open_with(name, false, flags(direct) | flag)),
        Err(_) => None,
    };
    let _ = std::fs::remove_file(name);
    Ok(Opened { file: file?, synced: synced.transpose()?, direct })
}

#[cfg(target_os = "linux")]
fn flags(direct: bool) -> i32 {
    if direct { nix::libc::O_DIRECT } else { 0 }
}

#[cfg(not(target_os = "linux"))]
fn flags(_direct: bool) -> i32 {
    0
}

#[cfg(target_os = "linux")]
fn durable_flag() -> Option<i32> {
    Some(nix::libc::O_DSYNC)
}

#[cfg(not(target_os = "linux"))]
fn durable_flag() -> Option<i32> {
    None
}

#[cfg(unix)]
fn open_with(name: &Path, create: bool, flags: i32) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(create);
    options.mode(0o600).custom_flags(flags).open(name)
}

#[cfg(not(unix))]
fn open_with(name: &Path, create: bool, _flags: i32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(create).open(name)
}

#[cfg(unix)]
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(not(unix))]
pub(crate) fn write_all_at(mut file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_has_the_requested_length() {
        for len in [1, 4095, 4096, 100_000] {
            let memory = Aligned::random(len);
            assert_eq!(memory.as_slice().len(), len);
            assert_eq!(memory.as_slice().as_ptr() as usize % ALIGN, 0);
        }
    }

    #[test]
    fn area_is_written_and_unlinked() {
        let dir = std::env::temp_dir().join(format!("loadgen-area-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let raw = RawFile::create(&dir, true, 12_288, 3 << 20).unwrap();
        let mut area = Area::new(&raw, 12_288).unwrap();
        assert_eq!(area.file().metadata().unwrap().len(), 256 * 12_288);
        assert_eq!((area.next_offset(), area.next_offset()), (0, 12_288));
        assert_eq!((2..256).map(|_| area.next_offset()).last(), Some(255 * 12_288));
        assert_eq!(area.next_offset(), 0);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        // Another measurement divides the same file differently, down to 16 writes.
        assert_eq!(Area::new(&raw, 3 << 16).unwrap().groups, 16);
        assert!(Area::new(&raw, (3 << 16) + 4096).is_err());
        std::fs::remove_dir(&dir).unwrap();
    }
}
