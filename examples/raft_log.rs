//! The storage of a Raft node, without a Raft library: log entries, the vote, truncation, purging.
//!
//! `cargo run --example raft_log`.
//!
//! Entries are records. The vote and the purge mark are cells: they have one current value, and
//! must survive a truncation of the entries. A truncation is a record too, and applies at replay: a
//! cut of the log would void records after the entries, and other groups that share the log.
#![allow(clippy::print_stdout, reason = "a program")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use ringwal::{Cell, Lsn, Wal};

type Failure = Box<dyn Error + Send + Sync>;

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
enum Event {
    Entry {
        index: u64,
        term: u64,
        data: Vec<u8>,
    },
    /// The entries from `index` on were overruled.
    Truncate {
        index: u64,
    },
}

impl Event {
    fn encode(&self) -> Vec<u8> {
        let (kind, index, term, data): (u8, u64, u64, &[u8]) = match self {
            Event::Entry { index, term, data } => (0, *index, *term, data),
            Event::Truncate { index } => (1, *index, 0, &[]),
        };
        [&[kind], &index.to_le_bytes()[..], &term.to_le_bytes(), data].concat()
    }

    fn decode(bytes: &[u8]) -> Result<Self, Failure> {
        let (&kind, rest) = bytes.split_first().ok_or("an empty record")?;
        let (index, rest) = rest.split_first_chunk().ok_or("a record without an index")?;
        let (term, data) = rest.split_first_chunk().ok_or("a record without a term")?;
        let (index, term) = (u64::from_le_bytes(*index), u64::from_le_bytes(*term));
        match kind {
            0 => Ok(Event::Entry { index, term, data: data.to_vec() }),
            1 => Ok(Event::Truncate { index }),
            _ => Err("a record of an unknown kind".into()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Vote {
    term: u64,
    node: u64,
}

/// The log of one Raft node.
struct RaftLog {
    wal: Wal,
    vote: Cell,
    purged: Cell,
    /// Where each entry is. A store for large entries reads them with `Wal::read`.
    entries: BTreeMap<u64, (u64, Lsn)>,
    /// The last index that a snapshot replaces.
    purged_to: u64,
}

fn two_numbers(bytes: Option<Vec<u8>>) -> Result<(u64, u64), Failure> {
    let Some(bytes) = bytes else { return Ok((0, 0)) };
    let (first, second) = bytes.split_first_chunk().ok_or("a short cell")?;
    Ok((u64::from_le_bytes(*first), u64::from_le_bytes(second.try_into()?)))
}

impl RaftLog {
    fn open(dir: &Path) -> Result<Self, Failure> {
        let wal = Wal::builder(dir).segment_size(1 << 20).open()?;
        let (vote, purged) = (wal.cell("vote"), wal.cell("purged"));
        let (purged_to, _) = two_numbers(purged.load()?)?;
        let mut log =
            RaftLog { wal: wal.clone(), vote, purged, entries: BTreeMap::new(), purged_to };
        for record in wal.reader(Lsn::ZERO) {
            let record = record?;
            log.apply(&Event::decode(&record.payload)?, record.lsn);
        }
        Ok(log)
    }

    fn apply(&mut self, event: &Event, lsn: Lsn) {
        match event {
            Event::Entry { index, .. } if *index <= self.purged_to => {}
            Event::Entry { index, term, .. } => drop(self.entries.insert(*index, (*term, lsn))),
            Event::Truncate { index } => drop(self.entries.split_off(index)),
        }
    }

    /// Durable on return, before the node answers the candidate.
    fn save_vote(&self, vote: Vote) -> Result<(), Failure> {
        let bytes = [vote.term.to_le_bytes(), vote.node.to_le_bytes()].concat();
        Ok(self.vote.store(&bytes)?)
    }

    fn read_vote(&self) -> Result<Vote, Failure> {
        let (term, node) = two_numbers(self.vote.load()?)?;
        Ok(Vote { term, node })
    }

    /// Appends entries, durable on return. One wait serves all of them.
    fn append(&mut self, term: u64, first: u64, data: &[&[u8]]) -> Result<(), Failure> {
        let mut last = None;
        for (index, data) in (first..).zip(data) {
            let event = Event::Entry { index, term, data: data.to_vec() };
            let lsn = self.wal.append(&event.encode())?;
            self.apply(&event, lsn);
            last = Some(lsn);
        }
        Ok(last.map_or(Ok(()), |lsn| self.wal.wait_durable(lsn))?)
    }

    /// Discards the entries from `index` on. Durable with the entries that replace them.
    fn truncate(&mut self, index: u64) -> Result<(), Failure> {
        let event = Event::Truncate { index };
        let lsn = self.wal.append(&event.encode())?;
        self.apply(&event, lsn);
        Ok(())
    }

    /// A snapshot has everything up to `index`: the log need not keep it.
    fn purge(&mut self, index: u64) -> Result<(), Failure> {
        // First: entries that are still there after a crash must not come back.
        self.purged.store(&[index.to_le_bytes(), [0; 8]].concat())?;
        self.purged_to = index;
        self.entries = self.entries.split_off(&(index + 1));
        // A later record may truncate from an index whose entry is older: keep from the oldest.
        let oldest = self.entries.values().map(|(_, lsn)| *lsn).min();
        self.wal.truncate_before(oldest.unwrap_or(self.wal.durable_end()))?;
        Ok(())
    }

    fn entry(&self, index: u64) -> Result<Option<(u64, Vec<u8>)>, Failure> {
        let Some((_, lsn)) = self.entries.get(&index) else { return Ok(None) };
        match Event::decode(&self.wal.read(*lsn)?.payload)? {
            Event::Entry { term, data, .. } => Ok(Some((term, data))),
            Event::Truncate { .. } => Err("the index leads to no entry".into()),
        }
    }

    fn last(&self) -> Option<(u64, u64)> {
        self.entries.last_key_value().map(|(index, (term, _))| (*index, *term))
    }
}

fn main() -> Result<(), Failure> {
    let dir = std::env::temp_dir().join(format!("ringwal-raft-{}", std::process::id()));
    let mut log = RaftLog::open(&dir)?;
    log.save_vote(Vote { term: 1, node: 2 })?;
    log.append(1, 1, &[b"a", b"b", b"c", b"d"])?;
    // A new leader overrules the entries 3 and 4, after a vote that must stay.
    log.save_vote(Vote { term: 2, node: 3 })?;
    log.truncate(3)?;
    log.append(2, 3, &[b"C"])?;
    drop(log);

    let mut log = RaftLog::open(&dir)?;
    assert_eq!(log.read_vote()?, Vote { term: 2, node: 3 });
    assert_eq!(log.last(), Some((3, 2)));
    assert_eq!(log.entry(2)?, Some((1, b"b".to_vec())));
    assert_eq!(log.entry(3)?, Some((2, b"C".to_vec())));
    assert_eq!(log.entry(4)?, None);
    let large = vec![7; 4096];
    for index in 4..2000 {
        log.append(2, index, &[&large])?;
    }
    log.purge(1990)?;
    assert!(log.wal.oldest_lsn() > Lsn::ZERO, "segments were removed");
    drop(log);

    let log = RaftLog::open(&dir)?;
    assert_eq!((log.entry(1990)?, log.last()), (None, Some((1999, 2))));
    assert_eq!(log.entries.len(), 9);
    assert_eq!(log.read_vote()?, Vote { term: 2, node: 3 });
    println!("the vote, {} entries and the purge mark are there", log.entries.len());
    log.wal.close()?;
    drop(log);
    Ok(std::fs::remove_dir_all(dir)?)
}
