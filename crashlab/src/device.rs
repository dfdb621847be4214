//! The block daemon: serves the traced disk as the file of a FUSE filesystem.
//!
//! 1. A request is numbered when it arrives (issue) and before its answer is sent (completion).
//! 2. Requests in flight are completed by one thread in a random order.
//! 3. A stalled disk completes no request. A vanished disk fails every request with EIO.

use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fastrand::Rng;
use fuser::{
    FileAttr, FileType, Filesystem, KernelConfig, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, consts,
};
use nix::libc::{EIO, ENOENT};

use crate::disk::Disk;

const ROOT: u64 = 1;
const DISK: u64 = 2;
const TTL: Duration = Duration::from_secs(3600);

/// A planned fault of the live disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Whether a flush fails, or a write.
    pub(crate) flush: bool,
    /// Number of requests of that kind that still succeed.
    pub(crate) after: u64,
    pub(crate) for_ever: bool,
}

#[derive(Debug)]
enum Pending {
    Write { at: usize, len: u32, reply: ReplyWrite },
    Flush { issued: u64, reply: ReplyEmpty },
    Read { offset: u64, size: u32, reply: ReplyData },
}

#[derive(Debug)]
struct State {
    disk: Disk,
    size: u64,
    pending: Vec<Pending>,
    /// Writes that are held until they are released.
    held: Vec<Pending>,
    most_pending: usize,
    rng: Rng,
    /// Largest delay of some completions, in microseconds.
    slow: u64,
    fault: Option<Fault>,
    failed: u64,
    stalled: bool,
    gone: bool,
    over: bool,
}

#[derive(Debug)]
pub(crate) struct Device {
    state: Mutex<State>,
    work: Condvar,
    /// Shared memory from which the workload's process reads the sequence number.
    sequence: memmap2::MmapRaw,
}

impl Device {
    pub(crate) fn new(sequence: memmap2::MmapRaw) -> Arc<Self> {
        let state = State {
            disk: Disk::default(),
            size: 0,
            pending: Vec::new(),
            held: Vec::new(),
            most_pending: 0,
            rng: Rng::with_seed(0),
            slow: 0,
            fault: None,
            failed: 0,
            stalled: false,
            gone: false,
            over: false,
        };
        Arc::new(Device { state: Mutex::new(state), work: Condvar::new(), sequence })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, state: &State) {
        // SAFETY: the mapping is one page, aligned, and lives as long as self; both processes use
        // this word as an atomic only.
        let word = unsafe { AtomicU64::from_ptr(self.sequence.as_mut_ptr().cast()) };
        word.store(state.disk.trace.end, Ordering::SeqCst);
    }

    /// Starts a new disk of so many bytes. The seed decides the order of completions.
    pub(crate) fn reset(&self, size: u64, seed: u64) {
        let mut state = self.state();
        state.disk = Disk::default();
        state.size = size;
        state.rng = Rng::with_seed(seed);
        state.most_pending = 0;
        self.publish(&state);
    }

    /// Starts the trace with the current content of the disk.
    pub(crate) fn begin_trace(&self) {
        self.state().disk.settle();
    }

    pub(crate) fn trace(&self) -> crate::disk::Trace {
        self.state().disk.trace.clone()
    }

    /// Largest number of requests in flight together.
    pub(crate) fn most_pending(&self) -> usize {
        self.state().most_pending
    }

    pub(crate) fn set_slow(&self, micros: u64) {
        self.state().slow = micros;
    }

    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    /// Number of requests that a fault failed, or that came while the disk had vanished.
    pub(crate) fn failed(&self) -> u64 {
        self.state().failed
    }

    pub(crate) fn stall(&self, stalled: bool) {
        self.state().stalled = stalled;
        self.work.notify_all();
    }

    pub(crate) fn vanish(&self, gone: bool) {
        self.state().gone = gone;
        self.work.notify_all();
    }

    /// Number of requests that wait for completion.
    pub(crate) fn waiting(&self) -> usize {
        self.state().pending.len()
    }

