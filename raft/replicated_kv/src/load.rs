//! The load of `drive` and `measure`, and its table.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Client, ClientError};
use crate::cluster::{Cluster, ClusterError};

/// Keys that the load writes and reads.
const KEYS: u64 = 1000;

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Each request sets a key.
    Put,
    /// Each request reads a key from the leader.
    Get,
}

/// What a run measured.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Requests that were answered.
    pub done: u64,
    /// Requests that failed.
    pub failed: u64,
    /// The last failure.
    pub failure: Option<ClientError>,
    /// Seconds of the run.
    pub seconds: f64,
    /// Times from request to answer, in microseconds, ascending.
    pub micros: Vec<u64>,
    /// Times of the leader for the entry of a change, in microseconds, ascending.
    pub commit_micros: Vec<u64>,
}

impl Run {
    /// Answers per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.done as f64 / self.seconds } else { 0.0 }
    }
}

/// A quantile of ascending values; 0 without values.
#[must_use]
pub fn quantile(ascending: &[u64], share: f64) -> u64 {
    let at = (ascending.len() as f64 * share) as usize;
    ascending.get(at.min(ascending.len().saturating_sub(1))).copied().unwrap_or(0)
}

/// Runs `clients` clients for a time. Each sends its next request when it has the answer to the
/// last one.
pub async fn run(
    client: &Arc<Client>,
    kind: Kind,
    clients: usize,
    time: Duration,
    value_bytes: usize,
) -> Run {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    let began = Instant::now();
    let one = || {
        let client = Arc::clone(client);
        let mut part = Run::default();
        async move {
            while began.elapsed() < time {
                let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
                let key = format!("load-{}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS);
                let asked = Instant::now();
                let result = match kind {
                    Kind::Put => {
                        let value = format!("{number:0value_bytes$}");
                        client.put(&key, &value).await.map(|written| Some(written.commit_micros))
                    }
                    Kind::Get => client.get(&key).await.map(|_| None),
                };
                match result {
                    Ok(commit) => {
                        part.done += 1;
                        part.micros.push(asked.elapsed().as_micros() as u64);
                        part.commit_micros.extend(commit);
                    }
                    Err(e) => {
                        part.failed += 1;
                        part.failure = Some(e);
                    }
                }
            }
            part
        }
    };
    let tasks: Vec<_> = (0..clients).map(|_| tokio::spawn(one())).collect();
    let mut whole = Run::default();
    for task in tasks {
        let Ok(part) = task.await else { continue };
        whole.done += part.done;
        whole.failed += part.failed;
        whole.failure = part.failure.or(whole.failure);
        whole.micros.extend(part.micros);
        whole.commit_micros.extend(part.commit_micros);
    }
    whole.seconds = began.elapsed().as_secs_f64();
    whole.micros.sort_unstable();
    whole.commit_micros.sort_unstable();
    whole
}

/// The heading of the table of [`row`].
pub const HEADING: &str = "\
| requests | clients | per second | p50 us | p99 us | p99.9 us | max us | commit p50 us | failed |
|---|---|---|---|---|---|---|---|---|";

/// A row of the table.
#[must_use]
pub fn row(kind: Kind, clients: usize, run: &Run) -> String {
    let of = |share| quantile(&run.micros, share);
    let commit = match run.commit_micros.as_slice() {
        [] => "-".to_owned(),
        micros => quantile(micros, 0.5).to_string(),
    };
    let name = if kind == Kind::Put { "put" } else { "get" };
    format!(
        "| {name} | {clients} | {:.0} | {} | {} | {} | {} | {commit} | {} |",
        run.rate(),
        of(0.5),
        of(0.99),
        of(0.999),
        of(1.0),
        run.failed,
    )
}

/// Appends durably to a log on the same disk, one record after the other. Returns the times in
/// microseconds, ascending. Blocks.
///
/// # Errors
///
/// Those of the log.
pub fn local_appends(dir: &Path, time: Duration, bytes: usize) -> Result<Vec<u64>, ringwal::Error> {
    let wal = ringwal::Wal::open(dir)?;
    let record = vec![7; bytes];
    let mut micros = Vec::new();
    let began = Instant::now();
    while began.elapsed() < time {
        let asked = Instant::now();
        wal.append_durable(&record)?;
        micros.push(asked.elapsed().as_micros() as u64);
    }
    wal.close()?;
    micros.sort_unstable();
    Ok(micros)
}

/// Kills the leader by SIGKILL and starts it again. Returns the time from the kill to the first
/// change that is acknowledged after it.
///
/// # Errors
///
/// Those of [`Cluster`]; `Client` if no change is acknowledged.
pub async fn failover(cluster: &mut Cluster) -> Result<Duration, ClusterError> {
    let patience = Duration::from_secs(20);
    let client = cluster.client(Duration::from_millis(300), patience)?;
    let leader = cluster.leader(&client, Instant::now() + patience).await?;
    client.put("failover", "before").await?;
    let began = Instant::now();
    cluster.kill(leader);
    // A change whose outcome is unknown is made again: it sets the same value.
    while let Err(e) = client.put("failover", "after").await {
        if began.elapsed() > patience {
            return Err(e.into());
        }
    }
    let took = began.elapsed();
    cluster.start(leader)?;
    Ok(took)
}

/// Figures of several rounds: median, least and greatest.
#[derive(Debug, Clone, Default)]
pub struct Rounds(pub Vec<f64>);

impl Rounds {
    /// The median, 0 without rounds.
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
    }
}

impl fmt::Display for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = self.0.iter().copied().fold(0.0, f64::max);
        let digits = usize::from(self.median() < 10.0) * 2;
        write!(f, "{:.digits$} ({least:.digits$} - {greatest:.digits$})", self.median())
    }
}
