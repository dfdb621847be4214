//! A directory in memory, on which no call ever fails.
//!
//! 1. Copies share their bytes until one of them is written to.
//! 2. A file may be longer than its bytes. The rest reads as zeros.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::io::fs::{Access, Dir, Entry, File};
use crate::sys::sync::lock;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) bytes: Arc<Vec<u8>>,
    pub(super) len: u64,
}

impl Content {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        let len = bytes.len() as u64;
        Content { bytes: Arc::new(bytes), len }
    }

    /// Returns `len` bytes from `at` on, or fewer at the end of the file.
    pub(super) fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len.min(self.len.saturating_sub(at) as usize)];
        self.read_at(&mut out, at);
        out
    }

    fn read_at(&self, out: &mut [u8], at: u64) -> usize {
        let n = (out.len() as u64).min(self.len.saturating_sub(at)) as usize;
        let from = (at.min(self.bytes.len() as u64)) as usize;
        let stored = n.min(self.bytes.len() - from);
        out[..stored].copy_from_slice(&self.bytes[from..from + stored]);
        out[stored..n].fill(0);
        n
    }

    fn write(&mut self, bytes: &[u8], at: u64) {
        let (from, to) = (at as usize, at as usize + bytes.len());
        let own = Arc::make_mut(&mut self.bytes);
        if own.len() < to {
            own.resize(to, 0);
        }
        own[from..to].copy_from_slice(bytes);
        self.len = self.len.max(to as u64);
    }
}

/// Contents of files by name.
pub(super) type Files = BTreeMap<String, Content>;

#[derive(Debug)]
pub(super) struct Memory(Mutex<BTreeMap<String, Arc<MemoryFile>>>);

#[derive(Debug)]
struct MemoryFile(Mutex<Content>);

impl Memory {
    pub(super) fn new(files: &Files) -> Arc<Self> {
        let open = |(name, content): (&String, &Content)| {
            (name.clone(), Arc::new(MemoryFile(Mutex::new(content.clone()))))
        };
        Arc::new(Memory(Mutex::new(files.iter().map(open).collect())))
    }

    /// A copy of all files.
    pub(super) fn files(&self) -> Files {
        let content = |(name, file): (&String, &Arc<MemoryFile>)| {
            let content = lock(&file.0).clone();
            (name.clone(), content)
        };
        lock(&self.0).iter().map(content).collect()
    }
}

impl Dir for Memory {
    fn list(&self) -> io::Result<Vec<Entry>> {
        let entry = |(name, file): (&String, &Arc<MemoryFile>)| Entry {
            name: name.clone(),
            regular: true,
            len: lock(&file.0).len,
        };
        Ok(lock(&self.0).iter().map(entry).collect())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let mut files = lock(&self.0);
        if matches!(access, Access::Create | Access::CreateCached) {
            if files.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            files.insert(name.into(), Arc::new(MemoryFile(Mutex::default())));
        }
        match files.get(name) {
            Some(file) => Ok(Arc::<MemoryFile>::clone(file)),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = lock(&self.0);
        assert!(!files.contains_key(to), "rename over {to}");
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.into(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.0).remove(name).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn block_size(&self) -> u32 {
        4096
    }

    fn path_of(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }
}

impl File for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(lock(&self.0).read_at(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        lock(&self.0).write(buf, offset);
        Ok(buf.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len)
    }

    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }

    fn write_zeroes(&self, len: u64) -> io::Result<()> {
        let mut content = lock(&self.0);
        *content = Content { bytes: Arc::default(), len: content.len.max(len) };
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut content = lock(&self.0);
        content.len = content.len.max(len);
        Ok(())
    }

    fn is_direct(&self) -> bool {
        true
    }

    fn raw_fd(&self) -> Option<i32> {
        None
    }
}
