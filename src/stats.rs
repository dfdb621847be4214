//! Counters of a running log.
//!
//! Each is written by one thread (the I/O thread, the segment helper or the watchdog) and read by
//! anybody.

use std::time::Duration;

use crate::backend::MethodReason;
use crate::lsn::Lsn;
use crate::sync::{AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    fn new() -> Self {
        Counter(AtomicU64::new(0))
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
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
    /// Groups that waited more than 10 ms for a producer to fill its reservation.
    slow_reservations,
    /// Operations that took longer than `stall_threshold`.
    stalls,
    /// Times that the I/O thread went to sleep.
    io_sleeps,
}
