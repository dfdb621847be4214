//! What a run has found out, for people and for programs.

mod json;
mod table;

pub use json::json;
pub use table::table;
