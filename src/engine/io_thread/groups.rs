//! The groups that are submitted and not durable yet, in log order.

use std::collections::VecDeque;

use crate::format::GroupHeader;
use crate::io::backend::Method;

#[derive(Debug)]
pub(super) struct Group {
    pub(super) sequence: u64,
    pub(super) lsn: u64,
    /// The LSN after its padding.
    pub(super) end: u64,
    pub(super) len: u32,
    /// Since when its oldest record may have waited, by the clock.
    pub(super) since: u64,
    /// When it was submitted and when its write completed, by the clock.
    pub(super) submitted_at: u64,
    pub(super) written_at: u64,
    pub(super) header: GroupHeader,
    pub(super) slot: usize,
    pub(super) method: Method,
    /// The oldest LSN that its header states.
    pub(super) oldest: u64,
    /// The write completed in full.
    pub(super) written: bool,
    /// A sync that was submitted after its write completed has succeeded.
    pub(super) synced: bool,
    /// Token of the separate sync that covers it; 0 if none does.
    pub(super) covered_by: u64,
}

#[derive(Debug)]
pub(super) struct Groups {
    list: VecDeque<Group>,
    flying: usize,
}

impl Groups {
    pub(super) fn new() -> Self {
        Groups { list: VecDeque::new(), flying: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The first group, if its write is complete and its linked sync is not.
    pub(super) fn syncing_linked(&self) -> Option<u64> {
        let first = self.list.front()?;
        (first.written && !first.synced && first.method != Method::Plain).then_some(first.sequence)
    }

    /// LSN of the first group.
    pub(super) fn first_lsn(&self) -> Option<u64> {
        self.list.front().map(|g| g.lsn)
    }

    pub(super) fn push(&mut self, group: Group) {
        self.flying += 1;
        self.list.push_back(group);
    }

    fn get_mut(&mut self, sequence: u64) -> Option<&mut Group> {
        let first = self.list.front()?.sequence;
        self.list.get_mut(usize::try_from(sequence.checked_sub(first)?).ok()?)
    }

    /// The group, if its write is complete.
    pub(super) fn written(&mut self, sequence: u64) -> Option<&Group> {
        self.get_mut(sequence).filter(|g| g.written).map(|g| &*g)
    }

    pub(super) fn expected_len(&mut self, sequence: u64) -> u32 {
        self.get_mut(sequence).map_or(0, |g| g.len)
    }

    /// Takes the first group if it is durable.
    pub(super) fn pop_durable(&mut self) -> Option<Group> {
        if self.list.front().is_some_and(|g| g.written && g.synced) {
            self.list.pop_front()
        } else {
            None
        }
    }

    /// Number of groups whose write or linked sync has not completed.
    pub(super) fn flying(&self) -> usize {
        self.flying
    }

    /// Applies a completion to its group.
    pub(super) fn complete(&mut self, sequence: u64, change: impl FnOnce(&mut Group)) {
        if let Some(group) = self.get_mut(sequence) {
            let before = group.is_flying();
            change(group);
            let landed = before && !group.is_flying();
            self.flying -= usize::from(landed);
        }
    }

    pub(super) fn uses(&self, slot: usize) -> bool {
        // Groups use the slots in turn, so the first group has the oldest slot in use.
        self.list.iter().any(|g| g.slot == slot)
    }

    /// The first group that needs a separate sync.
    pub(super) fn first_plain(&self) -> Option<&Group> {
        self.list.front().filter(|g| g.method == Method::Plain && !g.synced)
    }

    /// Notes which groups the sync with this token covers: those of the slot whose writes are
    /// complete.
    pub(super) fn cover(&mut self, slot: usize, token: u64) {
        for group in self.list.iter_mut().take_while(|g| g.slot == slot) {
            if group.written && !group.synced {
                group.covered_by = token;
            }
        }
    }

    pub(super) fn synced_by(&mut self, token: u64) {
        for group in &mut self.list {
            group.synced |= group.covered_by == token;
        }
    }
}

impl Group {
    fn is_flying(&self) -> bool {
        !self.written || (self.method != Method::Plain && !self.synced)
    }
}
