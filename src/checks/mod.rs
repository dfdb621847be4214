//! Tests of the whole engine: on a simulated disk, on hostile bytes, on a disk that fails.

#[cfg(all(test, not(ringwal_loom)))]
mod fail_stop_tests;
#[cfg(all(test, not(ringwal_loom)))]
mod fork_tests;
#[cfg(all(any(test, fuzzing), not(ringwal_loom)))]
pub mod fuzzing;
#[cfg(all(test, ringwal_shuttle))]
mod long_schedules;
#[cfg(all(test, not(ringwal_loom)))]
mod simulation;
