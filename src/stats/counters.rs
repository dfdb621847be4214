//! Counters of a running log.
//!
//! Each is written by one thread (the I/O thread, the segment helper or the watchdog) and read by
//! anybody.

use std::time::Duration;

use crate::io::backend::MethodReason;
use crate::lsn::Lsn;
use crate::stats::histogram::{Histogram, Recorder};
use crate::sys::sync::{AtomicU64, Ordering};

/// How long and how large, since the log was opened: from [`Wal::histograms`](crate::Wal::histograms). Times
/// are in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Histograms {
    /// Records in a group; control groups are not counted.
    pub group_records: Histogram,
    /// Bytes of a group as it is written, with its header and padding.
    pub group_bytes: Histogram,
    /// Bytes of the groups that are not durable when a group is submitted, itself included: what the ring
    /// holds, but for the extent that is being filled.
    pub ring_bytes: Histogram,
    /// How long the oldest record of a group has been in the ring when the group is submitted, at most:
    /// since the submission before, or since the I/O thread found the ring empty. 0 where it was idle:
    /// what it takes to wake it is not in here.
    pub queue_time: Histogram,
    /// From the submission of a group to the completion of its write, which with `dsync` has made it
    /// durable.
    pub write_time: Histogram,
    /// From there to the completion of the sync that is linked to it, or of a sync of its own from its
    /// submission.
    pub sync_time: Histogram,
    /// From the submission of a group to the moment at which it, and all before it, are durable.
    pub commit_time: Histogram,
    /// What it took to wake those who waited for a group.
    pub wake_time: Histogram,
    /// From the beginning to the end of the preparation of a segment, with the pauses that leave the device to
    /// the log.
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
    /// Written by the helper.
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
        /// What a log has done since it was opened. All counts; read one by one, not as one
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
            /// Bytes from the segment that the slowest [`Reader`](crate::Reader) or
            /// [`Follow`](crate::Follow) keeps to the durable end: what retention leaves for it. 0 without
            /// one. Consumers are in [`Wal::consumers`](crate::Wal::consumers).
            pub reader_lag: u64,
            /// There is no space for the next segment now: once those that are prepared are full, appends get
            /// `NoSpace`.
            pub out_of_space: bool,
            /// A segment cannot be prepared or removed now for another cause, which
            /// [`Wal::health`](crate::Wal::health) names: tried again and again.
            pub obstructed: bool,
            /// How groups are made durable at the moment, as in
            /// [`BackendInfo::commit_method`](crate::BackendInfo::commit_method).
            pub commit_method: &'static str,
            /// Why so.
            pub commit_method_reason: MethodReason,
            /// How long the disk has not answered, if it is stalled now; zero if it is not. As of the
            /// watchdog's last look, a quarter of the threshold ago at most.
            pub stalled_for: Duration,
        }

        #[derive(Debug)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn new() -> Self {
                Counters { $($name: Counter::new(),)* }
            }

            /// The counters; what is not counted is left for the caller to fill in.
            pub(crate) fn read(&self) -> Stats {
                Stats { $($name: self.$name.get(),)* ..Stats::default() }
            }
        }
    };
}

counters! {
    /// Application records in submitted groups; a batch counts its items.
    records,
    /// Bytes of those records with their headers and padding to 8, without group headers.
    record_bytes,
    /// Submitted groups that hold records.
    groups,
    /// Submitted control groups: epoch, idle seal, retention, close.
    control_groups,
    /// Bytes written for groups of both kinds, with headers and padding to the block.
    group_bytes,
    /// Groups in flight when a group was submitted, itself included, summed over `groups`: divided by
    /// them, the depth that was really used.
    depth_sum,
    /// Durability barriers that were submitted: linked syncs, synced writes, syncs of their own.
    syncs,
    /// Groups among them that were made durable by their own write (`dsync`).
    dsync_groups,
    /// Times that the log went on to the next segment.
    rotations,
    /// Segments made ready by the helper, written from end to end as a rule.
    segments_prepared,
    /// Segments among them that were allocated and not written, as the log was waiting for one: faster
    /// to get, slower to sync.
    segments_hurried,
    /// Segments reused after retention.
    segments_recycled,
    /// Segments removed by retention.
    segments_removed,
    /// Times that the filesystem was found full when the next segment was to be prepared.
    no_space,
    /// Times that a segment could not be prepared or removed for a cause that may pass, and that was tried again.
    obstructions,
    /// Times that the wall clock was seen to step by more than a second. Retention by age does not follow it.
    clock_steps,
    /// Groups that waited more than 10 ms for a producer to fill its reservation.
    slow_reservations,
    /// Calls of the hook on sealed segments that failed or panicked.
    sealed_failures,
    /// Operations that took longer than `stall_threshold`.
    stalls,
    /// Times that the I/O thread went to sleep.
    io_sleeps,
}
