//! When the epoch group is written.
//!
//! 1. If the log ends with a mark, the mark proves everything below durable, and the epoch group
//!    waits until another group is to be written. So a log that is opened and not appended to stays
//!    as it is, and uses no segment and no block of a full disk. The block of the epoch group is
//!    taken at opening, below every record. Until the group is written, the log ends before it.
//! 2. On a full disk without a block for it, the epoch group that states retention or a cut is
//!    written over the mark that ends the log. Its header lies in one sector, so after a crash
//!    either the mark or the epoch group is there. Nothing else is ever overwritten.

use super::{Closing, IoLoop};
use crate::ring::Poll;

impl IoLoop {
    /// Whether the epoch group waits for another group to be written.
    pub(super) fn epoch_waits(&self) -> bool {
        self.setup.epoch_waits && self.next == 0
    }

    /// Takes the block for an epoch group that waits, and opens the ring for producers. If there is
    /// no block, the segment keeper prepares a segment.
    pub(super) fn hold_epoch(&mut self) {
        if !self.epoch_waits() || self.started || self.closing != Closing::No {
            return;
        }
        if self.state.ring.hold_epoch(self.state.durable.end()) {
            // No group becomes durable before the first append, and other processes need the end.
            self.publish(self.state.durable.end());
            self.started = true;
            self.state.ring.start();
        } else if !self.state.ring.is_out_of_space() {
            self.state.keeper.ring();
        }
    }

    /// Whether the next group may be submitted: the epoch group if another group is to follow it,
    /// and any other group if the epoch group is durable.
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

    /// Takes the place of the last mark for the epoch group, on a full disk without another block.
    fn take_over_the_mark(&mut self) -> bool {
        let Some(mark) = self.setup.replaceable else { return false };
        let taken = self.state.ring.take_over(mark.lsn);
        if taken {
            self.link = mark.link_before();
            self.state.ring.epoch_is_written();
            tracing::warn!("no block is left on a full disk: the last mark is overwritten");
        }
        taken
    }

    /// Closes a log to which this run has written nothing. A log without the mark of a clean close
    /// gets one if there is a block for it.
    pub(super) fn close_unwritten(&mut self) {
        if !self.state.is_closing() || self.marks_close {
            return;
        }
        if !self.setup.clean && !self.full_at_close && self.state.ring.is_out_of_space() {
            // The segment keeper retries once.
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
                // The segment keeper prepares a segment for the mark, or finds no space, and rings.
                self.hold_epoch();
                if !self.started {
                    return;
                }
            }
            self.state.ring.stop();
            self.closing = Closing::Draining;
            if marks {
                // The mark follows the epoch group, in the open extent if there is one.
                self.marks_close = true;
                self.granted |= self.state.ring.seal(true);
                return;
            }
            if self.started {
                self.granted |= self.state.ring.seal(false);
            }
        }
        // An extent that was sealed empty was revoked.
        if !self.started || self.state.ring.opened() <= 1 {
            self.closing = Closing::Finished;
        }
    }
}
