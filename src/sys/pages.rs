//! Whole pages of memory, and what a child of `fork()` sees of them.

use std::alloc::Layout;
use std::ptr::NonNull;

/// Alignment that direct I/O never asks for more than.
const BLOCK: usize = 4096;

/// Memory that starts and ends with pages of this size: what the kernel is advised of it concerns
/// nothing else that the allocator has there.
pub(crate) fn whole_pages(bytes: usize, page: usize) -> Option<Layout> {
    let page = page.max(BLOCK);
    let bytes = bytes.max(1).checked_next_multiple_of(page)?;
    Layout::from_size_align(bytes, page).ok()
}

/// Bytes of the system's pages: 4096, and on some machines 16384 or 65536.
#[cfg(all(unix, not(ringwal_loom)))]
pub(crate) fn page() -> usize {
    // SAFETY: a question, without pointers.
    let bytes = unsafe { super::c::sysconf(super::c::_SC_PAGESIZE) };
    usize::try_from(bytes).ok().filter(|b| b.is_power_of_two()).unwrap_or(1 << 16)
}

#[cfg(not(all(unix, not(ringwal_loom))))]
pub(crate) fn page() -> usize {
    BLOCK
}

/// Keeps these pages from later children of `fork()`, or gives them to children again. A refusal
/// leaves the system's default, which only costs copies after a fork.
///
/// # Safety
///
/// The range is mapped, is whole pages, and holds no other memory than the caller's.
pub(crate) unsafe fn keep_from_children(start: NonNull<u8>, bytes: usize, keep: bool) {
    #[cfg(all(any(target_os = "linux", target_os = "android"), not(ringwal_loom)))]
    {
        use super::c::{MADV_DOFORK, MADV_DONTFORK, madvise};
        let advice = if keep { MADV_DONTFORK } else { MADV_DOFORK };
        // SAFETY: the caller's promise. Both advices keep the content.
        unsafe { madvise(start.as_ptr().cast(), bytes, advice) };
    }
    #[cfg(any(target_os = "freebsd", target_os = "dragonfly", target_vendor = "apple"))]
    {
        // VM_INHERIT_COPY and VM_INHERIT_NONE; the BSDs have the same numbers.
        let inheritance = if keep { 2 } else { 1 };
        // SAFETY: the caller's promise. Both keep the content.
        unsafe { super::c::minherit(start.as_ptr().cast(), bytes, inheritance) };
    }
    let _ = (start, bytes, keep);
}

/// Makes later children of `fork()` see zeros in these pages. False: the system refuses, or ignores
/// what it is advised.
///
/// # Safety
///
/// The range is mapped, is whole pages, and holds no other memory than the caller's.
#[cfg(all(unix, not(ringwal_loom)))]
pub(crate) unsafe fn wipe_in_children(start: NonNull<u8>, bytes: usize) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use super::c::{MADV_WIPEONFORK, madvise};
        /// An advice that no kernel has. An emulated kernel that accepts it takes every advice for
        /// a hint, and its success means nothing: user-mode QEMU, for one.
        const NO_ADVICE: std::ffi::c_int = -1;
        // SAFETY: the caller's promise. The advice keeps the content in this process.
        let advise = |advice| unsafe { madvise(start.as_ptr().cast(), bytes, advice) == 0 };
        !advise(NO_ADVICE) && advise(MADV_WIPEONFORK)
    }
    #[cfg(target_os = "freebsd")]
    {
        use super::c::{INHERIT_ZERO, minherit};
        // SAFETY: the caller's promise. It keeps the content in this process.
        unsafe { minherit(start.as_ptr().cast(), bytes, INHERIT_ZERO) == 0 }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    {
        let _ = (start, bytes);
        false
    }
}
