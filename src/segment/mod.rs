//! Segment files: their names, their preparation, the table of segments, and the writer's lock.
//!
//! 1. A file gets a segment's name once its content and header are durable. It loses the name
//!    before any of its bytes is overwritten.
//! 2. The bases of the named segments follow each other without a gap. Segments are added in
//!    ascending order after the last, and removed in ascending order from the first, with a
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
pub(crate) use lock::{Deadline, DirLock, LockLost, newest_segment};
pub(crate) use names::{Names, SegmentName, equal_but_for_case, is_consumer_name, is_streams};
pub(crate) use preparation::{Haste, Preparation, zeroes};
pub(crate) use table::{Absent, Pinning, SealTime, SegmentRef, SegmentTable, Spare};
