//! What is requested ahead of a reader: pure bookkeeping.
//!
//! 1. Requests are contiguous, and are delivered in their order.
//! 2. No request reaches above the limit, which is in force when the request is made.
//! 3. At most [`Sizes::SLOTS`] requests are there or under way, and at most as many bytes as the
//!    reader took in sequence.
//! 4. After a failed or short request nothing is delivered and nothing requested until the reader
//!    begins again.

use std::collections::VecDeque;
use std::io;

/// How much is read ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Bytes that are read in sequence before anything is read ahead.
    pub(crate) begin: u64,
    /// Bytes of a request at most.
    pub(crate) slot: usize,
}

impl Sizes {
    /// Buffers of a reader. With 2 MiB each, and 1 MiB or one group for the reader's own, a reader
    /// stays below 8 MiB.
    pub(crate) const SLOTS: usize = 3;
    /// One huge page each: the device is then given one address, and not one for every 4 KiB. An
    /// open of a log that was closed reads 8 MiB behind its end, for which a thread and the buffers
    /// cost more than they gain.
    pub(crate) const DEVICE: Sizes = Sizes { begin: 8 << 20, slot: 2 << 20 };
    /// For simulated disks, whose segments are small.
    #[cfg(simulated)]
    pub(crate) const SIMULATED: Sizes = Sizes { begin: 4 << 10, slot: 8 << 10 };
}

/// What becomes of a request's result.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// All bytes are there.
    Whole(usize),
    /// Only so many: nothing follows them.
    Part(usize),
    /// Nothing is delivered, and nothing follows.
    Failed,
    /// It was abandoned.
    Abandoned,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    id: u64,
    offset: u64,
    len: usize,
}

#[derive(Debug)]
pub(super) struct Window {
    sizes: Sizes,
    /// Requests begin and end at multiples of this.
    block: usize,
    /// Bytes that the reader took in sequence, without a jump.
    sequence: u64,
    /// Where the next request begins. `None`: nothing is requested until the reader begins.
    next: Option<u64>,
    /// Requested and not delivered, in the order of the file.
    pending: VecDeque<Pending>,
    /// Bytes that were delivered and not taken: the front.
    front: usize,
    next_id: u64,
    failed_below: u64,
}

impl Window {
    pub(super) fn new(sizes: Sizes) -> Self {
        Window {
            sizes,
            block: 1,
            sequence: 0,
            next: None,
            pending: VecDeque::new(),
            front: 0,
            next_id: 0,
            failed_below: 0,
        }
    }

    pub(super) fn sizes(&self) -> Sizes {
        self.sizes
    }

    pub(super) fn took(&mut self, bytes: u64) {
        self.sequence = self.sequence.saturating_add(bytes);
    }

    pub(super) fn took_front(&mut self) {
        self.took(self.front as u64);
        self.front = 0;
    }

    pub(super) fn is_due(&self) -> bool {
        self.sequence >= self.sizes.begin
    }

    pub(super) fn forget_sequence(&mut self) {
        self.sequence = 0;
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Number of requests that are under way.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn take_failed_below(&mut self) -> u64 {
        std::mem::take(&mut self.failed_below)
    }

    /// Begins at `offset`. Nothing is pending.
    pub(super) fn begin(&mut self, offset: u64, block: usize) {
        self.block = block;
        self.next = Some(offset);
    }

    /// Ends the sequence after what is requested.
    pub(super) fn end_here(&mut self) {
        self.next = None;
    }

    /// Gives up what is pending and what was delivered. Returns the first identifier that is valid.
    pub(super) fn abandon(&mut self) -> u64 {
        self.next = None;
        self.pending.clear();
        (self.front, self.failed_below) = (0, 0);
        self.next_id
    }

    /// The first identifier that is valid.
    pub(super) fn first_valid(&self) -> u64 {
        self.pending.front().map_or(self.next_id, |pending| pending.id)
    }

    /// The offset and length of the next request, if one may be made.
    pub(super) fn next(&self, limit: u64) -> Option<(u64, usize)> {
        let offset = self.next?;
        let requested = self.pending.iter().map(|pending| pending.len).sum::<usize>() + self.front;
        let requests = self.pending.len() + usize::from(self.front > 0);
        if requests >= Sizes::SLOTS {
            return None;
        }
        let slot = self.sizes.slot;
        let ramp = usize::try_from(self.sequence).unwrap_or(usize::MAX).saturating_sub(requested);
        let below = usize::try_from(limit.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = slot.min(ramp).min(below) / self.block * self.block;
        // A short request in between would only cost a system call.
        let is_worthwhile = len == below || len >= slot / 2;
        (len > 0 && is_worthwhile).then_some((offset, len))
    }

    /// Enters a request, which [`Window::next`] returned. Returns its identifier.
    pub(super) fn requested(&mut self, offset: u64, len: usize) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.pending.push_back(Pending { id, offset, len });
        self.next = Some(offset + len as u64);
        id
    }

    /// Enters the result of a request.
    pub(super) fn arrived(&mut self, id: u64, read: &io::Result<usize>) -> Arrival {
        let Some(first) = self.pending.front().copied().filter(|first| first.id == id) else {
            return Arrival::Abandoned;
        };
        self.pending.pop_front();
        match read {
            Ok(n) if *n >= first.len => {
                self.front = first.len;
                Arrival::Whole(first.len)
            }
            read => {
                self.next = None;
                self.pending.clear();
                self.forget_sequence();
                if read.is_err() {
                    self.failed_below = first.offset + first.len as u64;
                }
                // The end of a file may lie inside a block, which the reader reads itself.
                let whole = read.as_ref().map_or(0, |n| n / self.block * self.block);
                if whole == 0 {
                    return Arrival::Failed;
                }
                self.front = whole;
                Arrival::Part(whole)
            }
        }
    }
}
