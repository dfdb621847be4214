//! Tests of the whole engine: on a simulated disk, on hostile bytes, on a disk that fails, in a
//! child of `fork()`, under long schedules.

#[cfg(all(test, not(ringwal_loom)))]
mod fail_stop_tests;
#[cfg(all(test, target_os = "linux", not(ringwal_loom)))]
mod fork_tests;
#[cfg(all(any(test, fuzzing), not(ringwal_loom)))]
pub mod fuzzing;
#[cfg(all(test, ringwal_shuttle))]
mod long_schedules;
#[cfg(all(test, not(ringwal_loom)))]
mod shared_thread_tests;
#[cfg(all(test, not(ringwal_loom)))]
mod simulation;
