//! Seals extents, submits groups and separate syncs, and enters the next segment.

use std::time::Duration;

use super::Closing;
use super::IoLoop;
use super::groups::Group;
use crate::error::Failure;
use crate::format::{Flags, GROUP_HEADER, GroupHeader, Seed, write_abort};
use crate::io::backend::{Backend, Method, WriteRequest};
use crate::lsn::align_up;
use crate::options::Durability;
use crate::ring::{Poll, SealedExtent};

/// Nanoseconds after which an unpublished reservation is logged, and a reservation that was granted
/// to a task is revoked: the task may never be polled again.
pub(super) const SLOW_RESERVATION: u64 = 10_000_000;

/// `now` plus `by`. The last time of the clock stands for never.
pub(super) fn later(now: u64, by: Duration) -> u64 {
    now.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX))
}

impl IoLoop {
    pub(super) fn submit_groups(&mut self) -> bool {
        let mut progress = false;
        if !self.may_submit() {
            return false;
        }
        loop {
            let flying = self.groups.flying();
            if flying >= self.depth()
                || self.next >= self.next_release + self.state.ring.buffers() as u64
            {
                return progress;
            }
            match self.state.ring.poll(self.next) {
                Poll::Complete(sealed) => {
                    self.filling_since = None;
                    if !self.submit_group(sealed) {
                        return progress;
                    }
                    progress = true;
                    if !self.may_submit() {
                        return true;
                    }
                }
                Poll::Open if flying < self.eager() && self.delay_is_over() => {
                    if self.gathers_more() {
                        return progress;
                    }
                    self.granted |= self.state.ring.seal(false);
                }
                // A revoked reservation may be all that was missing.
                Poll::Filling if self.note_filling() => progress = true,
                Poll::Filling => return progress,
                Poll::Empty if self.control_is_due() => self.granted |= self.state.ring.seal(true),
                Poll::Empty if flying == 0 && self.gathers_more() => return progress,
                Poll::Empty => {
                    self.queued_from = (flying > 0).then(|| self.clock.now());
                    return progress;
                }
                Poll::Unopened if self.last_block_is_due() => progress = true,
                Poll::Open | Poll::Unopened => return progress,
            }
        }
    }

    /// Whether a control group got the block that is kept for a full disk. It states retention,
    /// which makes space, or a cut.
    fn last_block_is_due(&self) -> bool {
        let retires = self.state.retention.wanted() > self.setup.oldest;
        self.closing == Closing::No
            && self.groups.is_empty()
            && (retires || self.state.cut.is_wanted())
            && self.state.ring.take_last_block()
    }

    fn delay_is_over(&mut self) -> bool {
        let delay = self.setup.commit_delay;
        // Producers that wait for room in the next extent already make the next group large.
        if delay.is_zero() || self.state.is_closing() || self.state.ring.has_queue() {
            return true;
        }
        let now = self.clock.now();
        let due = *self.delay_due.get_or_insert(later(now, delay));
        now >= due
    }

    /// Whether the next group waits for committers of the last one, which are woken first.
    fn gathers_more(&mut self) -> bool {
        let ring = &self.state.ring;
        let there = ring.published(self.next);
        // Producers that wait for room make the next group large.
        if self.committing.is_some()
            || !self.gather.expects_more_than(there)
            || self.state.is_closing()
            || ring.has_queue()
        {
            return false;
        }
        let now = self.clock.now();
        match there {
            0 => self.queued_from = None,
            _ => _ = self.queued_from.get_or_insert(now),
        }
        if self.to_wake.is_some() {
            return true;
        }
        self.gathers = self.gather.waits(there, now);
        self.gathers
    }

    /// Tells what waits in the ring when nothing is in flight any more.
    pub(super) fn note_landed(&mut self) {
        if self.committing.is_none() && self.groups.flying() == 0 {
            let waiting = match self.state.ring.poll(self.next) {
                Poll::Open | Poll::Filling => self.state.ring.published(self.next),
                _ => 0,
            };
            self.gather.landed(self.pace.last_records(), waiting);
        }
    }

    /// Logs a slow reservation, and revokes those that tasks have not claimed. True: a revoked one
    /// was filled.
    fn note_filling(&mut self) -> bool {
        let now = self.clock.now();
        let since = *self.filling_since.get_or_insert(now);
        if since != u64::MAX && now.saturating_sub(since) > SLOW_RESERVATION {
            self.state.counters.slow_reservations.add(1);
            tracing::warn!("a producer has not filled its reservation for more than 10 ms");
            self.filling_since = Some(u64::MAX);
            let missed = self.state.ring.take_back(self.next);
            let any = !missed.is_empty();
            let (seed, tag) = (Seed::new(&self.setup.log_id), self.setup.epoch.tag());
            for mut room in missed {
                let lsn = room.lsn();
                write_abort(room.bytes(), lsn, &seed, tag);
                room.publish(0);
            }
            return any;
        }
        false
    }

