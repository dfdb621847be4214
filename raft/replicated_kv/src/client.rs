//! A client that finds the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode, Url, header, redirect};
use serde::de::DeserializeOwned;

use crate::answers::{Copy, ErrorBody, Status, Written};
use crate::network::described;

/// Pause before another node is asked.
const PAUSE: Duration = Duration::from_millis(20);

/// Why a request failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The request is wrong, or there is no such key. Nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// No node took the request. Nothing was changed.
    #[error("no node took the request: {0}")]
    NotDone(String),
    /// The change may have taken effect, or may take effect later.
    #[error("{0}; the change may still take effect, so read the key before you retry")]
    Unknown(String),
}

/// What one node said to a request.
#[derive(Debug, Clone)]
pub enum Said {
    /// The body of the answer.
    Done(Vec<u8>),
    /// There is no such key.
    NoKey(String),
    /// The leader has this address. Nothing was changed.
    Elsewhere(String),
    /// Not now. Nothing was changed.
    Later(String),
    /// The request is wrong. Nothing was changed.
    Refused(String),
    /// A change may have taken effect, or may take effect later.
    Unknown(String),
}

/// A client of a cluster.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    nodes: Vec<String>,
    /// The address of the node that answered last.
    leader: Mutex<Option<String>>,
    patience: Duration,
}

