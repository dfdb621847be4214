//! A buffer that direct I/O accepts.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Zeroed bytes that start on a multiple of 64 KiB's divisor [`crate::format::MAX_BLOCK`] or of the
/// page, whichever is less for the size.
#[derive(Debug)]
pub(crate) struct AlignedBuf {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the buffer owns its bytes, as a Box would.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// `len` zeroed bytes; at least one is allocated.
    pub(crate) fn new(len: usize) -> Self {
        let align = crate::format::MAX_BLOCK as usize;
        let Ok(layout) = Layout::from_size_align(len.max(1), align) else {
            // Only lengths near isize::MAX: callers bound them by a file's length.
            handle_alloc_error(Layout::new::<u8>());
        };
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        AlignedBuf { start, layout }
    }
}

impl AlignedBuf {
    /// `len` zeroed bytes in huge pages, where the system has them. The device then writes to few
    /// places in memory: on some that is most of a direct read's cost.
    pub(crate) fn huge(len: usize) -> Self {
        const HUGE: usize = 2 << 20;
        let align = if len.is_multiple_of(HUGE) { HUGE } else { crate::format::MAX_BLOCK as usize };
        let Ok(layout) = Layout::from_size_align(len.max(1), align) else {
            // Only lengths near isize::MAX: callers ask for constants.
            handle_alloc_error(Layout::new::<u8>());
        };
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        // Before the first touch, which decides the size of the pages.
        super::sys::advise_huge_pages(start, layout.size());
        // SAFETY: allocated just now with this size, and nothing else refers to it.
        unsafe { start.as_ptr().write_bytes(0, layout.size()) };
        AlignedBuf { start, layout }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: allocated with this size, initialised as zeros, owned by self.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in deref, and &mut self makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: allocated in new() with this layout and not freed before.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
