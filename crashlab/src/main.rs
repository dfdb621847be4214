//! Crashes a real block device under ringwal, and checks the images that a power failure could
//! leave.
//!
//! The engine runs on a real filesystem on a loop device, whose blocks are served by a daemon in
//! this process through FUSE. The daemon records when each write and flush was issued and
//! completed. The lab builds images from that record, mounts them, and compares them with the
//! acknowledgements received by then.
//!
//! `crashlab images|faults|stopped` runs the lab and prints what was run. At the first violation it
//! exits with 1, and prints the violation and the command that repeats it. It exits with 2 if it
//! cannot run on this machine. README.md of this package lists what is not covered.

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