impl Client {
    /// A client of the nodes with these addresses. It waits `limit` for one answer, and `patience`
    /// for a node that takes the request.
    ///
    /// # Errors
    ///
    /// `Refused` if there is no node, or the HTTP client cannot be set up.
    pub fn new(
        nodes: Vec<String>,
        limit: Duration,
        patience: Duration,
    ) -> Result<Client, ClientError> {
        if nodes.is_empty() {
            return Err(ClientError::Refused("no node is named: set --nodes".into()));
        }
        let http = reqwest::Client::builder()
            .timeout(limit)
            .connect_timeout(limit)
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|e| ClientError::Refused(described(&e)))?;
        Ok(Client { http, nodes, leader: Mutex::new(None), patience })
    }

    /// Sets a key. Durable on a majority when it returns.
    ///
    /// # Errors
    ///
    /// All of [`ClientError`].
    pub async fn put(&self, key: &str, value: &str) -> Result<Written, ClientError> {
        let path = key_path(key)?;
        decoded(self.ask(Method::PUT, &path, value.into(), false).await?)
    }

    /// Removes a key. Durable on a majority when it returns.
    ///
    /// # Errors
    ///
    /// All of [`ClientError`].
    pub async fn delete(&self, key: &str) -> Result<Written, ClientError> {
        decoded(self.ask(Method::DELETE, &key_path(key)?, Vec::new(), false).await?)
    }

    /// The newest value of a key.
    ///
    /// # Errors
    ///
    /// `NotDone` and `Refused`.
    pub async fn get(&self, key: &str) -> Result<Option<String>, ClientError> {
        let value = self.ask_any(Method::GET, &key_path(key)?, Vec::new(), true).await?;
        let text = value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(text)
    }

    /// Begins a cluster of these nodes: ids and addresses.
    ///
    /// # Errors
    ///
    /// All of [`ClientError`]; `Refused` if the nodes are in a cluster.
    pub async fn init(&self, nodes: &BTreeMap<u64, String>) -> Result<(), ClientError> {
        let body = json(nodes)?;
        self.ask(Method::POST, "/members/init", body, false).await.map(drop)
    }

    /// Adds a node without a vote, and waits until it has the log.
    ///
    /// # Errors
    ///
    /// All of [`ClientError`].
    pub async fn add_learner(&self, id: u64, address: &str) -> Result<(), ClientError> {
        let path = format!("/members/{id}");
        self.ask(Method::POST, &path, address.into(), false).await.map(drop)
    }

    /// Sets the voters. A node that is no voter any more leaves the cluster.
    ///
    /// # Errors
    ///
    /// All of [`ClientError`]; `Refused` if a new voter is no learner.
    pub async fn set_voters(&self, voters: &BTreeSet<u64>) -> Result<(), ClientError> {
        self.ask(Method::PUT, "/members", json(voters)?, false).await.map(drop)
    }

    /// The state of one node.
    ///
    /// # Errors
    ///
    /// `NotDone` if the node does not answer.
    pub async fn status(&self, node: &str) -> Result<Status, ClientError> {
        self.of_node(node, "/status").await
    }

    /// The copy of one node.
    ///
    /// # Errors
    ///
    /// `NotDone` if the node does not answer.
    pub async fn copy(&self, node: &str) -> Result<Copy, ClientError> {
        self.of_node(node, "/copy").await
    }

    async fn of_node<T: DeserializeOwned>(&self, node: &str, path: &str) -> Result<T, ClientError> {
        match self.ask_node(node, Method::GET, path, Vec::new()).await {
            Said::Done(body) => decoded(body),
            said => Err(ClientError::NotDone(format!("{node}: {said:?}"))),
        }
    }

    /// As [`Client::ask_any`], for requests that no missing key concerns.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        repeatable: bool,
    ) -> Result<Vec<u8>, ClientError> {
        let answer = self.ask_any(method, path, body, repeatable).await?;
        answer.ok_or_else(|| ClientError::Refused(format!("{path}: the node has no such page")))
    }

    /// Asks one node after another until one takes the request. `None`: there is no such key.
    async fn ask_any(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        repeatable: bool,
    ) -> Result<Option<Vec<u8>>, ClientError> {
        let until = Instant::now() + self.patience;
        let mut next = self.nodes.iter().cycle();
        loop {
            let leader = self.leader().clone();
            let Some(node) = leader.as_ref().or_else(|| next.next()) else { continue };
            let last = match self.ask_node(node, method.clone(), path, body.clone()).await {
                Said::Done(answer) => {
                    self.leader().get_or_insert_with(|| node.clone());
                    return Ok(Some(answer));
                }
                Said::NoKey(_) => return Ok(None),
                Said::Refused(why) => return Err(ClientError::Refused(why)),
                Said::Unknown(why) if !repeatable => {
                    *self.leader() = None;
                    return Err(ClientError::Unknown(why));
                }
                Said::Elsewhere(address) if leader.as_ref() != Some(&address) => {
                    *self.leader() = Some(address);
                    continue;
                }
                Said::Elsewhere(why) | Said::Later(why) | Said::Unknown(why) => {
                    *self.leader() = None;
                    why
                }
            };
            if Instant::now() >= until {
                return Err(ClientError::NotDone(last));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn leader(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks one node, once.
    pub async fn ask_node(&self, node: &str, method: Method, path: &str, body: Vec<u8>) -> Said {
        let url = format!("http://{node}{path}");
        let mut request = self.http.request(method, url);
        if path.starts_with("/members") || path.starts_with("/fault") {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let answer = match request.body(body).send().await {
            Ok(answer) => answer,
            // No connection: the node has not seen the request.
            Err(e) if e.is_connect() || e.is_builder() => return Said::Later(described(&e)),
            Err(e) => return Said::Unknown(described(&e)),
        };
        let status = answer.status();
        let place = answer.headers().get(header::LOCATION).and_then(|place| place.to_str().ok());
        let place = place.and_then(|place| Url::parse(place).ok());
        let body = match answer.bytes().await {
            Ok(body) => body.to_vec(),
            Err(e) => return Said::Unknown(described(&e)),
        };
        if status.is_success() {
            return Said::Done(body);
        }
        said(status, place, &body)
    }
}

/// What an answer that is no success says.
fn said(status: StatusCode, place: Option<Url>, body: &[u8]) -> Said {
    let host = |url: Url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?));
    if status == StatusCode::TEMPORARY_REDIRECT
        && let Some(address) = place.and_then(host)
    {
        return Said::Elsewhere(address);
    }
    let text = || String::from_utf8_lossy(body).into_owned();
    let error = serde_json::from_slice(body)
        .unwrap_or_else(|_| ErrorBody { error: text(), maybe_done: status.is_server_error() });
    match status {
        StatusCode::NOT_FOUND => Said::NoKey(error.error),
        _ if error.maybe_done => Said::Unknown(error.error),
        _ if status.is_client_error() => Said::Refused(error.error),
        _ => Said::Later(error.error),
    }
}

/// The path of a key.
///
/// # Errors
///
/// `Refused` for a key that no path can have.
pub fn key_path(key: &str) -> Result<String, ClientError> {
    let mut url = Url::parse("http://node/kv").map_err(|e| ClientError::Refused(e.to_string()))?;
    if let Ok(mut path) = url.path_segments_mut() {
        path.push(key);
    }
    match url.path() {
        "/kv" | "/kv/" => {
            Err(ClientError::Refused(format!("{key:?} cannot be a key: choose another name")))
        }
        path => Ok(path.to_owned()),
    }
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(value).map_err(|e| ClientError::Refused(e.to_string()))
}

fn decoded<T: DeserializeOwned>(body: Vec<u8>) -> Result<T, ClientError> {
    let unknown = |e| ClientError::Refused(format!("the answer is none of this version: {e}"));
    serde_json::from_slice(&body).map_err(unknown)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_any_character_have_a_path_of_their_own() {
        assert_eq!(key_path("a/b c?#ü").unwrap(), "/kv/a%2Fb%20c%3F%23%C3%BC");
        for wrong in ["", ".", ".."] {
            assert!(matches!(key_path(wrong), Err(ClientError::Refused(_))), "{wrong:?}");
        }
    }

    #[test]
    fn answer_that_is_no_success_says_whether_the_change_may_be_done() {
        let body = |maybe_done| {
            serde_json::to_vec(&ErrorBody { error: "why".into(), maybe_done }).unwrap()
        };
        let of = |status, maybe| said(status, None, &body(maybe));
        assert!(matches!(of(StatusCode::NOT_FOUND, false), Said::NoKey(_)));
        assert!(matches!(of(StatusCode::BAD_REQUEST, false), Said::Refused(_)));
        assert!(matches!(of(StatusCode::SERVICE_UNAVAILABLE, false), Said::Later(_)));
        assert!(matches!(of(StatusCode::GATEWAY_TIMEOUT, true), Said::Unknown(_)));
        let moved = said(
            StatusCode::TEMPORARY_REDIRECT,
            Some(Url::parse("http://127.0.0.1:9/kv/x").unwrap()),
            &body(false),
        );
        assert!(matches!(moved, Said::Elsewhere(address) if address == "127.0.0.1:9"));
        // A proxy's answer is no JSON.
        assert!(matches!(said(StatusCode::BAD_GATEWAY, None, b"<html>"), Said::Unknown(_)));
    }
}
