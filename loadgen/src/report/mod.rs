//! The results of a run, for readers and for programs.

pub mod bars;
pub mod hgrm;
pub mod html;
mod json;
mod table;

pub use json::json;
pub use table::table;
