//! `import`: records from a file into a log.
//!
//! 1. A new log is opened after the first record has been read: input without a record creates
//!    nothing.
//! 2. If a first import fails, the new log is removed again, with the directories created for it.
//!    After an interruption it stays, and the import can be resumed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use ringwal::inspect::Directory;
use ringwal::{Lsn, Wal, WalBuilder};

use crate::args::{Cli, Import};
use crate::bar::Bar;
use crate::change::{builder, sound};
use crate::error::{Error, Result};
use crate::record::{Input, Source};
use crate::stop;
use crate::survey::counted;

/// How often an import that waits for input checks for a signal.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes that a tag takes of a record.
const TAG_BYTES: usize = 12;
/// Bytes that are read ahead of the log.
const AHEAD: usize = 256 << 10;

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
    let there = is_there(cli, &args.dir)?;
    if there {
        let directory = Directory::open(&args.dir, &cli.prefix)?;
        if let Some(pid) = directory.writer() {
            let path = args.dir.join(format!("{}.lock", cli.prefix));
            return Err(ringwal::Error::Locked { path, pid: Some(pid) }.into());
        }
        if !args.unverified {
            sound(cli, &directory, &args.dir)?;
        }
    }
    let source = Source::new(input, args.format, name);
    let mut log = Target {
        // An existing log is opened before the input is read, which checks its version and its
        // lock.
        appender: if there { Some(Appender::new(Box::new(|| fresh(cli, args)))?) } else { None },
        cli,
        args,
        before: (!there).then(|| Before::of(&args.dir)),
        bar: Bar::new(cli.quiet),
        length,
        skipped: 0,
        count: 0,
        bytes: 0,
    };
    let ended = read_ahead(source).and_then(|input| log.take(&input));
    log.end(ended)
}

fn is_there(cli: &Cli, dir: &Path) -> Result<bool> {
    match Directory::open(dir, &cli.prefix) {
        Err(ringwal::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(false)
        }
        log => Ok(!log?.segment_files()?.is_empty()),
    }
}

fn fresh(cli: &Cli, args: &Import) -> WalBuilder {
    let builder = builder(cli, &args.dir);
    let builder = builder.application_version(args.application_version.unwrap_or(0));
    match args.mode {
        Some(mode) => builder.file_mode(mode),
        None => builder,
    }
}

/// The files and directories before the import.
struct Before {
    dir: PathBuf,
    files: BTreeSet<std::ffi::OsString>,
    /// Directories that are missing, the deepest first.
    missing: Vec<PathBuf>,
}

impl Before {
    fn of(dir: &Path) -> Self {
        let missing = |at: &&Path| !at.as_os_str().is_empty() && !at.exists();
        let missing = dir.ancestors().take_while(missing).map(Path::to_owned).collect();
        Before { dir: dir.into(), files: names(dir), missing }
    }

