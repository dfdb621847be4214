//! The io_uring backend.
//!
//! 1. The ring is made, used and dropped by one thread (SINGLE_ISSUER, where the kernel knows it).
//! 2. A write and its linked sync enter the kernel in one submission: a chain that is cut there
//!    would let the sync run early. Room for both is made before the first is pushed; if the kernel
//!    takes only the write all the same, the log fails before any completion is believed.
//! 3. `in_flight` counts completions still to come, but for the eventfd's read. Drop waits for
//!    those of entries that the kernel has taken, whatever failed before: the ring's memory
//!    outlives every operation. What still does not come keeps the memory, and the lock.
//! 4. The lock file is a registered file: the kernel keeps it open, and so locked, until the last
//!    operation of a killed process has ended. Where it cannot be registered there is no backend.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::squeue::Flags;
use io_uring::types::{Fd, Fixed, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};
use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Backend, Completion, Hold, Method, Part, SLOTS, WriteRequest};
use crate::io::fs::File;
use crate::ring::{Memory, Wake};

const PART_WRITE: u64 = 0;
const PART_SYNC: u64 = 1;
const BELL: u64 = 2;
const PART_BITS: u32 = 2;
const LOCK_SLOT: usize = SLOTS;
/// How long a backend that is dropped waits for operations that do not end.
const LAST_WAIT: Duration = Duration::from_secs(100);
/// The same where only the eventfd's read is left, or where the kernel refuses to post completions,
/// as a filter of system calls may after the start.
const SHORT_WAIT: Duration = Duration::from_millis(500);

pub(crate) struct UringBackend {
    ring: IoUring,
    files: [Option<Arc<dyn File>>; SLOTS],
    registered_files: bool,
    registered_buffers: bool,
    /// Buffers that are still to be registered, each at its first large group.
    unregistered: Vec<bool>,
    memory: Arc<Memory>,
    /// Bytes of one.
    buffer: usize,
    in_flight: usize,
    bell: Arc<EventFd>,
    /// Where the kernel puts the eventfd's counter; boxed, as its address is the kernel's while
    /// `bell_armed`.
    bell_count: Box<u64>,
    bell_armed: bool,
    queued: Queued,
    lock: Option<Hold>,
    last_wait: Duration,
}

/// An entry of the submission queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Alone,
    /// Linked to the one before.
    Linked,
    /// The eventfd's read.
    Bell,
}

/// Without its registration a killed process would lose the lock before its last write has ended.
#[derive(Debug, thiserror::Error)]
#[error(
    "the lock file cannot be registered with io_uring, so that the last write of a killed process could \
     land on the blocks of the next one: allow io_uring_register in the seccomp profile, and raise \
     RLIMIT_NOFILE if it is below 16 ({0})"
)]
pub(super) struct LockNotRegistered(io::Error);

/// What is in the submission queue, in its order.
///
/// The kernel may take a part of the queue, when it is short of memory. A sync that is left behind
/// by its write has lost its link: it would run at once, and its success would say nothing about
/// the write.
#[derive(Debug, Default)]
struct Queued {
    entries: VecDeque<Entry>,
    cut: bool,
}

impl Queued {
    fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
    }

    /// The kernel has taken so many. False: it has cut a chain, now or before.
    fn taken(&mut self, entries: usize) -> bool {
        self.entries.drain(..entries.min(self.entries.len()));
        self.cut |= self.entries.front() == Some(&Entry::Linked);
        !self.cut
    }
}

#[derive(Debug)]
struct Ring(Arc<EventFd>);

impl Wake for Ring {
    fn wake(&self) {
        // Fails only when the counter is full, and then the read is ready all the same.
        let _ = self.0.write(1);
    }
}

