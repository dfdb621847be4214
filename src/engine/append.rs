//! Appending and waiting, without the threads: what handles, futures and the simulation share.
//!
//! Payload bytes are summed and user code is run before the reservation, except for the closure of
//! `append_with`: between reservation and publication nothing may wait. A batch is summed where it
//! lies in the ring; its payloads are only read before, so that they are in memory.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::durable::Verdict;
use crate::engine::batch::{BatchLsns, BatchRecords};
use crate::engine::baton::{Awaited, CommitLoop, Held, Left};
use crate::engine::state::LogState;
use crate::error::{Error, Failure, Result};
use crate::format::{
    BATCH_HEADER, EpochId, KIND_BATCH, KIND_DATA, PayloadSum, RECORD_HEADER, Seed, TAG_BLOCK,
    item_size, stored_size, write_abort, write_item, write_tagged_header, write_tagged_item,
};
use crate::lsn::Lsn;
use crate::ring::{Reservation, ReserveError, WakeOn};
use crate::sys::reentrancy::{self, Filling};

/// Appends to one open log.
#[derive(Debug, Clone)]
pub(crate) struct Appender {
    pub(crate) state: Arc<LogState>,
    seed: Seed,
    epoch_tag: u16,
    max_record: usize,
}

/// Bytes that a tag takes of a record.
const fn tag_bytes(tag: Option<u64>) -> usize {
    if tag.is_some() { TAG_BLOCK } else { 0 }
}

impl Appender {
    pub(crate) fn new(state: Arc<LogState>, log_id: &[u8; 16], epoch: u64, max: usize) -> Self {
        let epoch_tag = EpochId { counter: epoch, nonce: 0 }.tag();
        Appender { state, seed: Seed::new(log_id), epoch_tag, max_record: max }
    }

    #[cfg(all(test, not(ringwal_loom)))]
    pub(crate) fn max_record(&self) -> usize {
        self.max_record
    }

    #[inline]
    fn check_running(&self) -> Result<()> {
        self.state.stir();
        self.state.durable.check_running()
    }

