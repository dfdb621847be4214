//! A durable key-value store: every change is durable in the log before it is answered. Snapshots
//! keep the log short.
//!
//! `cargo run --example key_value -- DIRECTORY put KEY VALUE`, and `get KEY`, `delete KEY`, `list`,
//! `snapshot`, `fill COUNT`.
//!
//! The map is in memory. An open loads the newest snapshot and replays the log after it. A snapshot
//! is written to a temporary file, synced and renamed; only then is the log before it truncated. A
//! store killed at any moment keeps every answered change: `tests/tools/examples.rs` tests that.
#![allow(clippy::print_stdout, reason = "a program")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use ringwal::{Lsn, TypedWal, Wal};
use serde::{Deserialize, Serialize};

type Failure = Box<dyn Error>;

#[derive(Debug, Serialize, Deserialize)]
enum Change {
    Put(String, String),
    Delete(String),
}

/// The content of a snapshot file. The map has every change below `next`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Snapshot {
    next: Lsn,
    map: BTreeMap<String, String>,
}

struct Store {
    dir: PathBuf,
    log: TypedWal<Change>,
    state: Snapshot,
}

impl Store {
    fn open(dir: &Path) -> Result<Self, Failure> {
        // Small segments, so that a snapshot soon frees some.
        let wal =
            Wal::builder(dir.join("log")).application_version(1).segment_size(1 << 20).open()?;
        let log = TypedWal::new(wal);
        let mut state = match fs::read(dir.join("snapshot")) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Snapshot::default(),
            Err(e) => return Err(e.into()),
        };
        for change in log.reader(state.next) {
            let (lsn, change) = change?;
            state.apply(lsn, change);
        }
        Ok(Store { dir: dir.into(), log, state })
    }

    /// Makes a change: durable in the log first, then in the map.
    fn change(&mut self, change: Change) -> Result<(), Failure> {
        let lsn = self.log.append_durable(&change)?;
        self.state.apply(lsn, change);
        Ok(())
    }

    fn snapshot(&self) -> Result<Lsn, Failure> {
        let (new, name) = (self.dir.join("snapshot.new"), self.dir.join("snapshot"));
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(&self.state)?)?;
        file.sync_all()?;
        fs::rename(&new, &name)?;
        File::open(&self.dir)?.sync_all()?;
        Ok(self.log.wal().truncate_before(self.state.next)?)
    }
}

impl Snapshot {
    fn apply(&mut self, lsn: Lsn, change: Change) {
        match change {
            Change::Put(key, value) => drop(self.map.insert(key, value)),
            Change::Delete(key) => drop(self.map.remove(&key)),
        }
        self.next = lsn.next();
    }
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // Without arguments: a short demonstration in a temporary directory.
    let show = std::env::temp_dir().join(format!("ringwal-key-value-{}", std::process::id()));
    let (dir, command) = match words.split_first() {
        Some((dir, command)) => (Path::new(*dir), command.to_vec()),
        None => (show.as_path(), vec!["fill", "1000"]),
    };
    let mut store = Store::open(dir)?;
    match command[..] {
        ["put", key, value] => store.change(Change::Put(key.into(), value.into()))?,
        ["delete", key] => store.change(Change::Delete(key.into()))?,
        ["get", key] => match store.state.map.get(key) {
            Some(value) => println!("{value}"),
            None => return Err(format!("there is no {key}").into()),
        },
        ["list"] => store.state.map.iter().for_each(|(key, value)| println!("{key} {value}")),
        ["snapshot"] => println!("the log is kept from {}", store.snapshot()?),
        ["fill", count] => {
            let (begun, count) = (store.state.map.len(), count.parse::<usize>()?);
            for n in begun..begun + count {
                store.change(Change::Put(format!("key {n:08}"), "x".repeat(n % 300)))?;
                if n % 500 == 499 {
                    store.snapshot()?;
                }
                // The change is answered: from here on it is a promise.
                println!("{n}");
            }
        }
        _ => {
            return Err(
                "put KEY VALUE | get KEY | delete KEY | list | snapshot | fill COUNT".into()
            );
        }
    }
    store.log.wal().close()?;
    if words.is_empty() {
        fs::remove_dir_all(&show)?;
    }
    Ok(())
}
