//! The log: open, append, wait, read, remove, close.

use std::ffi::{c_char, c_void};

use ringwal::{BatchLsns, Error, Lsn, Wal};

use crate::border::{
    Checked, Out, Refusal, bytes, free, guarded, hand_out, path, slice, text, unreported, value,
};
use crate::options::ringwal_options;
use crate::status::ringwal_status;

/// A log that is open for appending. Any number of threads may use it at once.
#[derive(Debug)]
pub struct ringwal_log {
    pub(crate) wal: Wal,
}

/// Bytes of the caller: one record of a batch.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ringwal_bytes {
    /// The first byte. May be NULL if len is 0.
    pub data: *const c_void,
    /// Number of bytes.
    pub len: usize,
}

/// The log behind a handle.
///
/// # Safety
///
/// As for [`value`].
pub(crate) unsafe fn wal<'a>(log: *const ringwal_log) -> Checked<&'a Wal> {
    // SAFETY: as required.
    Ok(&unsafe { value(log, "log") }?.wal)
}

/// As [`wal`], for calls that the log itself does not refuse in a child of fork().
///
/// # Safety
///
/// As for [`value`].
pub(crate) unsafe fn wal_here<'a>(log: *const ringwal_log) -> Checked<&'a Wal> {
    // SAFETY: as required.
    let wal = unsafe { wal(log) }?;
    match wal.health() {
        Err(forked @ Error::Forked) => Err(forked.into()),
        _ => Ok(wal),
    }
}

/// Opens the log in a directory, or creates it, and recovers its records. Blocks.
///
/// dir may have any bytes on Unix, and is UTF-8 elsewhere. options may be NULL for the defaults. An
/// option out of its range gives RINGWAL_ERROR_OPTIONS. Free the log with ringwal_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_open(
    dir: *const c_char,
    options: *const ringwal_options,
    log: *mut *mut ringwal_log,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2, here and below.
        let (dir, log) = unsafe { (path(dir, "dir")?, Out::required(log, "log")?) };
        let builder = match options.is_null() {
            true => Wal::builder(&dir),
            // SAFETY: as above.
            false => unsafe { value(options, "options") }?.builder(&dir),
        };
        log.set(hand_out(ringwal_log { wal: builder.open()? }));
        Ok(())
    })
}

/// Makes everything durable and closes the log. Blocks. The handle stays valid: appends give
/// RINGWAL_ERROR_CLOSED, and reading still works. Closing a closed log does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_close(log: *const ringwal_log) -> ringwal_status {
    // SAFETY: invariant 2.
    guarded(|| Ok(unsafe { wal(log) }?.close()?))
}

/// Closes the log if it is open, and frees the handle. No other thread may use the handle from here
/// on. Failures are not reported: call ringwal_close first to see them.
///
/// In a callback on a thread of a log, this returns at once. A thread in the background makes
/// everything durable and closes the log. Opening the log soon after it waits for that, as
/// ringwal_options_set_lock_wait_ms says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_free(log: *mut ringwal_log) {
    // SAFETY: the caller owns the handle (invariant 2).
    unsafe { free(log) }
}

/// Appends a record. On return its place in the log is fixed; it becomes durable with its group.
/// Blocks only while the ring is full or the next segment is not prepared yet.
///
/// lsn receives the record's position, and may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_append(
    log: *const ringwal_log,
    data: *const c_void,
    len: usize,
    lsn: *mut u64,
) -> ringwal_status {
    // SAFETY: invariant 2.
    unsafe { append(log, data, len, lsn, Wal::append) }
}

/// As ringwal_append, but never blocks: RINGWAL_ERROR_RING_FULL where ringwal_append would wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_try_append(
    log: *const ringwal_log,
    data: *const c_void,
    len: usize,
    lsn: *mut u64,
) -> ringwal_status {
    // SAFETY: invariant 2.
    unsafe { append(log, data, len, lsn, Wal::try_append) }
}

/// Appends a record and waits until it is durable: it survives power loss from here on.
///
/// lsn receives the record's position, and may be NULL. After RINGWAL_ERROR_POISONED the record may
/// or may not be there when the log is opened again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_append_durable(
    log: *const ringwal_log,
    data: *const c_void,
    len: usize,
    lsn: *mut u64,
) -> ringwal_status {
    // SAFETY: invariant 2.
    unsafe { append(log, data, len, lsn, Wal::append_durable) }
}

/// Appends a record with a tag, as ringwal_append does. Readers can skip records of other tags.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_append_tagged(
    log: *const ringwal_log,
    tag: u64,
    data: *const c_void,
    len: usize,
    lsn: *mut u64,
) -> ringwal_status {
    // SAFETY: invariant 2.
    unsafe { append(log, data, len, lsn, |wal, payload| wal.append_tagged(tag, payload)) }
}

/// Appends a record with a tag, as ringwal_try_append does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_try_append_tagged(
    log: *const ringwal_log,
    tag: u64,
    data: *const c_void,
    len: usize,
    lsn: *mut u64,
) -> ringwal_status {
    // SAFETY: invariant 2.
    unsafe { append(log, data, len, lsn, |wal, payload| wal.tagged(tag).try_append(payload)) }
}

