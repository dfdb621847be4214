//! Listeners, which get every new durable end.
//!
//! 1. Only the I/O thread calls listeners, after it has submitted the next group. The ends that a
//!    listener gets increase strictly. Its last call has the error with which the log ended.
//! 2. The lock of a listener is held while that listener runs, and no other lock. So the removal of
//!    a listener waits for its running call.
//! 3. A listener enters, and then its owner looks at the durable end. The I/O thread moves the end,
//!    and then looks for listeners. All four are sequentially consistent: a listener misses no end
//!    above the one that its owner sees.

use std::fmt;
use std::iter::once;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::sys::panics::caught;
use crate::sys::reentrancy;
use crate::sys::sync::{AtomicU32, Mutex, Ordering, lock, try_lock};

type Call = Box<dyn FnMut(Result<Lsn>) + Send>;

/// One listener. It has no closure once it is removed or the log has ended.
pub(crate) struct EndListener(Mutex<Option<Call>>);

impl fmt::Debug for EndListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndListener(..)")
    }
}

#[derive(Debug, Default)]
struct ListenerList {
    /// A new allocation for each change, so that the I/O thread calls them without the lock.
    entries: Arc<[Arc<EndListener>]>,
    has_ended: bool,
}

#[derive(Debug)]
pub(crate) struct EndListeners {
    count: AtomicU32,
    list: Mutex<ListenerList>,
}

impl EndListeners {
    pub(super) fn new() -> Self {
        EndListeners { count: AtomicU32::new(0), list: Mutex::new(ListenerList::default()) }
    }

    /// Whether there is a listener.
    #[inline]
    pub(crate) fn exist(&self) -> bool {
        self.count.load(Ordering::SeqCst) != 0
    }

    /// Enters a listener. `None`: the log has ended, and `call` was dropped.
    pub(crate) fn enter(&self, call: Call) -> Option<Arc<EndListener>> {
        let entry = Arc::new(EndListener(Mutex::new(Some(call))));
        let mut list = lock(&self.list);
        if list.has_ended {
            // The drop of the closure is user code.
            drop(list);
            return None;
        }
        let entries = list.entries.iter().cloned().chain(once(Arc::clone(&entry)));
        let entries: Arc<[_]> = entries.collect();
        self.count.store(entries.len() as u32, Ordering::SeqCst);
        list.entries = entries;
        Some(entry)
    }

    /// Removes a listener. No call of it runs after this, unless this is a thread of the log: the
    /// listener may have removed itself.
    pub(crate) fn remove(&self, entry: &Arc<EndListener>) {
        let before = {
            let mut list = lock(&self.list);
            let others = list.entries.iter().filter(|other| !Arc::ptr_eq(other, entry));
            let others: Arc<[_]> = others.cloned().collect();
            self.count.store(others.len() as u32, Ordering::SeqCst);
            std::mem::replace(&mut list.entries, others)
        };
        drop(before);
        let held = match reentrancy::is_serving() {
            true => try_lock(&entry.0),
            false => Some(lock(&entry.0)),
        };
        let call = held.and_then(|mut held| held.take());
        // User code, with no lock held.
        drop(call);
    }

    /// Reports a new durable end to every listener.
    pub(crate) fn report(&self, end: u64) {
        let entries = Arc::clone(&lock(&self.list).entries);
        for entry in &*entries {
            if let Some(call) = &mut *lock(&entry.0) {
                let _ = caught(|| call(Ok(Lsn::new(end))));
            }
        }
        // This may be the last reference to a removed listener, whose drop is user code.
        let _ = caught(|| drop(entries));
    }

    /// Reports to every listener that the log has ended, and removes them all. Later calls do
    /// nothing.
    pub(super) fn end(&self, error: &Error) {
        let entries = {
            let mut list = lock(&self.list);
            list.has_ended = true;
            self.count.store(0, Ordering::SeqCst);
            std::mem::take(&mut list.entries)
        };
        for entry in &*entries {
            let mut held = lock(&entry.0);
            if let Some(call) = &mut *held {
                let _ = caught(|| call(Err(error.clone())));
            }
            let call = held.take();
            drop(held);
            let _ = caught(|| drop(call));
        }
    }
}
