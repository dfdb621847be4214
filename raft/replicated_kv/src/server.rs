//! The HTTP interface of a node.
//!
//! | request | answer |
//! |---|---|
//! | `PUT /kv/KEY`, the value in the body | a change; the leader alone makes it |
//! | `DELETE /kv/KEY` | a change |
//! | `GET /kv/KEY` | the newest value, from the leader; `?local=true`: this node's, which may lag |
//! | `GET /status`, `GET /copy` | the node's state, and its whole map |
//! | `GET /metrics` | the counters of log and Raft, in the text format of Prometheus |
//! | `POST /members/init` | begins a cluster: `{"1": "host:port", ..}` |
//! | `POST /members/ID`, the address in the body | adds a learner, and waits until it has the log |
//! | `PUT /members` | the ids of the voters from now on: `[1, 2, 3]` |
//! | `POST /raft/..` | messages of other nodes |
//! | `PUT /fault/cut` | cuts the links to these nodes; only with `--fault-injection` |

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use openraft::{BasicNode, ChangeMembers};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::answers::{Copy, MAX_KEY, MAX_VALUE, Refusal, Status};
use crate::machine::Machine;
use crate::network::{Cut, SENDER};
use crate::requests::Requests;
use crate::types::{Change, Raft};

/// Bytes of a message between nodes at most.
const MAX_MESSAGE: usize = 64 << 20;

/// What the requests to a node use.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) raft: Raft,
    pub(crate) requests: Requests,
    pub(crate) machine: Machine,
    pub(crate) wal: ringwal_openraft::RaftLogs,
    pub(crate) prometheus: PrometheusHandle,
    pub(crate) cut: Cut,
}

pub(crate) fn router(service: Service, fault_injection: bool) -> Router {
    let mut router = Router::new()
        .route("/kv/{key}", get(read).put(write).delete(delete))
        .route("/status", get(status))
        .route("/copy", get(copy))
        .route("/metrics", get(metrics_text))
        .route("/members", put(set_voters))
        .route("/members/init", post(init))
        .route("/members/{id}", post(add_learner))
        .route("/raft/append", post(append))
        .route("/raft/snapshot", post(snapshot))
        .route("/raft/vote", post(vote));
    if fault_injection {
        router = router.route("/fault/cut", put(set_cut));
    }
    router.layer(DefaultBodyLimit::max(MAX_MESSAGE)).with_state(service)
}

fn answer<T: Serialize>(uri: &Uri, result: Result<T, Refusal>) -> Response {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    match result {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => refusal.response(path),
    }
}

#[derive(Debug, Deserialize)]
struct ReadOptions {
    #[serde(default)]
    local: bool,
}

async fn read(
    State(service): State<Service>,
    uri: Uri,
    Path(key): Path<String>,
    Query(options): Query<ReadOptions>,
) -> Response {
    if !options.local
        && let Err(refusal) = service.requests.read().await
    {
        return answer::<()>(&uri, Err(refusal));
    }
    match service.machine.applied().values.get(&key) {
        Some(value) => value.clone().into_response(),
        None => answer::<()>(&uri, Err(Refusal::NoKey(key))),
    }
}

async fn write(
    State(service): State<Service>,
    uri: Uri,
    Path(key): Path<String>,
    value: Bytes,
) -> Response {
    let change = checked_value(value).map(|value| Change::Put { key, value });
    changed(&service, &uri, change).await
}

async fn delete(State(service): State<Service>, uri: Uri, Path(key): Path<String>) -> Response {
    changed(&service, &uri, Ok(Change::Delete { key })).await
}

fn checked_value(value: Bytes) -> Result<String, Refusal> {
    if value.len() > MAX_VALUE {
        let text = format!("the value has {} bytes: at most {MAX_VALUE} are allowed", value.len());
        return Err(Refusal::Bad(text));
    }
    let text = String::from_utf8(value.to_vec());
    text.map_err(|e| Refusal::Bad(format!("the value is no UTF-8 ({e}): encode it as text first")))
}

async fn changed(service: &Service, uri: &Uri, change: Result<Change, Refusal>) -> Response {
    let result = async {
        let change = change?;
        let (Change::Put { key, .. } | Change::Delete { key }) = &change;
        if key.len() > MAX_KEY {
            let text = format!("the key has {} bytes: at most {MAX_KEY} are allowed", key.len());
            return Err(Refusal::Bad(text));
        }
        service.requests.write(change).await
    };
    answer(uri, result.await)
}

async fn status(State(service): State<Service>) -> Json<Status> {
    let metrics = service.raft.metrics();
    let metrics = metrics.borrow();
    let membership = metrics.membership_config.membership();
    Json(Status {
        id: metrics.id,
        pid: std::process::id(),
        state: format!("{:?}", metrics.state),
        leader: metrics.current_leader,
        term: metrics.current_term,
        last_log: metrics.last_log_index,
        applied: metrics.last_applied.map(|id| id.index),
        snapshot: metrics.snapshot.map(|id| id.index),
        purged: metrics.purged.map(|id| id.index),
        voters: membership.voter_ids().collect(),
        nodes: membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
    })
}

