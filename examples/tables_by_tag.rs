//! A store with one log for all its tables. The tag of a record is its table's number.
//!
//! `cargo run --example tables_by_tag -- DIRECTORY put TABLE KEY VALUE [TABLE KEY VALUE ...]`, and
//! `list TABLE`, `checkpoint TABLE`, `drop TABLE`, `tables`.
//!
//! One `put` writes to several tables, all or nothing, with one sync. Each table is loaded by
//! itself: a filtered reader skips the records of the others. Each table is checkpointed by itself
//! too: its floor says from where on it needs the log, and the log keeps what the slowest table
//! needs. `tests/tools/tables_by_tag.rs` tests that over kills.
#![allow(clippy::print_stdout, reason = "a program")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use ringwal::{HeldBy, Lsn, Wal};
use serde::{Deserialize, Serialize};

type Failure = Box<dyn Error>;

/// A table's rows, with every change below `next`. Also the content of its checkpoint.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Table {
    next: Lsn,
    rows: BTreeMap<String, String>,
}

struct Store {
    dir: PathBuf,
    log: Wal,
}

impl Store {
    fn open(dir: &Path) -> Result<Self, Failure> {
        // Small segments, so that a checkpoint soon frees some.
        let log = Wal::builder(dir.join("log")).segment_size(64 << 10).max_segments(4).open()?;
        Ok(Store { dir: dir.into(), log })
    }

    fn checkpoint_file(&self, table: u64) -> PathBuf {
        self.dir.join(format!("table-{table}"))
    }

    /// Writes to several tables at once. On return all of it is durable.
    fn put(&self, changes: &[(u64, (&str, &str))]) -> Result<(), Failure> {
        for (table, _) in changes {
            // A new table needs the log from here on.
            if !self.log.tag_floors().iter().any(|floor| floor.tag == *table) {
                self.log.hold_tag(*table, self.log.end())?;
            }
        }
        let encode = |(table, change)| Ok((table, serde_json::to_vec(&change)?));
        let records: Vec<(u64, Vec<u8>)> =
            changes.iter().copied().map(encode).collect::<Result<_, serde_json::Error>>()?;
        let lsns = self.log.append_batch_tagged(&records)?;
        self.log.wait_durable(lsns.last_lsn())?;
        Ok(())
    }

    /// Loads one table: its checkpoint, and its records after that.
    fn load(&self, table: u64) -> Result<Table, Failure> {
        let mut loaded: Table = match fs::read(self.checkpoint_file(table)) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Table::default(),
            Err(e) => return Err(e.into()),
        };
        // Records of other tables may be gone from there; none of this table is.
        let from = loaded.next.max(self.log.oldest_lsn());
        let mut reader = self.log.tagged(table).reader(from);
        while let Some(record) = reader.next_ref()? {
            let (key, value) = serde_json::from_slice(record.payload())?;
            loaded.rows.insert(key, value);
            loaded.next = record.lsn().next();
        }
        Ok(loaded)
    }

    /// Stores a table, and lets the log remove what only this table needed.
    fn checkpoint(&self, table: u64) -> Result<(), Failure> {
        // Read first: every change below is in the table then.
        let end = self.log.durable_end();
        let mut loaded = self.load(table)?;
        loaded.next = loaded.next.max(end);
        self.store(table, &loaded)?;
        self.log.release_tag(table, end)?;
        Ok(())
    }

    /// Replaces the checkpoint of a table.
    fn store(&self, table: u64, content: &Table) -> Result<(), Failure> {
        let (path, new) = (self.checkpoint_file(table), self.dir.join("checkpoint.new"));
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(content)?)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(&self.dir)?.sync_all()?;
        Ok(())
    }

    /// Empties a table. The log keeps nothing for it until it is written again.
    fn drop_table(&self, table: u64) -> Result<(), Failure> {
        // Its records may stay in the log for a while. They lie below the empty checkpoint.
        self.store(table, &Table { next: self.log.durable_end(), ..Table::default() })?;
        self.log.remove_tag_floor(table)?;
        Ok(())
    }
}

fn run(store: &Store, arguments: &[String]) -> Result<(), Failure> {
    let (command, rest) = arguments.split_first().ok_or("a command is missing")?;
    let table =
        || -> Result<u64, Failure> { Ok(rest.first().ok_or("a table is missing")?.parse()?) };
    match command.as_str() {
        "put" if !rest.is_empty() && rest.len().is_multiple_of(3) => {
            let change = |c: &'_ [String]| Ok((c[0].parse()?, (c[1].clone(), c[2].clone())));
            let changes = rest.chunks(3).map(change).collect::<Result<Vec<_>, Failure>>()?;
            let borrowed: Vec<_> =
                changes.iter().map(|(table, (k, v))| (*table, (k.as_str(), v.as_str()))).collect();
            store.put(&borrowed)?;
            println!("durable");
        }
        "list" => {
            for (key, value) in store.load(table()?)?.rows {
                println!("{key} {value}");
            }
        }
        "checkpoint" => store.checkpoint(table()?)?,
        "drop" => store.drop_table(table()?)?,
        "tables" => {
            for floor in store.log.tag_floors() {
                println!("{} needs the log from {}", floor.tag, floor.floor);
            }
            if let Some(HeldBy::Tag { tag, .. }) = store.log.held_by() {
                println!("{tag} holds the log");
            }
        }
        _ => return Err("put TABLE KEY VALUE ..., list, checkpoint, drop TABLE, or tables".into()),
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("a directory is missing")?);
    fs::create_dir_all(&dir)?;
    let store = Store::open(&dir)?;
    let done = run(&store, &arguments.collect::<Vec<_>>());
    store.log.close()?;
    done
}
