//! A window over one segment file, through which a walker reads.
//!
//! 1. The window holds bytes of the file from an aligned offset on. It grows only to hold what is
//!    asked for at once: one group.
//! 2. An error is an error of the bytes that were asked for. Where a larger read fails, only what
//!    is asked for is read.
//! 3. A window that reads ahead (`io/fs/ahead`) takes what the page cache holds from there, and
//!    reads past it only what is not there.
//! 4. The window writes to its memory only while nothing shares it. A shared buffer stays as it is,
//!    and the window goes on with another one.
//! 5. A buffer that was read ahead becomes the window; nothing is copied. Only a group that lies in
//!    two buffers is copied, into a buffer of the window's own.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::format::SegmentHeader;
use crate::io::fs::ahead::{Piece, ReadAhead, Sizes};
use crate::io::fs::{AlignedBuf, File, read_full};
use crate::lsn::align_up;

/// Bytes of the first read, and of a read after a jump.
pub(super) const FEW: usize = 16 << 10;
/// Bytes of a read at most, unless a group is larger or is read ahead.
const MOST: usize = 1 << 20;

pub(super) struct ReadWindow {
    file: Arc<dyn File>,
    /// The segment's block, in bytes.
    block: usize,
    /// The segment's size, in bytes.
    size: u64,
    /// Shared with the records that a reader handed out.
    buf: Arc<AlignedBuf>,
    /// Bytes of the next read. Doubles up to `most` while reads are sequential: a walk over small
    /// groups then reads at the device's speed, and a walk over large groups reads headers only.
    chunk: usize,
    /// Largest `chunk`, in bytes.
    most: usize,
    /// Reading ahead stops at this offset, a multiple of the block: the writer may still be writing
    /// what lies above.
    limit: u64,
    /// Offset in the file of the window's first byte.
    start: u64,
    /// Number of valid bytes in the window.
    filled: usize,
    ahead: Option<Box<Ahead>>,
    /// Below this offset only what is asked for is read: a larger read failed.
    careful_below: u64,
}

/// Short: the `Debug` output of every reader contains it.
impl std::fmt::Debug for ReadWindow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ReadWindow { start, filled, limit, .. } = self;
        f.debug_struct("ReadWindow")
            .field("start", start)
            .field("filled", filled)
            .field("limit", limit)
            .finish_non_exhaustive()
    }
}

/// What a window has that reads ahead.
#[derive(Debug)]
struct Ahead {
    read: ReadAhead,
    /// The window's buffer belongs to `read`.
    is_lent: bool,
    /// The window's own buffer, while it has another.
    own: Option<AlignedBuf>,
    /// The first read goes on where the window of the segment before ended.
    goes_on: bool,
}

/// What the page cache has of the bytes that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cached {
    All,
    /// Not all of them.
    Cold,
    /// The system does not tell.
    Unknown,
}

impl ReadWindow {
    pub(super) fn new(file: Arc<dyn File>, header: &SegmentHeader, chunk: usize) -> Self {
        // A segment may be larger than the address space.
        let at_most = |bytes: usize| (bytes as u64).min(header.size) as usize;
        let chunk = at_most(chunk);
        ReadWindow {
            file,
            block: header.block as usize,
            size: header.size,
            buf: Arc::new(AlignedBuf::new(chunk)),
            chunk,
            most: at_most(MOST).max(chunk),
            limit: u64::MAX,
            start: 0,
            filled: 0,
            ahead: None,
            careful_below: 0,
        }
    }

    /// Creates a window that reads ahead once it has read in sequence for long enough.
    pub(super) fn reading_ahead(file: Arc<dyn File>, header: &SegmentHeader, chunk: usize) -> Self {
        let sizes = sizes_of(&*file);
        // A simulated disk has small segments, through which the machine runs all the same.
        let is_small = sizes != Sizes::DEVICE;
        let chunk = if is_small { header.block as usize } else { chunk };
        let mut window = ReadWindow::new(file, header, chunk);
        if is_small {
            window.most = window.chunk;
        }
        let read = ReadAhead::new(sizes);
        window.ahead = Some(Box::new(Ahead { read, is_lent: false, own: None, goes_on: false }));
        window
    }

