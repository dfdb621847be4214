//! The counters of a log, for a program that watches it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::engine::state::LogState;
use crate::io::backend::method_name;
use crate::read::Reader;
use crate::stats::counters::{Histograms, Stats};
use crate::sys::sync::Ordering;
use crate::wal::Wal;

impl Wal {
    /// The counters of the log since it was opened.
    ///
    /// Costs some twenty atomic loads, and short locks that appending does not use. The first call
    /// after the oldest segment was removed also reads one group from the disk, for
    /// [`Stats::oldest_written_at`]. In a child of `fork()`: only what needs no lock, as of the
    /// fork.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = &self.appender().state;
        let counted = Stats {
            ring_full_waits: state.ring.full_waits.load(Ordering::Relaxed),
            durable_end: self.durable_end(),
            ..state.counters.read()
        };
        if state.durable.is_forked() {
            let commit_method = method_name(self.inner.info.kind, state.commit.method());
            return Stats { commit_method, ..counted };
        }
        let commit = state.commit.chosen();
        let end = counted.durable_end.as_u64();
        let floor = state.tag_floors.lowest();
        let pinned = state.view.table.oldest_pin();
        let obstructed = state.obstacle.get().is_some();
        Stats {
            ring_bytes: state.ring.reserved_end().saturating_sub(end),
            kept_bytes: end.saturating_sub(state.view.table.oldest()),
            oldest_written_at: oldest_written_at(state),
            out_of_space: state.ring.is_out_of_space() && !obstructed,
            obstructed,
            tag_lag_bytes: floor.map_or(0, |(floor, _)| end.saturating_sub(floor)),
            slowest_tag: floor.map(|(_, tag)| tag),
            reader_lag_bytes: pinned.map_or(0, |pin| end.saturating_sub(pin)),
            commit_method: method_name(self.inner.info.kind, commit.method),
            commit_method_reason: commit.reason,
            stalled_for: Duration::from_nanos(state.in_flight.stalled.load(Ordering::Relaxed)),
            ..counted
        }
    }

    /// Histograms since the log was opened: the sizes of groups, and the times of writes, syncs and
    /// wake-ups. Copies some 35 KiB.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-hist-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// wal.append_durable(b"timed")?;
    /// let commits = wal.histograms().commit_time;
    /// println!("p50 {} ns, p99 {} ns", commits.quantile(0.5), commits.quantile(0.99));
    /// # assert!(commits.count() >= 1 && commits.quantile(0.5) > 0);
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    #[must_use]
    pub fn histograms(&self) -> Histograms {
        self.appender().state.recorders.read()
    }
}

/// When the group of the oldest durable record was written. `None` if there is no record, or if it
/// cannot be read.
fn oldest_written_at(state: &LogState) -> Option<SystemTime> {
    if state.retention.newest_record() == 0 {
        return None;
    }
    let oldest = state.view.table.oldest();
    let key = (oldest, state.view.cuts.count());
    if let Some(known) = state.oldest_record.get(key) {
        return Some(known);
    }
    let mut reader = Reader::new(Arc::clone(&state.view), oldest, state.durable.end());
    let written_at = reader.next_ref().ok()??.written_at();
    state.oldest_record.set(key, written_at);
    Some(written_at)
}
