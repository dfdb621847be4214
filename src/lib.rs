//! A write-ahead log for servers on Linux: producers append to a lock-free ring, one I/O thread turns
//! it into group commits through io_uring, and what was acknowledged survives power loss.
//!
//! ```
//! use ringwal::Wal;
//! # let dir = std::env::temp_dir().join(format!("ringwal-doc-lib-{}", std::process::id()));
//! let wal = Wal::open(&dir)?;
//! wal.append_durable(b"survives power loss from here on")?;
//! # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
//! # Ok::<(), ringwal::Error>(())
//! ```
//!
//! What each call promises when it returns:
//!
//! | call | its place in the log is fixed | survives kill -9 and power loss |
//! |---|---|---|
//! | [`Wal::append`], [`Wal::try_append`], [`Wal::append_with`], [`Wal::append_batch`] | yes | not yet |
//! | [`Wal::append_async`]`.await` | yes | not yet |
//! | [`Wal::append_durable`] | yes | yes |
//! | [`Wal::wait_durable`], [`Wal::when_durable`]`.await` | | yes, and every earlier record |
//! | [`Wal::sync`] | | yes, everything appended before |
//! | [`Wal::close`] | | yes, everything |

mod backend;
mod builder;
#[cfg(all(target_os = "linux", feature = "uring"))]
mod calibrate;
mod callback;
mod caught;
mod clock;
mod consumer;
mod context;
mod core;
mod cuts;
mod durable;
mod end_file;
mod error;
#[cfg(all(test, not(ringwal_loom)))]
mod fail_stop_tests;
mod files;
mod flights;
mod follow;
mod fork;
#[cfg(all(test, target_os = "linux", feature = "uring", not(ringwal_loom)))]
mod fork_tests;
mod format;
mod futures;
#[cfg(all(any(test, fuzzing), not(ringwal_loom)))]
#[doc(hidden)]
pub mod fuzzing;
mod held;
mod helper;
mod histogram;
mod hooks;
pub mod inspect;
mod io_loop;
#[cfg(all(test, ringwal_shuttle))]
mod long_schedules;
mod lsn;
#[cfg(feature = "metrics")]
mod metrics;
mod open;
mod options;
mod positions;
mod read_only;
mod reader;
mod recovery;
mod retention;
mod ring;
mod scheduling;
mod sealed;
mod segment;
mod shared;
#[cfg(ringwal_shuttle)]
mod shuttled;
#[cfg(all(test, not(ringwal_loom)))]
mod simulation;
mod stall;
mod start;
mod stats;
mod storage;
#[cfg(feature = "futures")]
mod stream;
mod sync;
mod tail;
#[cfg(all(any(test, feature = "testing"), not(ringwal_loom)))]
pub mod testing;
#[cfg(feature = "serde")]
mod typed;
mod wal;

pub use backend::{BackendInfo, BackendKind, MethodReason};
pub use builder::WalBuilder;
pub use consumer::Consumer;
pub use error::{Error, Failure, FailureKind, OptionsError, ReplayError, Result};
pub use follow::Follow;
pub use futures::{AppendFuture, DurableFuture};
pub use histogram::Histogram;
pub use hooks::{SealedSegment, Stall, StallKind};
pub use lsn::Lsn;
pub use options::{BackendChoice, CommitMethod, Durability};
pub use positions::ConsumerInfo;
pub use read_only::{ReadOnlyFollow, ReadOnlyReader, ReadOnlyWal};
pub use reader::{BackwardReader, Reader, Record, RecordRef, Records};
pub use recovery::{RecoveryCase, RecoveryReport};
pub use stats::{Histograms, Stats};
#[cfg(feature = "futures")]
pub use stream::{AppendSink, FollowStream};
#[cfg(feature = "serde")]
pub use typed::{TypedError, TypedFollow, TypedReader, TypedWal};
pub use wal::Wal;

#[doc = include_str!("../docs/guide.md")]
pub mod guide {}

/// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
