//! A service on tokio: each request appends a record and is answered when that record is durable. A
//! thousand concurrent requests share group commits, on one thread of the runtime.
//!
//! `cargo run --release --example async_tokio`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::time::Instant;

use ringwal::{Error, Lsn, Wal};

const CLIENTS: u32 = 1000;
const REQUESTS: u32 = 50;

async fn handle(wal: &Wal, request: &[u8]) -> Result<Lsn, Error> {
    let lsn = wal.append_async(request).await?; // waits only while the ring is full
    wal.when_durable(lsn).await?; // resolves with the group's commit
    Ok(lsn)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("ringwal-tokio-{}", std::process::id()));
    let wal = Wal::open(&dir)?;
    println!("{}", wal.backend());

    let started = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let wal = wal.clone();
            tokio::spawn(async move {
                for n in 0..REQUESTS {
                    handle(&wal, format!("client {client}, request {n}").as_bytes()).await?;
                }
                Ok::<(), Error>(())
            })
        })
        .collect();
    for client in clients {
        client.await??;
    }
    let stats = wal.stats();
    println!(
        "{} durable records in {} commits in {:.1?}",
        stats.records,
        stats.groups,
        started.elapsed()
    );

    let found = wal.replay(|_, _| Ok::<(), std::convert::Infallible>(()))?;
    assert_eq!(found, u64::from(CLIENTS * REQUESTS));
    wal.close()?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
