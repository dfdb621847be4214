//! The registry of consumers: their positions, and what retention must keep for them.
//!
//! 1. The registry knows every consumer whose file is in the directory from the opening of the log
//!    on, attached or not.
//! 2. A durable position is entered before retention runs again. A position that goes back is
//!    entered before it is stored, so retention removes no segment that it needs.
//! 3. Retention checks whether a segment is held while it has the lock of the positions, when it
//!    takes the segment out of the table. A consumer that comes later holds the segment, or finds a
//!    later oldest one.
//! 4. A consumer that lags by more than the limit holds no segment.
//! 5. Consumers' files change only while the log's lock is held. Closing the log waits for changes
//!    under way before it releases the lock, and rejects later ones.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use super::position_file::PositionFile;
use crate::error::{Error, Result};
use crate::io::fs::Dir;
use crate::lsn::Lsn;
use crate::segment::Names;
use crate::sys::sync::{Mutex, lock};

#[derive(Debug, Clone, Copy)]
struct ConsumerState {
    position: u64,
    attached: bool,
}

/// What [`Consumers::attach`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attachment {
    /// A new consumer, which holds every segment from its position on.
    Created,
    Existing,
}

/// A consumer as [`Wal::consumers`](crate::Wal::consumers) lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerInfo {
    /// Its name.
    pub name: String,
    /// Every record below is committed.
    pub position: Lsn,
    /// Bytes of the log from the position to the durable end.
    pub lag: u64,
    /// There is a [`Consumer`](crate::Consumer) of this name now.
    pub attached: bool,
}

#[derive(Debug)]
pub(crate) struct Consumers {
    limit: Option<u64>,
    entries: Mutex<BTreeMap<String, ConsumerState>>,
    /// Whether the log is closed. Locked for reading while a file changes.
    ended: RwLock<bool>,
}

impl Consumers {
    /// Reads the positions of all consumers in `files`, which are names in the directory.
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
            entries.insert(name.to_owned(), ConsumerState { position, attached: false });
        }
        Ok(Consumers { limit, entries: Mutex::new(entries), ended: RwLock::new(false) })
    }

    /// Waits for changes under way, and rejects later ones.
    pub(crate) fn end(&self) {
        *self.ended.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Runs `change`, which changes files, unless the log is closed.
    pub(crate) fn change<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let ended = self.ended.read().unwrap_or_else(PoisonError::into_inner);
        if *ended { Err(Error::Closed) } else { change() }
    }

    /// The lowest position that holds segments, where `end` is the durable end.
    pub(crate) fn holds(&self, end: u64) -> Option<u64> {
        self.lowest(&lock(&self.entries), end)
    }

    fn lowest(&self, entries: &BTreeMap<String, ConsumerState>, end: u64) -> Option<u64> {
        let within =
            |position: u64| self.limit.is_none_or(|limit| end.saturating_sub(position) <= limit);
        entries.values().map(|entry| entry.position).filter(|&p| within(p)).min()
    }

    /// Calls `take` with the address below which no consumer holds a segment, where `end` is the
    /// durable end.
    ///
    /// No consumer is entered meanwhile. One that comes later finds a later oldest segment.
    pub(crate) fn take_unheld<T>(&self, end: u64, take: impl FnOnce(u64) -> T) -> T {
        let entries = lock(&self.entries);
        take(self.lowest(&entries, end).unwrap_or(u64::MAX))
    }

    /// A consumer that has committed the record at `from` or one above it, and its position.
    pub(crate) fn beyond(&self, from: u64) -> Option<(String, u64)> {
        let entries = lock(&self.entries);
        let found = entries.iter().find(|(_, entry)| entry.position > from);
        found.map(|(name, entry)| (name.clone(), entry.position))
    }

    pub(crate) fn list(&self, end: u64) -> Vec<ConsumerInfo> {
        let entries = lock(&self.entries);
        let info = |(name, entry): (&String, &ConsumerState)| ConsumerInfo {
            name: name.clone(),
            position: Lsn::new(entry.position),
            lag: end.saturating_sub(entry.position),
            attached: entry.attached,
        };
        entries.iter().map(info).collect()
    }

    /// Marks the consumer as attached. A new one gets `position`.
    pub(crate) fn attach(&self, name: &str, position: u64) -> Result<Attachment> {
        let mut entries = lock(&self.entries);
        match entries.get_mut(name) {
            Some(entry) if entry.attached => Err(Error::ConsumerInUse { name: name.into() }),
            Some(entry) => {
                entry.attached = true;
                Ok(Attachment::Existing)
            }
            None => {
                entries.insert(name.into(), ConsumerState { position, attached: true });
                Ok(Attachment::Created)
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

    /// Removes a consumer that exists and is not attached, once `remove` has succeeded.
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
