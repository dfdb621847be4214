//! Logs create, update and delete operations as JSON. Replay rebuilds the map.
//!
//! `cargo run --example json_operations`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::collections::BTreeMap;
use std::convert::Infallible;

use ringwal::{ReplayError, Wal};
use serde_json::{Value, json};

type Users = BTreeMap<String, Value>;

fn apply(users: &mut Users, operation: &Value) {
    let id = operation["id"].as_str().unwrap_or_default().to_owned();
    match operation["op"].as_str() {
        Some("create" | "update") => {
            users.insert(id, operation["user"].clone());
        }
        Some("delete") => {
            users.remove(&id);
        }
        _ => {}
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("ringwal-json-{}", std::process::id()));
    let operations = [
        json!({"op": "create", "id": "ada", "user": {"name": "Ada", "visits": 1}}),
        json!({"op": "create", "id": "bob", "user": {"name": "Bob", "visits": 7}}),
        json!({"op": "update", "id": "ada", "user": {"name": "Ada", "visits": 2}}),
        json!({"op": "create", "id": "eve", "user": {"name": "Eve", "visits": 3}}),
        json!({"op": "delete", "id": "bob"}),
    ];

    let mut live = Users::new();
    let wal = Wal::open(&dir)?;
    for operation in &operations {
        // The log comes first: after a crash it has every operation of the state.
        wal.append_durable(&serde_json::to_vec(operation)?)?;
        apply(&mut live, operation);
    }
    drop(wal);

    let wal = Wal::open(&dir)?;
    let mut rebuilt = Users::new();
    let mut unreadable = 0;
    let replayed = wal.replay(|_, payload| {
        match serde_json::from_slice(payload) {
            Ok(operation) => apply(&mut rebuilt, &operation),
            Err(_) => unreadable += 1,
        }
        Ok::<(), Infallible>(())
    });
    let replayed = replayed.map_err(|e| match e {
        ReplayError::Log(e) => e,
        ReplayError::Apply { error, .. } => match error {},
    })?;
    println!("{replayed} operations rebuild {} users:", rebuilt.len());
    for (id, user) in &rebuilt {
        println!("  {id}: {user}");
    }
    assert_eq!((rebuilt, unreadable), (live, 0));

    wal.close()?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
