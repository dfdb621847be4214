//! Where requests are read: on a thread beside the reader, or in the call that makes them.
//!
//! One thread is enough: the kernel splits a request of 2 MiB, and the next one waits in the
//! thread's queue when one ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use super::{AlignedBuf, File, read};
use crate::sys::fork;
use crate::sys::scheduling;

#[derive(Debug)]
pub(super) struct ReadRequest {
    pub(super) id: u64,
    pub(super) offset: u64,
    pub(super) len: usize,
    pub(super) buf: AlignedBuf,
    pub(super) file: Arc<dyn File>,
}

#[derive(Debug)]
pub(super) struct Done {
    pub(super) id: u64,
    pub(super) offset: u64,
    pub(super) buf: AlignedBuf,
    pub(super) read: io::Result<usize>,
}

/// The results come in the order of the requests.
#[derive(Debug)]
pub(super) enum Lane {
    Thread(Helper),
    /// For files that one thread reads, such as simulated ones.
    Here(std::collections::VecDeque<Done>),
}

impl Lane {
    pub(super) fn start(on_a_thread: bool) -> io::Result<Self> {
        if on_a_thread { Helper::start().map(Lane::Thread) } else { Ok(Lane::Here(<_>::default())) }
    }

    pub(super) fn submit(&mut self, request: ReadRequest) {
        match self {
            Lane::Thread(helper) => helper.submit(request),
            Lane::Here(done) => done.push_back(serve(request, 0)),
        }
    }

    /// The next result. `None`: none will come.
    pub(super) fn wait(&mut self) -> Option<Done> {
        match self {
            Lane::Thread(helper) => helper.wait(),
            Lane::Here(done) => done.pop_front(),
        }
    }

    /// Requests below this identifier need not be read any more.
    pub(super) fn skip_below(&self, id: u64) {
        if let Lane::Thread(helper) = self {
            helper.skip_below.store(id, Ordering::Relaxed);
        }
    }
}

fn serve(request: ReadRequest, skip_below: u64) -> Done {
    let ReadRequest { id, offset, len, mut buf, file } = request;
    let skipped = || Err(io::ErrorKind::Interrupted.into());
    let read = if id < skip_below { skipped() } else { read(&*file, &mut buf, len, offset) };
    Done { id, offset, buf, read }
}

/// A thread that reads what it is asked for. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Helper {
    /// `None` while it is dropped.
    link: Option<Link>,
    skip_below: Arc<AtomicU64>,
    /// The process that started the thread.
    generation: u32,
}

#[derive(Debug)]
struct Link {
    requests: Sender<ReadRequest>,
    done: Receiver<Done>,
    thread: JoinHandle<()>,
}

impl Helper {
    fn start() -> io::Result<Self> {
        let (requests, asked) = channel();
        let (answer, done) = channel();
        let skip_below = Arc::new(AtomicU64::new(0));
        let skip = Arc::clone(&skip_below);
        let body = move || {
            scheduling::block_signals();
            while let Ok(request) = asked.recv() {
                if answer.send(serve(request, skip.load(Ordering::Relaxed))).is_err() {
                    break;
                }
            }
        };
        let thread = Builder::new().name("ringwal-ahead".into()).spawn(body)?;
        let link = Some(Link { requests, done, thread });
        Ok(Helper { link, skip_below, generation: fork::generation() })
    }

    /// `None` in a child of `fork()`, where the thread does not exist and may have held a lock.
    fn link(&self) -> Option<&Link> {
        self.link.as_ref().filter(|_| self.generation == fork::generation())
    }

    fn submit(&self, request: ReadRequest) {
        if let Some(link) = self.link() {
            // Fails only if the thread has ended, and then wait() has no result.
            let _ = link.requests.send(request);
        }
    }

    fn wait(&self) -> Option<Done> {
        self.link()?.done.recv().ok()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let is_forked = self.link().is_none();
        let Some(link) = self.link.take() else { return };
        if is_forked {
            std::mem::forget(link);
            return;
        }
        self.skip_below.store(u64::MAX, Ordering::Relaxed);
        drop(link.requests);
        let _ = link.thread.join();
    }
}
