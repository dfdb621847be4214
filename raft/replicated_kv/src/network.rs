//! The messages between the nodes: postcard in the bodies of HTTP requests.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use openraft::BasicNode;
use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::types::Types;

/// The header with the id of the node that sends a message.
pub(crate) const SENDER: &str = "x-node";

/// Milliseconds between two attempts to reach a node that does not answer.
const RETRY_MILLIS: u64 = 100;

/// The nodes with which a node exchanges no messages: a partition, for tests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cut(Arc<RwLock<BTreeSet<u64>>>);

impl Cut {
    pub(crate) fn has(&self, node: u64) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }

    pub(crate) fn set(&self, nodes: BTreeSet<u64>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = nodes;
    }
}

#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("the link to node {0} is cut for a test")]
    Cut(u64),
    #[error("{0}")]
    Http(String),
    #[error("the answer of node {node} is none that this version knows: {source}")]
    Answer { node: u64, source: postcard::Error },
    #[error("the message cannot be encoded: {0}")]
    Message(postcard::Error),
}

/// Makes the connections of a node.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) me: u64,
    pub(crate) http: reqwest::Client,
    pub(crate) cut: Cut,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer { network: self.clone(), target, address: node.addr.clone() }
    }
}

/// The connection to one node.
#[derive(Debug)]
pub(crate) struct Peer {
    network: Network,
    target: u64,
    address: String,
}

type Failure<E> = RPCError<u64, BasicNode, RaftError<u64, E>>;

impl Peer {
    async fn call<A, E>(
        &self,
        what: &str,
        message: &impl Serialize,
        limit: Duration,
    ) -> Result<A, Failure<E>>
    where
        A: DeserializeOwned,
        E: Error + DeserializeOwned,
    {
        if self.network.cut.has(self.target) {
            return Err(Unreachable::new(&CallError::Cut(self.target)).into());
        }
        let failed = |e: CallError| Failure::<E>::Network(NetworkError::new(&e));
        let body = postcard::to_stdvec(message).map_err(|e| failed(CallError::Message(e)))?;
        let url = format!("http://{}/raft/{what}", self.address);
        let request = self.network.http.post(url).header(SENDER, self.network.me).timeout(limit);
        let answer = async { request.body(body).send().await?.error_for_status()?.bytes().await };
        let bytes = match answer.await {
            Ok(bytes) => bytes,
            Err(e) => {
                let cause = CallError::Http(described(&e));
                // A node that is not there is tried again after a pause, not at once.
                return Err(if e.is_connect() || e.is_status() {
                    Unreachable::new(&cause).into()
                } else {
                    failed(cause)
                });
            }
        };
        let answer: Result<A, RaftError<u64, E>> = postcard::from_bytes(&bytes)
            .map_err(|source| failed(CallError::Answer { node: self.target, source }))?;
        answer.map_err(|e| RemoteError::new(self.target, e).into())
    }
}

/// An error with its causes.
pub(crate) fn described(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        message: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        self.call("append", &message, option.hard_ttl()).await
    }

    async fn install_snapshot(
        &mut self,
        message: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<
        InstallSnapshotResponse<u64>,
        RPCError<u64, BasicNode, RaftError<u64, InstallSnapshotError>>,
    > {
        self.call("snapshot", &message, option.hard_ttl()).await
    }

    async fn vote(
        &mut self,
        message: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        self.call("vote", &message, option.hard_ttl()).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(Duration::from_millis(RETRY_MILLIS)))
    }
}
