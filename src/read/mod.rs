//! Reading records back: in order, backwards, as they become durable, or one by its position.
//!
//! One cursor ([`cursor::Cursor`]) finds records. Each role is a type of its own over it: an
//! iterator ([`Reader`]), a follower ([`follow::Follow`]), a consumer ([`consumer::Consumer`]), and
//! the readers of other processes ([`outside`]).
//!
//! 1. No reader returns anything at or above the durable end.
//! 2. A group is verified as a whole before its first record is returned.
//! 3. A reader pins its segment, and retention removes it only after the reader has left it. A
//!    consumer's follower pins nothing, and a pin ends with the log. So a failed read is checked
//!    against what retention has removed (`LogView::explain`).
//! 4. A follower takes groups that are still in memory from there (`segment/recent.rs`).
//! 5. If a group below the durable end does not follow its predecessor, it is read once more, and
//!    is then `Corruption`: it never ends the log.

mod backward;
pub(crate) mod consumer;
mod cursor;
pub(crate) mod follow;
mod follow_cursor;
mod group_cursor;
pub(crate) mod lag;
mod lookup;
pub(crate) mod outside;
pub(crate) mod places;
mod reader;
mod record;
mod segment_cursor;
mod shared;
mod tag_search;
pub(crate) mod work_queue;

pub use backward::BackwardReader;
pub(crate) use lookup::{cut_point, is_inside_record, read_one};
pub use reader::Reader;
pub use record::{Record, RecordRef, Records};
pub use shared::{SharedRecord, SharedRecords};

/// Bytes that a reader reads at once.
const CHUNK_BYTES: usize = 512 << 10;
