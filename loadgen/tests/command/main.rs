//! The command as its users meet it: arguments in; files, figures and an exit status out.
//!
//! Every test runs the command in a directory of its own, see [`place`]. Measurements that several
//! tests look at are made once, see [`shared`].

mod arguments;
mod beside;
mod compare;
mod crash;
mod device;
#[cfg(target_os = "linux")]
mod full_disk;
mod golden;
#[cfg(unix)]
mod interrupts;
#[cfg(unix)]
mod outputs;
mod page;
mod place;
mod run;
mod schema;
mod shared;
mod suite;
mod sweep;