impl UringBackend {
    /// Makes a ring for the thread that calls this. `buffers`: of the ring, each so many bytes.
    /// Fails with [`LockNotRegistered`] if there is a `lock` that the kernel does not keep.
    pub(crate) fn new(
        depth: usize,
        memory: Arc<Memory>,
        buffers: usize,
        buffer: usize,
        lock: Option<Hold>,
    ) -> io::Result<Self> {
        let entries = (depth * 2 + 8).next_power_of_two() as u32;
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(entries)
            // Kernels before 6.1 refuse the flags.
            .or_else(|e| match e.raw_os_error() {
                Some(libc::EINVAL) => IoUring::new(entries),
                _ => Err(e),
            })?;
        if !ring.params().is_feature_ext_arg() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel is older than 5.11; upgrade it",
            ));
        }
        let mut table = [-1; SLOTS + 1];
        table[LOCK_SLOT] = lock.as_ref().map_or(-1, Hold::fd);
        let registered = ring.submitter().register_files(&table);
        let registered_files = match (registered, &lock) {
            (Err(e), Some(_)) => return Err(io::Error::other(LockNotRegistered(e))),
            (registered, _) => registered.is_ok(),
        };
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(io::Error::from)?;
        let mut backend = UringBackend {
            ring,
            files: [const { None }; SLOTS],
            registered_files,
            registered_buffers: false,
            unregistered: Vec::new(),
            memory,
            buffer,
            in_flight: 0,
            bell: Arc::new(bell),
            bell_count: Box::new(0),
            bell_armed: false,
            queued: Queued::default(),
            lock,
            last_wait: LAST_WAIT,
        };
        backend.register_buffers(buffers, buffer);
        Ok(backend)
    }

    /// Registering pins a buffer's pages, also those that were never used. So where the kernel can
    /// (5.19), each is registered at its first group that fills half of it.
    fn register_buffers(&mut self, buffers: usize, buffer: usize) {
        let number = u32::try_from(buffers).unwrap_or(u32::MAX);
        if self.ring.submitter().register_buffers_sparse(number).is_ok() {
            self.registered_buffers = true;
            self.unregistered = vec![true; buffers];
            self.buffer = buffer;
            return;
        }
        let memory = &self.memory;
        let vectors: Vec<_> = (0..buffers)
            .map(|i| libc::iovec { iov_base: memory.buffer(i).cast(), iov_len: buffer })
            .collect();
        // SAFETY: the vectors describe the ring's buffers, which live as long as self.memory, and
        // so longer than the ring. A refusal (ENOMEM over RLIMIT_MEMLOCK) leaves plain writes.
        let registered = unsafe { self.ring.submitter().register_buffers(&vectors) };
        self.registered_buffers = !vectors.is_empty() && registered.is_ok();
    }

    pub(crate) fn registered_buffers(&self) -> bool {
        self.registered_buffers
    }

    fn room_for(&mut self, entries: usize) {
        let sq = self.ring.submission();
        if sq.capacity() - sq.len() < entries {
            drop(sq);
            // Never so: the queue holds more than what may be in flight at a time. A failure is
            // seen by the next submission.
            let _ = self.enter(0, None);
        }
    }

    fn push(&mut self, entry: &squeue::Entry, kind: Entry) {
        // SAFETY: what an entry points to lives until its completion: the ring's memory by the
        // contract of Backend::write and by self.memory, the files by self.files, the eventfd and
        // its counter by self, which drop() keeps until they are done with.
        let pushed = unsafe { self.ring.submission().push(entry) };
        debug_assert!(pushed.is_ok(), "room was made before");
        self.queued.push(kind);
    }

    /// The fd of a slot, registered or plain, applied to a builder of each kind.
    fn with_file<T>(
        &self,
        slot: usize,
        fixed: impl FnOnce(Fixed) -> T,
        plain: impl FnOnce(Fd) -> T,
    ) -> T {
        if self.registered_files {
            fixed(Fixed(slot as u32))
        } else {
            let file = self.files.get(slot).and_then(Option::as_ref);
            plain(Fd(file.and_then(|f| f.raw_fd()).unwrap_or(-1)))
        }
    }

    /// Whether the buffer is registered, if need be now.
    fn is_registered(&mut self, w: &WriteRequest) -> bool {
        match self.unregistered.get_mut(w.buffer) {
            Some(false) => true,
            None => self.registered_buffers,
            Some(waits) if w.len as usize >= self.buffer / 2 => {
                let start = self.memory.buffer(w.buffer).cast();
                let vector = [libc::iovec { iov_base: start, iov_len: self.buffer }];
                let at = u32::try_from(w.buffer).unwrap_or(u32::MAX);
                // SAFETY: the vector describes one of the ring's buffers, which live as long as
                // self.memory, and so longer than the ring. A refusal leaves plain writes for this
                // one, and is not repeated sooner than at its next large group.
                let done = unsafe {
                    self.ring.submitter().register_buffers_update(at, &vector, None).is_ok()
                };
                *waits = !done;
                done
            }
            Some(true) => false,
        }
    }

    fn write_entry(&mut self, w: &WriteRequest) -> squeue::Entry {
        let flags = if w.method == Method::Dsync { libc::RWF_DSYNC } else { 0 };
        if let (true, Ok(buffer)) = (self.is_registered(w), u16::try_from(w.buffer)) {
            self.with_file(
                w.slot,
                |f| {
                    opcode::WriteFixed::new(f, w.start, w.len, buffer)
                        .offset(w.offset)
                        .rw_flags(flags)
                        .build()
                },
                |f| {
                    opcode::WriteFixed::new(f, w.start, w.len, buffer)
                        .offset(w.offset)
                        .rw_flags(flags)
                        .build()
                },
            )
        } else {
            self.with_file(
                w.slot,
                |f| opcode::Write::new(f, w.start, w.len).offset(w.offset).rw_flags(flags).build(),
                |f| opcode::Write::new(f, w.start, w.len).offset(w.offset).rw_flags(flags).build(),
            )
        }
    }

    fn sync_entry(&self, slot: usize) -> squeue::Entry {
        self.with_file(
            slot,
            |f| opcode::Fsync::new(f).flags(FsyncFlags::DATASYNC).build(),
            |f| opcode::Fsync::new(f).flags(FsyncFlags::DATASYNC).build(),
        )
    }

    fn arm_bell(&mut self) {
        if !self.bell_armed {
            self.room_for(1);
            let fd = Fd(self.bell.as_raw_fd());
            let entry = opcode::Read::new(fd, std::ptr::from_mut(&mut *self.bell_count).cast(), 8)
                .build()
                .user_data(BELL);
            self.push(&entry, Entry::Bell);
            self.bell_armed = true;
        }
    }

    fn enter(&mut self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        let spec =
            timeout.map(|d| Timespec::new().sec(d.as_secs().min(1 << 30)).nsec(d.subsec_nanos()));
        let mut args = SubmitArgs::new();
        if let Some(spec) = &spec {
            args = args.timespec(spec);
        }
        match self.ring.submitter().submit_with_args(want, &args) {
            Ok(taken) if self.queued.taken(taken) => Ok(()),
            Ok(_) => Err(io::Error::other("io_uring took a write without the sync linked to it")),
            Err(e) => match e.raw_os_error() {
                // Time over; a signal; completions to be reaped first; memory short for a moment.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                // EBADR, a lost completion, and everything else: nothing can be trusted any more.
                _ => Err(e),
            },
        }
    }
}

