//! Runs each of the lab's commands for some seconds, or with `RINGWAL_LONG=1` for ten minutes.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they did")]
#![cfg(target_os = "linux")]

use std::process::Command;

/// Exit code of the lab where it cannot run: without root, FUSE, loop devices or mkfs.
const CANNOT: i32 = 2;

fn lab(args: &[&str], short: &[&str]) {
    let long = std::env::var_os("RINGWAL_LONG").is_some();
    let seconds = if long { &["--seconds", "600"] } else { short };
    let out =
        Command::new(env!("CARGO_BIN_EXE_crashlab")).args(args).args(seconds).output().unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    if out.status.code() == Some(CANNOT) {
        eprintln!("skipped: {complained}");
        return;
    }
    assert!(out.status.success(), "{said}{complained}");
    println!("{said}");
}

#[test]
fn every_image_of_ext4_holds_what_was_acknowledged() {
    lab(&["images", "--fs", "ext4"], &["--seconds", "8", "--images", "60"]);
}

#[test]
fn every_image_of_xfs_holds_what_was_acknowledged() {
    lab(&["images", "--fs", "xfs"], &["--seconds", "8", "--images", "40"]);
}

#[test]
fn a_disk_that_fails_costs_nothing_that_was_acknowledged() {
    lab(&["faults"], &["--seconds", "5"]);
}

#[test]
fn a_killed_writers_last_write_does_not_land_on_its_successors() {
    lab(&["stopped"], &["--seconds", "5"]);
}

/// The log must not use io_uring if the lock cannot be registered with it.
#[test]
fn a_killed_writers_last_write_does_not_land_on_its_successors_without_io_uring_register() {
    lab(&["stopped", "--deny-register"], &["--seconds", "5"]);
}
