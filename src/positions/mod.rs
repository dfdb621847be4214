//! Positions that survive a crash: those of named consumers, and of the hook on sealed segments.

mod registry;
mod slots;

pub use registry::ConsumerInfo;
pub(crate) use registry::Consumers;
pub(crate) use slots::{Slots, furthest_position, position_in};
