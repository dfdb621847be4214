//! The running log: what its threads do, and the state that the handles share with them.

pub(crate) mod append;
pub(crate) mod archiver;
pub(crate) mod assemble;
pub(crate) mod batch;
pub(crate) mod baton;
#[cfg(linux_calls)]
pub(crate) mod calibrate;
mod choose_backend;
pub(crate) mod io_thread;
pub(crate) mod log_view;
pub(crate) mod recover;
pub(crate) mod retention;
pub(crate) mod segment_keeper;
pub(crate) mod spares;
pub(crate) mod state;
pub(crate) mod threads;
pub(crate) mod watchdog;
pub(crate) mod workers;