async fn copy(State(service): State<Service>) -> Json<Copy> {
    let applied = service.machine.applied();
    Json(Copy { applied: applied.last.map(|id| id.index), values: applied.values.clone() })
}

async fn metrics_text(State(service): State<Service>) -> String {
    service.wal.wal().publish_metrics("raft");
    let metrics = service.raft.metrics().borrow().clone();
    let is_leader = metrics.current_leader == Some(metrics.id);
    let lag = metrics.replication.iter().flatten().map(|(node, matched)| {
        let matched = matched.map_or(0, |id| id.index);
        (*node, metrics.last_log_index.unwrap_or(0).saturating_sub(matched))
    });
    for (node, lag) in lag {
        metrics::gauge!("replicated_kv_follower_lag_entries", "node" => node.to_string())
            .set(lag as f64);
    }
    let index = |id: Option<crate::types::LogId>| id.map_or(0, |id| id.index) as f64;
    metrics::gauge!("replicated_kv_is_leader").set(f64::from(is_leader));
    metrics::gauge!("replicated_kv_term").set(metrics.current_term as f64);
    metrics::gauge!("replicated_kv_last_log_index").set(metrics.last_log_index.unwrap_or(0) as f64);
    metrics::gauge!("replicated_kv_applied_index").set(index(metrics.last_applied));
    metrics::gauge!("replicated_kv_snapshot_index").set(index(metrics.snapshot));
    metrics::gauge!("replicated_kv_purged_index").set(index(metrics.purged));
    metrics::gauge!("replicated_kv_keys").set(service.machine.applied().values.len() as f64);
    service.prometheus.run_upkeep();
    service.prometheus.render()
}

async fn init(
    State(service): State<Service>,
    uri: Uri,
    Json(nodes): Json<BTreeMap<u64, String>>,
) -> Response {
    let nodes: BTreeMap<u64, BasicNode> =
        nodes.into_iter().map(|(id, address)| (id, BasicNode::new(address))).collect();
    let begun = service.raft.initialize(nodes).await;
    answer(&uri, begun.map_err(|e| Refusal::Membership(e.to_string())))
}

async fn add_learner(
    State(service): State<Service>,
    uri: Uri,
    Path(id): Path<u64>,
    address: String,
) -> Response {
    let result = async {
        service.requests.lead()?;
        let node = BasicNode::new(address);
        let added = service.raft.add_learner(id, node, true).await.map_err(Refusal::from)?;
        Ok(added.log_id.index)
    };
    answer(&uri, result.await)
}

async fn set_voters(
    State(service): State<Service>,
    uri: Uri,
    Json(voters): Json<BTreeSet<u64>>,
) -> Response {
    let result = async {
        service.requests.lead()?;
        // A node that is no voter any more leaves the cluster.
        let change = ChangeMembers::ReplaceAllVoters(voters);
        let set = service.raft.change_membership(change, false).await.map_err(Refusal::from)?;
        Ok(set.log_id.index)
    };
    answer(&uri, result.await)
}

async fn set_cut(State(service): State<Service>, Json(nodes): Json<BTreeSet<u64>>) {
    service.cut.set(nodes);
}

/// The node that sent a message.
fn sender(headers: &HeaderMap) -> Option<u64> {
    headers.get(SENDER)?.to_str().ok()?.parse().ok()
}

/// Decodes a message from another node, unless the link is cut.
fn message<T: DeserializeOwned>(
    service: &Service,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<T, (StatusCode, String)> {
    let sender = sender(headers).ok_or_else(|| {
        (StatusCode::BAD_REQUEST, format!("the header {SENDER} has no node's id"))
    })?;
    if service.cut.has(sender) {
        return Err((StatusCode::BAD_GATEWAY, "the link is cut for a test".into()));
    }
    let unknown = |e| (StatusCode::BAD_REQUEST, format!("no message of this version: {e}"));
    postcard::from_bytes(body).map_err(unknown)
}

/// The answer to another node. A node that was cut off meanwhile gets none.
fn reply<T: Serialize>(service: &Service, headers: &HeaderMap, result: &T) -> Response {
    match postcard::to_stdvec(result) {
        _ if sender(headers).is_some_and(|sender| service.cut.has(sender)) => {
            (StatusCode::BAD_GATEWAY, "the link is cut for a test").into_response()
        }
        Ok(bytes) => bytes.into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

async fn append(State(service): State<Service>, headers: HeaderMap, body: Bytes) -> Response {
    match message(&service, &headers, &body) {
        Ok(sent) => reply(&service, &headers, &service.raft.append_entries(sent).await),
        Err(refused) => refused.into_response(),
    }
}

async fn snapshot(State(service): State<Service>, headers: HeaderMap, body: Bytes) -> Response {
    match message(&service, &headers, &body) {
        Ok(sent) => reply(&service, &headers, &service.raft.install_snapshot(sent).await),
        Err(refused) => refused.into_response(),
    }
}

async fn vote(State(service): State<Service>, headers: HeaderMap, body: Bytes) -> Response {
    match message(&service, &headers, &body) {
        Ok(sent) => reply(&service, &headers, &service.raft.vote(sent).await),
        Err(refused) => refused.into_response(),
    }
}
