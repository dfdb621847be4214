//! Status codes, and the last error of each thread.

use std::cell::RefCell;
use std::ffi::{CString, c_char};

use ringwal::Error;

/// The outcome of a call.
///
/// Numbers from 1 to 999 are errors of the log, from 1000 on errors of this interface. Below 0 are
/// outcomes that are no errors. A number keeps its meaning in every later version; a later version
/// may have more numbers.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ringwal_status {
    /// No record came within the timeout.
    RINGWAL_TIMED_OUT = -2,
    /// No record follows: the reader is at its end, or the log was closed.
    RINGWAL_END = -1,
    /// Success.
    RINGWAL_OK = 0,
    /// The ring has no room, or the next segment is not prepared yet. Nothing was appended: retry
    /// later, or call the blocking function.
    RINGWAL_ERROR_RING_FULL = 1,
    /// The record or batch is larger than the option max_record_size. Nothing was appended.
    RINGWAL_ERROR_RECORD_TOO_LARGE = 2,
    /// A batch needs at least one record.
    RINGWAL_ERROR_EMPTY_BATCH = 3,
    /// A write or a sync failed. Nothing is retried: close the log, fix the cause, open it again.
    RINGWAL_ERROR_POISONED = 4,
    /// The log was closed.
    RINGWAL_ERROR_CLOSED = 5,
    /// The disk has no space for the next segment. Appending resumes by itself.
    RINGWAL_ERROR_NO_SPACE = 6,
    /// A segment cannot be prepared or removed, for a cause that may pass. The log retries.
    RINGWAL_ERROR_OBSTRUCTED = 7,
    /// Another writer has the log open.
    RINGWAL_ERROR_LOCKED = 8,
    /// Durable data was damaged, or a file is missing.
    RINGWAL_ERROR_CORRUPTION = 9,
    /// Retention has removed the position.
    RINGWAL_ERROR_PRUNED = 10,
    /// The position was never assigned to a record.
    RINGWAL_ERROR_NOT_APPENDED = 11,
    /// The position is not durable yet.
    RINGWAL_ERROR_NOT_DURABLE = 12,
    /// No record starts at the position.
    RINGWAL_ERROR_NO_RECORD = 13,
    /// No durable record has the ordinal.
    RINGWAL_ERROR_NO_ORDINAL = 14,
    /// ringwal_truncate_from has made the position void.
    RINGWAL_ERROR_TRUNCATED = 15,
    /// The position lies inside a batch, which is cut as a whole.
    RINGWAL_ERROR_INSIDE_BATCH = 16,
    /// The name is no consumer's name: 1 to 64 of A-Z, a-z, 0-9, - and _.
    RINGWAL_ERROR_CONSUMER_NAME = 17,
    /// The consumer's name is too long for a file name with the log's prefix.
    RINGWAL_ERROR_CONSUMER_NAME_TOO_LONG = 18,
    /// A file that is not the log's has the name, or one that differs only in case.
    RINGWAL_ERROR_NAME_TAKEN = 19,
    /// The consumer is attached already.
    RINGWAL_ERROR_CONSUMER_IN_USE = 20,
    /// There is no consumer of that name.
    RINGWAL_ERROR_NO_CONSUMER = 21,
    /// The record lies below the position that the consumer has committed.
    RINGWAL_ERROR_CONSUMER_BACKWARDS = 22,
    /// The file with a position is damaged.
    RINGWAL_ERROR_CONSUMER_DAMAGED = 23,
    /// A consumer has consumed records that the cut would remove.
    RINGWAL_ERROR_CONSUMED = 24,
    /// A newer version wrote the log.
    RINGWAL_ERROR_UNSUPPORTED = 25,
    /// A segment belongs to another log.
    RINGWAL_ERROR_FOREIGN_SEGMENT = 26,
    /// The log has another application version than the one asked for.
    RINGWAL_ERROR_APPLICATION_VERSION = 27,
    /// There is no log, and one must exist.
    RINGWAL_ERROR_NO_LOG = 28,
    /// There is a log, and it must be created.
    RINGWAL_ERROR_LOG_EXISTS = 29,
    /// The log is another one than the expected.
    RINGWAL_ERROR_OTHER_LOG = 30,
    /// An option is out of its range.
    RINGWAL_ERROR_OPTIONS = 31,
    /// The backend cannot run here.
    RINGWAL_ERROR_BACKEND_UNAVAILABLE = 32,
    /// The system refused a call, or a file is of the wrong kind. ringwal_last_error_os() has the
    /// errno, if there is one.
    RINGWAL_ERROR_IO = 33,
    /// The call would wait for its own thread: a callback made a blocking call.
    RINGWAL_ERROR_WOULD_DEADLOCK = 34,
    /// The log was called from inside a call that does not allow it.
    RINGWAL_ERROR_REENTRANT = 35,
    /// The log was opened before fork(). Open another one in the child.
    RINGWAL_ERROR_FORKED = 36,
    /// The name is no cell's name.
    RINGWAL_ERROR_CELL_NAME = 37,
    /// The value of a cell is too large.
    RINGWAL_ERROR_CELL_TOO_LARGE = 38,
    /// The cells of a log together are too large.
    RINGWAL_ERROR_CELLS_FULL = 39,
    /// The file with the cells is damaged.
    RINGWAL_ERROR_CELLS_DAMAGED = 40,
    /// The cells could not be written.
    RINGWAL_ERROR_CELLS_FAILED = 41,
    /// The lease of a job of a work queue has expired.
    RINGWAL_ERROR_LEASE_EXPIRED = 42,
    /// The tag has no floor.
    RINGWAL_ERROR_NO_TAG_FLOOR = 43,
    /// The log holds as many tags as it can.
    RINGWAL_ERROR_TOO_MANY_TAG_FLOORS = 44,
    /// The file with what tags need is damaged.
    RINGWAL_ERROR_TAG_FLOORS_DAMAGED = 45,
    /// An argument is NULL, misaligned, out of its range, or no valid text.
    RINGWAL_ERROR_INVALID_ARGUMENT = 1000,
    /// The library panicked, which is a bug in it.
    RINGWAL_ERROR_PANIC = 1001,
    /// The buffer is too small for the record. The length was written.
    RINGWAL_ERROR_BUFFER_TOO_SMALL = 1002,
    /// An error that has no number of its own in this version.
    RINGWAL_ERROR_OTHER = 1003,
}

