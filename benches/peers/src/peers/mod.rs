//! One file a peer: the calls that make a record durable there, and the settings chosen.

mod frames;

pub mod fjall;
pub mod leader;
pub mod mutex_fdatasync;
pub mod nodedb_wal;
pub mod okaywal;
pub mod raft_engine;
pub mod redb;
pub mod ringwal;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;
pub mod sled;
pub mod sqlite;
pub mod wal_db;
pub mod walrus;
pub mod writeahead;
