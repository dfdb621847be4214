//! Consumers: readers under a name, with a position that survives.

use std::ffi::c_char;

use ringwal::{Consumer, Error, Lsn};

use crate::border::{Out, free, guarded, hand_out, text, value, value_mut};
use crate::log::{ringwal_log, wal};
use crate::reader::{none_of, ringwal_record, timeout};
use crate::status::ringwal_status;

/// A consumer of a log: it delivers the records after its last commit, also after a restart.
#[derive(Debug)]
pub struct ringwal_consumer {
    consumer: Consumer,
    /// The process that has opened it.
    process: u32,
}

/// Attaches the consumer of this name, or creates it at the oldest record.
///
/// The log keeps every record that it has not committed. Free it with ringwal_consumer_free; its
/// position stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_consumer_open(
    log: *const ringwal_log,
    name: *const c_char,
    consumer: *mut *mut ringwal_consumer,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2.
        let (wal, name, out) =
            unsafe { (wal(log)?, text(name, "name")?, Out::required(consumer, "consumer")?) };
        let (consumer, process) = (wal.consumer(name)?, std::process::id());
        out.set(hand_out(ringwal_consumer { consumer, process }));
        Ok(())
    })
}

/// The next record. Waits for it, for timeout_ms milliseconds at most, or for ever if that is
/// negative. RINGWAL_TIMED_OUT if none came, RINGWAL_END if the log was closed and every record was
/// returned.
///
/// After a failed read (RINGWAL_ERROR_TRUNCATED, _CORRUPTION, _IO) the next call begins at the
/// consumer's position again, and returns every record that was not committed. RINGWAL_ERROR_PRUNED
/// stays until ringwal_consumer_seek: the record at the position is gone.
///
/// The bytes are valid until the next call with this consumer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_consumer_next(
    consumer: *mut ringwal_consumer,
    timeout_ms: i64,
    record: *mut ringwal_record,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2: one thread uses the consumer.
        let (this, out) =
            unsafe { (value_mut(consumer, "consumer")?, Out::required(record, "record")?) };
        let follow = this.consumer.records()?;
        let next = match timeout(timeout_ms) {
            None => follow.next_ref()?,
            Some(timeout) => follow.next_timeout(timeout)?,
        };
        let next = next.map(ringwal_record::of);
        out.set(next.ok_or_else(|| none_of(follow))?);
        Ok(())
    })
}

/// Commits the record at lsn and every record before it, durably: they are not delivered again. It
/// costs a write and a sync, so commit every so many records.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_consumer_commit(
    consumer: *mut ringwal_consumer,
    lsn: u64,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2: one thread uses the consumer.
        Ok(unsafe { value_mut(consumer, "consumer") }?.consumer.commit(Lsn::new(lsn))?)
    })
}

/// Moves the position to the first record at or after lsn, forwards or backwards, durably. 0 is the
/// oldest record.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_consumer_seek(
    consumer: *mut ringwal_consumer,
    lsn: u64,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2: one thread uses the consumer.
        Ok(unsafe { value_mut(consumer, "consumer") }?.consumer.seek(Lsn::new(lsn))?)
    })
}

/// The consumer's position: every record below it is committed. And its lag: the bytes of the log
/// from there to the durable end, or 0 if every durable record is committed. Either may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_consumer_position(
    consumer: *const ringwal_consumer,
    position: *mut u64,
    lag: *mut u64,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2: one thread uses the consumer.
        let (consumer, position, lag) = unsafe {
            let consumer = value(consumer, "consumer")?;
            (consumer, Out::optional(position, "position")?, Out::optional(lag, "lag")?)
        };
        if consumer.process != std::process::id() {
            return Err(Error::Forked.into());
        }
        let consumer = &consumer.consumer;
        position.set(consumer.position().as_u64());
        lag.set(consumer.lag());
        Ok(())
    })
}

/// Detaches a consumer and frees it. Its position stays in the log.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_consumer_free(consumer: *mut ringwal_consumer) {
    // SAFETY: the caller owns the handle (invariant 2).
    unsafe { free(consumer) }
}

/// Deletes a consumer with its position. It must not be attached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_remove_consumer(
    log: *const ringwal_log,
    name: *const c_char,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2.
        let (wal, name) = unsafe { (wal(log)?, text(name, "name")?) };
        Ok(wal.remove_consumer(name)?)
    })
}