    /// Removes the log's files that were not there before, and empty directories created for them.
    fn restore(&self, prefix: &str) {
        let new = |name: &std::ffi::OsString| !self.files.contains(name);
        let of_the_log = |name: &std::ffi::OsString| {
            name.to_str()
                .and_then(|name| name.strip_prefix(prefix))
                .is_some_and(|r| r.starts_with('.'))
        };
        for name in names(&self.dir).into_iter().filter(|name| new(name) && of_the_log(name)) {
            let _ = std::fs::remove_file(self.dir.join(name));
        }
        for dir in &self.missing {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

fn names(dir: &Path) -> BTreeSet<std::ffi::OsString> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).collect()
}

/// Reads on a separate thread, which may wait for input without end: the process ends without it.
fn read_ahead(mut source: Source<Box<dyn Read + Send>>) -> Result<Receiver<Result<Vec<Input>>>> {
    let (send, receive) = sync_channel(1);
    let read = move || {
        loop {
            let (mut some, mut bytes) = (Vec::new(), 0);
            let ended = loop {
                match source.next() {
                    Ok(Some(record)) => {
                        bytes += record.payload.len();
                        some.push(record);
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
    };
    std::thread::Builder::new().spawn(read).map_err(Error::no_thread)?;
    Ok(receive)
}

/// Appends records of any size that another log can hold.
pub(crate) struct Appender<'a> {
    pub(crate) wal: Wal,
    builder: Box<dyn Fn() -> WalBuilder + 'a>,
}

impl<'a> Appender<'a> {
    pub(crate) fn new(builder: Box<dyn Fn() -> WalBuilder + 'a>) -> Result<Self> {
        Ok(Appender { wal: builder().open()?, builder })
    }

    pub(crate) fn append(&mut self, tag: Option<u64>, payload: &[u8]) -> Result<Lsn> {
        let append = |wal: &Wal| match tag {
            None => wal.append(payload),
            Some(tag) => wal.append_tagged(tag, payload),
        };
        match append(&self.wal) {
            Err(e @ ringwal::Error::RecordTooLarge { .. }) => {
                self.wal.close()?;
                // Another log held it, so this one is reopened with larger buffers and, if needed,
                // larger segments.
                let size = (payload.len() as u64 + (64 << 10)).next_power_of_two();
                let builder = (self.builder)().max_record_size(payload.len() + TAG_BYTES);
                let opened = builder.clone().open().or_else(|_| builder.segment_size(size).open());
                self.wal = opened.map_err(|_| e)?;
                Ok(append(&self.wal)?)
            }
            appended => Ok(appended?),
        }
    }
}

struct Target<'a> {
    /// `None` until there is a record for a new log.
    appender: Option<Appender<'a>>,
    cli: &'a Cli,
    args: &'a Import,
    /// Of a new log.
    before: Option<Before>,
    bar: Bar,
    /// Of the input; 0: not known.
    length: u64,
    skipped: u64,
    count: u64,
    bytes: u64,
}

impl Target<'_> {
    /// Appends records until the input ends.
    fn take(&mut self, input: &Receiver<Result<Vec<Input>>>) -> Result<()> {
        loop {
            if stop::asked() {
                return Err(Error::Interrupted(String::new()));
            }
            match input.recv_timeout(LOOK) {
                Ok(records) => {
                    for record in records? {
                        self.bytes += record.payload.len() as u64;
                        if self.skipped < self.args.skip {
                            self.skipped += 1;
                            continue;
                        }
                        self.append(&record)?;
                        self.count += 1;
                    }
                    let known = if self.length > 0 { self.length } else { u64::MAX };
                    self.bar.set(self.bytes.min(known), self.length);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if self.skipped < self.args.skip => {
                    let (records, skip) = (self.skipped, self.args.skip);
                    return Err(Error::Usage(format!(
                        "--skip {skip} leaves out more than the {records} records of the input"
                    )));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn append(&mut self, record: &Input) -> Result<()> {
        let appender = match &mut self.appender {
            Some(appender) => appender,
            none => {
                let (cli, args) = (self.cli, self.args);
                none.insert(Appender::new(Box::new(|| fresh(cli, args)))?)
            }
        };
        appender.append(record.tag, &record.payload).map(drop)
    }

    /// Closes the log. Reports the durable records of an existing log; removes a new log after a
    /// failure.
    fn end(self, ended: Result<()>) -> Result<()> {
        let closed = self.appender.as_ref().map_or(Ok(()), |appender| appender.wal.close());
        self.bar.clear();
        let failed = match &ended {
            Err(Error::Interrupted(_)) | Ok(()) => closed.is_err(),
            Err(_) => true,
        };
        if let Some(before) = self.before.as_ref().filter(|_| failed) {
            drop(self.appender);
            before.restore(&self.cli.prefix);
            let said = "nothing was imported: the log was not there before, and was removed again";
            writeln!(anstream::stderr(), "{said}")?;
            ended?;
            return Ok(closed?);
        }
        let mut out = std::io::stdout().lock();
        if let Some(appender) = self.appender.as_ref().filter(|_| closed.is_ok()) {
            let durable = counted(self.count, "record is", "records are");
            writeln!(out, "{durable} durable, up to {}", appender.wal.durable_end())?;
            if ended.is_err() {
                let done = self.skipped + self.count;
                writeln!(anstream::stderr(), "--skip {done} resumes the import after them")?;
            }
        } else if closed.is_ok() && ended.is_ok() {
            writeln!(out, "there is no record in the input; no log was created")?;
        }
        ended?;
        Ok(closed?)
    }
}
