//! Recovery: finds the end of the log that a writer left, whatever stopped it.
//!
//! `scan` finds the segments and checks their headers; `walk` reads groups; `find_end` follows the
//! chain to its end and distinguishes a torn tail from damaged data; `make_durable` syncs what was
//! found. Only `make_durable` changes anything: it syncs, and removes temporary files.

mod find_end;
#[cfg(all(test, not(ringwal_loom)))]
mod find_end_tests;
mod make_durable;
mod read_window;
#[cfg(all(test, not(ringwal_loom)))]
mod read_window_tests;
mod report;
mod scan;
#[cfg(all(test, not(ringwal_loom)))]
mod tests;
mod walk;

pub(crate) use find_end::{FoundEnd, find_end, find_end_beside_a_writer, find_end_of_rest};
pub(crate) use make_durable::make_durable;
pub use report::{RecoveryCase, RecoveryReport};
pub(crate) use scan::{
    MISSING, Scan, follows, is_gone, read_header, scan, sound_header, states_oldest,
};
pub(crate) use walk::{SharedChunk, Walker};
