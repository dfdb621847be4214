//! What ends: completions of writes and syncs, and the durable end that they move.

use super::{IoLoop, SYNC_TOKEN};
use crate::error::Failure;
use crate::format::Flags;
use crate::io::backend::{Backend, Completion, Method, Part, SLOTS};
use crate::segment::cuts::Cut;
use crate::stats::in_flight::Place;

impl IoLoop {
    pub(super) fn complete(&mut self, completion: Completion) {
        self.outstanding = self.outstanding.saturating_sub(1);
        let Completion { token, part, result } = completion;
        let now = self.clock.now();
        let recorders = &self.state.recorders;
        if token >= SYNC_TOKEN {
            self.syncing = None;
            match result {
                Ok(_) => {
                    recorders.sync_time.record(now.saturating_sub(self.syncing_since));
                    self.groups.synced_by(token);
                }
                Err(e) => self.fail(&Failure::from_io("fdatasync", &e)),
            }
            return;
        }
        match (part, result) {
            (Part::Write, Ok(n)) if n == self.groups.expected_len(token) => {
                self.groups.complete(token, |group| {
                    recorders.write_time.record(now.saturating_sub(group.submitted_at));
                    group.written_at = now;
                    group.written = true;
                    group.synced |= group.method == Method::Dsync;
                });
            }
            (Part::Write, Ok(n)) => {
                let detail = format!("{n} of {} bytes", self.groups.expected_len(token));
                self.fail(&Failure::new("short write", detail));
            }
            (Part::Write, Err(e)) => self.fail(&Failure::from_io("write", &e)),
            (Part::Sync, Ok(_)) => self.groups.complete(token, |group| {
                recorders.sync_time.record(now.saturating_sub(group.written_at));
                group.synced = true;
            }),
            (Part::Sync, Err(e)) => self.fail(&Failure::from_io("fdatasync", &e)),
        }
    }

    /// Releases buffers and moves the durable end.
    pub(super) fn advance(&mut self) -> bool {
        let mut moved = false;
        while let Some(group) = self.groups.written(self.next_release) {
            if self.state.view.tail.is_wanted() {
                let buffer = self.state.ring.index(self.next_release);
                let start = self.state.ring.memory.buffer(buffer).cast_const();
                let used = group.header.used as usize;
                // SAFETY: the extent is complete and not released, so that the buffer is this
                // thread's alone (ring invariant 6); finish_buffer and the producers initialised
                // its first `used` bytes, and the slice ends before release().
                let used = unsafe { std::slice::from_raw_parts(start, used) };
                self.state.view.tail.push(group.header, used);
            }
            self.granted |= self.state.ring.release(self.next_release);
            self.next_release += 1;
            moved = true;
        }
        let from = self.state.durable.end();
        let mut durable = None;
        let mut cut = false;
        let mut newest_record = 0;
        let mut now = None;
        while let Some(group) = self.groups.pop_durable() {
            durable = Some((group.end, group.oldest));
            if group.header.records > 0 {
                newest_record = group.lsn;
            }
            let now = *now.get_or_insert_with(|| self.clock.now());
            let taken = now.saturating_sub(group.submitted_at);
            self.state.recorders.commit_time.record(taken);
            if group.header.records > 0 && self.committing.is_none() {
                self.gather.durable(now.saturating_sub(group.since), taken);
            }
            if group.header.flags.has(Flags::CUT) {
                // Before the durable end passes the cut, so that every reader of it knows the cut.
                self.state.view.cuts.add(Cut { from: group.header.cut_from, to: group.lsn });
                cut = true;
            }
        }
        if let Some((end, oldest)) = durable {
            self.publish(end);
            // Before the durable end: a caller that sees the end knows of the record below it.
            self.state.retention.set_newest_record(newest_record);
            self.state.durable.advance(end);
            if cut {
                self.state.cut.wake_waiter();
            }
            // The archiver waits until the end has passed a segment.
            let passed = self.slots.iter().flatten().any(|&base| from <= base && base < end);
            if passed && self.state.hook.is_set() {
                self.state.hook.ring();
            }
            self.state.set_retired(oldest);
            let from = self.to_wake.map_or(from, |(first, _)| first);
            self.to_wake = Some((from, end));
            self.detach_left_segments();
            self.note_landed();
            if !self.started {
                // The epoch group is durable: producers may append.
                self.started = true;
                self.state.ring.start();
            }
            moved = true;
        }
        moved
    }

    /// Publishes the durable end to other processes before waiters of this one are woken. So
    /// another process sees every acknowledged record.
    pub(super) fn publish(&mut self, end: u64) {
        if let Some(file) = &mut self.setup.end_file
            && !file.publish(end, self.state.view.cuts.newest())
        {
            tracing::warn!("the durable end can no longer be published to other processes");
            self.setup.end_file = None;
        }
    }

    /// Notes the oldest operations in flight, for the watchdog.
    pub(super) fn note_flights(&self) {
        let (mut write, mut sync) = (0, 0);
        if self.outstanding > 0 {
            if self.next_release < self.next {
                write = self.next_release + 1;
            }
            let linked = self.groups.syncing_linked().map(|sequence| sequence + 1);
            sync = self.syncing.or(linked).unwrap_or(0);
        }
        self.state.in_flight.set(Place::Write, write);
        self.state.in_flight.set(Place::Sync, sync);
    }

    /// Detaches the segments that the log has left and that no group uses.
    pub(super) fn detach_left_segments(&mut self) {
        if self.committing.is_some() {
            // The backend is the I/O thread's: it comes to this after its next group.
            return;
        }
        for slot in 0..SLOTS {
            if self.slots[slot].is_some() && slot != self.slot && !self.groups.uses(slot) {
                self.backend.detach(slot);
                if let Some(direct) = &mut self.direct {
                    direct.detach(slot);
                }
                self.slots[slot] = None;
                self.state.keeper.ring();
            }
        }
    }
}
