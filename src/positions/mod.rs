//! Positions that survive a crash: of named consumers, and of the hook on sealed segments.

mod position_file;
mod registry;

pub(crate) use position_file::{PositionFile, furthest_position, position_in};
pub use registry::ConsumerInfo;
pub(crate) use registry::{Attachment, Consumers, PositionsBefore};