    /// Waits for room after a refusal.
    #[cold]
    fn reserve_or_wait(&self, len: u64) -> Result<Reservation<'_>> {
        while self.state.drive() {
            match self.state.ring.reserve_or_refuse(len) {
                Err(ReserveError::Full) => {}
                room => return room.map_err(|r| self.refused(r)),
            }
        }
        self.state.ring.reserve_or_wait(len).map_err(|r| self.refused(r))
    }

    #[inline]
    fn check_len(&self, len: usize) -> Result<()> {
        if len <= self.max_record {
            Ok(())
        } else {
            Err(Error::RecordTooLarge { len, max: self.max_record })
        }
    }

    /// The error for a refused reservation.
    #[cold]
    pub(crate) fn refused(&self, refused: ReserveError) -> Error {
        match refused {
            // A missing segment may be why the ring is full.
            ReserveError::Full => self.state.obstacle.get().unwrap_or(Error::RingFull),
            ReserveError::NoSpace => self.state.obstacle.no_segment(),
            ReserveError::Stopped => {
                self.state.durable.check_running().err().unwrap_or(Error::Closed)
            }
        }
    }

    /// Sums a record before its place is known.
    #[inline(always)]
    pub(crate) fn sum(&self, tag: Option<u64>, payload: &[u8]) -> PayloadSum {
        match tag {
            None => self.seed.sum(payload),
            Some(tag) => self.seed.sum_tagged(tag, payload),
        }
    }

    /// Fills a reservation with one data record.
    #[inline(always)]
    fn put(
        &self,
        mut room: Reservation<'_>,
        tag: Option<u64>,
        payload: &[u8],
        sum: PayloadSum,
    ) -> Lsn {
        let lsn = room.lsn();
        let bytes = room.bytes();
        // The last 8 bytes hold the padding; the payload overwrites what is its own.
        if let Some(last) = bytes.last_chunk_mut::<8>() {
            *last = [0; 8];
        }
        let start = RECORD_HEADER + tag_bytes(tag);
        bytes[start..start + payload.len()].copy_from_slice(payload);
        self.write_header(bytes, lsn, tag, sum);
        room.publish(1);
        Lsn::new(lsn)
    }

    /// Writes what stands before the payload of the data record at `lsn`.
    #[inline(always)]
    fn write_header(&self, bytes: &mut [u8], lsn: u64, tag: Option<u64>, sum: PayloadSum) {
        match tag {
            None => sum.write_header(bytes, lsn, KIND_DATA, self.epoch_tag),
            Some(tag) => write_tagged_header(bytes, lsn, self.epoch_tag, &self.seed, tag, sum),
        }
    }

    #[inline]
    pub(crate) fn append(&self, payload: &[u8]) -> Result<Lsn> {
        self.append_record(None, payload)
    }

    pub(crate) fn append_tagged(&self, tag: u64, payload: &[u8]) -> Result<Lsn> {
        self.append_record(Some(tag), payload)
    }

    /// Inlined into both callers: an untagged append has no branch for the tag.
    #[inline(always)]
    fn append_record(&self, tag: Option<u64>, payload: &[u8]) -> Result<Lsn> {
        self.check_running()?;
        reentrancy::check_may_wait()?;
        let len = tag_bytes(tag) + payload.len();
        self.check_len(len)?;
        let sum = self.sum(tag, payload);
        let stored = stored_size(len);
        let room = match self.state.ring.try_reserve(stored) {
            Ok(room) => room,
            Err(_) => self.reserve_or_wait(stored)?,
        };
        Ok(self.put(room, tag, payload, sum))
    }

    #[inline]
    pub(crate) fn try_append(&self, payload: &[u8]) -> Result<Lsn> {
        self.try_append_record(None, payload)
    }

    pub(crate) fn try_append_tagged(&self, tag: u64, payload: &[u8]) -> Result<Lsn> {
        self.try_append_record(Some(tag), payload)
    }

    #[inline(always)]
    fn try_append_record(&self, tag: Option<u64>, payload: &[u8]) -> Result<Lsn> {
        self.check_running()?;
        reentrancy::check_not_filling()?;
        let len = tag_bytes(tag) + payload.len();
        self.check_len(len)?;
        let sum = self.sum(tag, payload);
        let stored = stored_size(len);
        let room = match self.state.ring.try_reserve(stored) {
            Ok(room) => room,
            Err(_) => self.state.ring.reserve_or_refuse(stored).map_err(|r| self.refused(r))?,
        };
        Ok(self.put(room, tag, payload, sum))
    }

    /// Checks an append that is to be polled. Returns the bytes that it needs in the ring.
    pub(crate) fn check_append(&self, tag: Option<u64>, payload: &[u8]) -> Result<u64> {
        self.check_running()?;
        reentrancy::check_not_filling()?;
        let len = tag_bytes(tag) + payload.len();
        self.check_len(len)?;
        Ok(stored_size(len))
    }

    /// Fills the room of an append that was polled. `sum`: of its record, if it is known.
    pub(crate) fn put_polled(
        &self,
        room: Reservation<'_>,
        tag: Option<u64>,
        payload: &[u8],
        sum: Option<PayloadSum>,
    ) -> Lsn {
        let sum = sum.unwrap_or_else(|| self.sum(tag, payload));
        self.put(room, tag, payload, sum)
    }

    /// Abandons a reservation: its bytes become an abort record.
    pub(crate) fn abort(&self, mut room: Reservation<'_>) {
        let lsn = room.lsn();
        write_abort(room.bytes(), lsn, &self.seed, self.epoch_tag);
        room.publish(0);
    }

    pub(crate) fn append_with(
        &self,
        tag: Option<u64>,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Lsn> {
        self.check_running()?;
        reentrancy::check_may_wait()?;
        let body = len.saturating_add(tag_bytes(tag));
        self.check_len(body)?;
        let stored = stored_size(body);
        let room = match self.state.ring.try_reserve(stored) {
            Ok(room) => room,
            Err(_) => self.reserve_or_wait(stored)?,
        };
        // A panic in `fill` must not leave a hole: the drop of this writes an abort record.
        let mut room = AbortOnDrop { appender: self, room: Some(room) };
        let Some(reserved) = &mut room.room else { return Err(Error::Closed) };
        let lsn = reserved.lsn();
        let bytes = reserved.bytes();
        bytes.fill(0);
        let start = RECORD_HEADER + tag_bytes(tag);
        {
            let _inside = Filling::enter();
            fill(&mut bytes[start..start + len]);
        }
        let sum = self.sum(tag, &bytes[start..start + len]);
        self.write_header(bytes, lsn, tag, sum);
        if let Some(reserved) = room.room.take() {
            reserved.publish(1);
        }
        Ok(Lsn::new(lsn))
    }

    pub(crate) fn append_batch<'a>(&self, records: BatchRecords<'a>) -> Result<BatchLsns<'a>> {
        self.check_running()?;
        reentrancy::check_may_wait()?;
        let stored = self.check_batch(&records)?;
        let room = match self.state.ring.try_reserve(stored) {
            Ok(room) => room,
            Err(_) => self.reserve_or_wait(stored)?,
        };
        Ok(self.put_batch(room, records))
    }

    pub(crate) fn try_append_batch<'a>(&self, records: BatchRecords<'a>) -> Result<BatchLsns<'a>> {
        let stored = self.check_polled_batch(&records)?;
        let room = match self.state.ring.try_reserve(stored) {
            Ok(room) => room,
            Err(_) => self.state.ring.reserve_or_refuse(stored).map_err(|r| self.refused(r))?,
        };
        Ok(self.put_batch(room, records))
    }

    /// Checks a batch that does not block, and returns the bytes that it needs.
    pub(crate) fn check_polled_batch(&self, records: &BatchRecords<'_>) -> Result<u64> {
        self.check_running()?;
        reentrancy::check_not_filling()?;
        self.check_batch(records)
    }

    /// Checks a batch, and brings its payloads into memory. Returns the bytes that it needs.
    fn check_batch(&self, records: &BatchRecords<'_>) -> Result<u64> {
        if records.payloads.is_empty() {
            return Err(Error::EmptyBatch);
        }
        // The sum may overflow and is too large then. The size of one item cannot.
        let tag = records.tag_bytes();
        let sizes = records.payloads.iter().map(|s| item_size(tag + s.len()));
        let stored = sizes.fold(BATCH_HEADER as u64, u64::saturating_add);
        self.check_len(usize::try_from(stored - RECORD_HEADER as u64).unwrap_or(usize::MAX))?;
        records.fault_in();
        Ok(stored)
    }

    /// Fills a reservation with a batch of at least one record.
    pub(crate) fn put_batch<'a>(
        &self,
        mut room: Reservation<'_>,
        records: BatchRecords<'a>,
    ) -> BatchLsns<'a> {
        let lsn = room.lsn();
        let bytes = room.bytes();
        let count = records.payloads.len() as u32;
        bytes[RECORD_HEADER..BATCH_HEADER].copy_from_slice(&count.to_le_bytes());
        let (mut at, mut last) = (BATCH_HEADER, BATCH_HEADER);
        let sum = if records.tags.is_empty() {
            for payload in &records.payloads {
                last = at;
                at = write_item(bytes, at, payload);
            }
            self.seed.sum(&bytes[RECORD_HEADER..])
        } else {
            // A single tag is that of all records.
            for (tag, payload) in records.tags.iter().cycle().zip(&records.payloads) {
                last = at;
                at = write_tagged_item(bytes, lsn, at, &self.seed, (*tag, payload));
            }
            self.seed.sum(&bytes[RECORD_HEADER..]).of_tagged_items()
        };
        sum.write_header(bytes, lsn, KIND_BATCH, self.epoch_tag);
        room.publish(count);
        BatchLsns::new(lsn + BATCH_HEADER as u64, lsn + last as u64, records)
    }

    /// Rejects a position that was never assigned: a wait for it would not end.
    pub(crate) fn check_appended(&self, lsn: u64) -> Result<()> {
        self.check_not_forked()?;
        let end = self.state.ring.reserved_end();
        if lsn < end {
            return Ok(());
        }
        Err(Error::NotAppended { lsn: Lsn::new(lsn), end: Lsn::new(end) })
    }

    /// Requests a sync of `lsn`, and returns whether it is durable.
    pub(crate) fn ask_durable(&self, lsn: u64) -> Verdict {
        match self.state.durable.verdict(lsn) {
            Verdict::NotYet => {}
            Verdict::Durable => return self.unless_cut(lsn),
            failed => return failed,
        }
        if let Err(e) = self.check_appended(lsn) {
            return Verdict::Failed(e);
        }
        if self.state.durable.demand(lsn + 1) {
            self.state.ring.doorbell.ring();
        }
        Verdict::NotYet
    }

    /// The verdict of a durable position, which a cut may have made void.
    pub(crate) fn unless_cut(&self, lsn: u64) -> Verdict {
        if let Err(forked) = self.check_not_forked() {
            return Verdict::Failed(forked);
        }
        match self.state.view.cuts.check(lsn) {
            Ok(()) => Verdict::Durable,
            Err(e) => Verdict::Failed(e),
        }
    }

    pub(crate) fn append_durable(&self, tag: Option<u64>, payload: &[u8]) -> Result<Lsn> {
        self.check_running()?;
        reentrancy::check_may_wait()?;
        if let Some(held) = self.state.baton.take_to_commit() {
            // Awake, as far as producers know: this thread steps the loop.
            self.state.ring.doorbell.disarm();
            match self.try_append_record(tag, payload) {
                Ok(lsn) => {
                    self.commit(held, lsn.as_u64());
                    self.wait_durable(lsn.as_u64())?;
                    return Ok(lsn);
                }
                Err(e) => {
                    self.hand_over(held);
                    if !matches!(e, Error::RingFull) {
                        return Err(e);
                    }
                }
            }
        }
        let lsn = self.append_record(tag, payload)?;
        self.wait_durable(lsn.as_u64())?;
        Ok(lsn)
    }

    /// Commits up to `lsn` on this thread, and puts the loop back.
    fn commit(&self, mut held: Held<'_, Box<dyn CommitLoop>>, lsn: u64) {
        // Demand first, so that the other modes sync it.
        self.state.durable.demand(lsn + 1);
        // In the models all threads are one.
        #[cfg(not(ringwal_loom))]
        let _serving = reentrancy::Serving::enter();
        let Some(io_loop) = &mut *held else { return };
        let done = catch_unwind(AssertUnwindSafe(|| io_loop.commit(lsn)));
        let left = match done {
            Ok(left) => left,
            Err(panic) => {
                io_loop.abandon();
                self.state.latch(Failure::new("a commit by its caller", "it panicked"));
                // A payload that panics when it is dropped is no business of ours.
                std::mem::forget(panic);
                Left { work: true, records: true, deadline: 0 }
            }
        };
        // Records are left to the next committer, if one waits awake.
        let baton = &self.state.baton;
        let records = left.records && !baton.has_next();
        let sooner = baton.must_hear_of(left.deadline);
        if left.work || records || sooner {
            self.state.ring.doorbell.arm(WakeOn::Any);
            self.state.ring.doorbell.ring();
        }
        drop(held);
    }

    /// Commits up to `lsn`, which is in the ring, if this thread gets the loop.
    fn commit_or_wait_awake(&self, lsn: u64) {
        let LogState { baton, durable, ring, .. } = &*self.state;
        let mut held = baton.take_to_commit();
        if held.is_none() {
            match baton.wait_awake(|| !matches!(durable.verdict(lsn), Verdict::NotYet)) {
                Awaited::Held(taken) => held = Some(taken),
                Awaited::GaveUp => ring.doorbell.ring(),
                // A third committer's record may have been left to this thread.
                Awaited::Done if ring.reserved_end() > durable.end() => ring.doorbell.ring(),
                Awaited::Nothing | Awaited::Done => {}
            }
        }
        if let Some(held) = held {
            ring.doorbell.disarm();
            self.commit(held, lsn);
        }
    }

    /// Puts the loop back for the I/O thread to go on with.
    #[cold]
    fn hand_over(&self, held: Held<'_, Box<dyn CommitLoop>>) {
        self.state.ring.doorbell.arm(WakeOn::Any);
        self.state.ring.doorbell.ring();
        drop(held);
    }

    pub(crate) fn wait_durable(&self, lsn: u64) -> Result<()> {
        match self.ask_durable(lsn) {
            Verdict::Durable => Ok(()),
            Verdict::Failed(e) => Err(e),
            Verdict::NotYet => {
                reentrancy::check_may_wait()?;
                self.commit_or_wait_awake(lsn);
                self.state.wait_durable(lsn)?;
                self.state.view.cuts.check(lsn)
            }
        }
    }

    /// Fails in a child of fork(): the ring may be in any state there, and a lock held for ever.
    pub(crate) fn check_not_forked(&self) -> Result<()> {
        if self.state.durable.is_forked() { Err(Error::Forked) } else { Ok(()) }
    }

    pub(crate) fn sync(&self) -> Result<Lsn> {
        self.check_not_forked()?;
        let end = self.state.ring.reserved_end();
        if end > self.state.durable.end() {
            match self.wait_durable(end - 1) {
                // It became durable, and a concurrent call cut it.
                Ok(()) | Err(Error::Truncated { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(self.durable_end())
    }

    pub(crate) fn durable_end(&self) -> Lsn {
        Lsn::new(self.state.durable.end())
    }
}

struct AbortOnDrop<'a> {
    appender: &'a Appender,
    room: Option<Reservation<'a>>,
}

impl Drop for AbortOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(room) = self.room.take() {
            self.appender.abort(room);
        }
    }
}