    /// Goes on reading ahead where `before`, the window of the segment before, ended.
    pub(super) fn go_on_from(&mut self, before: &mut ReadWindow) {
        let (Some(ahead), Some(old)) = (&mut self.ahead, &mut before.ahead) else { return };
        if !old.read.is_due() || ahead.read.sizes() != old.read.sizes() {
            return;
        }
        let fresh = ReadAhead::new(old.read.sizes());
        ahead.read = std::mem::replace(&mut old.read, fresh);
        ahead.read.change_file();
        ahead.goes_on = true;
        if std::mem::take(&mut old.is_lent) {
            let own = old.own.take().unwrap_or_else(|| AlignedBuf::new(0));
            ahead.give_back(std::mem::replace(&mut before.buf, Arc::new(own)));
            before.filled = 0;
        }
    }

    /// Frees what reading ahead takes. It begins again after enough was read in sequence.
    pub(super) fn rest(&mut self) {
        if let Some(ahead) = &mut self.ahead {
            ahead.read.stop();
            (ahead.is_lent, ahead.own) = (false, None);
        }
    }

    /// Limits reading ahead to offsets below `limit`.
    pub(super) fn read_below(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Drops the window's content, and what was read ahead. The next call reads the file again.
    pub(super) fn forget(&mut self) {
        self.filled = 0;
        if let Some(ahead) = &mut self.ahead {
            ahead.read.restart();
        }
    }

    /// Returns `len` bytes from `offset` on, or fewer at the end of the file.
    pub(super) fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let held = offset >= self.start
            && offset + len as u64 <= self.start + self.filled as u64
            && self.filled > 0;
        if !held {
            self.load(offset, len)?;
        }
        let from = (offset - self.start).min(self.filled as u64) as usize;
        let to = (from + len).min(self.filled);
        Ok(&self.buf[from..to])
    }

    /// Offset in the file of the window's first byte.
    #[inline]
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// The bytes that the last call left in the window.
    #[inline]
    pub(super) fn held(&self) -> &[u8] {
        &self.buf[..self.filled]
    }

    /// The window's memory, which then stays as it is.
    pub(super) fn share(&self) -> Arc<AlignedBuf> {
        Arc::clone(&self.buf)
    }

    #[cold]
    fn load(&mut self, offset: u64, len: usize) -> io::Result<()> {
        let block = self.block as u64;
        let start = offset / block * block;
        let asked = align_up(offset + len as u64 - start, block) as usize;
        let next = self.start + self.filled as u64;
        let follows = self.filled > 0 && start >= self.start && start <= next;
        if self.filled > 0 {
            self.chunk =
                if follows { (self.chunk * 2).min(self.most) } else { self.chunk.min(FEW) };
        }
        if self.load_ahead(start, asked, follows) {
            return Ok(());
        }
        let want = if start < self.careful_below { asked } else { self.wanted(start, asked) };
        let kept = match self.read_window(start, want) {
            Err(_) if want > asked => {
                // What cannot be read may not be needed yet.
                self.careful_below = start + want as u64;
                self.read_window(start, asked)?
            }
            read => read?,
        };
        if let Some(ahead) = &mut self.ahead {
            ahead.read.took((self.filled - kept) as u64);
        }
        Ok(())
    }

    /// Bytes to read from `start` on.
    fn wanted(&self, start: u64, asked: usize) -> usize {
        let below = usize::try_from(self.limit.saturating_sub(start)).unwrap_or(usize::MAX);
        self.chunk.min(below / self.block * self.block).max(asked)
    }

