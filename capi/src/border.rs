//! The border between C and Rust: arguments are checked on the way in, panics stay inside.

use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::ptr::NonNull;

use ringwal::Error;

use crate::status::{CauseOfError, keep, lend, ringwal_status};

/// Why a function does not return `RINGWAL_OK`.
#[derive(Debug)]
pub(crate) enum Refusal {
    Log(Error),
    /// An argument is unusable, for this reason.
    Argument(String),
    BufferTooSmall {
        needed: usize,
    },
    End,
    TimedOut,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Log(error)
    }
}

impl Refusal {
    /// The status that a call returns, after keeping an error as the last one of this thread.
    fn into_status(self) -> ringwal_status {
        let (status, cause) = match self {
            Refusal::End => return ringwal_status::RINGWAL_END,
            Refusal::TimedOut => return ringwal_status::RINGWAL_TIMED_OUT,
            Refusal::Log(error) => (ringwal_status::of(&error), CauseOfError::Log(error)),
            Refusal::Argument(why) => {
                (ringwal_status::RINGWAL_ERROR_INVALID_ARGUMENT, CauseOfError::Interface(why))
            }
            Refusal::BufferTooSmall { needed } => (
                ringwal_status::RINGWAL_ERROR_BUFFER_TOO_SMALL,
                CauseOfError::Interface(format!("the record has {needed} bytes")),
            ),
        };
        keep(cause);
        status
    }
}

pub(crate) type Checked<T> = Result<T, Refusal>;

/// Runs the body of an exported function.
pub(crate) fn guarded(body: impl FnOnce() -> Checked<()>) -> ringwal_status {
    match caught(body) {
        Some(Ok(())) => ringwal_status::RINGWAL_OK,
        Some(Err(refusal)) => refusal.into_status(),
        None => ringwal_status::RINGWAL_ERROR_PANIC,
    }
}

/// Runs `body`. `None`: it panicked, and the panic is the last error of this thread.
pub(crate) fn caught<T>(body: impl FnOnce() -> T) -> Option<T> {
    let keep_text = |text| keep(CauseOfError::Interface(format!("the library panicked: {text}")));
    caught_as(body).map_err(keep_text).ok()
}

/// Runs `body` for a function that cannot return an error. `None`: it failed or panicked. The last
/// error of this thread stays, so that its text stays valid.
pub(crate) fn unreported<T>(body: impl FnOnce() -> Checked<T>) -> Option<T> {
    caught_as(body).ok()?.ok()
}

/// Runs `body`, and returns the text of its panic.
fn caught_as<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        // A payload that panics when it is dropped must not get out either.
        std::mem::forget(panic);
        text.unwrap_or_else(|| "unknown cause".into())
    })
}

/// Frees a handle. NULL is ignored.
///
/// # Safety
///
/// `handle` is NULL, or it came from [`hand_out`] and was not freed.
pub(crate) unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() && handle.is_aligned() {
        unreported(|| {
            // SAFETY: as the function requires: the box is owned by the caller, who gives it up.
            drop(unsafe { Box::from_raw(handle) });
            Ok(())
        });
    }
}

fn refuse<T>(why: String) -> Checked<T> {
    Err(Refusal::Argument(why))
}

fn check_pointer<T>(pointer: *const T, name: &str) -> Checked<()> {
    if pointer.is_null() {
        return refuse(format!("{name} is NULL"));
    }
    if !pointer.is_aligned() {
        return refuse(format!("{name} is not aligned"));
    }
    Ok(())
}

/// The value behind a pointer that must not be NULL.
///
/// # Safety
///
/// The pointer is NULL, misaligned, or points to a value that lives and is not written during the
/// call.
pub(crate) unsafe fn value<'a, T>(pointer: *const T, name: &str) -> Checked<&'a T> {
    check_pointer(pointer, name)?;
    // SAFETY: checked for NULL and alignment; the rest is required.
    Ok(unsafe { &*pointer })
}

