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
//! 5. No consumer passes the start of a cut while the cut is being made, and no cut begins below a
//!    position that is being stored. Both are entered under the lock of the positions before they
//!    begin.
//! 6. After a failed store either position may be in the file, until the consumer is attached
//!    again. The lower one holds segments, the higher one refuses cuts.
//! 7. Consumers' files change only while the log's lock is held. Closing the log waits for changes
//!    under way before it releases the lock, and rejects later ones.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use super::position_file::PositionFile;
use crate::error::{Error, Result};
use crate::io::fs::Dir;
use crate::lsn::Lsn;
use crate::segment::{Names, equal_but_for_case};
use crate::sys::sync::{Mutex, lock};

#[derive(Debug, Clone, Copy)]
struct ConsumerState {
    position: u64,
    /// Above `position` while a higher position is being stored, or may be in the file.
    highest: u64,
    attached: bool,
}

impl ConsumerState {
    fn at(position: u64, attached: bool) -> Self {
        ConsumerState { position, highest: position, attached }
    }
}

/// What a consumer held before [`Consumers::begin_store`]. Either pass it to
/// [`Consumers::withdraw_store`], or store the position.
#[must_use]
#[derive(Debug)]
pub(crate) struct PositionsBefore {
    position: u64,
    highest: u64,
}

#[derive(Debug)]
struct Entries {
    consumers: BTreeMap<String, ConsumerState>,
    /// The start of the cut that is being made.
    cut_from: Option<u64>,
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
    /// Bytes of the log from the position to the durable end. 0 once every durable record is
    /// committed. A filter of the attached consumer does not count.
    pub lag_bytes: u64,
    /// There is a [`Consumer`](crate::Consumer) of this name now.
    pub attached: bool,
}

#[derive(Debug)]
pub(crate) struct Consumers {
    limit: Option<u64>,
    entries: Mutex<Entries>,
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
            entries.insert(name.to_owned(), ConsumerState::at(position, false));
        }
        let entries = Mutex::new(Entries { consumers: entries, cut_from: None });
        Ok(Consumers { limit, entries, ended: RwLock::new(false) })
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
        self.lowest(&lock(&self.entries).consumers, end)
    }

    /// The consumer whose position that is, with the position.
    pub(crate) fn slowest(&self, end: u64) -> Option<(String, u64)> {
        let entries = lock(&self.entries);
        let position = self.lowest(&entries.consumers, end)?;
        let (name, _) = entries.consumers.iter().find(|(_, entry)| entry.position == position)?;
        Some((name.clone(), position))
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
        take(self.lowest(&entries.consumers, end).unwrap_or(u64::MAX))
    }

    /// Begins a cut at `from`, unless a consumer's position is above it or is being stored there.
    ///
    /// A consumer at `consumed` or below has consumed nothing that the cut removes.
    pub(crate) fn begin_cut(&self, from: u64, consumed: u64) -> Result<()> {
        let mut entries = lock(&self.entries);
        let found = entries.consumers.iter().find(|(_, entry)| entry.highest > consumed);
        if let Some((name, entry)) = found {
            return Err(Error::Consumed { name: name.clone(), position: Lsn::new(entry.highest) });
        }
        entries.cut_from = Some(from);
        Ok(())
    }

    /// The cut that [`Consumers::begin_cut`] began was made, or was withdrawn.
    pub(crate) fn end_cut(&self) {
        lock(&self.entries).cut_from = None;
    }

    /// Begins to store `position`. `None`: a cut below it is being made, so wait for its end.
    ///
    /// From now on the lower of the positions, old and new, holds segments, and the higher one
    /// refuses cuts.
    pub(crate) fn begin_store(&self, name: &str, position: u64) -> Option<PositionsBefore> {
        let mut entries = lock(&self.entries);
        if entries.cut_from.is_some_and(|from| position > from) {
            return None;
        }
        let Some(entry) = entries.consumers.get_mut(name) else {
            return Some(PositionsBefore { position, highest: position });
        };
        let before = PositionsBefore { position: entry.position, highest: entry.highest };
        entry.position = entry.position.min(position);
        entry.highest = entry.highest.max(position);
        Some(before)
    }

    /// The store that [`Consumers::begin_store`] began is not made.
    pub(crate) fn withdraw_store(&self, name: &str, before: PositionsBefore) {
        if let Some(entry) = lock(&self.entries).consumers.get_mut(name) {
            (entry.position, entry.highest) = (before.position, before.highest);
        }
    }

    pub(crate) fn list(&self, end: u64) -> Vec<ConsumerInfo> {
        let entries = lock(&self.entries);
        let info = |(name, entry): (&String, &ConsumerState)| ConsumerInfo {
            name: name.clone(),
            position: Lsn::new(entry.position),
            lag_bytes: end.saturating_sub(entry.position),
            attached: entry.attached,
        };
        entries.consumers.iter().map(info).collect()
    }

    /// Marks the consumer as attached. A new one gets `position`, unless its name differs from
    /// another's in case alone: a filesystem that ignores case has one file for both.
    pub(crate) fn attach(
        &self,
        name: &str,
        position: u64,
        file_of: impl Fn(&str) -> PathBuf,
    ) -> Result<Attachment> {
        let entries = &mut lock(&self.entries).consumers;
        if let Some(entry) = entries.get_mut(name) {
            if entry.attached {
                return Err(Error::ConsumerInUse { name: name.into() });
            }
            entry.attached = true;
            return Ok(Attachment::Existing);
        }
        if entries.keys().any(|other| equal_but_for_case(other, name)) {
            return Err(Error::NameTaken { path: file_of(name) });
        }
        entries.insert(name.into(), ConsumerState::at(position, true));
        Ok(Attachment::Created)
    }

    pub(crate) fn detach(&self, name: &str) {
        if let Some(entry) = lock(&self.entries).consumers.get_mut(name) {
            entry.attached = false;
        }
    }

    /// `position` is in the consumer's file, and nothing else can be.
    pub(crate) fn set(&self, name: &str, position: u64) {
        if let Some(entry) = lock(&self.entries).consumers.get_mut(name) {
            (entry.position, entry.highest) = (position, position);
        }
    }

    pub(crate) fn forget(&self, name: &str) {
        lock(&self.entries).consumers.remove(name);
    }

    /// Removes a consumer that exists and is not attached, once `remove` has succeeded.
    pub(crate) fn remove(&self, name: &str, remove: impl FnOnce() -> Result<()>) -> Result<()> {
        let entries = &mut lock(&self.entries).consumers;
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
