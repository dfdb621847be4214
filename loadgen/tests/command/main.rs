//! The command as a user runs it: arguments in; files, figures and an exit status out.
//!
//! Each test runs the command in its own directory, see [`place`]. Several tests share one
//! measurement, see [`shared`].
//!
//! On unix: the tests send signals, and create links, pipes and names that are no text.

#![cfg(unix)]

mod arguments;
mod beside;
mod compare;
mod crash;
mod device;
#[cfg(target_os = "linux")]
mod full_disk;
mod golden;
mod interrupts;
mod logs;
mod open;
mod outputs;
mod page;
mod place;
mod run;
mod schema;
mod shared;
mod suite;
mod sweep;
