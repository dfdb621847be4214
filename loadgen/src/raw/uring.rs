//! The baseline with io_uring: several groups in flight.
//!
//! 1. A group counts if its write completed in full and its sync, if any, succeeded.
//! 2. Memory and file outlive every operation in flight: `Drop` waits, or leaks them.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fixed, FsyncFlags};
use io_uring::{IoUring, opcode};
use nix::libc;

use super::area::{Aligned, Area};
use super::{Driver, Method, Request};
use crate::measure::latency::Latencies;
use crate::stop::Stop;

/// Bit of `user_data` that marks a sync. The other bits are the slot of the group.
const SYNC: u64 = 1 << 32;

pub(super) struct UringDriver {
    ring: ManuallyDrop<IoUring>,
    area: ManuallyDrop<Area>,
    /// One slot per group in flight.
    memory: ManuallyDrop<Vec<Aligned>>,
    begun: Vec<Instant>,
    registered: bool,
    method: Method,
    in_flight: usize,
}

impl UringDriver {
    /// Returns the area if the kernel rejects the ring.
    pub(super) fn new(area: Area, request: &Request) -> Result<Self, (Area, io::Error)> {
        let depth = request.depth.clamp(1, 256);
        let ring = match ring(depth) {
            Ok(ring) => ring,
            Err(e) => return Err((area, e)),
        };
        if let Err(e) = ring.submitter().register_files(&[area.file().as_raw_fd()]) {
            return Err((area, e));
        }
        let memory: Vec<_> = (0..depth).map(|_| Aligned::random(request.group)).collect();
        let vectors: Vec<_> = memory.iter().map(|m| vector(m.as_slice())).collect();
        // SAFETY: the vectors describe memory that Drop frees only after the ring, or leaks. It is
        // only read.
        let registered = unsafe { ring.submitter().register_buffers(&vectors) }.is_ok();
        Ok(UringDriver {
            ring: ManuallyDrop::new(ring),
            area: ManuallyDrop::new(area),
            memory: ManuallyDrop::new(memory),
            begun: vec![Instant::now(); depth],
            registered,
            method: request.method,
            in_flight: 0,
        })
    }

    /// Expected completions of one group.
    fn parts(&self) -> usize {
        if self.method == Method::LinkedFsync { 2 } else { 1 }
    }

    fn push(&mut self, place: usize) -> io::Result<()> {
        let offset = self.area.next_offset();
        let bytes = self.memory[place].as_slice();
        let flags = if self.method == Method::Dsync { libc::RWF_DSYNC } else { 0 };
        let (start, len, file) = (bytes.as_ptr(), bytes.len() as u32, Fixed(0));
        let write = if self.registered {
            let write = opcode::WriteFixed::new(file, start, len, place as u16);
            write.offset(offset).rw_flags(flags).build()
        } else {
            opcode::Write::new(file, start, len).offset(offset).rw_flags(flags).build()
        };
        let write = write.user_data(place as u64);
        self.begun[place] = Instant::now();
        if self.method == Method::LinkedFsync {
            let sync = opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build();
            let pair = [write.flags(Flags::IO_LINK), sync.user_data(place as u64 | SYNC)];
            self.queue(&pair)
        } else {
            self.queue(&[write])
        }
    }

    fn queue(&mut self, entries: &[Entry]) -> io::Result<()> {
        // SAFETY: what the entries point to is owned by self, not written to, and kept by Drop
        // until every operation has ended.
        let pushed = unsafe { self.ring.submission().push_multiple(entries) };
        pushed.map_err(|_| io::Error::other("the submission queue is full"))?;
        self.in_flight += entries.len();
        Ok(())
    }

    fn wait(&mut self) -> io::Result<()> {
        match self.ring.submit_and_wait(1) {
            Ok(_) => Ok(()),
            Err(e) => match e.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(e),
            },
        }
    }

    /// Returns the slot of the next completion, and if its group has ended.
    fn reap(&mut self) -> Option<io::Result<(usize, bool)>> {
        let entry = self.ring.completion().next()?;
        self.in_flight -= 1;
        let (place, is_sync) =
            ((entry.user_data() & !SYNC) as usize, entry.user_data() & SYNC != 0);
        let result = entry.result();
        let full = self.memory.get(place).map_or(0, |m| m.as_slice().len());
        Some(if result < 0 {
            Err(io::Error::from_raw_os_error(-result))
        } else if !is_sync && result as usize != full {
            Err(io::Error::other("a short write"))
        } else {
            Ok((place, is_sync || self.parts() == 1))
        })
    }
}

impl Driver for UringDriver {
    fn slice(
        &mut self,
        time: Duration,
        latencies: &mut Latencies,
        stop: &Stop,
    ) -> io::Result<(u64, f64)> {
        let (begun, mut bytes) = (Instant::now(), 0);
        let mut durable = Vec::with_capacity(self.memory.len());
        for place in 0..self.memory.len() {
            self.push(place)?;
        }
        while self.in_flight > 0 {
            self.wait()?;
            while let Some(reaped) = self.reap() {
                let (place, ended) = reaped?;
                if ended {
                    durable.push(place);
                }
            }
            if self.method == Method::RingWriteFsync && !durable.is_empty() {
                self.area.file().sync_data()?;
            }
            for place in durable.drain(..) {
                let now = Instant::now();
                latencies.record(now.duration_since(self.begun[place]));
                bytes += self.memory[place].as_slice().len() as u64;
                if now.duration_since(begun) < time && !stop.was_signalled() {
                    self.push(place)?;
                }
            }
        }
        Ok((bytes, begun.elapsed().as_secs_f64()))
    }
}

impl Drop for UringDriver {
    fn drop(&mut self) {
        let mut tries = 0;
        while self.in_flight > 0 && tries < 10_000 && self.wait().is_ok() {
            tries += 1;
            while self.reap().is_some() {}
        }
        if self.in_flight > 0 {
            // Leaks the memory. Otherwise the kernel could read memory that another owner has by
            // then.
            return;
        }
        // SAFETY: dropped once, here, and not used afterwards. The ring is dropped before the
        // memory and the file that its operations refer to.
        unsafe {
            ManuallyDrop::drop(&mut self.ring);
            ManuallyDrop::drop(&mut self.area);
            ManuallyDrop::drop(&mut self.memory);
        }
    }
}

/// Creates the ring, with the flags of newer kernels if the kernel accepts them.
fn ring(depth: usize) -> io::Result<IoUring> {
    let entries = (2 * depth).next_power_of_two() as u32;
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun();
    builder.build(entries).or_else(|_| IoUring::new(entries))
}

fn vector(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}
