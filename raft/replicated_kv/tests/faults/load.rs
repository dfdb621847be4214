//! Clients that put, delete and get keys of any node, and record what they see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use replicated_kv::client::{Client, Said, key_path};
use reqwest::Method;

use crate::history::{Event, History, Operation, Value};

pub(crate) const KEYS: u64 = 24;

/// Bytes that each value has beside its number, so that the log fills its segments.
const PADDING: usize = 2000;

/// How long a client waits for an answer.
pub(crate) const LIMIT: Duration = Duration::from_millis(700);

/// What the clients share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) history: History,
    /// Changes that were acknowledged.
    pub(crate) acknowledged: AtomicU64,
    pub(crate) stop: AtomicBool,
    next_value: AtomicU64,
}

pub(crate) fn key(number: u64) -> String {
    format!("key/{number}")
}

/// The number of a value.
pub(crate) fn number(text: &str) -> u64 {
    text.trim_end_matches('.').parse().unwrap()
}

/// Sends one request after the other until it is told to stop.
pub(crate) async fn run(shared: Arc<Shared>, nodes: Vec<String>, mut rng: Rng) {
    let client = Client::new(nodes.clone(), LIMIT, LIMIT).unwrap();
    while !shared.stop.load(Ordering::Relaxed) {
        let node = rng.choice(&nodes).unwrap();
        let key = key(rng.u64(..KEYS));
        match rng.u8(..20) {
            0..10 => get(&shared, &client, node, &key).await.map_or((), drop),
            10..19 => {
                let value = shared.next_value.fetch_add(1, Ordering::Relaxed);
                change(&shared, &client, node, &key, Some(value)).await;
            }
            _ => change(&shared, &client, node, &key, None).await,
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(5..15))).await;
    }
}

/// Asks a node, and the leader that it names.
async fn ask(client: &Client, node: &str, method: Method, key: &str, body: &str) -> Said {
    let path = key_path(key).unwrap();
    let mut node = node.to_owned();
    let mut said = Said::Later("too many redirects".into());
    for _ in 0..3 {
        said = client.ask_node(&node, method.clone(), &path, body.into()).await;
        match &said {
            Said::Elsewhere(leader) => node.clone_from(leader),
            _ => break,
        }
    }
    said
}

/// Reads a key. Returns its value if there was an answer.
pub(crate) async fn get(shared: &Shared, client: &Client, node: &str, key: &str) -> Option<Value> {
    let called = shared.history.now();
    let value = match ask(client, node, Method::GET, key, "").await {
        Said::Done(body) => Some(number(&String::from_utf8(body).unwrap())),
        Said::NoKey(_) => None,
        _ => return None,
    };
    let returned = Some(shared.history.now());
    shared.history.record(key, Event { called, returned, operation: Operation::Read(value) });
    Some(value)
}

async fn change(shared: &Shared, client: &Client, node: &str, key: &str, value: Value) {
    let called = shared.history.now();
    let said = match value {
        Some(value) => {
            let text = format!("{value}{}", ".".repeat(PADDING));
            ask(client, node, Method::PUT, key, &text).await
        }
        None => ask(client, node, Method::DELETE, key, "").await,
    };
    let returned = match said {
        Said::Done(_) => {
            shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            Some(shared.history.now())
        }
        Said::Unknown(_) => None,
        Said::Elsewhere(_) | Said::Later(_) => return,
        Said::Refused(why) | Said::NoKey(why) => panic!("{key}: {why}"),
    };
    shared.history.record(key, Event { called, returned, operation: Operation::Write(value) });
}
