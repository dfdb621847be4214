//! A disk in memory that records when each write and flush was issued and completed.
//!
//! 1. One sequence numbers every issue and every completion, in the order in which they happened.
//! 2. Reads see completed writes. Once a flush has completed, the writes that completed before it
//!    was *issued* are durable. Nothing else makes a write durable.
//! 3. A power failure at a moment `t` may leave every write that is durable at `t`, and any
//!    512-byte sectors of each other write issued by `t`, in any order where they overlap.

use std::collections::HashMap;
use std::sync::Arc;

pub(crate) const PAGE: usize = 4096;
pub(crate) const SECTOR: usize = 512;

/// Bytes by page; a page that is absent is zero. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pages(HashMap<u64, Arc<[u8; PAGE]>>);

impl Pages {
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let (page, from) = (at / PAGE as u64, at as usize % PAGE);
            let n = (PAGE - from).min(out.len() - done);
            match self.0.get(&page) {
                Some(bytes) => out[done..done + n].copy_from_slice(&bytes[from..from + n]),
                None => out[done..done + n].fill(0),
            }
            done += n;
        }
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let (page, from) = (at / PAGE as u64, at as usize % PAGE);
            let n = (PAGE - from).min(bytes.len() - done);
            let held = self.0.entry(page).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(held)[from..from + n].copy_from_slice(&bytes[done..done + n]);
            done += n;
        }
    }

    /// The pages that are not zero, by offset.
    pub(crate) fn each(&self) -> impl Iterator<Item = (u64, &[u8; PAGE])> {
        let all = self.0.iter().map(|(page, bytes)| (page * PAGE as u64, &**bytes));
        all.filter(|(_, bytes)| bytes.iter().any(|&b| b != 0))
    }
}

/// A write as it was recorded.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) offset: u64,
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) issued: u64,
    /// Number of its completion; `u64::MAX`: never.
    pub(crate) completed: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Flush {
    pub(crate) issued: u64,
    pub(crate) completed: u64,
}

/// The trace of a disk: its content at the start, and every write and flush since.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace {
    pub(crate) start: Pages,
    pub(crate) writes: Vec<Write>,
    pub(crate) flushes: Vec<Flush>,
    /// The next number of the sequence.
    pub(crate) end: u64,
}

/// The disk: its current content, and its trace.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) now: Pages,
    pub(crate) trace: Trace,
}

impl Disk {
    fn tick(&mut self) -> u64 {
        self.trace.end += 1;
        self.trace.end - 1
    }

    /// Clears the trace and makes the content durable.
    pub(crate) fn settle(&mut self) {
        self.trace = Trace { start: self.now.clone(), end: self.trace.end, ..Trace::default() };
    }

    pub(crate) fn issue_write(&mut self, offset: u64, bytes: &[u8]) -> usize {
        let issued = self.tick();
        self.trace.writes.push(Write { offset, bytes: bytes.into(), issued, completed: u64::MAX });
        self.trace.writes.len() - 1
    }

    pub(crate) fn complete_write(&mut self, at: usize) {
        let completed = self.tick();
        let Some(write) = self.trace.writes.get_mut(at) else { return };
        write.completed = completed;
        self.now.write(write.offset, &write.bytes);
    }

    pub(crate) fn issue_flush(&mut self) -> u64 {
        self.tick()
    }

    pub(crate) fn complete_flush(&mut self, issued: u64) {
        let completed = self.tick();
        self.trace.flushes.push(Flush { issued, completed });
    }
}
