//! Log storage for [openraft](https://docs.rs/openraft): one [ringwal](https://docs.rs/ringwal)
//! write-ahead log for thousands of Raft groups, which share group commits.
//!
//! [`RaftLogs`] is the log, [`RaftLog`] the part of one group, which openraft takes as its log
//! storage. The state machine is the application's.
//!
//! ```no_run
//! # use std::io::Cursor;
//! openraft::declare_raft_types!(
//!     pub Types: D = String, R = (), NodeId = u64, Node = openraft::BasicNode,
//! );
//! use ringwal_openraft::RaftLogs;
//!
//! let logs = RaftLogs::open(ringwal::Wal::builder("data/raft"))?;
//! let log = logs.group::<Types>(7); // for Raft::new, as its log storage
//! # Ok::<(), ringwal_openraft::LogError>(())
//! ```
//!
//! | openraft calls | the log does | durable when it returns |
//! |---|---|---|
//! | `append` | appends a record for each entry; the entries can be read at once | no: the callback says when |
//! | `save_vote`, `save_committed` | appends a record with vote, committed and purged id | yes; `save_committed` not without [`LogOptions::wait_committed`] |
//! | `truncate`, `truncate_after` | appends a record that makes the entries from an index on void | yes |
//! | `purge` | appends the purged id, and releases whole segments that no group needs | yes |
//!
//! A segment is released once no group has a live entry in it. The newest state of each group is
//! appended again before its segment goes. A group that lags by more than [`LogOptions::lag_limit`]
//! does not hold the log: its live entries are appended again too. [`RaftLogs::release_error`] has
//! the error of a release that failed.
//!
//! On a full disk entries are refused while votes, truncations, purges and releases have room: see
//! the README.
//!
//! The features `openraft-0-9` (on by default) and `openraft-0-10` (a pre-release) choose the
//! versions of openraft. A log that one of them wrote can be opened under the other, if both use
//! the same kind of leader id: see the README.
//!
//! Memory: eight bytes for each live entry, and the cache of [`LogOptions::cache_bytes`] for each
//! group. Entries that are not durable yet are always cached.

#[cfg(not(any(feature = "openraft-0-9", feature = "openraft-0-10")))]
compile_error!("choose a version of openraft: the feature openraft-0-9, openraft-0-10, or both");

mod acks;
mod error;
mod group;
mod group_log;
mod logs;
#[cfg(feature = "openraft-0-10")]
pub mod openraft_0_10;
#[cfg(feature = "openraft-0-9")]
pub mod openraft_0_9;
mod raft_log;
mod rebuild;
mod record;
mod release;

pub use error::LogError;
pub use logs::{APPLICATION_VERSION, LogOptions, RaftLogs};
#[cfg(feature = "openraft-0-9")]
pub use openraft_0_9::Codecs;
pub use raft_log::RaftLog;
