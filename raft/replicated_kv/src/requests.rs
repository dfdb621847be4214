//! Writes share log entries, and reads share the question whether this node still leads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::answers::{Refusal, Written};
use crate::types::{Batch, Change, Raft};

/// Changes of an entry at most.
const BATCH_CHANGES: usize = 256;

/// Bytes of keys and values after which an entry takes no more.
const BATCH_BYTES: usize = 256 << 10;

/// Entries on their way at once. While one is written here, the one before it is on its way to the
/// followers.
const ENTRIES: usize = 2;

/// Rounds of reads on their way at once.
const ROUNDS: usize = 4;

/// Requests that wait at most. Further ones wait in their connections.
const WAITING: usize = 4096;

/// How long a client waits for an answer at most.
const PATIENCE: Duration = Duration::from_secs(5);

type Answer<T> = Result<T, Refusal>;

struct Write {
    change: Change,
    answer: oneshot::Sender<Answer<Written>>,
}

/// The requests of clients to a node that may lead. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Requests {
    raft: Raft,
    writes: mpsc::Sender<Write>,
    reads: mpsc::Sender<oneshot::Sender<Answer<()>>>,
}

impl Requests {
    /// Starts the tasks that answer. They end with the last handle.
    pub(crate) fn new(raft: Raft) -> Self {
        let (writes, waiting_writes) = mpsc::channel(WAITING);
        let (reads, waiting_reads) = mpsc::channel(WAITING);
        tokio::spawn(write_batches(raft.clone(), waiting_writes));
        tokio::spawn(read_rounds(raft.clone(), waiting_reads));
        Requests { raft, writes, reads }
    }

    /// Makes a change. Committed and applied when it returns.
    pub(crate) async fn write(&self, change: Change) -> Answer<Written> {
        self.lead()?;
        let (answer, answered) = oneshot::channel();
        let stopped = || Refusal::Stopped("it takes no more requests".into());
        let work = async {
            self.writes.send(Write { change, answer }).await.map_err(|_| stopped())?;
            answered.await.map_err(|_| Refusal::Unknown("the node is stopping".into()))?
        };
        tokio::time::timeout(PATIENCE, work).await.map_err(|_| late())?
    }

    /// Waits until this node's map has every change that was acknowledged before the call.
    pub(crate) async fn read(&self) -> Answer<()> {
        self.lead()?;
        let (answer, answered) = oneshot::channel();
        let stopped = || Refusal::Stopped("it takes no more requests".into());
        let work = async {
            self.reads.send(answer).await.map_err(|_| stopped())?;
            answered.await.map_err(|_| stopped())?
        };
        tokio::time::timeout(PATIENCE, work).await.map_err(|_| Refusal::NoQuorum)?
    }

    /// Refuses if this node knows that another one leads, or none. Nothing was handed to openraft
    /// then.
    pub(crate) fn lead(&self) -> Answer<()> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        if let Err(fatal) = &metrics.running_state {
            return Err(Refusal::Stopped(fatal.to_string()));
        }
        match metrics.current_leader {
            Some(id) if id == metrics.id => Ok(()),
            Some(id) => {
                let node = metrics.membership_config.membership().get_node(&id);
                Err(node.map_or(Refusal::NoLeader, |node| Refusal::NotLeader(node.addr.clone())))
            }
            None => Err(Refusal::NoLeader),
        }
    }
}

fn late() -> Refusal {
    Refusal::Unknown(format!("no majority answered in {PATIENCE:?}"))
}

/// Takes what waits, at least one.
async fn take<T>(waiting: &mut mpsc::Receiver<T>, more: impl Fn(&[T]) -> bool) -> Vec<T> {
    let mut taken: Vec<T> = waiting.recv().await.into_iter().collect();
    while !taken.is_empty() && more(&taken) {
        match waiting.try_recv() {
            Ok(next) => taken.push(next),
            Err(_) => break,
        }
    }
    taken
}

async fn slot(slots: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(slots).acquire_owned().await.ok()
}

async fn write_batches(raft: Raft, mut waiting: mpsc::Receiver<Write>) {
    let slots = Arc::new(Semaphore::new(ENTRIES));
    while let Some(slot) = slot(&slots).await {
        let more = |taken: &[Write]| {
            let bytes: usize = taken.iter().map(|write| write.change.len()).sum();
            taken.len() < BATCH_CHANGES && bytes < BATCH_BYTES
        };
        let writes = take(&mut waiting, more).await;
        if writes.is_empty() {
            return;
        }
        let raft = raft.clone();
        tokio::spawn(async move {
            write_batch(&raft, writes).await;
            drop(slot);
        });
    }
}

async fn write_batch(raft: &Raft, writes: Vec<Write>) {
    let (changes, answers): (Vec<_>, Vec<_>) =
        writes.into_iter().map(|write| (write.change, write.answer)).unzip();
    let began = Instant::now();
    // openraft never answers an entry that a snapshot of a new leader covers. Without a limit such
    // entries would keep all slots, also when this node leads again.
    let write = tokio::time::timeout(PATIENCE, raft.client_write(Batch(changes)));
    let result = write.await.map_or_else(|_| Err(late()), |result| Ok(result?));
    let commit_micros = began.elapsed().as_micros() as u64;
    metrics::histogram!("replicated_kv_commit_seconds").record(began.elapsed());
    metrics::counter!("replicated_kv_changes_total").increment(answers.len() as u64);
    for (at, answer) in answers.into_iter().enumerate() {
        let written = result.as_ref().map_err(Refusal::clone).map(|response| Written {
            index: response.log_id.index,
            existed: response.data.get(at).copied().unwrap_or_default(),
            commit_micros,
        });
        // The client may have left.
        let _ = answer.send(written);
    }
}

/// A read joins the next round, which asks the followers once for all of its reads.
async fn read_rounds(raft: Raft, mut waiting: mpsc::Receiver<oneshot::Sender<Answer<()>>>) {
    let slots = Arc::new(Semaphore::new(ROUNDS));
    while let Some(slot) = slot(&slots).await {
        let reads = take(&mut waiting, |taken| taken.len() < WAITING).await;
        if reads.is_empty() {
            return;
        }
        let raft = raft.clone();
        tokio::spawn(async move {
            let round = tokio::time::timeout(PATIENCE, raft.ensure_linearizable());
            let result = round.await.map_or(Err(Refusal::NoQuorum), |result| Ok(result.map(drop)?));
            for read in reads {
                let _ = read.send(result.clone());
            }
            drop(slot);
        });
    }
}
