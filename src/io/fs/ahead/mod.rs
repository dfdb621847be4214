//! Reading ahead of a sequential reader, past the page cache.
//!
//! A reader takes the bytes in the order of the file; requests for what follows are under way
//! meanwhile, in a lane of their own (`lane.rs`). `window.rs` decides what is requested.
//!
//! 1. No request reaches above the limit that the reader gave with it. So no byte is delivered that
//!    was read before it was durable.
//! 2. At most [`Sizes::SLOTS`] buffers exist, and the bytes requested are at most those that the
//!    reader has taken in sequence: a short read reads little ahead.
//! 3. A failed or short request ends the sequence. The bytes before it are delivered. The reader
//!    reads that place itself once it gets there, so an error has its exact place and time.
//! 4. A request that is abandoned delivers nothing. Its buffer comes back.
//! 5. When this is dropped, the lane has ended. In a child of `fork()` it has no thread, and
//!    nothing waits for it.

mod lane;
#[cfg(all(test, not(ringwal_loom)))]
mod tests;
mod window;

use std::io;
use std::sync::Arc;

use lane::{Done, Lane, ReadRequest};
pub(crate) use window::Sizes;
use window::{Arrival, Window};

use super::{AlignedBuf, File};

/// Requested bytes after which the reader looks whether the page cache holds what follows.
const PROBE_BYTES: u64 = 16 << 20;
/// Bytes that such a look reads: one page.
const PROBE: usize = 4096;

/// Bytes that were read ahead.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Offset in the file of the first byte.
    pub(crate) offset: u64,
    /// Number of valid bytes in the buffer.
    pub(crate) filled: usize,
    pub(crate) buf: AlignedBuf,
}

impl Piece {
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.filled as u64
    }
}

#[derive(Debug)]
pub(crate) struct ReadAhead {
    window: Window,
    /// The file that is read ahead. `None`: no file yet.
    device: Option<Arc<dyn File>>,
    /// Whether the file can be read past the page cache, once that is known.
    has_device: Option<bool>,
    lane: Option<Lane>,
    front: Option<Piece>,
    /// Buffers that nothing was requested into.
    pool: Vec<AlignedBuf>,
    /// Buffers that exist: in the pool, in the lane, in the front, and with the reader.
    buffers: usize,
    /// Buffers in the lane.
    in_lane: usize,
    /// Bytes requested since the last look at the page cache.
    unprobed: u64,
    /// The bytes before were not in the page cache.
    cold: bool,
}

impl ReadAhead {
    pub(crate) fn new(sizes: Sizes) -> Self {
        ReadAhead {
            window: Window::new(sizes),
            device: None,
            has_device: None,
            lane: None,
            front: None,
            pool: Vec::new(),
            buffers: 0,
            in_lane: 0,
            unprobed: 0,
            cold: false,
        }
    }

    pub(crate) fn sizes(&self) -> Sizes {
        self.window.sizes()
    }

    /// The reader has taken so many bytes that follow those that it took before.
    pub(crate) fn took(&mut self, bytes: u64) {
        self.window.took(bytes);
    }

    /// Whether the reader has read enough in sequence for reading ahead.
    pub(crate) fn is_due(&self) -> bool {
        self.window.is_due()
    }

    /// Whether the bytes before were not in the page cache.
    pub(crate) fn is_cold(&self) -> bool {
        self.cold
    }

    /// Whether bytes are there or requested.
    pub(crate) fn is_running(&self) -> bool {
        self.front.is_some() || self.window.is_waiting()
    }

    /// Requests the bytes of `file` from `offset` on, below `limit`; both are multiples of `block`.
    /// False: the file cannot be read past the page cache, or nothing lies below the limit.
    pub(crate) fn begin(
        &mut self,
        file: &Arc<dyn File>,
        block: usize,
        offset: u64,
        limit: u64,
    ) -> bool {
        self.abandon();
        if self.has_device == Some(false) {
            return false;
        }
        if self.device.is_none() {
            let is_direct = file.is_direct();
            self.device = if is_direct { Some(Arc::clone(file)) } else { file.past_the_cache() };
            self.has_device = Some(self.device.is_some());
        }
        if self.device.is_none() {
            return false;
        }
        self.cold = true;
        self.window.begin(offset, block);
        self.top_up(file, limit);
        self.is_running()
    }

    /// The first bytes that the reader has not dropped yet, once they are there. `None`: nothing is
    /// requested, or it could not be read.
    pub(crate) fn front(&mut self, file: &Arc<dyn File>, limit: u64) -> Option<&Piece> {
        self.top_up(file, limit);
        while self.front.is_none() && self.window.is_waiting() {
            let Some(done) = self.lane.as_mut().and_then(Lane::wait) else {
                // A child of fork(), where the thread does not exist.
                self.stop();
                return None;
            };
            self.receive(done);
        }
        self.front.as_ref()
    }

