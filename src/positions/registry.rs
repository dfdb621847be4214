//! Which consumers a log has, where they are, and what retention must leave for them.
//!
//! 1. Every consumer whose file is in the directory is known from the moment at which the log is opened,
//!    attached or not.
//! 2. A position that is durable is entered before retention is asked to look again; one that goes back
//!    is entered before it is stored, so that nothing that it needs is removed meanwhile.
//! 3. Whether a segment is held is looked at again, under the lock of the positions, when it is taken out of the
//!    table: who comes after the look at what may go either holds it or finds the oldest moved.
//! 4. A consumer that lags by more than the limit does not hold anything.
//! 5. Their files are changed only while the log's lock is held: whoever changes one is waited for before that is
//!    let go, and refused from then on.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use super::position_file::PositionFile;
use crate::error::{Error, Result};
use crate::io::fs::Dir;
use crate::lsn::Lsn;
use crate::segment::Names;
use crate::sys::sync::{Mutex, lock};

#[derive(Debug, Clone, Copy)]
struct Entry {
    position: u64,
    attached: bool,
}

/// A consumer as [`Wal::consumers`](crate::Wal::consumers) lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerInfo {
    /// Its name.
    pub name: String,
    /// It has done with everything below.
    pub position: Lsn,
    /// Bytes of the log from there to the durable end.
    pub lag: u64,
    /// Somebody holds it as a [`Consumer`](crate::Consumer).
    pub attached: bool,
}

#[derive(Debug)]
pub(crate) struct Consumers {
    limit: Option<u64>,
    entries: Mutex<BTreeMap<String, Entry>>,
    /// The log is closed. Held while a file is changed.
    ended: RwLock<bool>,
}

impl Consumers {
    /// Reads the positions of all consumers among these files of the directory.
    pub(crate) fn load(
        dir: &dyn Dir,
        names: &Names,
        files: &[String],
        log_id: [u8; 16],
        limit: Option<u64>,
    ) -> Result<Self> {
        let mut entries = BTreeMap::new();
        for file in files {
            let Some(name) = names.parse_consumer(file) else { continue };
            let (_, position) = PositionFile::open(dir, file, log_id)?;
            entries.insert(name.to_owned(), Entry { position, attached: false });
        }
        Ok(Consumers { limit, entries: Mutex::new(entries), ended: RwLock::new(false) })
    }

    /// Waits for changes that go on, and refuses others.
    pub(crate) fn end(&self) {
        *self.ended.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Changes files.
    pub(crate) fn change<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let ended = self.ended.read().unwrap_or_else(PoisonError::into_inner);
        if *ended { Err(Error::Closed) } else { change() }
    }

    /// The lowest position that holds segments, when the log is durable up to `end`.
    pub(crate) fn holds(&self, end: u64) -> Option<u64> {
        self.lowest(&lock(&self.entries), end)
    }

    fn lowest(&self, entries: &BTreeMap<String, Entry>, end: u64) -> Option<u64> {
        let within =
            |position: u64| self.limit.is_none_or(|limit| end.saturating_sub(position) <= limit);
        entries.values().map(|entry| entry.position).filter(|&p| within(p)).min()
    }

    /// Takes away what no consumer holds, when the log is durable up to `end`. Nobody is entered meanwhile: who
    /// comes afterwards finds the oldest moved.
    pub(crate) fn take_unheld<T>(&self, end: u64, take: impl FnOnce(u64) -> T) -> T {
        let entries = lock(&self.entries);
        take(self.lowest(&entries, end).unwrap_or(u64::MAX))
    }

    /// Somebody who has done with the record at `from`, or one above it.
    pub(crate) fn beyond(&self, from: u64) -> Option<(String, u64)> {
        let entries = lock(&self.entries);
        let found = entries.iter().find(|(_, entry)| entry.position > from);
        found.map(|(name, entry)| (name.clone(), entry.position))
    }

    pub(crate) fn list(&self, end: u64) -> Vec<ConsumerInfo> {
        let entries = lock(&self.entries);
        let info = |(name, entry): (&String, &Entry)| ConsumerInfo {
            name: name.clone(),
            position: Lsn::new(entry.position),
            lag: end.saturating_sub(entry.position),
            attached: entry.attached,
        };
        entries.iter().map(info).collect()
    }

    /// Marks the consumer as attached. True: it is new, and holds everything from `position` on.
    pub(crate) fn attach(&self, name: &str, position: u64) -> Result<bool> {
        let mut entries = lock(&self.entries);
        match entries.get_mut(name) {
            Some(entry) if entry.attached => Err(Error::ConsumerInUse { name: name.into() }),
            Some(entry) => {
                entry.attached = true;
                Ok(false)
            }
            None => {
                entries.insert(name.into(), Entry { position, attached: true });
                Ok(true)
            }
        }
    }

    pub(crate) fn detach(&self, name: &str) {
        if let Some(entry) = lock(&self.entries).get_mut(name) {
            entry.attached = false;
        }
    }

    pub(crate) fn set(&self, name: &str, position: u64) {
        if let Some(entry) = lock(&self.entries).get_mut(name) {
            entry.position = position;
        }
    }

    pub(crate) fn forget(&self, name: &str) {
        lock(&self.entries).remove(name);
    }

    /// Refuses one that is attached, or that there is not; then it is gone from here if `remove` works.
    pub(crate) fn remove(&self, name: &str, remove: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut entries = lock(&self.entries);
        match entries.get(name) {
            None => return Err(Error::NoConsumer { name: name.into() }),
            Some(entry) if entry.attached => {
                return Err(Error::ConsumerInUse { name: name.into() });
            }
            Some(_) => {}
        }
        remove()?;
        entries.remove(name);
        Ok(())
    }
}