    /// Whether the log is idle and wants a control group.
    fn control_is_due(&mut self) -> bool {
        if !self.groups.is_empty() || self.closing != Closing::No {
            return false;
        }
        if self.state.retention.wanted() > self.setup.oldest || self.state.cut.is_wanted() {
            return true;
        }
        if self.marked {
            return false;
        }
        let now = self.clock.now();
        let due = *self.idle_due.get_or_insert(later(now, self.pace.pause(self.setup.idle_seal)));
        now >= due
    }

    /// Submits a group. False: the group has to wait.
    fn submit_group(&mut self, sealed: SealedExtent) -> bool {
        let control = sealed.used == GROUP_HEADER;
        if control && !self.groups.is_empty() {
            return false;
        }
        let is_next = sealed.lsn >= self.current.end();
        // A rotation attaches the segment to the backend of the I/O thread.
        if is_next && (self.committing.is_some() || !self.enter_next_segment(sealed.lsn)) {
            return false;
        }
        let len = align_up(u64::from(sealed.used), u64::from(self.setup.block)) as u32;
        let header = self.next_header(&sealed, len, control);
        let buffer = self.state.ring.index(self.next);
        let start = self.finish_buffer(buffer, &header, len);
        let synced_alone = control || self.setup.durability == Durability::EveryGroup;
        let method = match (synced_alone, self.committing.is_some()) {
            (false, _) => Method::Plain,
            (true, false) => self.state.commit.method(),
            (true, true) => self.state.commit.method_alone(),
        };
        let write = WriteRequest {
            token: self.next,
            slot: self.slot,
            offset: sealed.lsn - self.current.base,
            start,
            len,
            buffer,
            method,
        };
        // SAFETY: the extent is complete, so that no producer writes to its buffer before
        // release(), which comes after the write's completion (invariant 3). finish_buffer has
        // initialised start..start + len. The ring's memory outlives the backend, or is leaked.
        unsafe {
            self.backend().write(write);
        }
        self.outstanding += if method == Method::Linked { 2 } else { 1 };
        let now = self.clock.now();
        self.groups.push(Group {
            sequence: self.next,
            lsn: sealed.lsn,
            end: sealed.lsn + u64::from(len),
            len,
            since: self.queued_from.unwrap_or(now),
            submitted_at: now,
            written_at: 0,
            header,
            slot: self.slot,
            method,
            oldest: self.setup.oldest,
            written: false,
            synced: false,
            covered_by: 0,
        });
        self.note_submitted(&sealed, &header, len, control, method, now);
        true
    }

    /// The header of the next group. It states the retention and the cut that are wanted by now.
    fn next_header(&mut self, sealed: &SealedExtent, len: u32, control: bool) -> GroupHeader {
        let wanted = self.state.retention.wanted();
        let mut flags = Flags::NONE;
        if control {
            flags = self.control_flags(wanted);
        }
        if wanted > self.setup.oldest {
            self.setup.oldest = wanted;
            self.state.retention.set_submitted(wanted);
            // The segment keeper waits until this header is durable, in every mode.
            self.sync_until = self.sync_until.max(sealed.lsn + u64::from(len));
        }
        // Records appended from now on lie above the cut, also those of this group.
        let cut = self.state.cut.take();
        if cut.is_some() {
            flags = flags.and(Flags::CUT);
            self.sync_until = self.sync_until.max(sealed.lsn + u64::from(len));
        }
        GroupHeader {
            lsn: sealed.lsn,
            log_id: self.setup.log_id,
            epoch: self.setup.epoch,
            // Only an epoch group that takes the place of a mark lies below the durable end.
            durable_end: self.state.durable.end().min(sealed.lsn),
            prev: self.link.lsn,
            prev_hash: self.link.hash,
            used: sealed.used,
            records: sealed.records,
            first_ordinal: self.link.next_ordinal,
            wall: self.clock.wall(),
            oldest: self.setup.oldest,
            flags,
            last_cut: self.link.last_cut,
            cut_from: cut.unwrap_or(0),
        }
    }

    /// What a control group is written for.
    fn control_flags(&self, wanted: u64) -> Flags {
        match self.closing {
            _ if self.next == 0 => Flags::EPOCH,
            Closing::No if wanted > self.setup.oldest => Flags::RETENTION,
            Closing::No if self.state.cut.is_wanted() => Flags::NONE,
            Closing::No => Flags::IDLE_SEAL,
            _ => Flags::CLEAN_CLOSE,
        }
    }

    /// Updates the loop's words after a group was submitted.
    fn note_submitted(
        &mut self,
        sealed: &SealedExtent,
        header: &GroupHeader,
        len: u32,
        control: bool,
        method: Method,
        now: u64,
    ) {
        self.link = header.link();
        self.next += 1;
        self.submitted_end = sealed.lsn + u64::from(len);
        self.state.keeper.reach(self.submitted_end);
        // A cut is data of its caller, so a mark must follow it.
        self.marked = control && !header.flags.has(Flags::CUT);
        self.closed = header.flags.has(Flags::CLEAN_CLOSE);
        self.pace.submitted(len, sealed.records);
        self.state.durable.set_crowd(sealed.records);
        self.idle_due = None;
        self.delay_due = None;
        self.count(sealed, control, len, method);
        if !control {
            self.pace.records_at(now);
            self.gather.submitted(sealed.records, self.groups.flying() > 1);
            let waited = self.queued_from.map_or(0, |from| now.saturating_sub(from));
            self.state.recorders.queue_time.record(waited);
            let held = self.submitted_end - self.groups.first_lsn().unwrap_or(header.lsn);
            self.state.recorders.ring_bytes.record(held);
        }
        self.queued_from = Some(now);
    }

