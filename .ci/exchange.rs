//! Writes and reads a log whose content follows from its length. `.ci/platforms` builds this program for several systems
//! and gives the log of one to the others.
//!
//!   exchange write LOG COUNT NAME   opens the log, appends so many records more, and stores the name and a position
//!   exchange read LOG               checks every record, and prints what a reader sees

use ringwal::inspect::Directory;
use ringwal::{Lsn, ReadOnlyWal, Wal};

/// Tag 0 is none.
fn record(number: u64) -> (u64, Vec<u8>) {
    let bytes = (0..number * 37 % 700).map(|at| (number * 31 + at) as u8);
    (number % 7, bytes.collect())
}

fn write(log: &str, count: u64, name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let wal = Wal::builder(log).segment_size(64 << 10).open()?;
    let mut number = 0;
    wal.replay(|_, _| {
        number += 1;
        Ok::<(), std::convert::Infallible>(())
    })?;
    let mut last = Lsn::ZERO;
    for number in number..number + count {
        last = match record(number) {
            (0, payload) => wal.append(&payload)?,
            (tag, payload) => wal.append_tagged(tag, &payload)?,
        };
    }
    wal.sync()?;
    wal.consumer("exchange")?.commit(last)?;
    wal.cell(name).store(name.as_bytes())?;
    wal.close()?;
    Ok(())
}

fn read(log: &str) -> Result<(), Box<dyn std::error::Error>> {
    let view = ReadOnlyWal::open(log)?;
    let mut reader = view.reader(Lsn::ZERO)?;
    let mut number = 0;
    while let Some(found) = reader.next_ref()? {
        let (tag, payload) = record(number);
        if found.payload != payload || found.tag().unwrap_or(0) != tag {
            return Err(format!("record {number} at {} is another one", found.lsn).into());
        }
        println!("{number} {} {tag}", found.lsn);
        number += 1;
    }
    println!("end {}", view.durable_end()?);
    for name in view.cells()? {
        println!("cell {name} {:?}", view.load_cell(&name)?);
    }
    let files = Directory::open(log, "wal")?;
    println!("consumers {:?}", files.stored_consumers()?);
    let survey = files.survey(&mut |_| ())?;
    if survey.records != number || !survey.damage.is_empty() {
        return Err(format!("damage: {:?}", survey.damage).into());
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", log, count, name] => write(log, count.parse()?, name),
        ["read", log] => read(log),
        _ => Err("exchange write LOG COUNT NAME, or exchange read LOG".into()),
    }
}
