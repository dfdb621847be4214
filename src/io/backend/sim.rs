//! The simulated backend: operations on simulated files that complete in any order.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::{Backend, Completion, Method, Part, SLOTS, WriteRequest};
use crate::io::fs::File;
use crate::io::fs::sim::SimFile;
use crate::ring::Wake;

#[derive(Debug)]
enum Op {
    Write { token: u64, file: Arc<dyn File>, bytes: Vec<u8>, offset: u64, method: Method },
    Sync { token: u64, file: Arc<dyn File> },
    EndWrite { token: u64, file: Arc<dyn File>, id: u64, len: usize, whole: bool, method: Method },
    EndSync { token: u64, file: Arc<dyn File>, ids: Vec<u64> },
}

/// Wrong on purpose, to show that the oracle sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    None,
    /// A linked sync does not wait for its write.
    SyncDoesNotWait,
    /// Syncs are reported and not made.
    SyncsDoNothing,
}

#[derive(Debug)]
pub(crate) struct SimBackend {
    files: [Option<Arc<dyn File>>; SLOTS],
    queued: Vec<Op>,
    running: Vec<Op>,
    done: VecDeque<Completion>,
    rng: Rng,
    sabotage: Sabotage,
}

#[derive(Debug)]
struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

fn sim(file: &Arc<dyn File>) -> &SimFile {
    file.as_sim().expect("a simulated file")
}

impl SimBackend {
    pub(crate) fn new(seed: u64, sabotage: Sabotage) -> Self {
        SimBackend {
            files: [const { None }; SLOTS],
            queued: Vec::new(),
            running: Vec::new(),
            done: VecDeque::new(),
            rng: Rng::with_seed(seed),
            sabotage,
        }
    }

    /// Lets the device do one thing, any of those that it could. False: it has nothing to do.
    pub(crate) fn tick(&mut self) -> bool {
        self.running.append(&mut self.queued);
        if self.running.is_empty() {
            return false;
        }
        let at = self.rng.usize(..self.running.len());
        let op = self.running.swap_remove(at);
        self.run(op);
        true
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Write { token, file, bytes, offset, method } => {
                match sim(&file).begin_write(&bytes, offset) {
                    Ok((id, len)) => {
                        let whole = len == bytes.len();
                        if method == Method::Linked && self.sabotage == Sabotage::SyncDoesNotWait {
                            self.running.push(Op::Sync { token, file: Arc::clone(&file) });
                        }
                        self.running.push(Op::EndWrite { token, file, id, len, whole, method });
                    }
                    Err(e) => {
                        self.finish(token, Part::Write, Err(e));
                        self.cancel_link(token, method);
                    }
                }
            }
            Op::EndWrite { token, file, id, len, whole, method } => {
                let ended = sim(&file).end_write(id, method == Method::Dsync && whole);
                let ok = ended.is_ok() && whole;
                self.finish(token, Part::Write, ended.map(|()| len as u32));
                if !ok {
                    self.cancel_link(token, method);
                } else if method == Method::Linked && self.sabotage != Sabotage::SyncDoesNotWait {
                    self.running.push(Op::Sync { token, file });
                }
            }
            Op::Sync { token, file } => match sim(&file).begin_sync() {
                Ok(ids) => self.running.push(Op::EndSync { token, file, ids }),
                Err(e) => self.finish(token, Part::Sync, Err(e)),
            },
            Op::EndSync { token, file, ids } => {
                let ids = if self.sabotage == Sabotage::SyncsDoNothing { vec![] } else { ids };
                let ended = sim(&file).end_sync(&ids).map(|()| 0);
                self.finish(token, Part::Sync, ended);
            }
        }
    }

    fn cancel_link(&mut self, token: u64, method: Method) {
        if method == Method::Linked && self.sabotage != Sabotage::SyncDoesNotWait {
            let cancelled = io::Error::other("simulated ECANCELED");
            self.finish(token, Part::Sync, Err(cancelled));
        }
    }

    fn finish(&mut self, token: u64, part: Part, result: io::Result<u32>) {
        self.done.push_back(Completion { token, part, result });
    }

    fn file(&self, slot: usize) -> Arc<dyn File> {
        Arc::clone(self.files[slot].as_ref().expect("an attached slot"))
    }
}

impl Backend for SimBackend {
    fn attach(&mut self, slot: usize, file: &Arc<dyn File>) -> io::Result<()> {
        assert!(self.files[slot].is_none(), "the slot is free");
        self.files[slot] = Some(Arc::clone(file));
        Ok(())
    }

    fn detach(&mut self, slot: usize) {
        self.files[slot] = None;
    }

    unsafe fn write(&mut self, w: WriteRequest) {
        // SAFETY: the contract of Backend::write.
        let bytes = unsafe { std::slice::from_raw_parts(w.start, w.len as usize) }.to_vec();
        let file = self.file(w.slot);
        let WriteRequest { token, offset, method, .. } = w;
        self.queued.push(Op::Write { token, file, bytes, offset, method });
    }

    fn sync(&mut self, token: u64, slot: usize) {
        let file = self.file(slot);
        self.queued.push(Op::Sync { token, file });
    }

    fn submit(&mut self) -> io::Result<()> {
        self.running.append(&mut self.queued);
        Ok(())
    }

    fn wait(&mut self, _: Option<Duration>) -> io::Result<()> {
        self.tick();
        Ok(())
    }

    fn reap(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    fn waker(&self) -> Box<dyn Wake> {
        Box::new(NoWake)
    }
}
