//! A payload that is not in memory: the producer waits for its pages, and the log does not.
//!
//! The page is one that may not be read. The handler of the signal keeps its thread waiting, as a
//! slow disk would, until the test has committed a record beside it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use crate::child::{case_and_directory, in_a_process};
use crate::support::{Temp, read_all, small};
use nix::libc;
use ringwal::{Result, Wal};

const PAGE: usize = 1 << 16;

static MISSING: AtomicUsize = AtomicUsize::new(0);
static WAITS: AtomicBool = AtomicBool::new(false);
static ARRIVES: AtomicBool = AtomicBool::new(false);

extern "C" fn page_fault(_: libc::c_int) {
    WAITS.store(true, SeqCst);
    while !ARRIVES.load(SeqCst) {
        // SAFETY: without arguments; may be called in a handler.
        unsafe { libc::sched_yield() };
    }
    protect(MISSING.load(SeqCst), libc::PROT_READ | libc::PROT_WRITE);
}

/// Changes the protection of the page at `address`, which is one of [`pages`].
fn protect(address: usize, protection: libc::c_int) {
    // SAFETY: whole pages of the mapping, which nothing unmaps. Nothing writes to them.
    unsafe { libc::mprotect(std::ptr::without_provenance_mut(address), PAGE, protection) };
}

/// Three pages for the whole life of the process, each filled with its number.
fn pages() -> &'static [u8] {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at a place that the kernel chooses. It is checked and initialised
    // before it is lent, and never unmapped.
    unsafe {
        let start = libc::mmap(std::ptr::null_mut(), 3 * PAGE, access, flags, -1, 0);
        assert_ne!(start, libc::MAP_FAILED);
        for page in 0..3 {
            start.cast::<u8>().add(page * PAGE).write_bytes(page as u8 + 1, PAGE);
        }
        std::slice::from_raw_parts(start.cast(), 3 * PAGE)
    }
}

type Append = fn(&Wal, &[u8]) -> Result<()>;

fn appends() -> Vec<(&'static str, Append)> {
    vec![
        ("append", |wal, payload| wal.append(payload).map(drop)),
        ("try_append", |wal, payload| wal.try_append(payload).map(drop)),
        ("append_tagged", |wal, payload| wal.append_tagged(7, payload).map(drop)),
        ("append_async", |wal, payload| smol::block_on(wal.append_async(payload)).map(drop)),
        ("append_batch", |wal, payload| wal.append_batch(&[&b"first"[..], payload]).map(drop)),
        ("try_append_batch", |wal, payload| wal.try_append_batch(&[payload]).map(drop)),
        ("append_batch_async", |wal, payload| {
            smol::block_on(wal.append_batch_async(&[payload])).map(drop)
        }),
        ("append_batch_tagged", |wal, payload| wal.append_batch_tagged(&[(7, payload)]).map(drop)),
    ]
}

/// The child of [`in_a_process`].
#[test]
fn case() {
    let Some((case, dir)) = case_and_directory() else { return };
    let (name, append) = *appends().iter().find(|(name, _)| *name == case).unwrap();
    let wal = small(&dir).segment_size(4 << 20).open().unwrap();
    let payload = pages();
    // SAFETY: the handler makes system calls that a handler may make, and touches atomics.
    unsafe { libc::signal(libc::SIGSEGV, page_fault as *const () as libc::sighandler_t) };
    for missing in 0..3 {
        WAITS.store(false, SeqCst);
        ARRIVES.store(false, SeqCst);
        MISSING.store(payload.as_ptr().addr() + missing * PAGE, SeqCst);
        protect(MISSING.load(SeqCst), libc::PROT_NONE);
        let producer = {
            let wal = wal.clone();
            std::thread::spawn(move || append(&wal, payload))
        };
        while !WAITS.load(SeqCst) {
            std::thread::yield_now();
        }
        let (done, committed) = mpsc::channel();
        let beside = wal.clone();
        std::thread::spawn(move || done.send(beside.append_durable(b"beside").map(drop)));
        let committed = committed.recv_timeout(Duration::from_secs(20));
        ARRIVES.store(true, SeqCst);
        committed.expect("the log waits for the page of a payload").unwrap();
        producer.join().unwrap().unwrap();
    }
    wal.sync().unwrap();
    let records = read_all(&wal);
    let whole = records.iter().filter(|(_, record)| record == payload).count();
    assert_eq!(whole, 3, "{name}");
}

/// Runs the cases whose name has `part`, or has it not.
fn run(has: bool, part: &str) {
    for (name, _) in appends().iter().filter(|(name, _)| name.contains(part) == has) {
        in_a_process(name, &Temp::new().log());
    }
}

#[test]
fn payload_that_is_not_in_memory_holds_up_its_producer_and_not_the_log() {
    run(false, "batch");
}

#[test]
fn batch_with_a_payload_that_is_not_in_memory_holds_up_its_producer_and_not_the_log() {
    run(true, "batch");
}