use ringwal_status::*;

/// Every status, with its name in C.
macro_rules! named {
    ($($name:ident)*) => { [$(($name, concat!(stringify!($name), "\0"))),*] };
}

pub(crate) const ALL: [(ringwal_status, &str); 52] = named! {
    RINGWAL_TIMED_OUT RINGWAL_END RINGWAL_OK RINGWAL_ERROR_RING_FULL
    RINGWAL_ERROR_RECORD_TOO_LARGE RINGWAL_ERROR_EMPTY_BATCH RINGWAL_ERROR_POISONED
    RINGWAL_ERROR_CLOSED RINGWAL_ERROR_NO_SPACE RINGWAL_ERROR_OBSTRUCTED RINGWAL_ERROR_LOCKED
    RINGWAL_ERROR_CORRUPTION RINGWAL_ERROR_PRUNED RINGWAL_ERROR_NOT_APPENDED
    RINGWAL_ERROR_NOT_DURABLE RINGWAL_ERROR_NO_RECORD RINGWAL_ERROR_NO_ORDINAL
    RINGWAL_ERROR_TRUNCATED RINGWAL_ERROR_INSIDE_BATCH RINGWAL_ERROR_CONSUMER_NAME
    RINGWAL_ERROR_CONSUMER_NAME_TOO_LONG RINGWAL_ERROR_NAME_TAKEN RINGWAL_ERROR_CONSUMER_IN_USE
    RINGWAL_ERROR_NO_CONSUMER RINGWAL_ERROR_CONSUMER_BACKWARDS RINGWAL_ERROR_CONSUMER_DAMAGED
    RINGWAL_ERROR_CONSUMED RINGWAL_ERROR_UNSUPPORTED RINGWAL_ERROR_FOREIGN_SEGMENT
    RINGWAL_ERROR_APPLICATION_VERSION RINGWAL_ERROR_NO_LOG RINGWAL_ERROR_LOG_EXISTS
    RINGWAL_ERROR_OTHER_LOG RINGWAL_ERROR_OPTIONS RINGWAL_ERROR_BACKEND_UNAVAILABLE
    RINGWAL_ERROR_IO RINGWAL_ERROR_WOULD_DEADLOCK RINGWAL_ERROR_REENTRANT RINGWAL_ERROR_FORKED
    RINGWAL_ERROR_CELL_NAME RINGWAL_ERROR_CELL_TOO_LARGE RINGWAL_ERROR_CELLS_FULL
    RINGWAL_ERROR_CELLS_DAMAGED RINGWAL_ERROR_CELLS_FAILED RINGWAL_ERROR_LEASE_EXPIRED
    RINGWAL_ERROR_NO_TAG_FLOOR RINGWAL_ERROR_TOO_MANY_TAG_FLOORS
    RINGWAL_ERROR_TAG_FLOORS_DAMAGED
    RINGWAL_ERROR_INVALID_ARGUMENT RINGWAL_ERROR_PANIC RINGWAL_ERROR_BUFFER_TOO_SMALL
    RINGWAL_ERROR_OTHER
};

