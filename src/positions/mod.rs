//! Positions that survive a crash: of named consumers, and of the hook on sealed segments. The form
//! of their files is also that of cells.

mod position_file;
mod registry;
mod two_slots;

pub(crate) use position_file::{PositionFile, furthest_position, position_in};
pub use registry::ConsumerInfo;
pub(crate) use registry::{Attachment, Consumers, PositionsBefore};
pub(crate) use two_slots::{ReadSlots, TwoSlots};
