//! Readers and followers. Records are borrowed from the handle until its next call.

use std::ffi::c_void;
use std::time::{Duration, UNIX_EPOCH};

use ringwal::{Follow, Lsn, Reader, RecordRef, SharedRecords};

use crate::border::{Checked, Out, Refusal, free, guarded, hand_out, slice, value_mut};
use crate::log::{ringwal_log, wal, wal_here};
use crate::status::ringwal_status;

/// Reads durable records up to the end that was durable when it was opened.
#[derive(Debug)]
pub struct ringwal_reader {
    reader: Reader,
    run: Option<SharedRecords>,
}

/// Reads durable records, then waits for more.
#[derive(Debug)]
pub struct ringwal_follower {
    follow: Follow,
    run: Option<SharedRecords>,
}

/// A record in the memory of the reader, follower or consumer that returned it. The bytes are valid
/// until the next call with that handle.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ringwal_record {
    /// Position in the log.
    pub lsn: u64,
    /// Number of the record: the first one ever appended has 0.
    pub ordinal: u64,
    /// When its group was written, in nanoseconds since 1970, by a clock that may have been set.
    pub written_at_ns: u64,
    /// The tag that it was appended with. 0 if has_tag is false.
    pub tag: u64,
    /// The first byte. Never NULL.
    pub data: *const c_void,
    /// Number of bytes.
    pub len: usize,
    /// Whether it was appended with a tag.
    pub has_tag: bool,
}

impl ringwal_record {
    pub(crate) fn of(record: RecordRef<'_>) -> Self {
        let written = record.written_at().duration_since(UNIX_EPOCH).unwrap_or_default();
        ringwal_record {
            lsn: record.lsn.as_u64(),
            ordinal: record.ordinal(),
            written_at_ns: u64::try_from(written.as_nanos()).unwrap_or(u64::MAX),
            tag: record.tag().unwrap_or_default(),
            data: record.payload.as_ptr().cast(),
            len: record.payload.len(),
            has_tag: record.tag().is_some(),
        }
    }
}

/// A timeout in milliseconds. `None` for a negative one: wait for ever.
pub(crate) fn timeout(timeout_ms: i64) -> Option<Duration> {
    u64::try_from(timeout_ms).ok().map(Duration::from_millis)
}

/// Writes records of one run to `records`, at most `capacity`. Returns their number, at least 1.
///
/// # Safety
///
/// `records` has room for `capacity` records.
unsafe fn fill(
    run: &mut Option<SharedRecords>,
    records: *mut ringwal_record,
    capacity: usize,
    next: impl FnOnce() -> Checked<SharedRecords>,
) -> Checked<usize> {
    let mut count = 0;
    let mut write = |run: &mut SharedRecords| {
        while count < capacity
            && let Some(record) = run.next_ref()
        {
            // SAFETY: `count` is below the capacity.
            unsafe { records.add(count).write(ringwal_record::of(record)) };
            count += 1;
        }
        count
    };
    if let Some(run) = run
        && write(run) > 0
    {
        return Ok(count);
    }
    // Gives up its memory first, so that the reader can use it again.
    *run = None;
    Ok(write(run.insert(next()?)))
}

/// Checks the arguments that receive records.
///
/// # Safety
///
/// As for [`Out::required`].
unsafe fn check(records: *mut ringwal_record, capacity: usize) -> Checked<()> {
    // SAFETY: as required.
    unsafe { Out::required(records, "records") }?;
    match capacity {
        0 => Err(Refusal::Argument("capacity is 0".into())),
        _ => Ok(()),
    }
}

/// Opens a reader of the durable records from the first one at or after from. 0 is the oldest.
///
/// Retention keeps the segment that the reader is in, and every later one. Free it with
/// ringwal_reader_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_reader_open(
    log: *const ringwal_log,
    from: u64,
    reader: *mut *mut ringwal_reader,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2.
        let (wal, out) = unsafe { (wal_here(log)?, Out::required(reader, "reader")?) };
        out.set(hand_out(ringwal_reader { reader: wal.reader(Lsn::new(from)), run: None }));
        Ok(())
    })
}

/// As ringwal_reader_open, for the records with one of count tags. Others are skipped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_reader_open_tagged(
    log: *const ringwal_log,
    from: u64,
    tags: *const u64,
    count: usize,
    reader: *mut *mut ringwal_reader,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2.
        let (wal, tags, out) = unsafe {
            (wal_here(log)?, slice(tags, count, "tags")?, Out::required(reader, "reader")?)
        };
        let reader = wal.reader(Lsn::new(from)).only_tags(tags.iter().copied());
        out.set(hand_out(ringwal_reader { reader, run: None }));
        Ok(())
    })
}

