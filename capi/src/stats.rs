//! Counters of a log.

use crate::border::{Refusal, guarded};
use crate::log::{ringwal_log, wal_here};
use crate::status::ringwal_status;

/// Counters since the log was opened. Later versions add fields at the end.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct ringwal_stats {
    /// Records in submitted groups.
    pub records: u64,
    /// Bytes of those records with headers and padding.
    pub record_bytes: u64,
    /// Submitted groups that hold records.
    pub groups: u64,
    /// Submitted groups without records.
    pub control_groups: u64,
    /// Bytes written for groups.
    pub group_bytes: u64,
    /// Submitted syncs.
    pub syncs: u64,
    /// Times that the log continued in the next segment.
    pub rotations: u64,
    /// Prepared segments.
    pub segments_prepared: u64,
    /// Segments used again after retention.
    pub segments_recycled: u64,
    /// Segments that retention removed.
    pub segments_removed: u64,
    /// Preparations that found the disk full.
    pub no_space: u64,
    /// Attempts to prepare or remove a segment that were repeated.
    pub obstructions: u64,
    /// Operations that took longer than the stall threshold.
    pub stalls: u64,
    /// Sleeps of the I/O thread.
    pub io_sleeps: u64,
    /// Appends that waited for room in the ring.
    pub ring_full_waits: u64,
    /// The first position that is not durable yet.
    pub durable_end: u64,
    /// Bytes that were appended and are not durable yet.
    pub ring_bytes: u64,
    /// 1 while there is no space for the next segment. Appends give RINGWAL_ERROR_NO_SPACE once the
    /// prepared segments are full.
    pub out_of_space: u64,
    /// 1 while a segment cannot be prepared or removed for another cause.
    pub obstructed: u64,
    /// Nanoseconds for which the disk has not answered, if it is stalled now.
    pub stalled_for_ns: u64,
}

/// Reads the counters. size is sizeof(ringwal_stats): of a program that was built with an older
/// header, only the fields that it knows are written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_get_stats(
    log: *const ringwal_log,
    stats: *mut ringwal_stats,
    size: usize,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2.
        let found = unsafe { wal_here(log) }?.stats();
        if stats.is_null() || !stats.is_aligned() {
            return Err(Refusal::Argument("stats is NULL or not aligned".into()));
        }
        let all = ringwal_stats {
            records: found.records,
            record_bytes: found.record_bytes,
            groups: found.groups,
            control_groups: found.control_groups,
            group_bytes: found.group_bytes,
            syncs: found.syncs,
            rotations: found.rotations,
            segments_prepared: found.segments_prepared,
            segments_recycled: found.segments_recycled,
            segments_removed: found.segments_removed,
            no_space: found.no_space,
            obstructions: found.obstructions,
            stalls: found.stalls,
            io_sleeps: found.io_sleeps,
            ring_full_waits: found.ring_full_waits,
            durable_end: found.durable_end.as_u64(),
            ring_bytes: found.ring_bytes,
            out_of_space: u64::from(found.out_of_space),
            obstructed: u64::from(found.obstructed),
            stalled_for_ns: u64::try_from(found.stalled_for.as_nanos()).unwrap_or(u64::MAX),
        };
        // Fields that this version does not know stay as they are.
        let size = size.min(size_of::<ringwal_stats>());
        // SAFETY: the caller's struct has at least `size` bytes, and so has ours, which is another
        // one. Every bit pattern is valid for its fields.
        unsafe { stats.cast::<u8>().copy_from_nonoverlapping((&raw const all).cast(), size) };
        Ok(())
    })
}
