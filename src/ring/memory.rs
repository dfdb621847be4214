//! The ring's bytes: `buffers` equal buffers in one page-aligned allocation.
//!
//! 1. The allocation is page-aligned, zeroed once, and lives until drop, or for ever if leaked.
//! 2. Who may touch which bytes is the ring's concern; here pointers are only handed out.
//! 3. A child of fork() does not get the pages (where the system can say so).

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

const PAGE: usize = 4096;

#[derive(Debug)]
pub(crate) struct Memory {
    start: NonNull<u8>,
    layout: Option<Layout>,
    buffer: usize,
    leak: std::sync::atomic::AtomicBool,
}

// SAFETY: Memory only hands out addresses; it owns its allocation and touches the bytes no more.
unsafe impl Send for Memory {}
// SAFETY: as above: no method reads or writes the bytes.
unsafe impl Sync for Memory {}

impl Memory {
    pub(crate) fn new(buffer: usize, buffers: usize) -> Self {
        // Sizes beyond isize cannot be allocated; validated options stay far below.
        let layout = buffer
            .checked_mul(buffers)
            .and_then(|bytes| Layout::from_size_align(bytes, PAGE).ok())
            .filter(|l| l.size() > 0);
        let start = match layout {
            None => NonNull::dangling(),
            Some(layout) => {
                // SAFETY: the layout's size is not zero.
                let start = unsafe { alloc_zeroed(layout) };
                let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
                advise(start, layout, true);
                start
            }
        };
        Memory { start, layout, buffer, leak: false.into() }
    }

    /// Where buffer `index` starts. The caller's index is below the number of buffers.
    pub(crate) fn buffer(&self, index: usize) -> *mut u8 {
        self.start.as_ptr().wrapping_add(index * self.buffer)
    }

    /// Never frees the memory: the kernel may still read it.
    pub(crate) fn leak(&self) {
        self.leak.store(true, std::sync::atomic::Ordering::Release);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(layout) = self.layout
            && !*self.leak.get_mut()
        {
            advise(self.start, layout, false);
            // SAFETY: allocated in new() with this layout; the last user is gone, as we are being
            // dropped, and the kernel is too, or leak() would have been called.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

#[cfg(all(target_os = "linux", feature = "uring", not(ringwal_loom)))]
fn advise(start: NonNull<u8>, layout: Layout, keep_from_children: bool) {
    use nix::libc;
    let advice = if keep_from_children { libc::MADV_DONTFORK } else { libc::MADV_DOFORK };
    // Whole pages only: the allocator may use the rest of the last one.
    let bytes = layout.size() / PAGE * PAGE;
    // SAFETY: the range is ours, page-aligned and mapped; both advices keep its content. A refusal
    // leaves the kernel's default, which only costs copies after a fork.
    unsafe { libc::madvise(start.as_ptr().cast(), bytes, advice) };
}

#[cfg(not(all(target_os = "linux", feature = "uring", not(ringwal_loom))))]
fn advise(_: NonNull<u8>, _: Layout, _: bool) {}
