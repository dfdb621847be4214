//! A disk that does not answer: the log reports the stall while it lasts, waits, and loses no
//! record.
//!
//! The disk is a frozen filesystem in a file: every write to it waits until it is thawed.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stderr, reason = "tests say what they skip")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::mounted::{Mounted, run};
use crate::support::{Temp, backends, eventually, read_all};
use ringwal::{CommitMethod, Durability, Stall, Wal};

/// A frozen filesystem. Its drop thaws it.
struct Frozen(Mounted);

impl Frozen {
    fn freeze(&self) {
        assert!(run("fsfreeze", &["-f"], &self.0.path));
    }

    fn thaw(&self) -> bool {
        run("fsfreeze", &["-u"], &self.0.path)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw();
    }
}

#[test]
fn stall_of_the_disk_is_reported_while_it_lasts_and_loses_no_record() {
    for backend in backends() {
        let temp = Temp::new();
        let Some(disk) = Mounted::ext4(&temp, 64 << 20, &[]).map(Frozen) else {
            eprintln!("skipped: a filesystem can only be mounted and frozen by root");
            return;
        };
        for durability in [Durability::EveryGroup, Durability::Manual] {
            let told = Arc::new(Mutex::new(Vec::<Stall>::new()));
            let notes = Arc::clone(&told);
            let wal = Wal::builder(disk.0.path.join(format!("{durability:?}")))
                .segment_size(256 << 10)
                .backend(backend)
                .durability(durability)
                .commit_method(CommitMethod::LinkedFsync)
                .stall_threshold(Duration::from_millis(40))
                .on_stall(move |stall| notes.lock().unwrap().push(*stall))
                .open()
                .unwrap();
            wal.append_durable(b"before").unwrap();
            disk.freeze();
            let lsn = wal.append(b"meanwhile").unwrap();
            let waiter = {
                let wal = wal.clone();
                std::thread::spawn(move || wal.wait_durable(lsn))
            };
            // On a busy machine there may have been other stalls before, some of them reported as
            // over only now.
            eventually("it is told of", || {
                let told = told.lock().unwrap();
                told.iter().rev().take_while(|stall| !stall.over).count() >= 2
                    && wal.stats().stalled_for >= Duration::from_millis(40)
            });
            assert!(wal.stats().stalls >= 1);
            assert!(wal.durable_end() <= lsn, "nothing is acknowledged meanwhile");
            assert_eq!(read_all_durable(&wal), 1, "what is durable can be read");
            assert!(disk.thaw());
            waiter.join().unwrap().unwrap();
            eventually("it is told that it is over", || {
                told.lock().unwrap().last().unwrap().over
                    && wal.stats().stalled_for == Duration::ZERO
            });
            assert_eq!(read_all(&wal).len(), 2);
            wal.close().unwrap();
        }
        // After the close neither the process nor the kernel holds a file of the log.
        assert!(disk.0.unmount(), "{backend:?}");
    }
}

fn read_all_durable(wal: &Wal) -> usize {
    wal.reader(ringwal::Lsn::ZERO).map(Result::unwrap).count()
}
