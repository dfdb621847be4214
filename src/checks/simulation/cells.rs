//! Cells across crashes at every operation, with records, cuts and retention between the stores.
//!
//! The oracle: after a crash each cell holds the value whose store returned last, or the one whose
//! store was under way. Two logs with the same calls and without cells hold the same records.

use std::collections::BTreeMap;

use super::{long, number};
use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::testing::{DiskFault, SimulatedDisk};
use crate::wal::Wal;
use crate::wal::builder::WalBuilder;

const NAMES: [&str; 3] = ["vote", "checkpoint", "position"];

/// What a cell may hold.
#[derive(Debug, Clone, Default)]
struct Expected {
    /// The value whose store returned last.
    stored: Option<Vec<u8>>,
    /// Later values whose store did not return, or returned an error that leaves it open.
    open: Vec<Option<Vec<u8>>>,
}

impl Expected {
    fn allows(&self, value: &Option<Vec<u8>>) -> bool {
        self.stored == *value || self.open.contains(value)
    }

    fn settle(&mut self, value: Option<Vec<u8>>) {
        *self = Expected { stored: value, open: Vec::new() };
    }
}

type Oracle = BTreeMap<&'static str, Expected>;

fn settings() -> WalBuilder {
    Wal::builder("cells").segment_size(16 << 10).ring_capacity(16 << 10).max_segments(4)
}

/// A value that says how often values were stored, of a length that takes one block or several.
fn value(rng: &mut fastrand::Rng, n: u64) -> Vec<u8> {
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.resize([8, 60, 600, 4096][rng.usize(..4)], n as u8);
    bytes
}

/// Checks every cell. What is found is what the next life begins with.
fn check(wal: &Wal, oracle: &mut Oracle, what: &str) {
    for name in NAMES {
        let found = wal.cell(name).load().unwrap();
        let expected = oracle.entry(name).or_default();
        assert!(
            expected.allows(&found),
            "{what}: {name} holds {:?}, not {:?} or one of {}",
            found.map(|v| v[..8].to_vec()),
            expected.stored.as_ref().map(|v| v[..8].to_vec()),
            expected.open.len()
        );
        expected.settle(found);
    }
    let there = NAMES.iter().filter(|name| oracle[*name].stored.is_some()).count();
    assert_eq!(wal.cells().unwrap().len(), there, "{what}");
}

fn change(wal: &Wal, oracle: &mut Oracle, rng: &mut fastrand::Rng, n: u64) -> Result<()> {
    let name = NAMES[rng.usize(..NAMES.len())];
    let new = (rng.u8(0..5) > 0).then(|| value(rng, n));
    let expected = oracle.entry(name).or_default();
    // Before the call: the power may fail inside.
    expected.open.push(new.clone());
    let cell = wal.cell(name);
    match &new {
        Some(value) => cell.store(value),
        None => cell.remove(),
    }?;
    assert_eq!(cell.load()?, new);
    expected.settle(new);
    Ok(())
}

/// Works until a call fails.
fn live(wal: &Wal, oracle: &mut Oracle, rng: &mut fastrand::Rng) -> Result<()> {
    let mut last = wal.append(b"begin")?;
    for n in 0..rng.u64(5..60) {
        match rng.u8(0..10) {
            0..5 => change(wal, oracle, rng, n)?,
            5..8 => last = wal.append(&vec![7; rng.usize(..3000)])?,
            8 => drop(wal.sync()?),
            _ if rng.bool() => match wal.truncate_from(last) {
                Err(Error::NoRecord { .. } | Error::Pruned { .. } | Error::Truncated { .. }) => {}
                other => drop(other?),
            },
            _ => match wal.truncate_before(last) {
                Err(Error::Truncated { .. }) => {}
                other => drop(other?),
            },
        }
    }
    Ok(())
}

fn run(seed: u64) -> u64 {
    let mut rng = fastrand::Rng::with_seed(seed);
    let disk = SimulatedDisk::new(seed);
    let (mut oracle, mut cells) = (Oracle::new(), 0);
    for round in 0..6 {
        let what = format!("seed {seed}, round {round}");
        disk.power_off_after(rng.u64(1..200));
        if rng.u8(0..3) == 0 {
            let fault = [DiskFault::Failed, DiskFault::NoSpace, DiskFault::Short];
            disk.fail_after(rng.u64(..100), fault[rng.usize(..3)], false);
        }
        match disk.open(&settings()) {
            Ok(wal) => {
                check(&wal, &mut oracle, &what);
                let _ = live(&wal, &mut oracle, &mut rng);
            }
            Err(Error::CellsDamaged { .. }) => panic!("{what}: a crash damaged both slots"),
            Err(_) => {}
        }
        match rng.u8(0..4) {
            0 => disk.kill(),
            _ => disk.crash(),
        }
        disk.heal();
    }
    let wal = disk.open(&settings()).unwrap();
    check(&wal, &mut oracle, &format!("seed {seed}, at the end"));
    wal.cell("vote").store(b"the cells go on").unwrap();
    cells += wal.cells().unwrap().len() as u64;
    assert!(wal.reader(Lsn::ZERO).all(|record| record.is_ok()));
    cells
}

#[test]
fn cells_hold_the_last_value_or_the_one_in_flight_after_any_crash() {
    let first = number("RINGWAL_SIM_SEED").unwrap_or(0);
    let count = if long() { 50_000 } else { 400 };
    let cells: u64 = (first..first + count).map(run).sum();
    assert!(cells > count, "{cells} cells in {count} runs");
}
