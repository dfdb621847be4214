//! A real block device under ringwal, and every image that a power cut could leave of it.
//!
//! The engine runs on a real filesystem on a loop device, whose blocks are served by a daemon in this
//! process through FUSE. The daemon records when each write and flush was issued and completed; from
//! that record images are cut, mounted, and held against what had been acknowledged by then.
//!
//! `crashlab images|faults|stopped` runs it and says what was run. It exits with 1 at the first
//! violation, which it names with the command that shows it again, and with 2 if it cannot run here.
//! README.md of this package says what is not covered.

#[cfg(target_os = "linux")]
mod check;
#[cfg(target_os = "linux")]
mod cli;
#[cfg(target_os = "linux")]
mod device;
#[cfg(target_os = "linux")]
mod disk;
#[cfg(target_os = "linux")]
mod filter;
#[cfg(target_os = "linux")]
mod images;
#[cfg(target_os = "linux")]
mod lab;
#[cfg(target_os = "linux")]
mod mounts;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod runs;
#[cfg(target_os = "linux")]
mod slot;
#[cfg(target_os = "linux")]
mod workload;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    cli::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(2)
}