impl ringwal_status {
    /// The status of an error of the log.
    pub(crate) fn of(error: &Error) -> Self {
        let code = error.code();
        let known = ALL.iter().find(|(status, _)| *status as i32 == code);
        known.map_or(RINGWAL_ERROR_OTHER, |(status, _)| *status)
    }
}

/// The last error of a thread. Its text is formatted only when a caller asks for it.
struct LastError {
    error: Option<CauseOfError>,
    message: Option<CString>,
    os_error: i32,
    /// Whether it is an error that a callback gets, and that no call has returned.
    lent: bool,
}

/// What the text of an error is made of.
pub(crate) enum CauseOfError {
    Log(Error),
    Interface(String),
}

thread_local! {
    static LAST: RefCell<LastError> =
        const { RefCell::new(LastError { error: None, message: None, os_error: 0, lent: false }) };
}

impl LastError {
    fn new(cause: CauseOfError, lent: bool) -> Self {
        let os_error = match &cause {
            CauseOfError::Log(error) => error.os_error().unwrap_or(0),
            CauseOfError::Interface(_) => 0,
        };
        LastError { error: Some(cause), message: None, os_error, lent }
    }
}

/// Keeps an error that a call returns as the last one of this thread.
pub(crate) fn keep(cause: CauseOfError) {
    // A thread whose locals are gone has no last error.
    let _ = LAST.try_with(|last| last.replace(LastError::new(cause, false)));
}

/// Runs a callback with `cause` as the last error of this thread. Afterwards the earlier error is
/// the last one again, with the same text in memory, unless a call in the callback has failed.
pub(crate) fn lend(cause: CauseOfError, callback: impl FnOnce()) {
    let earlier = LAST.try_with(|last| last.replace(LastError::new(cause, true)));
    callback();
    let Ok(earlier) = earlier else { return };
    let _ = LAST.try_with(|last| {
        let mut last = last.borrow_mut();
        if last.lent { Some(std::mem::replace(&mut *last, earlier)) } else { None }
    });
}

/// The text of the last error of this thread. NULL if no call on this thread has failed.
///
/// The text stays valid until the next call on this thread that returns an error. Inside a callback
/// that gets an error it is the text of that error, which is valid until the callback returns. Then
/// the earlier text is the last one again.
#[unsafe(no_mangle)]
pub extern "C" fn ringwal_last_error_message() -> *const c_char {
    let message = LAST.try_with(|last| {
        let last = &mut *last.borrow_mut();
        if last.message.is_none() {
            let text = match last.error.as_ref()? {
                CauseOfError::Log(error) => error.to_string(),
                CauseOfError::Interface(text) => text.clone(),
            };
            last.message = CString::new(text.replace('\0', " ")).ok();
        }
        last.message.as_ref().map(|message| message.as_ptr())
    });
    message.ok().flatten().unwrap_or(std::ptr::null())
}

/// The errno of the last error of this thread, if a system call was its cause. Otherwise 0. After
/// RINGWAL_ERROR_NO_SPACE it is ENOSPC, also where a quota is used up.
#[unsafe(no_mangle)]
pub extern "C" fn ringwal_last_error_os() -> i32 {
    LAST.try_with(|last| last.borrow().os_error).unwrap_or(0)
}

/// The name of a status, such as "RINGWAL_ERROR_RING_FULL". "RINGWAL_ERROR_OTHER" for any other
/// number. The text is valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn ringwal_status_name(status: i32) -> *const c_char {
    let known = ALL.iter().find(|(known, _)| *known as i32 == status);
    known.map_or(c"RINGWAL_ERROR_OTHER".as_ptr(), |(_, name)| name.as_ptr().cast())
}

/// Whether the log goes on by itself, so that the same call may succeed later without a change by
/// the caller: RINGWAL_ERROR_RING_FULL, _NO_SPACE, _OBSTRUCTED and _NOT_DURABLE.
///
/// RINGWAL_ERROR_LOCKED and _CONSUMER_IN_USE are not transient: another owner has to end first.
#[unsafe(no_mangle)]
pub extern "C" fn ringwal_status_is_transient(status: i32) -> bool {
    let transient = [
        RINGWAL_ERROR_RING_FULL,
        RINGWAL_ERROR_NO_SPACE,
        RINGWAL_ERROR_OBSTRUCTED,
        RINGWAL_ERROR_NOT_DURABLE,
    ];
    transient.iter().any(|transient| *transient as i32 == status)
}

/// The version of the library, such as "0.1.0". The text is valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn ringwal_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
