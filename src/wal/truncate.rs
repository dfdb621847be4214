//! Taking records away: the oldest segments, and the log's end.

use crate::engine::state::LogState;
use crate::error::{Error, Result};
use crate::lsn::Lsn;
#[allow(unused_imports, reason = "the documentation links to it")]
use crate::read::Reader;
use crate::read::cut_point;
use crate::sys::reentrancy;
use crate::sys::sync::lock;
use crate::wal::Wal;

/// Ends the cut that [`Consumers::begin_cut`](crate::positions::Consumers::begin_cut) began, and
/// wakes the commits that wait for its end.
struct EndCut<'a>(&'a LogState);

impl Drop for EndCut<'_> {
    fn drop(&mut self) {
        self.0.consumers.end_cut();
        self.0.cut.wake_waiter();
    }
}

impl Wal {
    /// Removes the segments that hold only records below `lsn`. Returns the oldest position that is
    /// kept afterwards.
    ///
    /// Segments are removed as a whole, so that the result is at most `lsn`. The newest durable
    /// segment stays. A position above the log's end counts as the end: records appended later
    /// stay. Blocks until the files are removed. A segment that a consumer, a reader or the hook on
    /// sealed segments needs stays: [`Wal::held_by`] names the one that keeps the most.
    ///
    /// On a full disk this call makes room: a log reserves a block for it in each segment.
    ///
    /// # Errors
    ///
    /// `NoSpace` if that block is used up on a full disk: the log carries the request out once
    /// there is room. `Closed`, `Poisoned`, `WouldDeadlock`.
    pub fn truncate_before(&self, lsn: Lsn) -> Result<Lsn> {
        let state = &self.appender().state;
        state.durable.check_running()?;
        reentrancy::check_may_wait()?;
        self.appender().check_not_forked()?;
        // Records appended from now on lie above the current end: the request must not reach them.
        let wanted = lsn.as_u64().min(state.ring.reserved_end());
        let call = state.retention.ask_truncation(wanted);
        state.keeper.ring();
        loop {
            let seen = state.keeper.rounds_seen();
            if state.retention.is_truncated(call) {
                return Ok(self.oldest_lsn());
            }
            state.durable.check_running()?;
            if state.retention_lacks_space() {
                return Err(state.obstacle.no_segment());
            }
            if !state.drive() {
                state.keeper.wait_round(seen);
            }
        }
    }

    /// Cuts the end of the log off: the record at `from` and every record appended after it, up to
    /// this call, become void for ever. Returns the position where the log continues. Later records
    /// lie at or above it.
    ///
    /// `from` is the LSN of a record or a former [`Wal::durable_end`], also one at which an earlier
    /// cut began. [`Lsn::ZERO`] or [`Wal::oldest_lsn`] cuts every record that is kept. A batch is
    /// cut as a whole, at its first record. If nothing lies at or above `from`, the call does
    /// nothing.
    ///
    /// The cut does not distinguish origins. Where one log holds the entries of several groups, or
    /// votes beside entries, append a record that overrules the entries instead: see the
    /// [guide](crate::guide).
    ///
    /// Positions are not assigned again. Nothing is erased or rewritten: the log adds a group that
    /// states the void range, and the call returns when that group is durable. Everything appended
    /// before is made durable first. Readers and followers skip void records. A follower that has
    /// delivered some of them gets `Truncated`; so do `read` and the waits for a void position. A
    /// [`Reader`] created before ends where it would have ended, and may still deliver the records
    /// that it has buffered.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-cut-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// wal.append(b"agreed")?;
    /// let conflict = wal.append(b"not agreed")?;
    /// wal.truncate_from(conflict)?;
    /// wal.append_durable(b"agreed instead")?;
    /// let records: Vec<_> = wal.reader(ringwal::Lsn::ZERO).map(|r| r.unwrap().payload).collect();
    /// assert_eq!(records, [&b"agreed"[..], b"agreed instead"]);
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Nothing was cut: `NotAppended` above the log's end, `Pruned` below the oldest, `NoRecord`
    /// inside a record, `InsideBatch`, `Consumed` if a [`Consumer`](crate::Consumer) has consumed
    /// records that the cut would remove, or is committing one of them, `NoSpace` if there is no
    /// block for the group. `Corruption` and `Io` from reading the place. `Closed`,
    /// `WouldDeadlock`. After `Poisoned` the cut may or may not have been made; opening the log
    /// again decides it.
    pub fn truncate_from(&self, from: Lsn) -> Result<Lsn> {
        let appender = self.appender();
        let state = &appender.state;
        state.durable.check_running()?;
        reentrancy::check_may_wait()?;
        let _one_at_a_time = lock(&self.inner.cutting);
        appender.check_appended(from.as_u64().saturating_sub(1)).map_err(|e| match e {
            // A cut may begin at the end, so the position before `from` was checked.
            Error::NotAppended { end, .. } => Error::NotAppended { lsn: from, end },
            e => e,
        })?;
        let end = self.sync()?;
        let oldest = self.oldest_lsn();
        let from = if from == Lsn::ZERO { oldest } else { from };
        let asked = from.as_u64();
        if from < oldest {
            return Err(Error::Pruned { oldest });
        }
        let Some(from) = cut_point(&state.view, from.as_u64(), end.as_u64())? else {
            return Ok(end);
        };
        // A batch begins before its first record.
        state.consumers.begin_cut(from, asked.max(from))?;
        let _ended = EndCut(state);
        let cuts = &state.view.cuts;
        let before = cuts.count();
        state.want_cut(from);
        loop {
            let seen = state.cut.seen();
            let over = state.has_io_ended();
            let poisoned = state.durable.is_poisoned();
            if cuts.count() > before {
                return Ok(Lsn::new(cuts.at(from).map_or(from, |cut| cut.to)));
            }
            if over || poisoned {
                state.durable.check_running()?;
                return Err(Error::Closed);
            }
            // The cut is withdrawn, unless its group was submitted already.
            if state.ring.is_starved() && state.cut.take().is_some() {
                return Err(state.obstacle.no_segment());
            }
            if !state.drive() {
                state.cut.wait(seen);
            }
        }
    }

    /// The former name of [`Wal::truncate_from`].
    ///
    /// # Errors
    ///
    /// As [`Wal::truncate_from`].
    #[doc(hidden)]
    #[deprecated(note = "use truncate_from: it cuts the record at `from` too")]
    pub fn truncate_after(&self, from: Lsn) -> Result<Lsn> {
        self.truncate_from(from)
    }
}