/// The next record. RINGWAL_END at the end. After an error the reader has ended.
///
/// The bytes are the reader's, without a copy, and valid until the next call with this reader.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_reader_next(
    reader: *mut ringwal_reader,
    record: *mut ringwal_record,
) -> ringwal_status {
    let mut count = 0;
    // SAFETY: invariant 2: room for one record.
    unsafe { ringwal_reader_next_run(reader, record, 1, &raw mut count) }
}

/// As ringwal_reader_next, for up to capacity records that lie in memory together, at least one.
///
/// count receives their number. It may be lower than capacity although more records follow.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_reader_next_run(
    reader: *mut ringwal_reader,
    records: *mut ringwal_record,
    capacity: usize,
    count: *mut usize,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2: the reader is used by one thread, and `records` has the capacity.
        unsafe {
            check(records, capacity)?;
            let (this, out) = (value_mut(reader, "reader")?, Out::required(count, "count")?);
            let reader = &mut this.reader;
            let next = || reader.next_shared()?.ok_or(Refusal::End);
            out.set(fill(&mut this.run, records, capacity, next)?);
        }
        Ok(())
    })
}

/// Frees a reader, with the memory of the records that it returned last.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_reader_free(reader: *mut ringwal_reader) {
    // SAFETY: the caller owns the handle (invariant 2).
    unsafe { free(reader) }
}

/// Opens a follower: it reads durable records from the first one at or after from, and then waits
/// for more. 0 is the oldest record, ringwal_durable_end() the next one.
///
/// Retention keeps the segment that the follower is in, and every later one, also while it
/// is idle. Free it with ringwal_follower_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_follower_open(
    log: *const ringwal_log,
    from: u64,
    follower: *mut *mut ringwal_follower,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2.
        let (wal, out) = unsafe { (wal(log)?, Out::required(follower, "follower")?) };
        let follow = wal.follow(Lsn::new(from))?;
        out.set(hand_out(ringwal_follower { follow, run: None }));
        Ok(())
    })
}

/// As ringwal_follower_open, for the records with one of count tags. Others are skipped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_follower_open_tagged(
    log: *const ringwal_log,
    from: u64,
    tags: *const u64,
    count: usize,
    follower: *mut *mut ringwal_follower,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2.
        let (wal, tags, out) = unsafe {
            (wal(log)?, slice(tags, count, "tags")?, Out::required(follower, "follower")?)
        };
        let follow = wal.follow(Lsn::new(from))?.only_tags(tags.iter().copied());
        out.set(hand_out(ringwal_follower { follow, run: None }));
        Ok(())
    })
}

/// The next record. Waits for it, for timeout_ms milliseconds at most, or for ever if that is
/// negative. RINGWAL_TIMED_OUT if none came, RINGWAL_END if the log was closed and every record was
/// returned. After an error the follower has ended.
///
/// The bytes are valid until the next call with this follower.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_follower_next(
    follower: *mut ringwal_follower,
    timeout_ms: i64,
    record: *mut ringwal_record,
) -> ringwal_status {
    let mut count = 0;
    // SAFETY: invariant 2: room for one record.
    unsafe { ringwal_follower_next_run(follower, timeout_ms, record, 1, &raw mut count) }
}

/// As ringwal_follower_next, for up to capacity records that lie in memory together, at least one.
///
/// count receives their number. It may be lower than capacity although more records follow.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_follower_next_run(
    follower: *mut ringwal_follower,
    timeout_ms: i64,
    records: *mut ringwal_record,
    capacity: usize,
    count: *mut usize,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2: one thread uses the follower, and `records` has the capacity.
        unsafe {
            check(records, capacity)?;
            let (this, out) = (value_mut(follower, "follower")?, Out::required(count, "count")?);
            let follow = &mut this.follow;
            let next = || {
                let run = match timeout(timeout_ms) {
                    None => follow.next_shared()?,
                    Some(timeout) => follow.next_shared_timeout(timeout)?,
                };
                run.ok_or_else(|| none_of(follow))
            };
            out.set(fill(&mut this.run, records, capacity, next)?);
        }
        Ok(())
    })
}

/// Why a follower returned no record.
pub(crate) fn none_of(follow: &Follow) -> Refusal {
    if follow.has_ended() { Refusal::End } else { Refusal::TimedOut }
}

/// Frees a follower, with the memory of the records that it returned last.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_follower_free(follower: *mut ringwal_follower) {
    // SAFETY: the caller owns the handle (invariant 2).
    unsafe { free(follower) }
}
