//! A backend that writes nothing: what the engine costs when the device costs nothing.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::std_fs::Unpark;
use super::{Backend, Completion, Method, Part, WriteRequest};
use crate::io::fs::File;
use crate::ring::Wake;

#[derive(Debug)]
pub(crate) struct DiscardBackend {
    done: VecDeque<Completion>,
    waker: Unpark,
}

impl DiscardBackend {
    /// For the thread that calls this.
    pub(crate) fn new() -> Self {
        DiscardBackend { done: VecDeque::new(), waker: Unpark::this_thread() }
    }

    fn complete(&mut self, token: u64, part: Part, n: u32) {
        self.done.push_back(Completion { token, part, result: Ok(n) });
    }
}

impl Backend for DiscardBackend {
    fn attach(&mut self, _: usize, _: &Arc<dyn File>) -> io::Result<()> {
        Ok(())
    }

    fn detach(&mut self, _: usize) {}

    unsafe fn write(&mut self, w: WriteRequest) {
        self.complete(w.token, Part::Write, w.len);
        if w.method == Method::Linked {
            self.complete(w.token, Part::Sync, 0);
        }
    }

    fn sync(&mut self, token: u64, _: usize) {
        self.complete(token, Part::Sync, 0);
    }

    fn submit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if self.done.is_empty() {
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
