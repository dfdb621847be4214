//! Spans and events of the log in `tracing`: opening, recovery, rotation, preparation, retention, a
//! full disk, a failing hook, and failure. There is one test because the subscriber is global.

mod support;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ringwal::testing::{DiskFault, SimulatedDisk};
use ringwal::{Error, SealedSegment};
use support::{Temp, small};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// How often each span was created and each event was emitted, by thread.
static SEEN: Mutex<Option<HashMap<String, u32>>> = Mutex::new(None);

struct Listener(AtomicU64);

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

fn note(what: String) {
    let mut seen = SEEN.lock().unwrap();
    *seen.get_or_insert_default().entry(what).or_default() += 1;
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("ringwal")
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        note(format!("span {}", span.metadata().name()));
        Id::from_u64(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let thread = std::thread::current();
        note(format!("{} on {}", message.0, thread.name().unwrap_or("")));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn spans_and_events_are_emitted_for_rare_events_only() {
    tracing::subscriber::set_global_default(Listener(AtomicU64::new(0))).unwrap();
    let temp = Temp::new();
    let wal = small(&temp.log()).max_segments(4).open().unwrap();
    // Each record gets a group, so an event for every group would be emitted hundreds of times.
    for _ in 0..500 {
        wal.append_durable(&[1; 1000]).unwrap();
    }
    wal.truncate_before(wal.durable_end()).unwrap();
    let rotations = wal.stats().rotations;
    assert!(rotations > 5);
    wal.close().unwrap();

    let seen = SEEN.lock().unwrap().take().unwrap();
    let count = |start: &str| {
        let all = seen.iter().filter(|(what, _)| what.starts_with(start));
        all.map(|(_, n)| u64::from(*n)).sum::<u64>()
    };
    for once in ["span open", "span recovery", "recovered"] {
        assert_eq!(count(once), 1, "{once}: {seen:?}");
    }
    for many in ["span retention", "segment prepared", "segment removed"] {
        assert!(count(many) > 0, "{many}: {seen:?}");
    }
    let gone_on = count("the log has gone on");
    assert!(gone_on > 0 && gone_on <= rotations + 1, "{seen:?}");
    let io: Vec<_> = seen.keys().filter(|what| what.ends_with("on ringwal-io")).collect();
    // The exception is a producer that the system did not run, which is no fault of the log.
    let late = |what: &&&String| what.starts_with("a producer has not filled its reservation");
    assert!(io.iter().all(|what| late(&what)), "the thread of the hot path is silent: {io:?}");
    let most = 8 * (rotations as u32 + 10);
    assert!(seen.values().sum::<u32>() < most, "not for every group: {seen:?}");

    // Each failure is logged once, however often the operation is retried.
    let disk = SimulatedDisk::new(1);
    let hook = |_: &SealedSegment| Err("not now".into());
    let wal = disk.open(&small(temp.path()).on_sealed(hook)).unwrap();
    disk.set_capacity(300 << 10);
    while wal.append(&[1; 1000]).is_ok() {}
    assert!(wal.stats().out_of_space);
    for _ in 0..50 {
        assert!(matches!(wal.append(&[1; 1000]), Err(Error::NoSpace)));
    }
    disk.set_capacity(10 << 20);
    while wal.append(&[1; 1000]).is_err() {}
    wal.sync().unwrap();
    disk.fail_after(0, DiskFault::Failed, true);
    while wal.append_durable(&[1; 1000]).is_ok() {}
    assert!(wal.close().is_err());
    let failures = wal.stats().sealed_failures;
    let seen = SEEN.lock().unwrap().take().unwrap();
    let count = |start: &str| {
        let all = seen.iter().filter(|(what, _)| what.starts_with(start));
        all.map(|(_, n)| u64::from(*n)).sum::<u64>()
    };
    for once in ["no space for", "there is space", "the log is poisoned"] {
        assert_eq!(count(once), 1, "{once}: {seen:?}");
    }
    assert!(failures > 0 && count("the hook on sealed segments failed") == failures, "{seen:?}");
}
