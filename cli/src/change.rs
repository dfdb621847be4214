//! `truncate-before` and `import`: with the log's lock.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use ringwal::inspect::Directory;
use ringwal::{Lsn, Wal, WalBuilder};

use crate::args::{Cli, Import, TruncateBefore};
use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::record::Source;
use crate::stop;
use crate::survey::counted;

/// How often an import that waits for its input looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes that are read ahead of the log.
const AHEAD: usize = 256 << 10;

/// As the log is: new segments are as large as the others, and have their mode.
fn builder(cli: &Cli, dir: &Path) -> WalBuilder {
    let builder = Wal::builder(dir).prefix(cli.prefix.clone());
    let files = Directory::open(dir, &cli.prefix).and_then(|log| log.segment_files());
    let Some(last) = files.ok().and_then(|files| files.into_iter().next_back()) else {
        return builder;
    };
    let builder = match mode_of(&dir.join(&last.name)) {
        Some(mode) => builder.file_mode(mode | 0o600),
        None => builder,
    };
    match last.size {
        // Of one that is damaged, opening says it.
        size if size >= 16 << 10 && size.is_multiple_of(4096) => builder.segment_size(size),
        _ => builder,
    }
}

fn mode_of(path: &Path) -> Option<u32> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let meta = std::fs::symlink_metadata(path).ok()?;
        meta.is_file().then_some(meta.permissions().mode() & 0o777)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
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
    let (input, name, length): (Box<dyn Read + Send>, _, _) = match &args.input {
        None => (Box::new(std::io::stdin()), "standard input".to_owned(), 0),
        Some(path) => {
            let wrong = |source| Error::File { op: "open", path: path.clone(), source };
            let file = File::open(path).map_err(wrong)?;
            let length = file.metadata().map_or(0, |meta| meta.len());
            (Box::new(file), path.display().to_string(), length)
        }
    };
    let source = Source::new(input, args.format, name);
    let mut log = Target {
        wal: fresh(cli, args).open()?,
        cli,
        args,
        bar: Bar::new(cli.quiet),
        length,
        count: 0,
        bytes: 0,
    };
    let ended = log.take(&read_ahead(source));
    // What was appended before something went wrong is kept, and said.
    let closed = log.wal.close();
    log.bar.clear();
    if closed.is_ok() {
        let durable = counted(log.count, "record is", "records are");
        writeln!(std::io::stdout(), "{durable} durable, up to {}", log.wal.durable_end())?;
    }
    ended?;
    Ok(closed?)
}

fn fresh(cli: &Cli, args: &Import) -> WalBuilder {
    let builder = builder(cli, &args.dir);
    let builder = builder.application_version(args.application_version.unwrap_or(0));
    match args.mode {
        Some(mode) => builder.file_mode(mode),
        None => builder,
    }
}

/// Reads on a thread of its own, which may wait for input for as long as it likes: the process ends without it.
fn read_ahead(mut source: Source<Box<dyn Read + Send>>) -> Receiver<Result<Vec<Vec<u8>>>> {
    let (send, receive) = sync_channel(1);
    std::thread::spawn(move || {
        loop {
            let (mut some, mut bytes) = (Vec::new(), 0);
            let ended = loop {
                match source.next() {
                    Ok(Some(payload)) => {
                        bytes += payload.len();
                        some.push(payload);
                    }
                    Ok(None) => break Some(Ok(Vec::new())),
                    Err(e) => break Some(Err(e)),
                }
                if bytes >= AHEAD || !source.has_next() {
                    break None;
                }
            };
            let sent = send.send(Ok(some));
            if let Some(ended) = ended {
                let _ = send.send(ended);
                return;
            }
            if sent.is_err() {
                return;
            }
        }
    });
    receive
}

struct Target<'a> {
    wal: Wal,
    cli: &'a Cli,
    args: &'a Import,
    bar: Bar,
    /// Of the input; 0: not known.
    length: u64,
    count: u64,
    bytes: u64,
}

impl Target<'_> {
    /// Appends what comes until it ends.
    fn take(&mut self, input: &Receiver<Result<Vec<Vec<u8>>>>) -> Result<()> {
        loop {
            if stop::asked() {
                return Err(Error::Interrupted(String::new()));
            }
            match input.recv_timeout(LOOK) {
                Ok(records) => {
                    for payload in records? {
                        self.append(&payload)?;
                        self.count += 1;
                        self.bytes += payload.len() as u64;
                    }
                    let known = if self.length > 0 { self.length } else { u64::MAX };
                    self.bar.set(self.bytes.min(known), self.length);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn append(&mut self, payload: &[u8]) -> Result<()> {
        match self.wal.append(payload) {
            Err(e @ ringwal::Error::RecordTooLarge { .. }) => {
                self.wal.close()?;
                // Another log took it: this one does, with larger buffers and, if it must be, segments.
                let size = (payload.len() as u64 + (64 << 10)).next_power_of_two();
                let builder = fresh(self.cli, self.args).max_record_size(payload.len());
                let opened = builder.clone().open().or_else(|_| builder.segment_size(size).open());
                self.wal = opened.map_err(|_| e)?;
                self.wal.append(payload)?;
                Ok(())
            }
            appended => Ok(appended.map(drop)?),
        }
    }
}