/// As [`value`], for a value that the call changes.
///
/// # Safety
///
/// As for [`value`], and no other thread uses the value during the call.
pub(crate) unsafe fn value_mut<'a, T>(pointer: *mut T, name: &str) -> Checked<&'a mut T> {
    check_pointer(pointer, name)?;
    // SAFETY: checked for NULL and alignment; the rest is required.
    Ok(unsafe { &mut *pointer })
}

/// `len` values from a pointer on. The pointer may be NULL if there are none.
///
/// # Safety
///
/// The pointer is NULL, misaligned, or points to `len` values that live and are not written during
/// the call.
pub(crate) unsafe fn slice<'a, T>(pointer: *const T, len: usize, name: &str) -> Checked<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    check_pointer(pointer, name)?;
    if len.checked_mul(size_of::<T>()).is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        return refuse(format!("{name} has an impossible length, {len}"));
    }
    // SAFETY: checked for NULL, alignment and size; the rest is required.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// The bytes of a payload.
///
/// # Safety
///
/// As for [`slice`].
pub(crate) unsafe fn bytes<'a>(data: *const c_void, len: usize) -> Checked<&'a [u8]> {
    // SAFETY: as required.
    unsafe { slice(data.cast::<u8>(), len, "data") }
}

/// A string that ends with a zero byte, and is UTF-8.
///
/// # Safety
///
/// The pointer is NULL, or points to such a string that is not written during the call.
pub(crate) unsafe fn text<'a>(text: *const c_char, name: &str) -> Checked<&'a str> {
    check_pointer(text, name)?;
    // SAFETY: not NULL; the rest is required.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Refusal::Argument(format!("{name} is not UTF-8")))
}

/// A path that ends with a zero byte: any bytes on Unix, UTF-8 elsewhere.
///
/// # Safety
///
/// As for [`text`].
pub(crate) unsafe fn path(path: *const c_char, name: &str) -> Checked<PathBuf> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        check_pointer(path, name)?;
        // SAFETY: not NULL; the rest is required.
        let path = unsafe { CStr::from_ptr(path) };
        Ok(std::ffi::OsStr::from_bytes(path.to_bytes()).into())
    }
    #[cfg(not(unix))]
    {
        // SAFETY: as required.
        Ok(unsafe { text(path, name) }?.into())
    }
}

/// The place for a result.
#[derive(Debug)]
pub(crate) struct Out<T>(Option<NonNull<T>>);

impl<T> Out<T> {
    /// A place that must not be NULL.
    ///
    /// # Safety
    ///
    /// The pointer is NULL, misaligned, or points to memory for a `T` that this call may write.
    pub(crate) unsafe fn required(pointer: *mut T, name: &str) -> Checked<Self> {
        check_pointer(pointer, name)?;
        Ok(Out(NonNull::new(pointer)))
    }

    /// A place that is NULL if the caller does not want the result.
    ///
    /// # Safety
    ///
    /// As for [`Out::required`].
    pub(crate) unsafe fn optional(pointer: *mut T, name: &str) -> Checked<Self> {
        if pointer.is_null() {
            return Ok(Out(None));
        }
        // SAFETY: as required.
        unsafe { Out::required(pointer, name) }
    }

    pub(crate) fn set(&self, value: T) {
        if let Some(place) = self.0 {
            // SAFETY: not NULL, aligned, and memory for a T, as the constructors require. What it
            // holds is overwritten and not dropped: it belongs to C.
            unsafe { place.write(value) };
        }
    }
}

/// A handle that the caller owns and frees.
pub(crate) fn hand_out<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// Runs a callback with its status. An error is the last one of this thread while the callback
/// runs. The callback may run inside a call that returns no error, and that call keeps the text of
/// an earlier error valid.
pub(crate) fn call_back(result: ringwal::Result<()>, call: impl FnOnce(ringwal_status)) {
    match result {
        Ok(()) => call(ringwal_status::RINGWAL_OK),
        Err(error) => {
            let status = ringwal_status::of(&error);
            lend(CauseOfError::Log(error), || call(status));
        }
    }
}

/// What a callback gets back from the log: the caller's pointer, on another thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UserData(*mut c_void);

