//! Counters of a running log.
//!
//! One thread writes each counter: the I/O thread, the segment keeper or the watchdog. Any thread
//! may read it.

use std::time::{Duration, SystemTime};

use crate::io::backend::MethodReason;
use crate::lsn::Lsn;
use crate::stats::histogram::{Histogram, Recorder};
use crate::sys::sync::{AtomicU64, Ordering};

/// Times in nanoseconds and sizes in bytes since the log was opened. From
/// [`Wal::histograms`](crate::Wal::histograms).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Histograms {
    /// Records of a group. Control groups are not counted.
    pub group_records: Histogram,
    /// Bytes of a group as written, with its header and padding.
    pub group_bytes: Histogram,
    /// Bytes of the groups that are not durable when a group is submitted, with that group: the
    /// content of the ring, except for the extent that is being filled.
    pub ring_bytes: Histogram,
    /// Longest time of a group's oldest record in the ring, up to the group's submission. Measured
    /// from the previous submission, or from the moment when the I/O thread found the ring empty. 0
    /// if the I/O thread was idle: the time to wake it is not included.
    pub queue_time: Histogram,
    /// Time from a group's submission to the completion of its write. With `dsync` the write has
    /// made the group durable.
    pub write_time: Histogram,
    /// Time from the completion of the write to the completion of its linked sync. For a sync of
    /// its own: from its submission.
    pub sync_time: Histogram,
    /// Time from a group's submission to the moment when that group and every earlier one are
    /// durable.
    pub commit_time: Histogram,
    /// Time to wake the waiters of a group and to call the listeners.
    pub wake_time: Histogram,
    /// Time of preparing a segment, with the pauses that leave the device to the log.
    pub prepare_time: Histogram,
}

#[derive(Debug)]
pub(crate) struct Recorders {
    pub(crate) group_records: Recorder,
    pub(crate) group_bytes: Recorder,
    pub(crate) ring_bytes: Recorder,
    pub(crate) queue_time: Recorder,
    pub(crate) write_time: Recorder,
    pub(crate) sync_time: Recorder,
    pub(crate) commit_time: Recorder,
    pub(crate) wake_time: Recorder,
    /// Written by the segment keeper.
    pub(crate) prepare_time: Recorder,
}

impl Recorders {
    pub(crate) fn new() -> Self {
        Recorders {
            group_records: Recorder::new(),
            group_bytes: Recorder::new(),
            ring_bytes: Recorder::new(),
            queue_time: Recorder::new(),
            write_time: Recorder::new(),
            sync_time: Recorder::new(),
            commit_time: Recorder::new(),
            wake_time: Recorder::new(),
            prepare_time: Recorder::new(),
        }
    }

    pub(crate) fn read(&self) -> Histograms {
        Histograms {
            group_records: self.group_records.read(),
            group_bytes: self.group_bytes.read(),
            ring_bytes: self.ring_bytes.read(),
            queue_time: self.queue_time.read(),
            write_time: self.write_time.read(),
            sync_time: self.sync_time.read(),
            commit_time: self.commit_time.read(),
            wake_time: self.wake_time.read(),
            prepare_time: self.prepare_time.read(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    fn new() -> Self {
        Counter(AtomicU64::new(0))
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of a log since it was opened. The values are read one by one, not as one
        /// snapshot.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// Appends that had to wait for room in the ring.
            pub ring_full_waits: u64,
            /// The first position that is not durable yet.
            pub durable_end: Lsn,
            /// Bytes that were appended and are not durable yet.
            pub ring_bytes: u64,
            /// Bytes of the log from the oldest position that is kept to the durable end.
            pub kept_bytes: u64,
            /// When the group of the oldest record that is kept was written, by the wall clock.
            /// `None` if the log holds no record, or if that record cannot be read. See
            /// [`Stats::oldest_age`].
            pub oldest_written_at: Option<SystemTime>,
            /// Bytes that retention keeps for the slowest [`Reader`](crate::Reader) or
            /// [`Follow`](crate::Follow), up to the durable end. 0 without a reader. For consumers,
            /// see [`Wal::consumers`](crate::Wal::consumers).
            pub reader_lag_bytes: u64,
            /// Bytes that retention keeps for the lowest floor of a tag, up to the durable end. 0
            /// without a floor.
            pub tag_lag_bytes: u64,
            /// The tag with the lowest floor: see [`Wal::hold_tag`](crate::Wal::hold_tag).
            pub slowest_tag: Option<u64>,
            /// Whether there is no space for the next segment now. Once the prepared segments are
            /// full, appends get `NoSpace`.
            pub out_of_space: bool,
            /// Whether a segment cannot be prepared or removed now for another cause.
            /// [`Wal::health`](crate::Wal::health) names the cause. The log retries.
            pub obstructed: bool,
            /// The current commit method, as in
            /// [`BackendInfo::commit_method`](crate::BackendInfo::commit_method).
            pub commit_method: &'static str,
            /// Why that method is in use.
            pub commit_method_reason: MethodReason,
            /// Time that the disk has not answered, if it is stalled now; otherwise zero. As of the
            /// watchdog's last look, at most a quarter of the threshold ago.
            pub stalled_for: Duration,
        }

        impl Stats {
            /// The age of the oldest record that is kept, by the wall clock. Zero if that clock was
            /// set back since; `None` as for [`Stats::oldest_written_at`].
            #[must_use]
            pub fn oldest_age(&self) -> Option<Duration> {
                let written_at = self.oldest_written_at?;
                Some(SystemTime::now().duration_since(written_at).unwrap_or_default())
            }
        }

        #[derive(Debug)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn new() -> Self {
                Counters { $($name: Counter::new(),)* }
            }

            /// Reads the counters. The caller fills in the other fields.
            pub(crate) fn read(&self) -> Stats {
                Stats { $($name: self.$name.get(),)* ..Stats::default() }
            }
        }
    };
}

counters! {
    /// Application records in submitted groups; a batch counts its items.
    records,
    /// Bytes of those records with headers and padding to 8, without group headers.
    record_bytes,
    /// Submitted groups that hold records.
    groups,
    /// Submitted control groups: epoch, idle seal, retention, close.
    control_groups,
    /// Bytes written for groups of both kinds, with headers and padding to the block.
    group_bytes,
    /// Groups in flight at each submission, with the submitted group, summed over `groups`. The
    /// quotient is the depth that was used.
    depth_sum,
    /// Submitted durability barriers: linked syncs, synced writes, and syncs of their own.
    syncs,
    /// Groups that their own write made durable (`dsync`).
    dsync_groups,
    /// Rotations: the log continued in the next segment.
    rotations,
    /// Segments that the segment keeper prepared, as a rule written from end to end.
    segments_prepared,
    /// Prepared segments that were allocated and not written, because the log was waiting for one.
    /// Such a segment is faster to prepare and slower to sync.
    segments_hurried,
    /// Segments reused after retention.
    segments_recycled,
    /// Segments removed by retention.
    segments_removed,
    /// Preparations of a segment that found the filesystem full.
    no_space,
    /// Attempts to prepare or remove a segment that failed for a cause that may pass, and were
    /// repeated.
    obstructions,
    /// Steps of the wall clock by more than a second. Retention by age does not follow them.
    clock_steps,
    /// Groups that waited more than 10 ms for a producer to fill its reservation.
    slow_reservations,
    /// Calls of the hook on sealed segments that failed or panicked.
    sealed_failures,
    /// Operations that took longer than `stall_threshold`.
    stalls,
    /// Sleeps of the I/O thread.
    io_sleeps,
}
