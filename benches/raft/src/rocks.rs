//! RocksDB, as openraft's example `log-rocks` uses it: an entry is a key, and is durable after
//! `flush_wal(true)`.
//!
//! The example waits for the disk in each append. Here one thread syncs for all appends that wait,
//! as a careful user would write it: all groups and clients share its syncs.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{Entry, LogId, LogState, OptionalSend, RaftLogId, RaftLogReader, Vote};
use rocksdb::{DB, Direction, IteratorMode, Options, WriteBatch};

use crate::types::{Stored, Types, failed};

/// The database of all groups.
#[derive(Clone)]
pub struct Rocks {
    db: Arc<DB>,
    waiting: Arc<Mutex<Sender<LogFlushed<Types>>>>,
}

impl Rocks {
    /// Opens or creates it, and starts the thread that syncs.
    pub fn open(dir: &Path) -> Result<Rocks, rocksdb::Error> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_manual_wal_flush(true);
        options.set_recycle_log_file_num(4);
        let db = Arc::new(DB::open(&options, dir)?);
        let (waiting, appended) = channel();
        let synced = Arc::clone(&db);
        std::thread::spawn(move || sync(&synced, &appended));
        Ok(Rocks { db, waiting: Arc::new(Mutex::new(waiting)) })
    }

    /// The log of a group.
    pub fn group(&self, group: u64) -> Group {
        Group { rocks: self.clone(), group }
    }
}

/// Syncs for all appends that wait, until the last sender is gone.
fn sync(db: &DB, appended: &Receiver<LogFlushed<Types>>) {
    while let Ok(first) = appended.recv() {
        let waiting: Vec<_> = std::iter::once(first).chain(appended.try_iter()).collect();
        let result = db.flush_wal(true);
        for callback in waiting {
            let result = result.clone().map_err(io::Error::other);
            callback.log_io_completed(result);
        }
    }
}

/// A group's log.
#[derive(Clone)]
pub struct Group {
    rocks: Rocks,
    group: u64,
}

impl Group {
    fn key(&self, index: u64) -> [u8; 16] {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.group.to_be_bytes());
        key[8..].copy_from_slice(&index.to_be_bytes());
        key
    }

    fn read(&self, start: u64, end: u64) -> Stored<Vec<Entry<Types>>> {
        let (from, to) = (self.key(start), self.key(end));
        let mut entries = Vec::new();
        for item in self.rocks.db.iterator(IteratorMode::From(&from, Direction::Forward)) {
            let (key, value) = item.map_err(failed)?;
            if key[..] >= to[..] {
                break;
            }
            entries.push(postcard::from_bytes(&value).map_err(failed)?);
        }
        Ok(entries)
    }

    /// Stores a value of the group that is no entry, durably.
    fn store(&self, name: u8, value: &impl serde::Serialize) -> Stored<()> {
        let value = postcard::to_stdvec(value).map_err(failed)?;
        self.rocks.db.put(self.state_key(name), value).map_err(failed)?;
        self.rocks.db.flush_wal(true).map_err(failed)
    }

    fn load<T: serde::de::DeserializeOwned>(&self, name: u8) -> Stored<Option<T>> {
        let value = self.rocks.db.get(self.state_key(name)).map_err(failed)?;
        value.map(|bytes| postcard::from_bytes(&bytes).map_err(failed)).transpose()
    }

    fn state_key(&self, name: u8) -> [u8; 10] {
        let mut key = [b's'; 10];
        key[1..9].copy_from_slice(&self.group.to_be_bytes());
        key[9] = name;
        key
    }
}

impl RaftLogReader<Types> for Group {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Stored<Vec<Entry<Types>>> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end)
    }
}

impl RaftLogStorage<Types> for Group {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Stored<LogState<Types>> {
        let last_purged_log_id = self.load(b'p')?;
        let end = self.key(u64::MAX);
        let mut before = self.rocks.db.iterator(IteratorMode::From(&end, Direction::Reverse));
        let last = match before.next().transpose().map_err(failed)? {
            Some((key, value)) if key.len() == 16 && key[..8] == end[..8] => {
                let entry: Entry<Types> = postcard::from_bytes(&value).map_err(failed)?;
                Some(*entry.get_log_id())
            }
            _ => None,
        };
        Ok(LogState { last_purged_log_id, last_log_id: last.or(last_purged_log_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Stored<()> {
        self.store(b'v', vote)
    }

    async fn read_vote(&mut self) -> Stored<Option<Vote<u64>>> {
        self.load(b'v')
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Stored<()>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = WriteBatch::default();
        for entry in entries {
            let value = postcard::to_stdvec(&entry).map_err(failed)?;
            batch.put(self.key(entry.log_id.index), value);
        }
        self.rocks.db.write(batch).map_err(failed)?;
        let waiting = self.rocks.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // The thread that syncs ends after the last store.
        let _ = waiting.send(callback);
        Ok(())
    }

    async fn truncate(&mut self, id: LogId<u64>) -> Stored<()> {
        let mut batch = WriteBatch::default();
        batch.delete_range(self.key(id.index), self.key(u64::MAX));
        self.rocks.db.write(batch).map_err(failed)?;
        self.rocks.db.flush_wal(true).map_err(failed)
    }

    async fn purge(&mut self, id: LogId<u64>) -> Stored<()> {
        self.store(b'p', &id)?;
        let mut batch = WriteBatch::default();
        batch.delete_range(self.key(0), self.key(id.index + 1));
        self.rocks.db.write(batch).map_err(failed)
    }
}