/// Appends a record with a tag and waits until it is durable, as ringwal_append_durable does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_append_durable_tagged(
    log: *const ringwal_log,
    tag: u64,
    data: *const c_void,
    len: usize,
    lsn: *mut u64,
) -> ringwal_status {
    // SAFETY: invariant 2.
    unsafe { append(log, data, len, lsn, |wal, payload| wal.tagged(tag).append_durable(payload)) }
}

/// # Safety
///
/// As for [`value`], [`bytes`] and [`Out::optional`].
unsafe fn append(
    log: *const ringwal_log,
    data: *const c_void,
    len: usize,
    lsn: *mut u64,
    append: impl Fn(&Wal, &[u8]) -> ringwal::Result<Lsn>,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: as required.
        let (wal, payload, lsn) =
            unsafe { (wal(log)?, bytes(data, len)?, Out::optional(lsn, "lsn")?) };
        lsn.set(append(wal, payload)?.as_u64());
        Ok(())
    })
}

/// Appends count records that survive a crash all together or not at all. Blocks as ringwal_append.
///
/// lsns receives count positions, one for each record, and may be NULL. Waiting for any record of a
/// batch waits for the whole batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_append_batch(
    log: *const ringwal_log,
    records: *const ringwal_bytes,
    count: usize,
    lsns: *mut u64,
) -> ringwal_status {
    // SAFETY: invariant 2.
    guarded(|| unsafe {
        append_batch(log, records, count, lsns, |wal, payloads| wal.append_batch_lsns(payloads))
    })
}

/// As ringwal_append_batch, but never blocks: RINGWAL_ERROR_RING_FULL where that would wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_try_append_batch(
    log: *const ringwal_log,
    records: *const ringwal_bytes,
    count: usize,
    lsns: *mut u64,
) -> ringwal_status {
    // SAFETY: invariant 2.
    guarded(|| unsafe {
        append_batch(log, records, count, lsns, |wal, payloads| wal.try_append_batch(payloads))
    })
}

/// As ringwal_append_batch, with a tag for each record: count tags.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_append_batch_tagged(
    log: *const ringwal_log,
    tags: *const u64,
    records: *const ringwal_bytes,
    count: usize,
    lsns: *mut u64,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2, here and below.
        let tags = unsafe { slice(tags, count, "tags") }?;
        // SAFETY: the records are borrowed for the call only.
        let (wal, payloads) = unsafe { (wal(log)?, payloads(records, count)?) };
        // SAFETY: only checked here.
        let _ = unsafe { Out::optional(lsns, "lsns") }?;
        let tagged: Vec<(u64, &[u8])> = tags.iter().copied().zip(payloads).collect();
        let positions = wal.append_batch_tagged(&tagged)?;
        // SAFETY: as above: NULL, or room for `count` positions.
        unsafe { write_all(positions, lsns) };
        Ok(())
    })
}

/// The records of a batch.
///
/// # Safety
///
/// `records` is NULL, or has `count` elements; otherwise as for [`value`].
unsafe fn payloads<'a>(records: *const ringwal_bytes, count: usize) -> Checked<Vec<&'a [u8]>> {
    // SAFETY: as required.
    let records = unsafe { slice(records, count, "records") }?;
    let payloads = records.iter().map(|record| {
        // SAFETY: each record has as many bytes as it says.
        unsafe { bytes(record.data, record.len) }
    });
    payloads.collect()
}

/// Writes the positions of a batch.
///
/// # Safety
///
/// `lsns` is NULL, or has room for as many.
unsafe fn write_all(positions: BatchLsns<'_>, lsns: *mut u64) {
    if !lsns.is_null() {
        for (at, lsn) in positions.enumerate() {
            // SAFETY: as required.
            unsafe { lsns.add(at).write(lsn.as_u64()) };
        }
    }
}

/// # Safety
///
/// `records` and `lsns` are NULL, or have `count` elements; otherwise as for [`value`].
unsafe fn append_batch(
    log: *const ringwal_log,
    records: *const ringwal_bytes,
    count: usize,
    lsns: *mut u64,
    append: impl for<'a> Fn(&Wal, &'a [&'a [u8]]) -> ringwal::Result<BatchLsns<'a>>,
) -> Checked<()> {
    // SAFETY: as required, here and below.
    let (wal, payloads) = unsafe { (wal(log)?, payloads(records, count)?) };
    // SAFETY: only checked here.
    let _ = unsafe { Out::optional(lsns, "lsns") }?;
    let positions = append(wal, &payloads)?;
    // SAFETY: there are `count` positions, and room for as many.
    unsafe { write_all(positions, lsns) };
    Ok(())
}

/// Waits until the record at lsn and every earlier record are durable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_wait_durable(log: *const ringwal_log, lsn: u64) -> ringwal_status {
    // SAFETY: invariant 2.
    guarded(|| Ok(unsafe { wal(log) }?.wait_durable(Lsn::new(lsn))?))
}

