//! The answers to clients, and their errors.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use openraft::BasicNode;
use openraft::error::{CheckIsLeaderError, ClientWriteError, ForwardToLeader, RaftError};
use serde::{Deserialize, Serialize};

/// Bytes of a key at most.
pub const MAX_KEY: usize = 1024;

/// Bytes of a value at most.
pub const MAX_VALUE: usize = 64 << 10;

/// The answer to a change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Written {
    /// Index of the log entry that has the change.
    pub index: u64,
    /// Whether the key was there before.
    pub existed: bool,
    /// Microseconds from the moment when the leader took the entry until it was committed and
    /// applied.
    pub commit_micros: u64,
}

/// The state of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The node's id.
    pub id: u64,
    /// Its process.
    pub pid: u32,
    /// `Leader`, `Follower`, `Candidate` or `Learner`.
    pub state: String,
    /// The leader, as far as this node knows.
    pub leader: Option<u64>,
    /// The term.
    pub term: u64,
    /// Index of the newest entry in the log.
    pub last_log: Option<u64>,
    /// Index of the newest entry that was applied.
    pub applied: Option<u64>,
    /// Index of the newest entry in the snapshot.
    pub snapshot: Option<u64>,
    /// Index of the newest entry that was purged.
    pub purged: Option<u64>,
    /// The voters.
    pub voters: BTreeSet<u64>,
    /// The addresses of voters and learners.
    pub nodes: BTreeMap<u64, String>,
}

/// A node's own copy of the map, which may lag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// Index of the newest entry that was applied.
    pub applied: Option<u64>,
    /// The keys and values.
    pub values: BTreeMap<String, String>,
}

/// The body of an answer that reports an error.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong, and what to do.
    pub error: String,
    /// Whether the request may have taken effect all the same.
    pub maybe_done: bool,
}

/// Why a request was not answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// Another node leads.
    #[error("this node does not lead: ask the leader at {0}")]
    NotLeader(String),
    /// No leader is known.
    #[error("no leader is known: an election may be under way, so retry in a second")]
    NoLeader,
    /// The leader reached no majority.
    #[error(
        "the leader reaches no majority of the voters: start the nodes that are down, and retry"
    )]
    NoQuorum,
    /// A change may or may not take effect.
    #[error("the outcome is unknown ({0}): the change may still take effect, so read the key")]
    Unknown(String),
    /// The request is wrong.
    #[error("{0}")]
    Bad(String),
    /// There is no such key.
    #[error("there is no key {0:?}")]
    NoKey(String),
    /// The membership cannot change so.
    #[error("the membership cannot change: {0}")]
    Membership(String),
    /// The node's Raft has stopped.
    #[error("this node has stopped: {0}")]
    Stopped(String),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Refusal::NotLeader(_) => StatusCode::TEMPORARY_REDIRECT,
            Refusal::NoLeader | Refusal::NoQuorum | Refusal::Stopped(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Refusal::Unknown(_) => StatusCode::GATEWAY_TIMEOUT,
            Refusal::Bad(_) => StatusCode::BAD_REQUEST,
            Refusal::NoKey(_) => StatusCode::NOT_FOUND,
            Refusal::Membership(_) => StatusCode::CONFLICT,
        }
    }

    /// The answer to a request for `path`.
    pub(crate) fn response(self, path: &str) -> Response {
        let maybe_done = matches!(self, Refusal::Unknown(_));
        let body = ErrorBody { error: self.to_string(), maybe_done };
        let mut response = (self.status(), Json(body)).into_response();
        if let Refusal::NotLeader(address) = self
            && let Ok(place) = HeaderValue::try_from(format!("http://{address}{path}"))
        {
            response.headers_mut().insert(header::LOCATION, place);
        }
        response
    }
}

impl From<ForwardToLeader<u64, BasicNode>> for Refusal {
    fn from(forward: ForwardToLeader<u64, BasicNode>) -> Self {
        forward.leader_node.map_or(Refusal::NoLeader, |node| Refusal::NotLeader(node.addr))
    }
}

impl From<RaftError<u64, CheckIsLeaderError<u64, BasicNode>>> for Refusal {
    fn from(error: RaftError<u64, CheckIsLeaderError<u64, BasicNode>>) -> Self {
        match error {
            RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward)) => forward.into(),
            RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)) => Refusal::NoQuorum,
            RaftError::Fatal(fatal) => Refusal::Stopped(fatal.to_string()),
        }
    }
}

impl From<RaftError<u64, ClientWriteError<u64, BasicNode>>> for Refusal {
    /// Of an entry that was handed to openraft.
    fn from(error: RaftError<u64, ClientWriteError<u64, BasicNode>>) -> Self {
        match error {
            // openraft says the same of an entry that it did not take, and of one that it took and
            // that a new leader replaced.
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
                Refusal::Unknown("the leader changed".into())
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(e)) => {
                Refusal::Membership(e.to_string())
            }
            RaftError::Fatal(fatal) => Refusal::Unknown(fatal.to_string()),
        }
    }
}
