//! The crate `raft-log`, one directory for each group: only what appending needs.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{Entry, EntryPayload, LogId, LogState, OptionalSend, RaftLogReader, Vote};
use raft_log::api::raft_log_writer::RaftLogWriter;

use crate::types::{Stored, Types, failed};

/// The types of `raft-log`. It stores payloads as they are, where the other stores encode entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Plain;

/// What `raft-log` calls when an append is durable.
struct Done(LogFlushed<Types>);

impl raft_log::Callback for Done {
    fn send(self, result: io::Result<()>) {
        self.0.log_io_completed(result);
    }
}

impl raft_log::Types for Plain {
    type LogId = (u64, u64);
    type LogPayload = String;
    type Vote = (u64, u64);
    type Callback = Done;
    type UserData = String;

    fn log_index(log_id: &(u64, u64)) -> u64 {
        log_id.1
    }

    fn payload_size(payload: &String) -> u64 {
        payload.len() as u64
    }
}

/// A group's log.
#[derive(Clone)]
pub struct RaftLog(Arc<Mutex<raft_log::RaftLog<Plain>>>);

impl RaftLog {
    /// Opens or creates it.
    pub fn open(dir: &Path) -> io::Result<RaftLog> {
        std::fs::create_dir_all(dir)?;
        let log = raft_log::RaftLog::open(Arc::new(raft_log::Config::new(dir.display())))?;
        Ok(RaftLog(Arc::new(Mutex::new(log))))
    }
}

impl RaftLogReader<Types> for RaftLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        _: RB,
    ) -> Stored<Vec<Entry<Types>>> {
        Ok(Vec::new())
    }
}

impl RaftLogStorage<Types> for RaftLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Stored<LogState<Types>> {
        Ok(LogState::default())
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, _: &Vote<u64>) -> Stored<()> {
        Ok(())
    }

    async fn read_vote(&mut self) -> Stored<Option<Vote<u64>>> {
        Ok(None)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Stored<()>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(|entry| {
            let payload = match entry.payload {
                EntryPayload::Normal(text) => text,
                _ => String::new(),
            };
            ((1, entry.log_id.index), payload)
        });
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.append(entries).map_err(failed)?;
        log.flush(true, Some(Done(callback))).map_err(failed)
    }

    async fn truncate(&mut self, _: LogId<u64>) -> Stored<()> {
        Ok(())
    }

    async fn purge(&mut self, _: LogId<u64>) -> Stored<()> {
        Ok(())
    }
}
