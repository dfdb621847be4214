//! The portable backend: positional writes and `sync_data`, one after the other, on the thread that
//! waits for them: the I/O thread, or a committer that steps the commit loop itself.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::Thread;
use std::time::Duration;

use super::{Backend, Completion, Method, Part, SLOTS, WriteRequest};
use crate::io::fs::{File, write_durable, write_full};
use crate::ring::Wake;

#[derive(Debug)]
enum Op {
    Write(WriteRequest),
    Sync { token: u64, slot: usize },
}

#[derive(Debug)]
pub(crate) struct StdBackend {
    files: [Option<Arc<dyn File>>; SLOTS],
    queue: VecDeque<Op>,
    done: VecDeque<Completion>,
    waker: Unpark,
    /// Whether a file that is detached is unlocked: another backend may have it too.
    unlocks: bool,
}

/// Ends a thread's park.
#[derive(Debug, Clone)]
pub(super) struct Unpark(Thread);

impl Unpark {
    pub(super) fn this_thread() -> Self {
        Unpark(std::thread::current())
    }
}

impl Wake for Unpark {
    fn wake(&self) {
        self.0.unpark();
    }
}

impl StdBackend {
    /// For the thread that calls this.
    pub(crate) fn new() -> Self {
        StdBackend::with(true)
    }

    /// For committers, beside the backend of the I/O thread, which has the same files and unlocks
    /// them.
    pub(crate) fn for_committers() -> Self {
        StdBackend::with(false)
    }

    fn with(unlocks: bool) -> Self {
        StdBackend {
            files: [const { None }; SLOTS],
            queue: VecDeque::new(),
            done: VecDeque::new(),
            waker: Unpark::this_thread(),
            unlocks,
        }
    }

    fn file(&self, slot: usize) -> io::Result<&dyn File> {
        match self.files.get(slot) {
            Some(Some(file)) => Ok(&**file),
            _ => Err(io::Error::other("no file in that slot")),
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Write(w) if w.method == Method::Dsync => {
                // SAFETY: as below.
                let bytes = unsafe { std::slice::from_raw_parts(w.start, w.len as usize) };
                let written = self.file(w.slot).and_then(|f| write_durable(f, bytes, w.offset));
                let result = written.map(|()| w.len);
                self.done.push_back(Completion { token: w.token, part: Part::Write, result });
            }
            Op::Write(w) => {
                // SAFETY: the contract of Backend::write: initialised, and not written by any
                // thread until this write's completion is reaped, which is after this call.
                let bytes = unsafe { std::slice::from_raw_parts(w.start, w.len as usize) };
                let written = self.file(w.slot).and_then(|f| write_full(f, bytes, w.offset));
                let failed = written.is_err();
                let result = written.map(|()| w.len);
                self.done.push_back(Completion { token: w.token, part: Part::Write, result });
                if w.method != Method::Plain {
                    let result = if failed {
                        Err(io::Error::other("cancelled, as the write failed"))
                    } else {
                        self.file(w.slot).and_then(|f| f.sync_data()).map(|()| 0)
                    };
                    self.done.push_back(Completion { token: w.token, part: Part::Sync, result });
                }
            }
            Op::Sync { token, slot } => {
                let result = self.file(slot).and_then(|f| f.sync_data()).map(|()| 0);
                self.done.push_back(Completion { token, part: Part::Sync, result });
            }
        }
    }
}

impl Backend for StdBackend {
    fn attach(&mut self, slot: usize, file: &Arc<dyn File>) -> io::Result<()> {
        self.files[slot] = Some(Arc::clone(file));
        Ok(())
    }

    fn detach(&mut self, slot: usize) {
        if let Some(file) = self.files[slot].take()
            && self.unlocks
        {
            file.unlock();
        }
    }

    unsafe fn write(&mut self, write: WriteRequest) {
        self.queue.push_back(Op::Write(write));
    }

    fn sync(&mut self, token: u64, slot: usize) {
        self.queue.push_back(Op::Sync { token, slot });
    }

    fn submit(&mut self) -> io::Result<()> {
        // Nothing is handed over without blocking: the work is done in wait(), after the I/O thread
        // has woken whom it has to wake.
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if !self.done.is_empty() {
            return Ok(());
        }
        // One at a time: its completions are seen, and acted on, before the next one blocks.
        if let Some(op) = self.queue.pop_front() {
            self.run(op);
        } else {
            match timeout {
                Some(timeout) => std::thread::park_timeout(timeout),
                None => std::thread::park(),
            }
        }
        Ok(())
    }

    fn reap(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    fn waker(&self) -> Box<dyn Wake> {
        Box::new(self.waker.clone())
    }
}

impl Drop for StdBackend {
    fn drop(&mut self) {
        // Nothing is in flight between calls.
        (0..SLOTS).for_each(|slot| self.detach(slot));
    }
}
