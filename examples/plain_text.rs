//! Writes eleven strings, makes them durable, and reads them back.
//!
//! `cargo run --example plain_text`
#![allow(clippy::print_stdout, reason = "an example prints")]

use ringwal::{Lsn, Wal};

const LINES: [&str; 11] = [
    "A log is written before anything else is.",
    "What was acknowledged survives.",
    "What was not may survive, right behind it.",
    "Nothing else does.",
    "",
    "An empty record is a record.",
    "Bytes are bytes: \u{1F9ED} \0 \n",
    "Records are read in the order of the log.",
    "Each has a position.",
    "A position is an address.",
    "The end.",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("ringwal-plain-text-{}", std::process::id()));

    let wal = Wal::open(&dir)?;
    for line in LINES {
        wal.append(line.as_bytes())?;
    }
    let end = wal.sync()?;
    println!("{} records are durable, up to {end}", LINES.len());
    wal.close()?;

    // Another process could do this, after a crash.
    let wal = Wal::open(&dir)?;
    println!("{}", wal.recovery());
    let mut found: Vec<(Lsn, String)> = Vec::new();
    wal.replay(|lsn, payload| {
        found.push((lsn, std::str::from_utf8(payload)?.to_owned()));
        Ok::<(), std::str::Utf8Error>(())
    })?;
    for (lsn, line) in &found {
        println!("{lsn:>6}  {line:?}");
    }
    assert!(found.iter().map(|(_, line)| line.as_str()).eq(LINES));

    wal.close()?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
