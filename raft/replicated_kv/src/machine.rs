//! The key-value state machine: a map in memory, and a snapshot on the disk.
//!
//! Applying an entry changes memory alone. After a restart the map is that of the newest snapshot,
//! and openraft applies the committed entries after it again. openraft purges only entries that the
//! snapshot has, so none is missing.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, BasicNode, Entry, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot,
    StorageError, StorageIOError,
};

use crate::snapshot::{self, SnapshotError};
use crate::types::{Change, LogId, Membership, SnapshotMeta, Types};

/// What the applied entries made.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// The newest entry that was applied.
    pub last: Option<LogId>,
    /// The membership after it.
    pub membership: Membership,
    /// The keys and values.
    pub values: BTreeMap<String, String>,
}

impl Applied {
    /// The state of the snapshot in `dir`, or the empty state. Blocks.
    ///
    /// # Errors
    ///
    /// Those of [`snapshot::load`].
    pub fn load(dir: &Path) -> Result<Applied, SnapshotError> {
        let Some((meta, data)) = snapshot::load(dir)? else { return Ok(Applied::default()) };
        let damaged = |_| SnapshotError::Damaged { path: dir.to_owned() };
        let values = postcard::from_bytes(&data).map_err(damaged)?;
        Ok(Applied { last: meta.last_log_id, membership: meta.last_membership, values })
    }

    /// Applies an entry. Returns for each of its changes whether the key was there before.
    pub fn apply(&mut self, entry: Entry<Types>) -> Vec<bool> {
        self.last = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Vec::new(),
            EntryPayload::Normal(batch) => {
                batch.0.into_iter().map(|change| self.change(change)).collect()
            }
            EntryPayload::Membership(membership) => {
                self.membership = Membership::new(Some(entry.log_id), membership);
                Vec::new()
            }
        }
    }

    fn change(&mut self, change: Change) -> bool {
        match change {
            Change::Put { key, value } => self.values.insert(key, value).is_some(),
            Change::Delete { key } => self.values.remove(&key).is_some(),
        }
    }
}

/// The state machine of a node. Cheap to clone; a clone is the same.
#[derive(Debug, Clone)]
pub struct Machine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    applied: RwLock<Applied>,
    /// Held while the file is replaced or read.
    file: Mutex<()>,
}

impl Machine {
    /// The state machine whose snapshot is in `dir`. Blocks.
    ///
    /// # Errors
    ///
    /// Those of [`Applied::load`].
    pub fn open(dir: &Path) -> Result<Machine, SnapshotError> {
        let applied = RwLock::new(Applied::load(dir)?);
        let shared = Shared { dir: dir.to_owned(), applied, file: Mutex::new(()) };
        Ok(Machine { shared: Arc::new(shared) })
    }

    /// What was applied up to now.
    pub fn applied(&self) -> RwLockReadGuard<'_, Applied> {
        self.shared.applied.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_applied(&self) -> RwLockWriteGuard<'_, Applied> {
        self.shared.applied.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the file, unless it has a newer snapshot. Blocks.
    fn save(&self, meta: &SnapshotMeta, data: &[u8]) -> Result<(), SnapshotError> {
        let _file = self.shared.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A snapshot of the leader may be installed while an older one is built here.
        match snapshot::load(&self.shared.dir)? {
            Some((newer, _)) if newer.last_log_id > meta.last_log_id => Ok(()),
            _ => snapshot::save(&self.shared.dir, meta, data),
        }
    }

    /// Runs `save` where blocking is allowed.
    async fn save_aside(
        &self,
        meta: SnapshotMeta,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, StorageError<u64>> {
        let signature = meta.signature();
        let machine = self.clone();
        let task = tokio::task::spawn_blocking(move || machine.save(&meta, &data).map(|()| data));
        let failed = |e| StorageIOError::write_snapshot(Some(signature), e);
        match task.await {
            Ok(Ok(data)) => Ok(data),
            Ok(Err(e)) => Err(failed(AnyError::new(&e)).into()),
            Err(e) => Err(failed(AnyError::new(&e)).into()),
        }
    }
}

/// Writes a snapshot of the state at the moment when the builder was made.
#[derive(Debug)]
pub struct Builder {
    machine: Machine,
    applied: Applied,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError<u64>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let index = self.applied.last.map_or(0, |id| id.index);
        let meta = SnapshotMeta {
            last_log_id: self.applied.last,
            last_membership: self.applied.membership.clone(),
            snapshot_id: format!("{index}-{}", now.as_nanos()),
        };
        let data = postcard::to_stdvec(&self.applied.values);
        let data = data.map_err(|e| StorageIOError::read_state_machine(AnyError::new(&e)))?;
        let data = self.machine.save_aside(meta.clone(), data).await?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(data)) })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError<u64>> {
        let applied = self.applied();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<bool>>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut applied = self.change_applied();
        Ok(entries.into_iter().map(|entry| applied.apply(entry)).collect())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { machine: self.clone(), applied: self.applied().clone() }
    }

    async fn begin_receiving_snapshot(
        &mut self,
    ) -> Result<Box<Cursor<Vec<u8>>>, StorageError<u64>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &openraft::SnapshotMeta<u64, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError<u64>> {
        let wrong = |e| StorageIOError::read_snapshot(Some(meta.signature()), AnyError::new(&e));
        let data = snapshot.into_inner();
        let values = postcard::from_bytes(&data).map_err(wrong)?;
        // The file comes first: openraft purges the log up to the snapshot afterwards.
        self.save_aside(meta.clone(), data).await?;
        *self.change_applied() =
            Applied { last: meta.last_log_id, membership: meta.last_membership.clone(), values };
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError<u64>> {
        let shared = Arc::clone(&self.shared);
        let load = move || {
            let _file = shared.file.lock().unwrap_or_else(PoisonError::into_inner);
            snapshot::load(&shared.dir)
        };
        let whole = |(meta, data)| Snapshot { meta, snapshot: Box::new(Cursor::new(data)) };
        match tokio::task::spawn_blocking(load).await {
            Ok(Ok(loaded)) => Ok(loaded.map(whole)),
            Ok(Err(e)) => Err(StorageIOError::read_snapshot(None, AnyError::new(&e)).into()),
            Err(e) => Err(StorageIOError::read_snapshot(None, AnyError::new(&e)).into()),
        }
    }
}
