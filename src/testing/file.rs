//! Files of the service itself, on the simulated disk.

use std::io;
use std::sync::Arc;

use crate::io::fs::sim::SimDisk;
use crate::io::fs::{Access, File, read_full, write_full};

/// A file on a [`SimulatedDisk`](super::SimulatedDisk). After a crash every call fails: open the
/// file again.
#[derive(Debug, Clone)]
pub struct SimulatedFile(Arc<dyn File>);

impl SimulatedFile {
    pub(super) fn create(disk: &SimDisk, name: &str) -> io::Result<Self> {
        disk.dir().open(name, Access::Create).map(SimulatedFile)
    }

    pub(super) fn open(disk: &SimDisk, name: &str) -> io::Result<Self> {
        disk.dir().open(name, Access::Write).map(SimulatedFile)
    }

    /// Writes all of `bytes` at `offset`, in bytes. A gap after the old end of the file reads as
    /// zeros.
    ///
    /// # Errors
    ///
    /// Those of a disk that is full or has no power, and of faults.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        write_full(&*self.0, bytes, offset)
    }

    /// Reads from `offset` until `bytes` is full or the file ends. Returns the number of bytes
    /// read.
    ///
    /// # Errors
    ///
    /// Those of a disk without power, and of faults.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        read_full(&*self.0, bytes, offset)
    }

    /// Reads the whole file.
    ///
    /// # Errors
    ///
    /// As [`SimulatedFile::read_at`].
    pub fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.len()? as usize];
        let n = self.read_at(&mut bytes, 0)?;
        bytes.truncate(n);
        Ok(bytes)
    }

    /// Makes every earlier write durable.
    ///
    /// # Errors
    ///
    /// Those of a disk without power, and of faults.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    /// Length of the file, in bytes.
    ///
    /// # Errors
    ///
    /// Those of a disk without power, and of faults.
    pub fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    /// Whether the file has no bytes.
    ///
    /// # Errors
    ///
    /// As [`SimulatedFile::len`].
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}