    /// Holds the writes that have been issued by now. Returns their number.
    pub(crate) fn hold_writes(&self) -> usize {
        let mut state = self.state();
        let pending = std::mem::take(&mut state.pending);
        let (writes, others): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|p| matches!(p, Pending::Write { .. }));
        state.pending = others;
        state.held.extend(writes);
        state.held.len()
    }

    pub(crate) fn release_held(&self) {
        let mut state = self.state();
        let mut held = std::mem::take(&mut state.held);
        state.pending.append(&mut held);
        drop(state);
        self.work.notify_one();
    }

    pub(crate) fn end(&self) {
        let mut state = self.state();
        let mut held = std::mem::take(&mut state.held);
        state.pending.append(&mut held);
        state.over = true;
        state.gone = true;
        self.work.notify_all();
    }

    fn push(&self, make: impl FnOnce(&mut State) -> Pending) {
        let mut state = self.state();
        let pending = make(&mut state);
        state.pending.push(pending);
        state.most_pending = state.most_pending.max(state.pending.len());
        self.publish(&state);
        drop(state);
        self.work.notify_one();
    }

    /// Completes requests until the end.
    pub(crate) fn serve(&self) {
        let mut state = self.state();
        loop {
            if state.pending.is_empty() || (state.stalled && !state.gone) {
                if state.over {
                    return;
                }
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if state.slow > 0 && state.rng.u8(..4) == 0 {
                let most = state.slow;
                let pause = Duration::from_micros(state.rng.u64(..most));
                drop(state);
                std::thread::sleep(pause);
                state = self.state();
                if state.pending.is_empty() || (state.stalled && !state.gone) {
                    continue;
                }
            }
            let among = state.pending.len();
            let at = state.rng.usize(..among);
            let pending = state.pending.swap_remove(at);
            self.complete(&mut state, pending);
        }
    }

    /// Whether this request must fail.
    fn fails(state: &mut State, flush: bool) -> bool {
        let fails = state.gone
            || match &mut state.fault {
                Some(fault) if fault.flush == flush && fault.after > 0 => {
                    fault.after -= 1;
                    false
                }
                Some(fault) if fault.flush == flush => {
                    if !fault.for_ever {
                        state.fault = None;
                    }
                    true
                }
                _ => false,
            };
        state.failed += u64::from(fails);
        fails
    }

    fn complete(&self, state: &mut State, pending: Pending) {
        match pending {
            Pending::Write { at, len, reply } => {
                if Self::fails(state, false) {
                    return reply.error(EIO);
                }
                state.disk.complete_write(at);
                self.publish(state);
                reply.written(len);
            }
            Pending::Flush { issued, reply } => {
                if Self::fails(state, true) {
                    return reply.error(EIO);
                }
                state.disk.complete_flush(issued);
                self.publish(state);
                reply.ok();
            }
            Pending::Read { offset, size, reply } => {
                if state.gone {
                    return reply.error(EIO);
                }
                let mut bytes = vec![0; size as usize];
                state.disk.now.read(offset, &mut bytes);
                reply.data(&bytes);
            }
        }
    }
}

/// The filesystem of one file, `disk`.
#[derive(Debug)]
pub(crate) struct Files(pub(crate) Arc<Device>);

impl Files {
    fn attr(&self, ino: u64) -> Option<FileAttr> {
        let size = match ino {
            ROOT => 0,
            DISK => self.0.state().size,
            _ => return None,
        };
        let kind = if ino == ROOT { FileType::Directory } else { FileType::RegularFile };
        Some(FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: if ino == ROOT { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for Files {
    fn init(&mut self, _: &Request<'_>, config: &mut KernelConfig) -> Result<(), i32> {
        // Lets several requests of the loop device be in flight at once.
        let _ = config.add_capabilities(consts::FUSE_ASYNC_DIO);
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&mut self, _: &Request<'_>, _: u64, name: &OsStr, reply: ReplyEntry) {
        let ino = match name.to_str() {
            Some("disk") => DISK,
            _ => return reply.error(ENOENT),
        };
        match self.attr(ino) {
            Some(attr) => reply.entry(&Duration::ZERO, &attr, 0),
            None => reply.error(ENOENT),
        }
    }

    fn getattr(&mut self, _: &Request<'_>, ino: u64, _: Option<u64>, reply: ReplyAttr) {
        match self.attr(ino) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(ENOENT),
        }
    }

    fn open(&mut self, _: &Request<'_>, _: u64, _: i32, reply: ReplyOpen) {
        reply.opened(0, consts::FOPEN_DIRECT_IO);
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        _: u64,
        _: u64,
        offset: i64,
        size: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyData,
    ) {
        let offset = offset as u64;
        self.0.push(|_| Pending::Read { offset, size, reply });
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        _: u64,
        _: u64,
        offset: i64,
        data: &[u8],
        _: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyWrite,
    ) {
        let offset = offset as u64;
        let len = data.len() as u32;
        self.0.push(|state| {
            let at = state.disk.issue_write(offset, data);
            Pending::Write { at, len, reply }
        });
    }

    fn fsync(&mut self, _: &Request<'_>, _: u64, _: u64, _: bool, reply: ReplyEmpty) {
        self.0.push(|state| Pending::Flush { issued: state.disk.issue_flush(), reply });
    }
}