    /// Takes the front. Its buffer must come back by [`ReadAhead::give_back`].
    pub(crate) fn take_front(&mut self) -> Option<Piece> {
        let piece = self.front.take()?;
        self.window.took_front();
        Some(piece)
    }

    pub(crate) fn give_back(&mut self, buf: AlignedBuf) {
        self.pool.push(buf);
    }

    /// A buffer that was taken with the front does not come back.
    pub(crate) fn lose_one(&mut self) {
        self.buffers = self.buffers.saturating_sub(1);
    }

    /// Abandons what is requested, as after a jump: reading ahead begins again when enough was read
    /// in sequence.
    pub(crate) fn restart(&mut self) {
        self.abandon();
        self.window.forget_sequence();
    }

    /// The reader goes on with the start of another file.
    pub(crate) fn change_file(&mut self) {
        self.abandon();
        (self.device, self.has_device) = (None, None);
    }

    /// Ends the lane and frees the buffers: the reader reads nothing for now.
    pub(crate) fn stop(&mut self) {
        self.restart();
        self.lane = None;
        self.pool = Vec::new();
        (self.buffers, self.in_lane) = (0, 0);
    }

    fn abandon(&mut self) {
        if let Some(front) = self.front.take() {
            self.pool.push(front.buf);
        }
        let first_valid = self.window.abandon();
        if let Some(lane) = &self.lane {
            lane.skip_below(first_valid);
        }
    }

    /// Requests what may be requested.
    fn top_up(&mut self, file: &Arc<dyn File>, limit: u64) {
        let Some(device) = self.device.clone() else { return };
        while let Some((offset, len)) = self.window.next(limit) {
            if self.is_cached(file, offset, len) {
                self.window.end_here();
                break;
            }
            let Some(buf) = self.buffer() else { break };
            if self.lane.is_none() {
                self.lane = Lane::start(device.allows_helper()).ok();
            }
            let Some(lane) = &mut self.lane else {
                // No thread can be started.
                self.pool.push(buf);
                self.window.end_here();
                break;
            };
            let id = self.window.requested(offset, len);
            lane.submit(ReadRequest { id, offset, len, buf, file: Arc::clone(&device) });
            self.in_lane += 1;
            self.unprobed += len as u64;
        }
    }

    /// Now and then: whether the page cache holds what would be requested. The page is chosen at
    /// random, because the look itself leaves a page in the cache.
    fn is_cached(&mut self, file: &Arc<dyn File>, offset: u64, len: usize) -> bool {
        if self.unprobed < PROBE_BYTES || file.is_direct() {
            return false;
        }
        self.unprobed = 0;
        let mut page = [0; PROBE];
        let pages = (len / PROBE).max(1) as u64;
        let at = offset + random() % pages * PROBE as u64;
        self.cold = file.read_cached_at(&mut page, at).is_err();
        !self.cold
    }

    fn buffer(&mut self) -> Option<AlignedBuf> {
        if let Some(buf) = self.pool.pop() {
            return Some(buf);
        }
        if self.buffers < Sizes::SLOTS {
            self.buffers += 1;
            return Some(AlignedBuf::huge(self.window.sizes().slot));
        }
        // Abandoned requests end before those that are pending.
        while self.in_lane > self.window.pending() {
            let done = self.lane.as_mut()?.wait()?;
            self.receive(done);
            if let Some(buf) = self.pool.pop() {
                return Some(buf);
            }
        }
        None
    }

    fn receive(&mut self, done: Done) {
        let Done { id, offset, buf, read } = done;
        self.in_lane = self.in_lane.saturating_sub(1);
        match self.window.arrived(id, &read) {
            Arrival::Whole(filled) => self.front = Some(Piece { offset, filled, buf }),
            Arrival::Part(filled) => {
                self.front = Some(Piece { offset, filled, buf });
                self.skip_rest();
            }
            Arrival::Failed => {
                self.pool.push(buf);
                self.skip_rest();
            }
            Arrival::Abandoned => self.pool.push(buf),
        }
    }

    fn skip_rest(&mut self) {
        let first_valid = self.window.first_valid();
        if let Some(lane) = &self.lane {
            lane.skip_below(first_valid);
        }
    }

    /// The end of the request that failed last; 0 if none did since the last call.
    pub(crate) fn take_failed_below(&mut self) -> u64 {
        self.window.take_failed_below()
    }

    /// Bytes of the buffers that exist.
    #[cfg(test)]
    pub(crate) fn buffered(&self) -> usize {
        self.buffers * self.window.sizes().slot
    }
}

fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

/// Reads `len` bytes, or fewer at the end of the file.
fn read(file: &dyn File, buf: &mut AlignedBuf, len: usize, offset: u64) -> io::Result<usize> {
    super::read_full(file, &mut buf[..len], offset)
}
