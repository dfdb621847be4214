//! The baton under loom: a holder of the loop is alone, and what is published is processed.

use super::*;
use crate::ring::Doorbell;
use crate::sys::sync::loom::sync::Arc as LoomArc;
use crate::sys::sync::{loom, model_fence};

/// The backend of the I/O thread, in which it never sleeps here. A late ring may end there.
#[derive(Debug)]
struct NoBackend;

impl Wake for NoBackend {
    fn wake(&self) {}
}

/// What the loop has processed.
type Done = u32;

struct Log {
    baton: Baton<Done>,
    doorbell: Doorbell,
    published: AtomicU32,
    /// The durable end.
    durable: Futex,
    callers: AtomicU32,
    /// The I/O thread's first sleep ends by time.
    impatient: bool,
}

impl Log {
    fn new(callers: u32, impatient: bool) -> LoomArc<Log> {
        let log = Log {
            baton: Baton::new(),
            doorbell: Doorbell::new(),
            published: AtomicU32::new(0),
            durable: Futex::new(0),
            callers: AtomicU32::new(callers),
            impatient,
        };
        log.doorbell.connect(Box::new(log.baton.waker(Box::new(NoBackend))));
        // Short commits, so that committers wait awake.
        log.baton.committed(0, 1, false);
        LoomArc::new(log)
    }

    fn published(&self) -> u32 {
        model_fence();
        self.published.load(Ordering::SeqCst)
    }

    fn is_closing(&self) -> bool {
        self.callers.load(Ordering::SeqCst) == 0
    }

    fn leave(&self) {
        if self.callers.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.doorbell.ring();
        }
    }

    /// Returns the record's number, from one on.
    fn append(&self) -> u32 {
        let before = self.published.fetch_add(1, Ordering::SeqCst);
        self.doorbell.published(|| false);
        before + 1
    }

    fn process(&self, done: &mut Done) {
        *done = self.published();
        self.durable.store(*done);
        model_fence();
        self.durable.wake_all();
    }

    /// `Durable::wait`.
    fn wait(&self, mine: u32) {
        loop {
            let seen = self.durable.load();
            if seen >= mine {
                return;
            }
            self.durable.wait(seen, None);
        }
    }

    fn append_and_sleep(&self) {
        let mine = self.append();
        self.wait(mine);
        self.leave();
    }

    /// `Appender::append_durable`, without the disk.
    fn append_durable(&self) {
        if let Some(held) = self.baton.take_to_commit() {
            self.doorbell.disarm();
            let mine = self.append();
            self.commit(held);
            self.wait(mine);
            self.leave();
        } else {
            self.append_and_wait();
        }
    }

    /// `Appender::append`, and `Appender::commit_or_wait_awake`.
    fn append_and_wait(&self) {
        let mine = self.append();
        match self.baton.wait_awake(|| self.durable.load() >= mine) {
            Awaited::Held(held) => {
                self.doorbell.disarm();
                self.commit(held);
            }
            Awaited::GaveUp => self.doorbell.ring(),
            Awaited::Done if self.published() > self.durable.load() => self.doorbell.ring(),
            Awaited::Nothing | Awaited::Done => {}
        }
        self.wait(mine);
        self.leave();
    }

    /// `Appender::commit`.
    fn commit(&self, mut held: Held<'_, Done>) {
        let Some(done) = &mut *held else { panic!("FREE without a loop") };
        self.process(done);
        let done = *done;
        self.baton.committed(0, 1, false);
        self.doorbell.arm(WakeOn::Any);
        let work = self.is_closing();
        if work || self.published() > done && !self.baton.has_next() {
            self.doorbell.arm(WakeOn::Any);
            self.doorbell.ring();
        }
    }

    /// Processes what is published, unless a committer waits awake. False: there was nothing to do.
    fn step(&self, done: &mut Done) -> bool {
        if self.baton.has_next() || self.published() == *done {
            return false;
        }
        self.process(done);
        true
    }

    /// `io_thread::run`, until every caller has left.
    fn serve(&self) {
        let mut done: Done = 0;
        let mut timeout = self.impatient.then_some(Duration::ZERO);
        loop {
            self.step(&mut done);
            if self.is_closing() {
                self.baton.retire();
                return;
            }
            let seen = self.baton.prepare_to_park();
            self.doorbell.arm(WakeOn::Any);
            model_fence();
            if self.step(&mut done) || self.is_closing() {
                self.doorbell.disarm();
                self.baton.unpark();
                continue;
            }
            let deadline = timeout.map(|_| 10);
            let kept = self.baton.park(done, seen, deadline, timeout.take());
            let Some(kept) = kept else { panic!("lost") };
            done = kept;
            self.doorbell.disarm();
            self.baton.unpark();
        }
    }
}

fn model(preemptions: usize, callers: &'static [fn(&Log)]) {
    model_of(preemptions, false, callers);
}

fn model_of(preemptions: usize, impatient: bool, callers: &'static [fn(&Log)]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        let log = Log::new(callers.len() as u32, impatient);
        let callers: Vec<_> = callers
            .iter()
            .map(|&call| {
                let log = LoomArc::clone(&log);
                loom::thread::spawn(move || call(&log))
            })
            .collect();
        log.serve();
        for caller in callers {
            caller.join().unwrap();
        }
    });
}

#[test]
fn loom_two_committers_share_the_loop_and_nothing_published_is_slept_through() {
    model(2, &[Log::append_durable, Log::append_durable]);
}

#[test]
fn loom_a_producer_beside_a_committer_is_never_slept_through() {
    model(2, &[Log::append_durable, Log::append_and_sleep]);
}

#[test]
fn loom_a_record_left_to_a_committer_that_waits_awake_is_committed() {
    model(1, &[Log::append_and_wait, Log::append_durable, Log::append_and_sleep]);
}

#[test]
fn loom_an_io_thread_that_wants_the_loop_gets_it_from_its_holder() {
    model_of(1, true, &[Log::append_durable, Log::append_durable]);
}

#[test]
fn loom_a_commit_never_leaves_the_io_thread_asleep_beyond_its_time() {
    loom::model::Builder::new().check(|| {
        let baton: LoomArc<Baton<Done>> = LoomArc::new(Baton::new());
        baton.wakes_at.store(10, Ordering::SeqCst);
        let committer = LoomArc::clone(&baton);
        // Two commits, the second of which leaves something that is due sooner.
        let committer = loom::thread::spawn(move || {
            let late = committer.must_hear_of(20);
            let soon = committer.must_hear_of(15);
            (late, soon)
        });
        let until = baton.moved_from(10).unwrap_or(10);
        let (late, soon) = committer.join().unwrap();
        assert!(!late, "a later time is no reason to ring");
        assert!(soon || until <= 15, "asleep until {until}");
    });
}
