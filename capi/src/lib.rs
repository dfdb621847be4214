//! The C interface of ringwal.
//!
//! The documentation of the items is that of the C header, which `cbindgen` makes of these sources.
//!
//! 1. Every exported function runs in `border::guarded` or returns a plain value. No panic leaves
//!    it.
//! 2. Every pointer is checked for NULL and alignment, and every length for its range, before the
//!    log is called. What remains is the caller's duty, and the contract of each `unsafe fn` here:
//!    a pointer that is not NULL points to a live value of its type, from this library where it is
//!    a handle, or to as many bytes as the length says. Handles other than that of a log are used
//!    by one thread at a time.
//! 3. A result is written only when the call has succeeded.
#![allow(non_camel_case_types, reason = "the names are those of the C header")]
#![allow(clippy::missing_safety_doc, reason = "invariant 2 is the contract of every function")]

mod border;
mod consumer;
mod durable;
mod log;
mod options;
mod reader;
mod stats;
mod status;

pub use consumer::*;
pub use durable::*;
pub use log::*;
pub use options::*;
pub use reader::*;
pub use stats::*;
pub use status::*;
