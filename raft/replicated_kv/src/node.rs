//! A node: opening it, running it, and closing it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder};
use openraft::{Config, ConfigError, SnapshotPolicy};
use ringwal_openraft::{LogError, LogOptions, RaftLogs};
use tokio::net::TcpListener;

use crate::machine::Machine;
use crate::network::{Cut, Network};
use crate::requests::Requests;
use crate::server::{self, Service};
use crate::snapshot::SnapshotError;
use crate::types::{GROUP, Raft, Types};

/// Time for which a stopping node waits for requests under way.
const GRACE: Duration = Duration::from_millis(500);

/// Bytes of a log entry at most: a batch of changes, and the last of them is a large one.
const MAX_ENTRY: usize = 512 << 10;

/// Settings of a node.
#[derive(Debug, Clone, clap::Args)]
pub struct NodeOptions {
    /// The node's id, the same for ever
    #[arg(long)]
    pub id: u64,
    /// The directory of log and snapshot
    #[arg(long)]
    pub dir: PathBuf,
    /// The address on which the node serves, and which the other nodes use
    #[arg(long)]
    pub listen: SocketAddr,
    #[command(flatten)]
    /// Times and sizes.
    pub tuning: Tuning,
}

/// Times and sizes, the same for all nodes.
#[derive(Debug, Clone, clap::Args)]
pub struct Tuning {
    /// Milliseconds between two heartbeats of the leader
    #[arg(long, default_value_t = 100)]
    pub heartbeat_ms: u64,
    /// Milliseconds without a heartbeat after which a follower may stand for election; each takes
    /// between one and two times this
    #[arg(long, default_value_t = 300)]
    pub election_ms: u64,
    /// Entries after which a node writes a snapshot
    #[arg(long, default_value_t = 20_000)]
    pub snapshot_every: u64,
    /// Entries of the log that a node keeps beside its snapshot, for followers that lag
    #[arg(long, default_value_t = 5_000)]
    pub keep_entries: u64,
    /// Bytes of a segment of the log
    #[arg(long, default_value_t = 64 << 20)]
    pub segment_bytes: u64,
    /// Take requests that cut links between nodes, for tests
    #[arg(long)]
    pub fault_injection: bool,
}

/// Why a node stopped or did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The address is in use, or not of this machine.
    #[error("cannot listen on {address}: {source}; choose another --listen, or stop what uses it")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The directory cannot be created.
    #[error("cannot create the directory {dir}: {source}")]
    Dir {
        /// The directory.
        dir: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The times do not fit each other.
    #[error("the times do not fit each other: {0}; --election-ms must exceed --heartbeat-ms")]
    Times(#[from] ConfigError),
    /// The log cannot be opened.
    #[error("the log in {dir}: {source}")]
    Log {
        /// Its directory.
        dir: PathBuf,
        /// The cause.
        source: LogError,
    },
    /// The snapshot cannot be loaded.
    #[error("the snapshot: {0}")]
    Snapshot(#[from] SnapshotError),
    /// Raft ended, for example because the disk is full.
    #[error("raft stopped: {0}; remove the cause and start the node again, nothing is lost")]
    Stopped(String),
    /// The server ended.
    #[error("the server failed: {0}")]
    Server(io::Error),
    /// The HTTP client cannot be set up.
    #[error("the client of the other nodes cannot be set up: {0}")]
    Client(#[from] reqwest::Error),
    /// Metrics cannot be set up.
    #[error("the metrics cannot be set up: {0}")]
    Metrics(#[from] BuildError),
}

/// The directory of the log in a node's directory.
#[must_use]
pub fn log_dir(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// The log of a node. Blocks.
///
/// # Errors
///
/// Those of [`RaftLogs::open_with`].
pub fn open_log(dir: &Path, segment_bytes: u64) -> Result<RaftLogs, NodeError> {
    let dir = log_dir(dir);
    // The largest batch fits in a record, and a small segment is released soon.
    let builder =
        ringwal::Wal::builder(&dir).segment_size(segment_bytes).max_record_size(MAX_ENTRY);
    let mut options = LogOptions::default();
    (options.read_bytes, options.wait_committed) = (1 << 20, false);
    options.release_bytes = options.release_bytes.min(segment_bytes);
    RaftLogs::open_with(builder, options).map_err(|source| NodeError::Log { dir, source })
}

fn config(tuning: &Tuning) -> Result<Config, ConfigError> {
    Config {
        cluster_name: "replicated_kv".into(),
        heartbeat_interval: tuning.heartbeat_ms,
        election_timeout_min: tuning.election_ms,
        election_timeout_max: tuning.election_ms * 2,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(tuning.snapshot_every),
        max_in_snapshot_log_to_keep: tuning.keep_entries,
        replication_lag_threshold: tuning.snapshot_every + tuning.keep_entries,
        snapshot_max_chunk_size: 1 << 20,
        install_snapshot_timeout: 5_000,
        max_payload_entries: 64,
        ..Config::default()
    }
    .validate()
}

/// Runs a node until it gets SIGINT or SIGTERM, or until Raft stops.
///
/// # Errors
///
/// All of [`NodeError`].
pub async fn run(options: NodeOptions) -> Result<(), NodeError> {
    let NodeOptions { id, dir, listen, tuning } = options;
    let config = Arc::new(config(&tuning)?);
    let prometheus = PrometheusBuilder::new().install_recorder()?;
    std::fs::create_dir_all(&dir).map_err(|source| NodeError::Dir { dir: dir.clone(), source })?;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|source| NodeError::Listen { address: listen, source })?;
    let segment_bytes = tuning.segment_bytes;
    // Opening blocks, and nothing else runs yet.
    let logs = tokio::task::block_in_place(|| open_log(&dir, segment_bytes))?;
    let machine = tokio::task::block_in_place(|| Machine::open(&dir))?;

    let cut = Cut::default();
    let network = Network { me: id, http: reqwest::Client::builder().build()?, cut: cut.clone() };
    let log = logs.group::<Types>(GROUP);
    let raft = Raft::new(id, config, network, log, machine.clone())
        .await
        .map_err(|e| NodeError::Stopped(e.to_string()))?;
    let requests = Requests::new(raft.clone());
    let wal = logs.clone();
    let service = Service { raft: raft.clone(), requests, machine, wal, prometheus, cut };
    let router = server::router(service, tuning.fault_injection);
    // Small answers must not wait for an acknowledgement of the network.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    println!("node {id} serves http://{listen} and keeps its data in {}", dir.display());
    let ended = tokio::select! {
        ended = axum::serve(listener, router).into_future() => ended.map_err(NodeError::Server),
        () = signalled() => Ok(()),
        cause = stopped(&raft) => Err(NodeError::Stopped(cause)),
    };
    // The error that ended the node says more than one of closing.
    let _ = tokio::time::timeout(GRACE, raft.shutdown()).await;
    let closed = tokio::task::block_in_place(|| logs.close());
    ended?;
    closed.map_err(|source| NodeError::Log { dir: log_dir(&dir), source })
}

/// Waits for SIGINT or SIGTERM.
pub async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        },
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

/// Waits until Raft stops by an error. Returns the error.
async fn stopped(raft: &Raft) -> String {
    let mut metrics = raft.metrics();
    loop {
        if let Err(fatal) = &metrics.borrow_and_update().running_state {
            return fatal.to_string();
        }
        if metrics.changed().await.is_err() {
            return "its task ended".into();
        }
    }
}
