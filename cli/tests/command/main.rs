//! The command as an operator uses it: what it prints, its exit status, and what it leaves
//! unchanged.
//!
//! On unix: the tests send signals, and compare owners, modes and inodes.

#![cfg(unix)]
#![allow(missing_docs, reason = "a test")]

mod archive;
mod arguments;
mod backup;
mod cells;
mod consumers;
mod damage;
mod full;
mod look;
mod owners;
mod support;
mod tags;
mod transfer;
mod truncate;
