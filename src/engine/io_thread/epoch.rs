//! When the epoch group is written.
//!
//! 1. Where the log ends with a mark, everything below is proven durable, and nothing is written until there is a group
//!    to write: however often a log is opened and not appended to, it stays as it is, and uses up no segment and no block
//!    of a full disk. Its block is taken at open, below every record; until it is written the log ends before it.
//! 2. On a full disk without a block for it, retention and a cut have it written over the mark that ends the log: one
//!    block, whose header lies in one sector, so that either mark is there after a crash. Nothing else is ever written
//!    over.

use super::{Closing, IoLoop};
use crate::ring::Poll;

impl IoLoop {
    /// Whether the epoch group is still to be written, and nobody has wanted it yet.
    pub(super) fn epoch_waits(&self) -> bool {
        self.setup.epoch_waits && self.next == 0
    }

    /// Takes the block for an epoch group that waits, and lets producers come. Without a block the segment keeper is to prepare
    /// a segment.
    pub(super) fn hold_epoch(&mut self) {
        if !self.epoch_waits() || self.started || self.closing != Closing::No {
            return;
        }
        if self.state.ring.hold_epoch(self.state.durable.end()) {
            // Nothing becomes durable before the first group, and readers elsewhere want to know where the log ends.
            self.tell(self.state.durable.end());
            self.started = true;
            self.state.ring.start();
        } else if !self.state.ring.is_out_of_space() {
            self.state.keeper.ring();
        }
    }

    /// Whether groups may be submitted: the epoch group when it is wanted, others when that is durable.
    pub(super) fn may_submit(&mut self) -> bool {
        if self.next == 1 && self.setup.epoch_waits {
            return self.groups.is_empty();
        }
        if !self.epoch_waits() {
            return true;
        }
        if self.closing == Closing::Finished {
            return false;
        }
        self.hold_epoch();
        let states =
            self.state.retention.wanted() > self.setup.oldest || self.state.cut.is_wanted();
        if self.started {
            let holds = !matches!(self.state.ring.poll(1), Poll::Empty | Poll::Unopened);
            if holds || self.marks_close || (states && self.closing == Closing::No) {
                self.state.ring.epoch_is_written();
                return true;
            }
            return false;
        }
        states && self.take_over_the_mark()
    }

    /// On a full disk, without a block of its own.
    fn take_over_the_mark(&mut self) -> bool {
        let Some(mark) = self.setup.replaceable else { return false };
        let taken = self.state.ring.take_over(mark.lsn);
        if taken {
            self.link = mark.link_before();
            self.state.ring.epoch_is_written();
            tracing::warn!("no block is left on a full disk: the last mark is written over");
        }
        taken
    }

    /// Closing a log to which nothing was written: it has its mark already, or gets one if there is a block.
    pub(super) fn close_unwritten(&mut self) {
        if !self.state.is_closing() || self.marks_close {
            return;
        }
        if !self.setup.clean && !self.full_at_close && self.state.ring.is_out_of_space() {
            // Space is looked for once more.
            self.full_at_close = true;
            self.state.ring.look_for_space_again();
            self.state.ring.want_segment();
            self.state.keeper.ring();
            return;
        }
        let (is_full, is_last) =
            (self.state.ring.is_out_of_space(), self.state.ring.is_last_block());
        if self.full_at_close && self.closing == Closing::No && is_last && !is_full {
            return;
        }
        let marks = !self.setup.clean && !(is_full && (is_last || !self.started));
        if self.closing == Closing::No {
            if marks && !self.started {
                // The segment keeper prepares a segment for the mark, and rings; or finds no space.
                self.hold_epoch();
                if !self.started {
                    return;
                }
            }
            self.state.ring.stop();
            self.closing = Closing::Draining;
            if marks {
                // After the epoch group; the extent, if it is open, is taken as it is for the mark.
                self.marks_close = true;
                self.granted |= self.state.ring.seal(true);
                return;
            }
            if self.started {
                self.granted |= self.state.ring.seal(false);
            }
        }
        // Sealed empty, the extent was taken back.
        if !self.started || self.state.ring.opened() <= 1 {
            self.closing = Closing::Finished;
        }
    }
}
