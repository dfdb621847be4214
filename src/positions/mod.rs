//! Positions that survive a crash: of named consumers, of the hook on sealed segments, and the
//! floors of tags. The form of their files is also that of cells.

mod floors_file;
mod position_file;
mod registry;
mod tag_floors;
mod two_slots;

pub(crate) use floors_file::floors_in;
pub(crate) use position_file::{PositionFile, furthest_position, position_in};
pub use registry::ConsumerInfo;
pub(crate) use registry::{Attachment, Consumers, PositionsBefore};
pub use tag_floors::TagFloor;
pub(crate) use tag_floors::{FloorsPlace, TagFloors};
pub(crate) use two_slots::{ReadSlots, TwoSlots};
