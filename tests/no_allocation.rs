//! Appends allocate nothing, whatever the number of records.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ringwal::Wal;
use support::Temp;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|c| c.set(c.get() + 1));
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() -> u64 {
    COUNT.with(Cell::get)
}

#[test]
fn appends_allocate_nothing_for_each_record() {
    let temp = Temp::new();
    let wal = Wal::builder(temp.log()).segment_size(4 << 20).max_segments(6).open().unwrap();
    let payload = [7; 100];
    // The thread's entry in the queue for room is allocated once.
    for _ in 0..100_000 {
        wal.append(&payload).unwrap();
    }
    let before = count();
    for n in 0..100_000 {
        match n % 4 {
            0 => wal.append_with(100, |b| b.fill(7)).map(|_| ()).unwrap(),
            1 => wal.try_append(&payload).map_or((), |_| ()),
            _ => wal.append(&payload).map(|_| ()).unwrap(),
        }
    }
    let durable = wal.append_durable(&payload).unwrap();
    let during = count() - before;
    // At most one allocation enlarges a queue. None grows with the number of records.
    assert!(during <= 2, "{during} allocations");
    assert!(wal.durable_end() > durable);
}