    /// Reads `want` bytes into the window, without those that it has. Returns how many it had.
    fn read_window(&mut self, start: u64, want: usize) -> io::Result<usize> {
        let (kept, room) = self.make_room(start, want);
        let buf = exclusive(&mut self.buf)?;
        let n = read_full(&*self.file, &mut buf[kept..room], start + kept as u64)?;
        self.filled = kept + n;
        Ok(kept)
    }

    /// Moves the bytes that the window already has to its front. Returns how many these are, and
    /// where the last wanted byte goes.
    fn make_room(&mut self, start: u64, want: usize) -> (usize, usize) {
        let tail = self.tail_from(start);
        let bytes = tail.len().min(want) / self.block * self.block;
        match Arc::get_mut(&mut self.buf) {
            Some(buf) if buf.len() >= want => {
                buf.copy_within(tail.start..tail.start + bytes, 0);
            }
            _ => {
                let mut new = AlignedBuf::new(want);
                new[..bytes].copy_from_slice(&self.buf[tail.start..tail.start + bytes]);
                let old = std::mem::replace(&mut self.buf, Arc::new(new));
                if let Some(ahead) = &mut self.ahead
                    && std::mem::take(&mut ahead.is_lent)
                {
                    ahead.give_back(old);
                    ahead.own = None;
                }
            }
        }
        let room = (self.size - start).min(want as u64) as usize;
        let kept = bytes.min(room);
        (self.start, self.filled) = (start, kept);
        (kept, room)
    }

    /// The indices of the window's bytes from `start` on.
    fn tail_from(&self, start: u64) -> Range<usize> {
        let from = start.checked_sub(self.start).filter(|from| *from <= self.filled as u64);
        from.map_or(self.filled, |from| from as usize)..self.filled
    }

    /// Puts `asked` bytes from `start` on into the window, from the page cache or from what was
    /// read ahead. False: they must be read.
    fn load_ahead(&mut self, start: u64, asked: usize, follows: bool) -> bool {
        let is_careful = start < self.careful_below;
        let Some(ahead) = &mut self.ahead else { return false };
        let goes_on = std::mem::take(&mut ahead.goes_on) && self.filled == 0;
        if !follows && !goes_on {
            ahead.read.restart();
            return false;
        }
        if ahead.read.is_running() && self.take_ahead(start, asked) {
            return true;
        }
        let Some(ahead) = &mut self.ahead else { return false };
        if is_careful || !ahead.read.is_due() {
            return false;
        }
        if !ahead.read.is_cold() && !self.file.is_direct() {
            match self.load_cached(start, asked) {
                Cached::All => return true,
                Cached::Cold => {}
                Cached::Unknown => return false,
            }
        }
        let first = start + self.tail_from(start).len() as u64;
        let limit = self.limit_in_file();
        let Some(ahead) = &mut self.ahead else { return false };
        first.is_multiple_of(self.block as u64)
            && ahead.read.begin(&self.file, self.block, first, limit)
            && self.take_ahead(start, asked)
    }

    fn limit_in_file(&self) -> u64 {
        self.limit.min(self.size) / self.block as u64 * self.block as u64
    }

    /// Reads from the page cache. The window keeps the bytes that it has.
    fn load_cached(&mut self, start: u64, asked: usize) -> Cached {
        let (kept, room) = self.make_room(start, self.wanted(start, asked));
        let Ok(buf) = exclusive(&mut self.buf) else { return Cached::Unknown };
        let read = self.file.read_cached_at(&mut buf[kept..room], start + kept as u64);
        let n = match read {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Cached::Cold,
            Err(_) => return Cached::Unknown,
        };
        let n = if kept + n < room { n / self.block * self.block } else { n };
        if kept + n < asked.min(room) {
            return Cached::Cold;
        }
        self.filled = kept + n;
        if let Some(ahead) = &mut self.ahead {
            ahead.read.took(n as u64);
        }
        Cached::All
    }