impl Backend for UringBackend {
    fn attach(&mut self, slot: usize, file: &Arc<dyn File>) -> io::Result<()> {
        let fd = file.raw_fd().ok_or(io::ErrorKind::Unsupported)?;
        if self.registered_files {
            self.ring.submitter().register_files_update(slot as u32, &[fd])?;
        }
        self.files[slot] = Some(Arc::clone(file));
        Ok(())
    }

    fn detach(&mut self, slot: usize) {
        if self.registered_files {
            // A refusal keeps the file open a little longer, until the slot's next file.
            let _ = self.ring.submitter().register_files_update(slot as u32, &[-1]);
        }
        if let Some(file) = self.files[slot].take() {
            file.unlock();
        }
    }

    unsafe fn write(&mut self, w: WriteRequest) {
        let linked = w.method == Method::Linked;
        self.room_for(2);
        let mut entry = self.write_entry(&w).user_data(w.token << PART_BITS | PART_WRITE);
        if linked {
            entry = entry.flags(Flags::IO_LINK);
        }
        self.push(&entry, Entry::Alone);
        self.in_flight += 1;
        if linked {
            let entry = self.sync_entry(w.slot).user_data(w.token << PART_BITS | PART_SYNC);
            self.push(&entry, Entry::Linked);
            self.in_flight += 1;
        }
    }

