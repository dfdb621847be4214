//! Callbacks: a record is durable, and every new durable end.

use std::ffi::c_void;

use ringwal::{DurableEndListener, Lsn};

use crate::border::{Checked, Out, Refusal, UserData, call_back, free, guarded, hand_out};
use crate::log::{ringwal_log, wal};
use crate::status::ringwal_status;

/// Called once, when the record at lsn is durable (RINGWAL_OK) or cannot become durable (an error).
///
/// It runs on a thread of the log, or inside ringwal_on_durable. It must be quick, must not block,
/// and no exception or longjmp may leave it. ringwal_last_error_message() explains an error there.
pub type ringwal_durable_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, lsn: u64, status: ringwal_status)>;

/// Called with each new durable end (RINGWAL_OK): every record below it is durable. The ends
/// increase. The last call has an error, RINGWAL_ERROR_CLOSED or RINGWAL_ERROR_POISONED, and the
/// last end.
///
/// It runs on a thread of the log, one call at a time. The rules of ringwal_durable_fn hold.
pub type ringwal_durable_end_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, durable_end: u64, status: ringwal_status)>;

/// A registration of ringwal_on_durable_end.
#[derive(Debug)]
pub struct ringwal_listener {
    _listener: DurableEndListener,
}

fn callback<T>(callback: Option<T>) -> Checked<T> {
    callback.ok_or_else(|| Refusal::Argument("call is NULL".into()))
}

/// Calls a function once, when the record at lsn and every earlier record are durable, or cannot
/// become durable. Does not block.
///
/// With RINGWAL_OK the function is called exactly once, perhaps before this returns. Otherwise it
/// is not called. For many records, ringwal_on_durable_end costs less.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_on_durable(
    log: *const ringwal_log,
    lsn: u64,
    call: ringwal_durable_fn,
    user_data: *mut c_void,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2.
        let (wal, call) = (unsafe { wal(log) }?, callback(call)?);
        let user_data = UserData::new(user_data);
        wal.on_durable(Lsn::new(lsn), move |result| {
            // SAFETY: the caller promises that the function may be called once with its pointer.
            call_back(result, |status| unsafe { call(user_data.pointer(), lsn, status) });
        });
        Ok(())
    })
}

/// Calls a function with each new durable end, until the log is closed or the listener is freed.
///
/// One listener serves any number of waiters: keep them ordered by position, and settle those below
/// the end. Free it with ringwal_listener_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_on_durable_end(
    log: *const ringwal_log,
    call: ringwal_durable_end_fn,
    user_data: *mut c_void,
    listener: *mut *mut ringwal_listener,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2.
        let (wal, out) = unsafe { (wal(log)?, Out::required(listener, "listener")?) };
        let (call, user_data) = (callback(call)?, UserData::new(user_data));
        let mut last = 0;
        let listener = wal.on_durable_end(move |end| {
            if let Ok(end) = &end {
                last = end.as_u64();
            }
            let end = end.map(drop);
            // SAFETY: the caller promises that the function may be called with its pointer until it
            // has freed the listener.
            call_back(end, |status| unsafe { call(user_data.pointer(), last, status) });
        })?;
        out.set(hand_out(ringwal_listener { _listener: listener }));
        Ok(())
    })
}

/// Removes a listener, and waits for its running call. After this returns it is not called again,
/// unless the listener itself frees it. Hold no lock that the listener takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_listener_free(listener: *mut ringwal_listener) {
    // SAFETY: the caller owns the handle (invariant 2).
    unsafe { free(listener) }
}
