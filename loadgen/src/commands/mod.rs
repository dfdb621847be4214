//! The commands, one module each.

pub mod ab;
pub mod bench;
pub mod compare;
pub mod crash;
pub mod equals;
pub mod probe;
pub mod run;
pub mod sweep;
