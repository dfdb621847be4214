//! Segment files: their names, their preparation, which of them there are, and the writer's lock.
//!
//! 1. A file has a segment's name only once its content and header are durable, and loses it before
//!    anything in it is overwritten.
//! 2. The bases of the named segments follow each other without a gap: segments are added in
//!    ascending order behind the last and removed in ascending order from the first, with a
//!    directory sync between any two.

mod alias;
pub(crate) mod cuts;
pub(crate) mod end_file;
mod lock;
mod names;
mod preparation;
pub(crate) mod recent;
mod table;
pub(crate) mod window;

pub(crate) use alias::check_names;
pub(crate) use lock::{DirLock, LockLost, Patience, newest_segment};
pub(crate) use names::{Names, SegmentName, is_consumer_name};
pub(crate) use preparation::{Haste, Preparation, zeroes};
pub(crate) use table::{Found, Left, Pin, SegmentTable, Spare};
