//! The directory and the files of a simulated disk, as the engine sees them.

use std::io;
use std::sync::Arc;

use super::super::{Access, Dir, Entry, File};
use super::content::Content;
use super::{Fault, Rename, SimDir, SimDisk};

#[derive(Debug)]
pub(crate) struct SimFile {
    disk: SimDisk,
    life: u64,
    id: u64,
}

impl SimFile {
    /// Begins a write: from now on a crash may keep any part of it. Returns its number and how much
    /// of it the device will say it wrote.
    pub(crate) fn begin_write(&self, bytes: &[u8], offset: u64) -> io::Result<(u64, usize)> {
        let mut state = self.disk.state_of(self.life)?;
        let len = match state.operation()? {
            None => bytes.len(),
            Some(Fault::Short) => bytes.len() / 2,
            Some(fault) => return Err(fault.error()),
        };
        state.ids += 1;
        let id = state.ids;
        state.files.entry(self.id).or_default().begin(id, offset, &bytes[..len]);
        Ok((id, len))
    }

    /// Ends a write; `durable`: as one with DSYNC.
    pub(crate) fn end_write(&self, id: u64, durable: bool) -> io::Result<()> {
        let mut state = self.disk.state_of(self.life)?;
        state.check_on()?;
        let content = state.files.entry(self.id).or_default();
        content.end(id);
        if durable {
            let ids = content.under(id);
            content.make_durable(&ids);
        }
        Ok(())
    }

    /// Begins a sync: what it will make durable.
    pub(crate) fn begin_sync(&self) -> io::Result<Vec<u64>> {
        let mut state = self.disk.state_of(self.life)?;
        state.simple()?;
        Ok(state.files.entry(self.id).or_default().completed())
    }

    pub(crate) fn end_sync(&self, ids: &[u64]) -> io::Result<()> {
        let mut state = self.disk.state_of(self.life)?;
        state.check_on()?;
        state.files.entry(self.id).or_default().make_durable(ids);
        Ok(())
    }
}

impl Dir for SimDir {
    fn list(&self) -> io::Result<Vec<Entry>> {
        let mut state = self.disk.state_of(self.life)?;
        state.simple_read()?;
        let entry = |(name, id): (&String, &u64)| Entry {
            name: name.clone(),
            regular: true,
            len: state.files.get(id).map_or(0, |c| c.current().len() as u64),
        };
        Ok(state.names.iter().map(entry).collect())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let mut state = self.disk.state_of(self.life)?;
        if matches!(access, Access::Create | Access::CreateCached) {
            state.simple()?;
            if state.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.ids += 1;
            let id = state.ids;
            state.files.insert(id, Content::default());
            state.change(Rename::Link(name.into(), id));
        } else {
            state.simple_read()?;
        }
        let id = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.disk.clone(), life: self.life, id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.disk.state_of(self.life)?;
        state.simple()?;
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(Rename::Move(from.into(), to.into()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.disk.state_of(self.life)?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.simple()?;
        state.change(Rename::Unlink(name.into()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state_of(self.life)?;
        state.simple()?;
        state.durable_names = state.names.clone();
        state.changes.clear();
        Ok(())
    }

    fn block_size(&self) -> u32 {
        4096
    }

    fn path_of(&self, name: &str) -> std::path::PathBuf {
        std::path::Path::new("/simulated").join(name)
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state_of(self.life)?;
        let most = match state.read()? {
            None => buf.len(),
            Some(Fault::Short) => buf.len().div_ceil(2),
            Some(fault) => return Err(fault.error()),
        };
        let Some(content) = state.files.get(&self.id) else { return Ok(0) };
        let content = content.current();
        let from = (offset as usize).min(content.len());
        let n = most.min(content.len() - from);
        buf[..n].copy_from_slice(&content[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        {
            let state = self.disk.state_of(self.life)?;
            let end = offset + buf.len() as u64;
            let has = state.files.get(&self.id).map_or(0, |c| c.current().len() as u64);
            // What is written over has its blocks.
            let more = end.saturating_sub(has);
            if more > 0 && state.capacity != u64::MAX && state.allocated() + more > state.capacity {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let (id, len) = self.begin_write(buf, offset)?;
        self.end_write(id, false)?;
        Ok(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let ids = self.begin_sync()?;
        self.end_sync(&ids)
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state_of(self.life)?;
        state.simple_read()?;
        Ok(state.files.get(&self.id).map_or(0, |c| c.current().len() as u64))
    }

    fn links(&self) -> io::Result<u64> {
        self.disk.state_of(self.life)?.simple_read()?;
        Ok(1)
    }

    fn write_zeroes(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        crate::io::fs::write_full(self, &vec![0; len as usize], 0)
    }

    fn is_direct(&self) -> bool {
        true
    }

    fn raw_fd(&self) -> Option<i32> {
        None
    }

    fn as_sim(&self) -> Option<&SimFile> {
        Some(self)
    }
}