    /// Writes the header, and zeros where the padding is not zero already.
    fn finish_buffer(&mut self, buffer: usize, header: &GroupHeader, len: u32) -> *const u8 {
        let start = self.state.ring.memory.buffer(buffer);
        let mut bytes = [0; GROUP_HEADER as usize];
        header.encode(&mut bytes);
        let used = header.used as usize;
        let dirty = self.paddings[buffer].dirty(used, len as usize);
        // SAFETY: the extent is complete and not released: the buffer is the I/O thread's alone
        // (ring invariant 6). len is at most a buffer, which is a multiple of the block, and used
        // is from the header's size to len. The dirty ranges lie between used and len.
        unsafe {
            start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            for range in dirty {
                start.add(range.start).write_bytes(0, range.len());
            }
        }
        start
    }

    fn count(&self, sealed: &SealedExtent, control: bool, len: u32, method: Method) {
        let counters = &self.state.counters;
        if control {
            counters.control_groups.add(1);
        } else {
            counters.groups.add(1);
            counters.depth_sum.add(self.groups.flying() as u64);
            counters.records.add(u64::from(sealed.records));
            counters.record_bytes.add(u64::from(sealed.used - GROUP_HEADER));
            self.state.recorders.group_records.record(u64::from(sealed.records));
        }
        counters.group_bytes.add(u64::from(len));
        self.state.recorders.group_bytes.record(u64::from(len));
        match method {
            Method::Plain => {}
            Method::Linked => counters.syncs.add(1),
            Method::Dsync => {
                counters.syncs.add(1);
                counters.dsync_groups.add(1);
            }
        }
    }

    /// Enters the segment that `lsn` lies in. False: the group has to wait.
    fn enter_next_segment(&mut self, lsn: u64) -> bool {
        // The durable end cannot decide this: it stays where the previous segment was left, which
        // is below this base.
        if self.groups.first_lsn().is_some_and(|first| first < self.current.base) {
            self.sync_until = self.sync_until.max(self.current.base);
            return false;
        }
        let Some(slot) = self.slots.iter().position(Option::is_none) else { return false };
        let base = self.current.end();
        let Some(spare) = self.state.view.table.activate(base, self.clock.now()) else {
            let detail = format!("no prepared segment at {base} for a group at {lsn}");
            self.fail(&Failure::new("rotation", detail));
            return false;
        };
        let attached = self.backend.attach(slot, &spare.file).and_then(|()| {
            self.direct.as_mut().map_or(Ok(()), |direct| direct.attach(slot, &spare.file))
        });
        if let Err(e) = attached {
            self.fail(&Failure::from_io("attaching a segment", &e));
            return false;
        }
        self.sync_until = self.sync_until.max(self.submitted_end);
        self.slots[slot] = Some(base);
        self.slot = slot;
        self.current = spare.header;
        self.state.counters.rotations.add(1);
        self.state.keeper.ring();
        self.detach_left_segments();
        true
    }

    /// In the modes that do not sync every group: starts a sync if one is due.
    pub(super) fn submit_sync(&mut self) -> bool {
        let Some(first) = self.groups.first_plain() else {
            self.interval_due = None;
            return false;
        };
        match self.setup.durability {
            Durability::Interval(every) => {
                let now = self.clock.now();
                let due = *self.interval_due.get_or_insert(later(now, every));
                if now >= due {
                    self.sync_until = self.sync_until.max(self.submitted_end);
                    self.interval_due = None;
                }
            }
            Durability::EveryGroup | Durability::Manual => {}
        }
        if self.state.retention.wanted() > self.setup.oldest || self.state.cut.is_wanted() {
            // The control group that states this is submitted only when everything is durable.
            self.sync_until = self.sync_until.max(self.submitted_end);
        }
        let closing = self.closing != Closing::No;
        // A waiter may demand a position between two segments, which no group reaches.
        let wanted =
            self.sync_until > first.lsn || self.state.durable.demanded() > self.state.durable.end();
        if self.syncing.is_some() || !(closing || wanted) || !first.written {
            return false;
        }
        let slot = first.slot;
        self.sync_ids += 1;
        self.groups.cover(slot, self.sync_ids);
        let token = self.sync_ids;
        self.backend().sync(token, slot);
        self.syncing = Some(self.sync_ids);
        self.syncing_since = self.clock.now();
        self.outstanding += 1;
        self.state.counters.syncs.add(1);
        true
    }
}
