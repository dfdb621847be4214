//! The C interface: its header, programs in C, C++ and Go, and what the install script lays out.
#![allow(clippy::print_stderr, reason = "tests say what they skipped")]

mod header;
mod install;
mod programs;
mod support;
