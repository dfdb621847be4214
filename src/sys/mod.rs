//! What the engine uses of the platform and of the standard library, below every other module.
//!
//! `sync` gives the lock-free parts their atomics, locks and futex: those of std, or those of a
//! model checker. Nothing here knows of records, groups or segments.

pub(crate) mod bell;
pub(crate) mod boot;
#[cfg(unix)]
pub(crate) mod c;
pub(crate) mod clock;
pub(crate) mod fork;
pub(crate) mod os_error;
pub(crate) mod pages;
pub(crate) mod panics;
pub(crate) mod reentrancy;
pub(crate) mod scheduling;
#[cfg(ringwal_shuttle)]
pub(crate) mod shuttle;
pub(crate) mod sync;
#[cfg(linux_unmodelled)]
pub(crate) mod wiped;
