//! `truncate-before` and `import`: with the log's lock.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringwal::inspect::Directory;
use ringwal::{Lsn, Wal, WalBuilder};

use crate::args::{Cli, Import, TruncateBefore};
use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::record::Source;

/// As the log is: new segments are as large as the others.
fn builder(cli: &Cli, dir: &std::path::Path) -> WalBuilder {
    let builder = Wal::builder(dir).prefix(cli.prefix.clone());
    let files = Directory::open(dir, &cli.prefix).and_then(|log| log.segment_files());
    match files.ok().and_then(|files| files.last().map(|file| file.size)) {
        Some(size) => builder.segment_size(size),
        None => builder,
    }
}

pub(crate) fn truncate_before(cli: &Cli, args: &TruncateBefore) -> Result<()> {
    // Opening would make a log where there is none.
    Directory::open(&args.dir, &cli.prefix)?;
    ringwal::ReadOnlyWal::open_with_prefix(&args.dir, &cli.prefix)?;
    let wal = builder(cli, &args.dir).open()?;
    let before = wal.oldest_lsn();
    let oldest = wal.truncate_before(Lsn::new(args.lsn))?;
    wal.close()?;
    writeln!(std::io::stdout(), "the oldest position was {before}, and is {oldest}")?;
    Ok(())
}

pub(crate) fn import(cli: &Cli, args: &Import) -> Result<()> {
    let (input, name, length): (Box<dyn BufRead>, _, _) = match &args.input {
        None => (Box::new(BufReader::new(std::io::stdin())), "standard input".to_owned(), None),
        Some(path) => {
            let wrong = |source| Error::File { op: "open", path: path.clone(), source };
            let file = File::open(path).map_err(wrong)?;
            let length = file.metadata().ok().map(|meta| meta.len());
            (Box::new(BufReader::with_capacity(1 << 20, file)), path.display().to_string(), length)
        }
    };
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    // Without a handler the signal ends the process at once, which the log survives too.
    let _ = ctrlc::set_handler(move || told.store(true, Ordering::SeqCst));
    let wal = builder(cli, &args.dir).open()?;
    let mut bar = Bar::new(cli.quiet);
    let mut source = Source::new(input, args.format, name);
    let (mut count, mut bytes) = (0_u64, 0_u64);
    let ended = loop {
        if stop.load(Ordering::SeqCst) {
            break Err(Error::Interrupted);
        }
        match source.next() {
            Ok(Some(payload)) => match wal.append(&payload) {
                Ok(_) => {
                    (count, bytes) = (count + 1, bytes + payload.len() as u64);
                    if let Some(length) = length.filter(|_| count % 1024 == 0) {
                        bar.set(bytes.min(length), length);
                    }
                }
                Err(e) => break Err(e.into()),
            },
            Ok(None) => break Ok(()),
            Err(e) => break Err(e),
        }
    };
    drop(bar);
    // What was appended before something went wrong is kept, and said.
    let closed = wal.close();
    if closed.is_ok() {
        writeln!(std::io::stdout(), "{count} records are durable, up to {}", wal.durable_end())?;
    }
    ended?;
    Ok(closed?)
}
