//! The writer to kill: threads that wait for each record and acknowledge it.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ringwal::{Wal, WalBuilder};

use super::record::Name;
use super::witness::{TO_WRITE, connect};
use crate::error::Error;

/// The log of these runs. Its segments are small, so that kills hit rotations, too.
pub(super) fn builder(log: &Path) -> WalBuilder {
    Wal::builder(log).segment_size(4 << 20)
}

/// Appends until the process is killed, or the receiver of the acknowledgements is gone. They go to
/// a witness or to standard output. `told` counts them.
///
/// # Errors
///
/// Those of the log; with a witness, also its loss.
pub fn write(
    log: &Path,
    threads: u32,
    size: usize,
    witness: Option<&str>,
    told: &AtomicU64,
) -> Result<(), Error> {
    let out: Box<dyn Write + Send> = match witness {
        None => Box::new(io::stdout()),
        Some(address) => {
            let mut stream: TcpStream = connect(address)?;
            let begun = stream.set_nodelay(true).and_then(|()| stream.write_all(&[TO_WRITE]));
            begun.map_err(|source| Error::System { what: "reach the witness", source })?;
            Box::new(stream)
        }
    };
    let wal = builder(log).open()?;
    let life = RandomState::new().hash_one(std::process::id());
    let out = Mutex::new(out);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let (wal, out, name) = (&wal, &out, Name { life, thread, number: 0 });
                scope.spawn(move || one(wal, name, size, out, told))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    match witness {
        None => Ok(()),
        Some(_) => Err(Error::System {
            what: "reach the witness any more; start both again",
            source: io::ErrorKind::BrokenPipe.into(),
        }),
    }
}

fn one(
    wal: &Wal,
    mut name: Name,
    size: usize,
    out: &Mutex<Box<dyn Write + Send>>,
    told: &AtomicU64,
) -> Result<(), Error> {
    let mut record = Vec::new();
    loop {
        name.fill(size, &mut record);
        wal.append_durable(&record)?;
        let mut out = out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Flushes at once: buffered acknowledgements would die with the process.
        if out.write_all(&name.ack()).and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
        told.fetch_add(1, Ordering::Relaxed);
        name.number += 1;
    }
}