// SAFETY: the header says that callbacks run on another thread. The pointer is only passed on.
unsafe impl Send for UserData {}

impl UserData {
    pub(crate) fn new(pointer: *mut c_void) -> Self {
        UserData(pointer)
    }

    /// The pointer. By a method, so that a closure takes the whole value.
    pub(crate) fn pointer(self) -> *mut c_void {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{ringwal_last_error_message, ringwal_status::*};

    fn last() -> String {
        // SAFETY: the function returns a string, as a call on this thread has failed.
        unsafe { CStr::from_ptr(ringwal_last_error_message()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn panic_becomes_a_status_with_its_text() {
        assert_eq!(guarded(|| panic!("a bug")), RINGWAL_ERROR_PANIC);
        assert_eq!(last(), "the library panicked: a bug");
        struct PanicsWhenDropped;
        impl Drop for PanicsWhenDropped {
            fn drop(&mut self) {
                panic!("in a drop");
            }
        }
        let body = || std::panic::panic_any(PanicsWhenDropped);
        assert_eq!(guarded(body), RINGWAL_ERROR_PANIC);
        assert_eq!(last(), "the library panicked: unknown cause");
        // SAFETY: the box is handed out here, and freed once.
        unsafe { free(hand_out(PanicsWhenDropped)) };
        let kept = "the library panicked: unknown cause";
        assert_eq!(last(), kept, "a function without a status replaces no text");
    }

    #[test]
    fn error_of_a_callback_lasts_until_it_returns_or_a_call_in_it_fails() {
        let fails = |why: &str| {
            let status = guarded(|| refuse(why.into()));
            assert_eq!(status, RINGWAL_ERROR_INVALID_ARGUMENT);
        };
        fails("first");
        let text = ringwal_last_error_message();
        let closed = || Err(Error::Closed);
        call_back(closed(), |status| {
            assert_eq!(status, RINGWAL_ERROR_CLOSED);
            assert_eq!(last(), Error::Closed.to_string());
            call_back(closed(), |_| assert_eq!(last(), Error::Closed.to_string()));
            assert_eq!(last(), Error::Closed.to_string());
        });
        assert_eq!(ringwal_last_error_message(), text);
        assert_eq!(last(), "first");
        call_back(closed(), |_| {
            call_back(closed(), |_| fails("second"));
            assert_eq!(last(), "second");
        });
        assert_eq!(last(), "second");
        let none: Option<()> = unreported(|| refuse("third".into()));
        assert!(none.is_none() && last() == "second");
    }

    #[test]
    fn unusable_pointers_and_lengths_are_refused() {
        let words = [1_u64, 2];
        let odd = words.as_ptr().cast::<u8>().wrapping_add(1).cast::<u64>();
        let refused = |checked: Checked<()>, why: &str| {
            assert_eq!(guarded(|| checked), RINGWAL_ERROR_INVALID_ARGUMENT);
            assert_eq!(last(), why);
        };
        // SAFETY: each pointer is NULL, misaligned, or valid for the length; impossible lengths are
        // refused before they are used.
        unsafe {
            refused(value::<u64>(std::ptr::null(), "log").map(drop), "log is NULL");
            refused(value(odd, "log").map(drop), "log is not aligned");
            refused(slice::<u64>(std::ptr::null(), 1, "lsns").map(drop), "lsns is NULL");
            let most = usize::MAX / 4;
            let why = format!("lsns has an impossible length, {most}");
            refused(slice(words.as_ptr(), most, "lsns").map(drop), &why);
            refused(Out::required(odd.cast_mut(), "out").map(drop), "out is not aligned");
            refused(text(c"\xff".as_ptr(), "name").map(drop), "name is not UTF-8");
            assert!(slice::<u64>(std::ptr::null(), 0, "lsns").unwrap().is_empty());
            assert_eq!(slice(words.as_ptr(), 2, "lsns").unwrap(), words);
            Out::optional(std::ptr::null_mut(), "out").unwrap().set(7_u64);
        }
    }
}
