#![doc = include_str!("../README.md")]

mod archiver;
mod block_on;
mod error;
mod layout;
mod list;
mod manifest;
mod prune;
mod restore;
mod ship;
mod store;
mod target;
mod verify;

pub use archiver::{ArchiveStats, Archiver, ArchiverBuilder, CaughtUp};
pub use error::{Error, Result};
pub use list::{ArchivedSegment, Gap, Listing};
pub use object_store;
pub use prune::{KeepFrom, Pruned};
pub use restore::{Restore, RestoreProgress, Restored, Until};
pub use store::Archive;
pub use verify::VerifiedArchive;
