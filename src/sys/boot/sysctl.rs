//! macOS and its relatives: the identity of the boot session. FreeBSD and DragonFly: when the boot
//! began.

use std::ffi::CStr;

use super::{of_time, of_uuid};
use crate::sys::c;

pub(super) fn identity() -> Option<u128> {
    session().or_else(begin)
}

fn session() -> Option<u128> {
    let mut text = [0; 64];
    let len = read(c"kern.bootsessionuuid", &mut text)?;
    of_uuid(std::str::from_utf8(text.get(..len)?).ok()?)
}

fn begin() -> Option<u128> {
    let mut time = [0; size_of::<c::timeval>()];
    if read(c"kern.boottime", &mut time)? != time.len() {
        return None;
    }
    // SAFETY: every bit pattern is a value of this structure of two numbers, and the array has its
    // size.
    let time: c::timeval = unsafe { std::mem::transmute(time) };
    #[allow(clippy::useless_conversion, reason = "narrower on some of these systems")]
    of_time(i64::from(time.tv_sec), i64::from(time.tv_usec) * 1000)
}

/// Reads a value of the kernel. Returns its bytes' number.
fn read(name: &CStr, value: &mut [u8]) -> Option<usize> {
    let mut len = value.len();
    // SAFETY: a C string, and room for as many bytes as `len` says; both outlive the call.
    let rc = unsafe {
        c::sysctlbyname(
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            &raw mut len,
            std::ptr::null_mut(),
            0,
        )
    };
    (rc == 0 && len <= value.len()).then_some(len)
}