    fn sync(&mut self, token: u64, slot: usize) {
        self.room_for(1);
        let entry = self.sync_entry(slot).user_data(token << PART_BITS | PART_SYNC);
        self.push(&entry, Entry::Alone);
        self.in_flight += 1;
    }

    fn submit(&mut self) -> io::Result<()> {
        if self.ring.submission().is_empty() { Ok(()) } else { self.enter(0, None) }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.arm_bell();
        let want = usize::from(self.ring.completion().is_empty());
        self.enter(want, timeout)
    }

    fn reap(&mut self) -> Option<Completion> {
        loop {
            let entry = self.ring.completion().next()?;
            let result = match u32::try_from(entry.result()) {
                Ok(n) => Ok(n),
                Err(_) => Err(io::Error::from_raw_os_error(-entry.result())),
            };
            let token = entry.user_data() >> PART_BITS;
            let part = match entry.user_data() & ((1 << PART_BITS) - 1) {
                PART_WRITE => Part::Write,
                PART_SYNC => Part::Sync,
                _ => {
                    self.bell_armed = false;
                    continue;
                }
            };
            self.in_flight -= 1;
            return Some(Completion { token, part, result });
        }
    }

    fn waker(&self) -> Box<dyn Wake> {
        Box::new(Ring(Arc::clone(&self.bell)))
    }
}

impl UringBackend {
    /// Completions still to come of entries that the kernel has taken, and whether the eventfd's
    /// read is among them. What is left in the queue never begins.
    fn taken(&self) -> (usize, bool) {
        let left = |kind: fn(Entry) -> bool| {
            self.queued.entries.iter().filter(|&&entry| kind(entry)).count()
        };
        let operations = self.in_flight.saturating_sub(left(|entry| entry != Entry::Bell));
        (operations, self.bell_armed && left(|entry| entry == Entry::Bell) == 0)
    }

    /// Lets the kernel post completions, without submitting anything and without sleeping. After
    /// most errors the caller may look again.
    fn post_completions(&self) -> io::Result<()> {
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: nothing is submitted and no argument is given: the kernel only posts completions.
        let posted = unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, flags, None) };
        posted.map(drop)
    }
}

impl Drop for UringBackend {
    fn drop(&mut self) {
        let _ = self.bell.write(1);
        let begun = Instant::now();
        loop {
            let posted = self.post_completions();
            while self.reap().is_some() {}
            let is_refused = posted.is_err_and(|e| {
                matches!(e.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOSYS))
            });
            let patience = match self.taken() {
                (0, false) => break,
                (0, true) => SHORT_WAIT,
                _ if is_refused => SHORT_WAIT,
                _ => self.last_wait,
            };
            if begun.elapsed() >= patience {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let (operations, bell) = self.taken();
        if operations > 0 {
            // A device that does not answer: better lose the memory than let the kernel read or
            // write what another owner has by then. The segments and the lock stay locked until
            // the kernel drops its references to their files.
            self.memory.leak();
            if let Some(lock) = &self.lock {
                lock.keep();
            }
        } else {
            self.files.iter().flatten().for_each(|file| file.unlock());
        }
        if bell {
            std::mem::forget(std::mem::take(&mut self.bell_count));
        }
        // It would wait for what is in flight.
        if self.registered_files && operations == 0 && !bell {
            // The kernel takes a ring apart when it comes to it; until then its files keep their
            // filesystem mounted.
            let _ = self.ring.submitter().unregister_files();
        }
    }
}

#[cfg(all(test, not(ringwal_loom)))]
#[path = "uring_tests.rs"]
mod tests;
