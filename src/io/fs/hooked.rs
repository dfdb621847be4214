//! For tests: another directory's files, with every call shown to a hook first.
//!
//! 1. The hook sees a call before it is made, may hold it up, and may refuse it with an error: then
//!    it is not made.
//! 2. A file's name is the one that it was opened by.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Access, Dir, Entry, File};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Open(Access),
    Read,
    Write,
    Sync,
    Remove,
}

pub(crate) type Hook = dyn Fn(Call, &str) -> io::Result<()> + Send + Sync;

pub(crate) struct HookedDir {
    inner: Arc<dyn Dir>,
    hook: Arc<Hook>,
    block: u32,
}

struct HookedFile {
    inner: Arc<dyn File>,
    hook: Arc<Hook>,
    name: String,
}

impl HookedDir {
    pub(crate) fn new(
        inner: Arc<dyn Dir>,
        hook: impl Fn(Call, &str) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let block = inner.block_size();
        HookedDir { inner, hook: Arc::new(hook), block }
    }

    /// As if the device asked for blocks of this size.
    pub(crate) fn with_block(self, block: u32) -> Self {
        HookedDir { block, ..self }
    }
}

impl std::fmt::Debug for HookedDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HookedDir").field(&self.inner).finish()
    }
}

impl std::fmt::Debug for HookedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HookedFile").field(&self.name).finish()
    }
}

impl Dir for HookedDir {
    fn list(&self) -> io::Result<Vec<Entry>> {
        self.inner.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        (self.hook)(Call::Open(access), name)?;
        let inner = self.inner.open(name, access)?;
        Ok(Arc::new(HookedFile { inner, hook: Arc::clone(&self.hook), name: name.into() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        (self.hook)(Call::Remove, name)?;
        self.inner.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn block_size(&self) -> u32 {
        self.block
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.inner.path_of(name)
    }

    fn holds_lock(&self) -> io::Result<bool> {
        self.inner.holds_lock()
    }
}

impl File for HookedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        (self.hook)(Call::Read, &self.name)?;
        self.inner.read_at(buf, offset)
    }

    fn read_cached_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        (self.hook)(Call::Read, &self.name)?;
        self.inner.read_cached_at(buf, offset)
    }

    fn past_the_cache(&self) -> Option<Arc<dyn File>> {
        let inner = self.inner.past_the_cache()?;
        let hook = Arc::clone(&self.hook);
        Some(Arc::new(HookedFile { inner, hook, name: self.name.clone() }))
    }

    fn allows_helper(&self) -> bool {
        self.inner.allows_helper()
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        (self.hook)(Call::Write, &self.name)?;
        self.inner.write_at(buf, offset)
    }

    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        (self.hook)(Call::Write, &self.name)?;
        (self.hook)(Call::Sync, &self.name)?;
        self.inner.write_durable_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        (self.hook)(Call::Sync, &self.name)?;
        self.inner.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn links(&self) -> io::Result<u64> {
        self.inner.links()
    }

    fn write_zeroes(&self, len: u64) -> io::Result<()> {
        self.inner.write_zeroes(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.inner.allocate(len)
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        self.inner.next_data(offset)
    }

    fn is_direct(&self) -> bool {
        self.inner.is_direct()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.inner.try_lock()
    }

    fn unlock(&self) {
        self.inner.unlock();
    }

    fn raw_fd(&self) -> Option<i32> {
        self.inner.raw_fd()
    }
}

/// A path of its own, not made yet, and removed with all that is in it in the end.
#[derive(Debug)]
pub(crate) struct TempPath(PathBuf);

impl TempPath {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringwal-unit-{}-{n}", std::process::id()));
        // Left by a process that was killed, whose number this one has now.
        let _ = std::fs::remove_dir_all(&path);
        TempPath(path)
    }
}

impl std::ops::Deref for TempPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
