//! A write-ahead log for servers on Linux. Producers append to a lock-free ring. One I/O thread
//! writes the ring as group commits through io_uring. Every acknowledged record survives power
//! loss.
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
//!
//! Add the crate with `cargo add ringwal`. The [guide] leads from the first decision to the daily
//! work. Features:
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `uring` | yes | on Linux: io_uring, direct I/O, and every other call that only Linux has |
//! | `serde` | no | `TypedWal`: records as values, encoded with postcard; `Lsn` can be serialized |
//! | `json` | no | `serde`, and the codec `Json` for values that postcard cannot decode |
//! | `futures` | no | a follower is a `Stream`, appending is a `Sink` |
//! | `metrics` | no | `Wal::publish_metrics`, for any exporter of the crate `metrics` |
//! | `testing` | no | `testing::SimulatedDisk`, on which a test crashes a service and its logs |
//! | `discard` | no | a backend that writes nothing, to measure the engine without a device |
//!
//! Rust 1.89 is the oldest that builds the crate with its tests, which use `File::try_lock`.

#[cfg(not(any(unix, windows)))]
compile_error!(
    "ringwal needs the files, threads and locks of a unix or of Windows: it does not run on WebAssembly"
);

mod cells;
mod checks;
mod durable;
mod engine;
mod error;
mod format;
mod hooks;
pub mod inspect;
mod io;
mod lsn;
mod options;
mod positions;
mod read;
mod recovery;
mod ring;
mod segment;
mod stats;
mod sys;
#[cfg(simulated)]
pub mod testing;
mod wal;

#[cfg(all(any(test, fuzzing), not(ringwal_loom)))]
#[doc(hidden)]
pub use checks::fuzzing;
pub use engine::batch::BatchLsns;
pub use error::{Error, Failure, FailureKind, OptionsError, ReplayError, Result};
pub use hooks::{SealedSegment, Stall, StallKind};
pub use io::backend::{BackendInfo, BackendKind, MethodReason};
pub use lsn::Lsn;
pub use options::{BackendChoice, CommitMethod, Durability};
pub use positions::{ConsumerInfo, TagFloor};
pub use read::consumer::Consumer;
pub use read::follow::Follow;
pub use read::outside::{ReadOnlyFollow, ReadOnlyReader, ReadOnlyWal};
pub use read::work_queue::{DeadLetter, Job, WorkQueue, WorkQueueCounts, WorkQueueOptions};
pub use read::{BackwardReader, Reader, Record, RecordRef, Records, SharedRecord, SharedRecords};
pub use recovery::{RecoveryCase, RecoveryReport};
pub use stats::counters::{Histograms, Stats};
pub use stats::histogram::Histogram;
pub use wal::Wal;
pub use wal::builder::WalBuilder;
pub use wal::cells::{Cell, StoreFuture};
pub use wal::futures::{AppendBatchFuture, AppendFuture, AppendOwnedFuture, DurableFuture};
pub use wal::held::HeldBy;
pub use wal::listener::DurableEndListener;
#[cfg(feature = "futures")]
pub use wal::stream::{AppendSink, FollowStream};
pub use wal::tagged::Tagged;
#[cfg(feature = "json")]
pub use wal::typed::Json;
#[cfg(feature = "serde")]
pub use wal::typed::{
    Codec, CodecError, Postcard, RoundTrip, TypedConsumer, TypedError, TypedFollow,
    TypedReadOnlyWal, TypedReader, TypedRecords, TypedWal,
};

#[doc = include_str!("../docs/guide.md")]
pub mod guide {}

/// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
