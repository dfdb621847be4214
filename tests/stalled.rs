//! A disk that does not answer: the log says so while it lasts, waits, and loses nothing.
//!
//! The disk is a filesystem in a file, frozen: whatever is written to it waits until it is thawed.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stderr, reason = "tests say what they skip")]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringwal::{CommitMethod, Durability, Stall, Wal};
use support::{Temp, backends, eventually, read_all};

fn run(program: &str, args: &[&str], path: &Path) -> bool {
    Command::new(program).args(args).arg(path).output().is_ok_and(|out| out.status.success())
}

/// An ext4 filesystem of its own, thawed and unmounted when it goes.
struct Frozen {
    mount: std::path::PathBuf,
}

impl Frozen {
    /// `None`: that needs root, loop devices, and the programs.
    fn mounted(temp: &Temp) -> Option<Self> {
        let (image, mount) = (temp.path().join("image"), temp.path().join("mount"));
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        std::fs::create_dir(&mount).unwrap();
        let made = run("mkfs.ext4", &["-q", "-F"], &image);
        let options = ["-o", "loop", image.to_str().unwrap()];
        let mounted = made && run("mount", &options, &mount);
        mounted.then_some(Frozen { mount })
    }

    fn freeze(&self) {
        assert!(run("fsfreeze", &["-f"], &self.mount));
    }

    fn thaw(&self) -> bool {
        run("fsfreeze", &["-u"], &self.mount)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw();
        run("umount", &[], &self.mount);
    }
}

#[test]
fn a_stalled_disk_is_told_of_while_it_lasts_and_nothing_is_lost() {
    let temp = Temp::new();
    let Some(disk) = Frozen::mounted(&temp) else {
        eprintln!("skipped: a filesystem can only be mounted and frozen by root");
        return;
    };
    for backend in backends() {
        for durability in [Durability::EveryGroup, Durability::Manual] {
            let told = Arc::new(Mutex::new(Vec::<Stall>::new()));
            let notes = Arc::clone(&told);
            let wal = Wal::builder(disk.mount.join(format!("{backend:?}-{durability:?}")))
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
            // On a busy machine there may have been others before, told of as over even now.
            eventually("it is told of", || {
                let told = told.lock().unwrap();
                told.iter().rev().take_while(|stall| !stall.over).count() >= 2
            });
            let stats = wal.stats();
            assert!(stats.stalls >= 1 && stats.stalled_for >= Duration::from_millis(40));
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
    }
}

fn read_all_durable(wal: &Wal) -> usize {
    wal.reader(ringwal::Lsn::ZERO).map(Result::unwrap).count()
}
