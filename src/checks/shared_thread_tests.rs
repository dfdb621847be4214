//! Logs of one process whose segment keepers and watchdogs share threads.

use std::io;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use super::fail_stop_tests::{open, options};
use crate::io::fs::hooked::{Call, HookedDir, TempPath};
use crate::options::Durability;
use crate::wal::Wal;

/// A gate at which calls wait until it is opened.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut is_open = self.is_open.lock().unwrap();
        while !*is_open {
            is_open = self.changed.wait(is_open).unwrap();
        }
    }

    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

fn is_keeper() -> bool {
    std::thread::current().name() == Some("ringwal-segments")
}

fn fill(wal: &Wal) {
    for _ in 0..100 {
        wal.append_durable(&[5; 4000]).unwrap();
    }
}

/// Runs `work` on a thread of its own. True: it has ended in time.
fn ends(work: impl FnOnce() + Send + 'static) -> bool {
    let (send, ended) = mpsc::channel();
    std::thread::spawn(move || {
        work();
        let _ = send.send(());
    });
    ended.recv_timeout(Duration::from_secs(60)).is_ok()
}

/// Several logs wait in calls that do not return. A healthy log rotates and closes.
#[test]
fn directory_that_does_not_answer_stops_the_segments_of_no_other_log() {
    let options = options(Durability::EveryGroup);
    let gate = Arc::new(Gate::default());
    let stuck: Vec<_> = (0..3)
        .map(|_| {
            let path = TempPath::new();
            let (gate, (send, reached)) = (Arc::clone(&gate), mpsc::channel());
            let hook = move |call, _: &str| {
                if is_keeper() && call == Call::Sync {
                    let _ = send.send(());
                    gate.pass();
                }
                Ok(())
            };
            let wal = open(&path, &options, |dir| HookedDir::new(dir, hook)).unwrap();
            // Until the log has used up the spares that it was opened with.
            let is_stuck = |_| {
                let _ = wal.try_append(&[5; 4000]);
                reached.recv_timeout(Duration::from_millis(20)).is_ok()
            };
            assert!((0..3000).any(is_stuck), "no spare is prepared");
            (path, wal)
        })
        .collect();
    let path = TempPath::new();
    let healthy = open(&path, &options, |dir| HookedDir::new(dir, |_, _: &str| Ok(()))).unwrap();
    let went_on = ends(move || {
        fill(&healthy);
        assert!(healthy.stats().rotations > 3);
        healthy.close().unwrap();
    });
    gate.open();
    for (_, wal) in &stuck {
        fill(wal);
    }
    assert!(went_on, "it waited for the other logs");
}

#[test]
fn panic_in_the_segment_keeper_of_one_log_poisons_no_other() {
    let options = options(Durability::EveryGroup);
    let (path, other) = (TempPath::new(), TempPath::new());
    let kept = open(&other, &options, |dir| HookedDir::new(dir, |_, _: &str| Ok(()))).unwrap();
    let hook = |call, _: &str| {
        if is_keeper() && call == Call::Sync {
            std::panic::resume_unwind(Box::new("a defect"));
        }
        Ok::<(), io::Error>(())
    };
    let failing = open(&path, &options, |dir| HookedDir::new(dir, hook)).unwrap();
    let failed = (0..1000).find_map(|_| failing.append_durable(&[5; 4000]).err());
    assert!(failed.is_some() && failing.health().is_err());
    fill(&kept);
    kept.close().unwrap();
}
