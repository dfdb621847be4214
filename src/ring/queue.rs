//! The requests that wait for room, in the order in which they came.
//!
//! A request that left keeps its place, counted in `left`, until it is passed over or at least half
//! of the places are left. Leaving costs no search and moves no other request, however many wait.

use std::collections::VecDeque;
use std::sync::Arc;

use super::request::Request;

#[derive(Debug, Default)]
pub(super) struct Queue {
    places: VecDeque<Arc<Request>>,
    left: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.places.len() == self.left
    }

    pub(super) fn enter(&mut self, request: &Arc<Request>) {
        self.places.push_back(Arc::clone(request));
    }

    /// Leaves the queue. False: the request was settled and is no longer in the queue.
    pub(super) fn leave(&mut self, request: &Request) -> bool {
        if !request.leave() {
            return false;
        }
        self.left += 1;
        if self.left * 2 >= self.places.len() {
            self.places.retain(|request| !request.has_left());
            self.left = 0;
        }
        true
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = &Arc<Request>> {
        self.places.iter().filter(|request| !request.has_left())
    }

    /// Removes the first waiting request. The caller settles it before it releases the lock.
    pub(super) fn pop(&mut self) -> Option<Arc<Request>> {
        loop {
            let first = self.places.pop_front()?;
            if !first.has_left() {
                return Some(first);
            }
            self.left -= 1;
        }
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use std::task::Waker;

    use super::*;

    fn queue(count: usize) -> (Queue, Vec<Arc<Request>>) {
        let mut queue = Queue::default();
        let requests: Vec<_> = (0..count).map(|_| Arc::new(Request::new())).collect();
        for request in &requests {
            request.prepare(8, Some(Waker::noop().clone()));
            queue.enter(request);
        }
        (queue, requests)
    }

    #[test]
    fn the_others_keep_their_order_whoever_leaves() {
        let mut random = fastrand::Rng::with_seed(3);
        for round in 0..50 {
            let (mut queue, requests) = queue(round);
            let mut kept = Vec::new();
            for request in &requests {
                if random.bool() {
                    assert!(queue.leave(request) && !queue.leave(request), "it leaves once");
                } else {
                    kept.push(request);
                }
            }
            assert_eq!(queue.waiting().count(), kept.len());
            for request in kept {
                assert!(!queue.is_empty());
                let first = queue.pop().unwrap();
                assert!(Arc::ptr_eq(&first, request));
                let _ = first.grant(0, 0);
                assert!(!queue.leave(request), "it has been settled");
            }
            assert!(queue.is_empty() && queue.pop().is_none());
            assert_eq!((queue.places.len(), queue.left), (0, 0), "nothing of them is kept");
        }
    }

    #[test]
    fn leaving_moves_the_others_seldom() {
        let (mut queue, requests) = queue(1000);
        assert!(requests[..499].iter().all(|request| queue.leave(request)));
        assert_eq!(queue.places.len(), 1000);
        assert!(queue.leave(&requests[499]));
        assert_eq!((queue.places.len(), queue.left), (500, 0));
    }
}
