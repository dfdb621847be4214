//! Tasks that wait in one bucket, in the order in which they came.
//!
//! 1. Identifiers ascend: each is taken under the lock under which the task enters.
//! 2. A task that left keeps its place, without a waker, until at least half of the places are
//!    such: leaving and being found cost a search by halves, and moving the others is paid for by
//!    those that left. A service may give up thousands of waits at once, when its disk has stalled.

use std::mem;
use std::task::Waker;

#[derive(Debug)]
pub(super) struct Task {
    pub(super) lsn: u64,
    pub(super) id: u64,
    /// The thread that registered the task, and most likely polls it.
    pub(super) thread: usize,
    /// The waker of the task. `None`: the task has left.
    pub(super) waker: Option<Waker>,
}

#[derive(Debug, Default)]
pub(super) struct Tasks {
    places: Vec<Task>,
    left: usize,
}

impl Tasks {
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.left
    }

    pub(super) fn enter(&mut self, task: Task) {
        debug_assert!(self.places.last().is_none_or(|last| last.id < task.id));
        self.places.push(task);
    }

    fn place(&mut self, id: u64) -> Option<&mut Option<Waker>> {
        let at = self.places.binary_search_by_key(&id, |task| task.id).ok()?;
        self.places.get_mut(at).map(|task| &mut task.waker)
    }

    pub(super) fn waker(&mut self, id: u64) -> Option<&mut Waker> {
        self.place(id)?.as_mut()
    }

    /// Leaves the bucket. The caller must drop the returned waker after it has released the lock.
    pub(super) fn leave(&mut self, id: u64) -> Option<Waker> {
        let waker = self.place(id)?.take()?;
        self.left += 1;
        if self.left * 2 >= self.places.len() {
            self.close_ranks();
        }
        Some(waker)
    }

    fn close_ranks(&mut self) {
        if mem::take(&mut self.left) > 0 {
            self.places.retain(|task| task.waker.is_some());
        }
    }

    /// Takes out the tasks for which `chosen` holds.
    pub(super) fn take(
        &mut self,
        mut chosen: impl FnMut(&Task) -> bool,
    ) -> impl Iterator<Item = Task> {
        self.close_ranks();
        self.places.extract_if(.., move |task| chosen(task))
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    fn with(ids: impl IntoIterator<Item = u64>) -> Tasks {
        let mut tasks = Tasks::default();
        for id in ids {
            tasks.enter(Task { lsn: id, id, thread: 1, waker: Some(Waker::noop().clone()) });
        }
        tasks
    }

    #[test]
    fn whoever_leaves_is_not_found_again_and_the_others_are_in_whatever_order() {
        let mut random = fastrand::Rng::with_seed(5);
        for count in [1, 2, 3, 50] {
            let ids: Vec<u64> = (0..count).map(|n| n * 3).collect();
            let mut tasks = with(ids.clone());
            let mut going = ids.clone();
            random.shuffle(&mut going);
            while let Some(id) = going.pop() {
                assert!(tasks.leave(id).is_some() && tasks.leave(id).is_none());
                assert_eq!(tasks.len(), going.len());
                assert!(ids.iter().all(|id| tasks.waker(*id).is_some() == going.contains(id)));
                assert!(tasks.leave(id + 1).is_none());
            }
            assert!(tasks.places.is_empty(), "nothing of them is kept");
        }
    }

    #[test]
    fn who_has_left_is_not_taken() {
        let mut tasks = with(0..10);
        for id in [0, 4, 5] {
            tasks.leave(id);
        }
        let taken: Vec<u64> = tasks.take(|task| task.lsn < 7).map(|task| task.id).collect();
        assert_eq!(taken, [1, 2, 3, 6]);
        assert_eq!(tasks.len(), 3);
        assert!(tasks.waker(6).is_none() && tasks.waker(7).is_some());
        tasks.enter(Task { lsn: 10, id: 10, thread: 1, waker: Some(Waker::noop().clone()) });
        assert_eq!(tasks.take(|_| true).map(|task| task.id).collect::<Vec<_>>(), [7, 8, 9, 10]);
    }

    /// Places are moved only when half of them are empty: not each time one leaves.
    #[test]
    fn leaving_moves_the_others_seldom() {
        let mut tasks = with(0..1000);
        for id in 0..499 {
            tasks.leave(id);
        }
        assert_eq!((tasks.places.len(), tasks.len()), (1000, 501));
        tasks.leave(499);
        assert_eq!((tasks.places.len(), tasks.len()), (500, 500));
    }
}
