//! Crashes a service deterministically: accounts in memory, transfers in a log, snapshots in files.
//!
//! `cargo run --release --example crash_test` turns the power off at every operation of a short
//! life of the service, on a simulated disk. It opens the service again, and checks that every
//! answered transfer is there and that no money is lost. With a number n as the argument it crashes
//! only at every n-th operation. Needs the feature `testing`.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::collections::BTreeMap;
use std::error::Error;

use ringwal::testing::SimulatedDisk;
use ringwal::{Lsn, Wal};

const ACCOUNTS: u64 = 8;
const BALANCE: u64 = 1000;

type Failed = Box<dyn Error>;

/// The service. On a real disk it would use a directory.
struct Bank {
    disk: SimulatedDisk,
    wal: Wal,
    accounts: BTreeMap<u64, u64>,
    /// Number of transfers in the accounts.
    transfers: u64,
    /// Position in the log after the last of them.
    position: Lsn,
}

fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().expect("8"))).collect()
}

fn bytes(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

impl Bank {
    /// Loads the newest snapshot, and replays the log from there.
    fn open(disk: &SimulatedDisk) -> Result<Self, Failed> {
        let wal = disk.open(&Wal::builder("bank").segment_size(32 << 10))?;
        let mut bank = Bank {
            disk: disk.clone(),
            wal,
            accounts: (0..ACCOUNTS).map(|account| (account, BALANCE)).collect(),
            transfers: 0,
            position: Lsn::ZERO,
        };
        for name in disk.names().iter().filter(|name| name.starts_with("snapshot.")) {
            // Names are in order, so the last whole snapshot is used. A torn one has a wrong sum.
            let found = numbers(&disk.open_file(name)?.read_all()?);
            if found.len() as u64 == ACCOUNTS + 3
                && found.iter().rev().skip(1).sum::<u64>() == found[10]
            {
                bank.accounts = (0..ACCOUNTS).zip(found.iter().copied()).collect();
                (bank.transfers, bank.position) = (found[8], Lsn::new(found[9]));
            }
        }
        let reader = bank.wal.reader(bank.position);
        for record in reader {
            let record = record?;
            bank.apply(&numbers(&record.payload));
            bank.position = record.lsn.next();
        }
        Ok(bank)
    }

    fn apply(&mut self, transfer: &[u64]) {
        let &[from, to, amount] = transfer else { return };
        *self.accounts.entry(from).or_default() -= amount;
        *self.accounts.entry(to).or_default() += amount;
        self.transfers += 1;
    }

    /// Makes a transfer, which is durable on return.
    fn transfer(&mut self, from: u64, to: u64, amount: u64) -> Result<(), Failed> {
        let amount = amount.min(self.accounts[&from]);
        let transfer = [from, to, amount];
        let lsn = self.wal.append_durable(&bytes(&transfer))?;
        self.apply(&transfer);
        self.position = lsn.next();
        Ok(())
    }

    /// Writes all accounts to a file, and then truncates the log up to there. Each step is durable
    /// before the next.
    fn snapshot(&mut self) -> Result<(), Failed> {
        let mut all: Vec<u64> = self.accounts.values().copied().collect();
        all.extend([self.transfers, self.position.as_u64()]);
        all.push(all.iter().sum());
        let name = format!("snapshot.{:08}", self.transfers);
        if self.disk.names().contains(&name) {
            return Ok(());
        }
        let file = self.disk.create(&name)?;
        file.write_at(&bytes(&all), 0)?;
        file.sync()?;
        self.disk.sync_names()?;
        for old in self.disk.names() {
            if old.starts_with("snapshot.") && old < name {
                self.disk.remove(&old)?;
            }
        }
        self.wal.truncate_before(self.position)?;
        Ok(())
    }
}

/// Makes some transfers; `answered` counts those that customers got an answer for.
fn work(disk: &SimulatedDisk, answered: &mut u64) -> Result<(), Failed> {
    let mut bank = Bank::open(disk)?;
    assert!(bank.transfers >= *answered, "an answer was forgotten");
    assert_eq!(bank.accounts.values().sum::<u64>(), ACCOUNTS * BALANCE, "money appeared or went");
    for n in bank.transfers..bank.transfers + 60 {
        bank.transfer(n % ACCOUNTS, n * 7 % ACCOUNTS, n % 90)?;
        *answered = n + 1;
        if n % 25 == 24 {
            bank.snapshot()?;
        }
    }
    Ok(())
}

fn main() -> Result<(), Failed> {
    let step = std::env::args().nth(1).map_or(Ok(1), |n| n.parse())?;
    let whole = SimulatedDisk::new(0);
    work(&whole, &mut 0)?;
    let operations = whole.operations();
    let mut lives = 0;
    for at in (0..operations).step_by(step) {
        let disk = SimulatedDisk::new(at);
        let mut answered = 0;
        // Three lives: two are interrupted, the last one is not.
        for cut in [Some(at), Some((at * 31) % 97), None] {
            if let Some(operations) = cut {
                disk.power_off_after(operations);
            }
            let ended = work(&disk, &mut answered);
            assert!(ended.is_ok() || disk.is_off(), "{ended:?} with the power on");
            disk.crash();
            lives += 1;
        }
    }
    println!(
        "{operations} operations, the power went at every {step}: {lives} lives, every answer and all money kept"
    );
    Ok(())
}