/// Waits until everything that was appended before this call is durable.
///
/// durable_end receives the first position that is not durable yet, and may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_sync(
    log: *const ringwal_log,
    durable_end: *mut u64,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2.
        let (wal, end) = unsafe { (wal(log)?, Out::optional(durable_end, "durable_end")?) };
        end.set(wal.sync()?.as_u64());
        Ok(())
    })
}

/// A position of the log, or 0 without a log.
///
/// # Safety
///
/// As for [`value`].
unsafe fn position(log: *const ringwal_log, position: impl Fn(&Wal) -> Lsn) -> u64 {
    // SAFETY: as required.
    unreported(|| Ok(position(unsafe { wal(log) }?).as_u64())).unwrap_or(0)
}

/// The first position that is not durable yet: every record below it is durable. 0 for NULL. In a
/// child of fork(): as of the fork.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_durable_end(log: *const ringwal_log) -> u64 {
    // SAFETY: invariant 2.
    unsafe { position(log, Wal::durable_end) }
}

/// The first position after everything that was appended. 0 for NULL. In a child of fork():
/// ringwal_durable_end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_end(log: *const ringwal_log) -> u64 {
    // SAFETY: invariant 2.
    unsafe { position(log, Wal::end) }
}

/// The oldest position that is kept. 0 for NULL. In a child of fork(): as of the fork.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_oldest(log: *const ringwal_log) -> u64 {
    // SAFETY: invariant 2.
    unsafe { position(log, Wal::oldest_lsn) }
}

/// RINGWAL_OK while the log is running. Otherwise RINGWAL_ERROR_POISONED, _CLOSED, _FORKED, or
/// _OBSTRUCTED while a segment cannot be prepared or removed.
///
/// A full disk is no failure, although appends may give RINGWAL_ERROR_NO_SPACE. The field
/// out_of_space of ringwal_stats reports it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_health(log: *const ringwal_log) -> ringwal_status {
    // SAFETY: invariant 2.
    guarded(|| Ok(unsafe { wal(log) }?.health()?))
}

/// Writes the log's id to 16 bytes: random, and fixed when the log is created.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_log_id(log: *const ringwal_log, id: *mut u8) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2: room for 16 bytes.
        let (wal, id) = unsafe { (wal_here(log)?, Out::required(id.cast::<[u8; 16]>(), "id")?) };
        id.set(wal.log_id());
        Ok(())
    })
}

/// Copies the record at exactly lsn to a buffer of capacity bytes.
///
/// len receives the record's length, also with RINGWAL_ERROR_BUFFER_TOO_SMALL, which copies
/// nothing. buffer may be NULL if capacity is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_read(
    log: *const ringwal_log,
    lsn: u64,
    buffer: *mut c_void,
    capacity: usize,
    len: *mut usize,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2. The buffer is only checked as memory to write: it may not be
        // initialised.
        let (wal, len) = unsafe { (wal(log)?, Out::required(len, "len")?) };
        if capacity > 0 && buffer.is_null() {
            return Err(Refusal::Argument("buffer is NULL".into()));
        }
        let payload = wal.read(Lsn::new(lsn))?.payload;
        len.set(payload.len());
        if payload.len() > capacity {
            return Err(Refusal::BufferTooSmall { needed: payload.len() });
        }
        if !payload.is_empty() {
            // SAFETY: the buffer has `capacity` bytes, and the payload no more. They do not
            // overlap, as the payload was allocated here.
            unsafe {
                buffer.cast::<u8>().copy_from_nonoverlapping(payload.as_ptr(), payload.len())
            };
        }
        Ok(())
    })
}

/// Removes the segments that hold only records below lsn, and that no reader, follower or consumer
/// needs.
///
/// oldest receives the oldest position that is kept, and may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_truncate_before(
    log: *const ringwal_log,
    lsn: u64,
    oldest: *mut u64,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2.
        let (wal, oldest) = unsafe { (wal(log)?, Out::optional(oldest, "oldest")?) };
        oldest.set(wal.truncate_before(Lsn::new(lsn))?.as_u64());
        Ok(())
    })
}

/// Cuts off the record at lsn and every record after it, for ever.
///
/// continues_at receives the position where the log continues, and may be NULL.
///
/// Readers and followers skip cut records. A reader that was opened before may still return cut
/// records that it has in memory. A follower that has returned cut records gives
/// RINGWAL_ERROR_TRUNCATED and has ended. A consumer that has returned cut records gives it once,
/// and then returns again every record that it has not committed. If a consumer has committed
/// records that the cut would remove, this gives RINGWAL_ERROR_CONSUMED and cuts nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_truncate_from(
    log: *const ringwal_log,
    lsn: u64,
    continues_at: *mut u64,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2.
        let (wal, out) = unsafe { (wal(log)?, Out::optional(continues_at, "continues_at")?) };
        out.set(wal.truncate_from(Lsn::new(lsn))?.as_u64());
        Ok(())
    })
}

/// Deletes the log with this prefix from a directory, and nothing else. The log must not be open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_remove(
    dir: *const c_char,
    prefix: *const c_char,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2.
        let (dir, prefix) = unsafe { (path(dir, "dir")?, text(prefix, "prefix")?) };
        Ok(Wal::remove(dir, prefix)?)
    })
}
