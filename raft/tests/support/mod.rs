//! Types and a state machine in memory, for the tests.
#![allow(unreachable_pub)]
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

pub mod ten;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once};

use openraft::storage::{RaftLogStorage, RaftStateMachine};
use openraft::{
    AnyError, BasicNode, CommittedLeaderId, Entry, EntryPayload, LogId, OptionalSend,
    RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError, StorageIOError, StoredMembership,
    Vote,
};
use ringwal::{Wal, WalBuilder};
use ringwal_openraft::RaftLogs;
use serde::{Deserialize, Serialize};

/// Sets a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    pub key: u64,
    pub value: String,
}

impl fmt::Display for Put {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.key, self.value)
    }
}

openraft::declare_raft_types!(
    pub Types: D = Put, R = (), NodeId = u64, Node = BasicNode, SnapshotData = Cursor<Vec<u8>>
);

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Applied {
    last: Option<LogId<u64>>,
    membership: StoredMembership<u64, BasicNode>,
    values: BTreeMap<u64, String>,
}

#[derive(Debug, Clone, Default)]
pub struct Machine {
    applied: Arc<Mutex<Applied>>,
    snapshot: Arc<Mutex<Option<Snapshot<Types>>>>,
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError<u64>> {
        let applied = self.applied.lock().unwrap().clone();
        let snapshot = Snapshot {
            meta: SnapshotMeta {
                last_log_id: applied.last,
                last_membership: applied.membership.clone(),
                snapshot_id: format!("{:?}", applied.last),
            },
            snapshot: Box::new(Cursor::new(serde_json::to_vec(&applied).unwrap())),
        };
        *self.snapshot.lock().unwrap() = Some(snapshot.clone());
        Ok(snapshot)
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Machine;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>), StorageError<u64>> {
        let applied = self.applied.lock().unwrap();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut applied = self.applied.lock().unwrap();
        let mut answers = Vec::new();
        for entry in entries {
            applied.last = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(put) => {
                    applied.values.insert(put.key, put.value);
                }
                EntryPayload::Membership(membership) => {
                    applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            answers.push(());
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn begin_receiving_snapshot(
        &mut self,
    ) -> Result<Box<Cursor<Vec<u8>>>, StorageError<u64>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError<u64>> {
        let wrong = |e| StorageIOError::read_snapshot(Some(meta.signature()), AnyError::new(&e));
        let applied = serde_json::from_slice(snapshot.get_ref()).map_err(wrong)?;
        *self.applied.lock().unwrap() = applied;
        *self.snapshot.lock().unwrap() = Some(Snapshot { meta: meta.clone(), snapshot });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError<u64>> {
        Ok(self.snapshot.lock().unwrap().clone())
    }
}

/// A directory in the target folder that is removed at the end. A process that is killed leaves it;
/// the next one removes it.
#[derive(Debug)]
pub struct Temp(PathBuf);

static TEMPS: AtomicU32 = AtomicU32::new(0);

static STALE: Once = Once::new();

const NAME: &str = "ringwal-openraft-";

impl Temp {
    pub fn new() -> Temp {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        STALE.call_once(|| remove_stale(parent));
        let number = TEMPS.fetch_add(1, Ordering::Relaxed);
        Temp(parent.join(format!("{NAME}{}-{number}", std::process::id())))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The names and the contents of the segments.
    pub fn segments(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let segments = files.filter(|path| path.extension().is_some_and(|e| e == "wal"));
        segments.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Removes the directories of processes that are gone, where the system names its processes.
fn remove_stale(parent: &Path) {
    if !Path::new("/proc/self").exists() {
        return;
    }
    for path in std::fs::read_dir(parent).into_iter().flatten().flatten().map(|e| e.path()) {
        let name = path.file_name().and_then(|name| name.to_str());
        let process = name.and_then(|name| name.strip_prefix(NAME)?.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

pub fn builder(temp: &Temp) -> WalBuilder {
    Wal::builder(temp.path())
        .segment_size(256 << 10)
        .ring_capacity(128 << 10)
        .max_record_size(32 << 10)
}

pub fn entry(index: u64, len: usize) -> Entry<Types> {
    let put = Put { key: index, value: "x".repeat(len) };
    let log_id = LogId::new(CommittedLeaderId::new(1, 1), index);
    Entry { log_id, payload: EntryPayload::Normal(put) }
}

/// Appends a record as an earlier version, or another program, would.
pub fn raw(temp: &Temp, tag: u64, record: &[u8]) {
    let builder = builder(temp).application_version(ringwal_openraft::APPLICATION_VERSION);
    let wal = builder.open().unwrap();
    wal.tagged(tag).append_durable(record).unwrap();
    wal.close().unwrap();
}

/// Fills segments with states of group 9, which has no entries either.
pub async fn fill_with_votes(logs: &RaftLogs) {
    let begin = logs.wal().durable_end().as_u64();
    let mut group = logs.group::<Types>(9);
    // A commit takes whole blocks.
    for term in 0.. {
        group.save_vote(&Vote::new(term, 2)).await.unwrap();
        if logs.wal().durable_end().as_u64() > begin + (1 << 20) {
            return;
        }
    }
}
