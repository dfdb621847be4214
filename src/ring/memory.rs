//! The ring's bytes: `buffers` equal buffers in one page-aligned allocation.
//!
//! 1. The buffers are page-aligned, zeroed by the system, and live until drop, or for ever if
//!    leaked. A page becomes resident at its first write: nothing here touches the pages.
//! 2. The ring decides which thread may touch which bytes. This module only returns pointers.
//! 3. A child of fork() does not get the pages, where the system can do that. They are whole pages
//!    of the system's size, so that no other memory is in them.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::sys::pages::{keep_from_children, page, whole_pages};

/// What every allocator gives without doing anything for it.
const ALLOCATOR_ALIGN: usize = 8;

#[derive(Debug)]
pub(crate) struct Memory {
    /// Where the first buffer starts: the first page of the allocation, or the one after.
    start: NonNull<u8>,
    /// Bytes from there, in whole pages.
    bytes: usize,
    allocation: NonNull<u8>,
    layout: Layout,
    buffer: usize,
    leak: std::sync::atomic::AtomicBool,
}

// SAFETY: Memory only hands out addresses; it owns its allocation and touches the bytes no more.
unsafe impl Send for Memory {}
// SAFETY: as above: no method reads or writes the bytes.
unsafe impl Sync for Memory {}

impl Memory {
    /// `None`: there is not that much memory.
    pub(crate) fn new(buffer: usize, buffers: usize) -> Option<Self> {
        let pages = whole_pages(buffer.checked_mul(buffers)?, page())?;
        // Aligned here and not by the allocator, which would write zeros over every page of a
        // request with an alignment of its own, where it knows fresh pages of the system's to be
        // zero.
        let (bytes, page) = (pages.size(), pages.align());
        let layout = Layout::from_size_align(bytes.checked_add(page)?, ALLOCATOR_ALIGN).ok()?;
        // SAFETY: the layout's size is not zero.
        let allocation = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let skipped =
            allocation.as_ptr().addr().next_multiple_of(page) - allocation.as_ptr().addr();
        // SAFETY: skipped is less than a page, and the allocation is one page longer than the
        // buffers: start and the bytes from there lie inside it.
        let start = unsafe { allocation.add(skipped) };
        // SAFETY: the range is ours, mapped, and whole pages, so that it has no other memory.
        unsafe { keep_from_children(start, bytes, true) };
        Some(Memory { start, bytes, allocation, layout, buffer, leak: false.into() })
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
        if !*self.leak.get_mut() {
            // SAFETY: as in new().
            unsafe { keep_from_children(self.start, self.bytes, false) };
            // SAFETY: allocated in new() with this layout; the last user is gone, as we are being
            // dropped, and the kernel is too, or leak() would have been called.
            unsafe { dealloc(self.allocation.as_ptr(), self.layout) };
        }
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    #[cfg(linux_calls)]
    #[test]
    fn pages_become_resident_when_they_are_written_to() {
        // So large that the allocator asks the system for it, and does not give out what it has.
        let memory = Memory::new(8 << 20, 8).unwrap();
        let resident = || {
            let mut pages = vec![0_u8; memory.bytes / page()];
            // SAFETY: the range is whole pages that are ours, and the vector has a byte for each.
            let asked = unsafe {
                nix::libc::mincore(memory.start.as_ptr().cast(), memory.bytes, pages.as_mut_ptr())
            };
            assert_eq!(asked, 0);
            pages.iter().filter(|&&page| page & 1 == 1).count()
        };
        let before = resident();
        // The neighbours of the allocator's own words, and what large pages make of them.
        assert!(before <= (memory.bytes / page()) / 2, "{before} pages before any is used");
        // SAFETY: inside the allocation, which no other code uses.
        unsafe { memory.buffer(7).write_bytes(1, 1 << 20) };
        assert!(resident() >= (1 << 20) / page());
    }

    #[test]
    fn memory_is_of_whole_pages_whatever_their_size() {
        for page in [4096, 16_384, 65_536] {
            for bytes in [0, 1, 4096, 8192, 65_536, 65_537, 12 << 20] {
                let layout = whole_pages(bytes, page).unwrap();
                assert!(layout.align() == page && layout.size() >= bytes.max(1));
                assert_eq!(layout.size() % page, 0, "{bytes} bytes in pages of {page}");
            }
        }
        assert!(whole_pages(usize::MAX, 4096).is_none());
        let memory = Memory::new(4096, 2).unwrap();
        assert!(memory.buffer(0).addr().is_multiple_of(page()));
        assert!(Memory::new(usize::MAX, 2).is_none());
    }
}
