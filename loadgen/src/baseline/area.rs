//! A file without a name, written from end to end, and memory aligned for direct I/O.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use crate::payload::SplitMix;

/// Alignment that every device takes.
const ALIGN: usize = 4096;
const CHUNK: usize = 1 << 20;

/// Bytes at an aligned address that do not move.
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

/// The file that a baseline writes over and over.
#[derive(Debug)]
pub(crate) struct Area {
    file: File,
    direct: bool,
    groups: u64,
    group: usize,
    next: u64,
}

impl Area {
    /// Room for as many groups as fit in `bytes`, at least 16, all written and synced.
    pub(crate) fn create(
        directory: &Path,
        direct: bool,
        group: usize,
        bytes: u64,
    ) -> io::Result<Self> {
        let groups = (bytes / group as u64).max(16);
        let name = directory.join(format!(".loadgen-baseline-{}", unique()));
        let (file, direct) = open(&name, direct)?;
        let area = Area { file, direct, groups, group, next: 0 };
        area.fill()?;
        Ok(area)
    }

    fn fill(&self) -> io::Result<()> {
        let content = Aligned::random(CHUNK.max(self.group));
        // Whole groups in about a mebibyte.
        let chunk = content.as_slice().len() / self.group * self.group;
        let end = self.groups * self.group as u64;
        let mut at = 0;
        while at < end {
            let len = (chunk as u64).min(end - at) as usize;
            write_all_at(&self.file, &content.as_slice()[..len], at)?;
            at += len as u64;
        }
        self.file.sync_all()
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn direct(&self) -> bool {
        self.direct
    }

    /// Where the next group goes: one behind the other, and from the start again.
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

/// Opens a new file and takes its name away. Without direct I/O where the filesystem has none.
fn open(name: &Path, direct: bool) -> io::Result<(File, bool)> {
    let opened = open_with(name, direct);
    let refused = matches!(&opened, Err(e) if direct && e.kind() == io::ErrorKind::InvalidInput);
    let _ = std::fs::remove_file(name);
    if !refused {
        return opened.map(|file| (file, direct));
    }
    let opened = open_with(name, false);
    let _ = std::fs::remove_file(name);
    opened.map(|file| (file, false))
}

#[cfg(target_os = "linux")]
fn open_with(name: &Path, direct: bool) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = if direct { nix::libc::O_DIRECT } else { 0 };
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(name)
}

#[cfg(not(target_os = "linux"))]
fn open_with(name: &Path, _direct: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).open(name)
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
    fn memory_is_aligned_and_as_long_as_asked() {
        for len in [1, 4095, 4096, 100_000] {
            let memory = Aligned::random(len);
            assert_eq!(memory.as_slice().len(), len);
            assert_eq!(memory.as_slice().as_ptr() as usize % ALIGN, 0);
        }
    }

    #[test]
    fn the_area_is_written_and_has_no_name() {
        let dir = std::env::temp_dir().join(format!("loadgen-area-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let mut area = Area::create(&dir, true, 12_288, 3 << 20).unwrap();
        assert_eq!(area.file().metadata().unwrap().len(), 256 * 12_288);
        assert_eq!((area.next_offset(), area.next_offset()), (0, 12_288));
        assert_eq!((2..256).map(|_| area.next_offset()).last(), Some(255 * 12_288));
        assert_eq!(area.next_offset(), 0);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        std::fs::remove_dir(&dir).unwrap();
    }
}
