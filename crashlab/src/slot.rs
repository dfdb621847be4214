//! A loop device over a file in memory, which takes and mounts one image after another.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::disk::Pages;
use crate::mounts::{Kind, attach, detach, mount, unmount};

/// Errors of ext4 and XFS for a wrong checksum.
const DAMAGED: [Errno; 2] = [Errno::EBADMSG, Errno::EUCLEAN];

#[derive(Debug)]
pub(crate) struct Slot {
    kind: Kind,
    path: PathBuf,
    file: File,
    device: String,
    at: PathBuf,
}

impl Slot {
    /// Creates a slot with the file `path`. `at` is an empty directory to mount on.
    pub(crate) fn new(kind: Kind, path: PathBuf, at: PathBuf) -> io::Result<Self> {
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path)?;
        file.set_len(kind.size())?;
        let device = attach(&path, "--direct-io=off")?;
        Ok(Slot { kind, path, file, device, at })
    }

    /// Writes an image to the device, mounts it, and runs the check on it. `None`: the filesystem
    /// reports the image as damaged, so the log cannot be checked.
    pub(crate) fn with_image(
        &self,
        pages: &Pages,
        look: impl FnOnce(&Path) -> Result<(), String>,
    ) -> Result<Option<()>, String> {
        self.put(pages).map_err(|e| format!("writing an image: {e}"))?;
        match mount(self.kind, &self.device, &self.at) {
            Err(e) if DAMAGED.contains(&e) => return Ok(None),
            mounted => mounted.map_err(|e| format!("mounting an image: {e}"))?,
        }
        let seen = look(&self.at);
        unmount(&self.at).map_err(|e| format!("unmounting an image: {e}"))?;
        seen.map(Some)
    }

    fn put(&self, pages: &Pages) -> io::Result<()> {
        let whole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&self.file, whole, 0, self.kind.size() as i64)?;
        pages.each().try_for_each(|(offset, bytes)| self.file.write_all_at(bytes, offset))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let _ = unmount(&self.at);
        detach(&self.device);
        let _ = fs::remove_file(&self.path);
    }
}