    /// Takes the bytes from what was read ahead, and waits for it. False: it does not have them.
    /// The window may then have the first of them.
    fn take_ahead(&mut self, start: u64, asked: usize) -> bool {
        let limit = self.limit_in_file();
        loop {
            let Some(ahead) = &mut self.ahead else { return false };
            let Some(front) = ahead.read.front(&self.file, limit) else {
                self.careful_below = self.careful_below.max(ahead.read.take_failed_below());
                return false;
            };
            let (offset, end) = (front.offset, front.end());
            if end > start && offset > start {
                return self.assemble(start, asked);
            }
            let Some(front) = ahead.read.take_front() else { return false };
            if end <= start {
                ahead.read.give_back(front.buf);
                continue;
            }
            self.replace(front, true);
            if end >= start + asked as u64 {
                return true;
            }
        }
    }

    /// Joins the end of the window and the bytes that follow it in a buffer of the window's own.
    fn assemble(&mut self, start: u64, asked: usize) -> bool {
        let limit = self.limit_in_file();
        let tail = self.tail_from(start);
        let Some(ahead) = &mut self.ahead else { return false };
        let own = ahead.own.take().filter(|own| own.len() >= asked);
        let mut buf = own.unwrap_or_else(|| AlignedBuf::new(asked));
        let filled = tail.len().min(asked);
        buf[..filled].copy_from_slice(&self.buf[tail.start..tail.start + filled]);
        self.replace(Piece { offset: start, filled, buf }, false);
        while self.filled < asked {
            let Some(ahead) = &mut self.ahead else { return false };
            let Some(front) = ahead.read.front(&self.file, limit) else {
                self.careful_below = self.careful_below.max(ahead.read.take_failed_below());
                return false;
            };
            let at = start + self.filled as u64;
            let (end, from) = (front.end(), at.checked_sub(front.offset));
            let Some(from) = from else {
                // Not of this sequence.
                ahead.read.restart();
                return false;
            };
            let from = (from as usize).min(front.filled);
            let n = (front.filled - from).min(asked - self.filled);
            let Ok(buf) = exclusive(&mut self.buf) else { return false };
            buf[self.filled..self.filled + n].copy_from_slice(&front.buf[from..from + n]);
            self.filled += n;
            if at + n as u64 >= end
                && let Some(front) = ahead.read.take_front()
            {
                ahead.read.give_back(front.buf);
            }
        }
        true
    }

    fn replace(&mut self, piece: Piece, is_lent: bool) {
        let Piece { offset, filled, buf } = piece;
        let old = std::mem::replace(&mut self.buf, Arc::new(buf));
        (self.start, self.filled) = (offset, filled);
        let Some(ahead) = &mut self.ahead else { return };
        if std::mem::replace(&mut ahead.is_lent, is_lent) {
            ahead.give_back(old);
        } else {
            ahead.own = Arc::into_inner(old);
        }
    }
}

impl Ahead {
    /// Returns a buffer that was lent. One that records share is theirs.
    fn give_back(&mut self, buf: Arc<AlignedBuf>) {
        match Arc::into_inner(buf) {
            Some(buf) => self.read.give_back(buf),
            None => self.read.lose_one(),
        }
    }
}

/// The window's memory, to be written: [`ReadWindow::make_room`] has seen to it that nothing shares
/// it.
fn exclusive(buf: &mut Arc<AlignedBuf>) -> io::Result<&mut AlignedBuf> {
    Arc::get_mut(buf).ok_or_else(|| io::Error::other("the window is shared"))
}

#[cfg(test)]
impl ReadWindow {
    /// Bytes of all buffers.
    pub(super) fn buffered(&self) -> u64 {
        let Some(ahead) = &self.ahead else { return self.buf.len() as u64 };
        let own = ahead.own.as_ref().map_or(0, |own| own.len());
        let window = if ahead.is_lent { 0 } else { self.buf.len() };
        (ahead.read.buffered() + own + window) as u64
    }
}

fn sizes_of(file: &dyn File) -> Sizes {
    #[cfg(simulated)]
    if file.as_sim().is_some() {
        return Sizes::SIMULATED;
    }
    let _ = file;
    Sizes::DEVICE
}
