//! io_uring switched off for the whole machine. Only the long form does this, and only as root.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they did")]

use crate::support::{Temp, backends, long, read_all, small};
use ringwal::{BackendChoice, BackendKind, Error};

const SWITCH: &str = "/proc/sys/kernel/io_uring_disabled";

/// Restores the switch on drop.
struct Before(String);

impl Drop for Before {
    fn drop(&mut self) {
        let _ = std::fs::write(SWITCH, &self.0);
    }
}

#[test]
fn io_uring_switched_off_by_sysctl_is_named_in_the_reason() {
    if !long() {
        eprintln!("skipped: it changes the whole machine; RINGWAL_LONG=1 does it");
        return;
    }
    let before = std::fs::read_to_string(SWITCH).ok();
    let Some(before) = before.filter(|_| backends().len() == 2) else {
        eprintln!("skipped: io_uring does not run here, or has no switch");
        return;
    };
    let _before = Before(before);
    if let Err(e) = std::fs::write(SWITCH, "2") {
        eprintln!("skipped: the switch takes root: {e}");
        return;
    }
    let temp = Temp::new();
    match small(&temp.log()).backend(BackendChoice::IoUring).open() {
        Err(e @ Error::BackendUnavailable { .. }) => {
            assert!(e.to_string().contains("io_uring_disabled"), "{e}");
        }
        other => panic!("{other:?}"),
    }
    let wal = small(&temp.log()).open().unwrap();
    assert_eq!(wal.backend().kind, BackendKind::Std);
    wal.append_durable(b"all the same").unwrap();
    assert_eq!(read_all(&wal).len(), 1);
}
