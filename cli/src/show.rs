//! `dump` and `tail`: records on the way out.

use std::io::{BufWriter, IsTerminal, Write};
#[cfg(unix)]
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ringwal::{Lsn, ReadOnlyFollow, ReadOnlyReader, ReadOnlyWal, RecordRef};

use crate::args::{Cli, Dump, Format, Tail, Window};
use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::record::{Written, write};
use crate::{stop, window};

type Out = BufWriter<std::io::StdoutLock<'static>>;

/// How often a command that waits for records checks for a signal.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) fn stdout() -> Out {
    BufWriter::with_capacity(64 << 10, std::io::stdout().lock())
}

/// Which records, and how.
struct Wanted {
    to: Option<u64>,
    /// A future time; `to` is established when it is reached.
    until: Option<SystemTime>,
    left: u64,
    format: Format,
}

impl Wanted {
    /// No further record is wanted once the end is known to be `end`.
    fn is_done(&self, end: u64) -> bool {
        self.left == 0 || self.to.is_some_and(|to| end >= to)
    }

    /// Writes the record. Returns false if neither it nor a later one is wanted.
    fn write(&mut self, out: &mut Out, record: RecordRef<'_>) -> Result<bool> {
        if self.is_done(record.lsn.as_u64()) {
            return Ok(false);
        }
        self.left -= 1;
        let (lsn, tag, payload) = (record.lsn, record.tag(), record.payload);
        write(out, self.format, Written { lsn, tag, payload })?;
        Ok(true)
    }
}

fn position_of(log: &ReadOnlyWal, ordinal: u64) -> Result<Lsn> {
    match log.read_ordinal(ordinal) {
        Ok(record) => Ok(record.lsn),
        Err(ringwal::Error::NoOrdinal { .. }) => {
            let why = format!("--from-ordinal {ordinal}: the log has no such record yet");
            Err(Error::Usage(why))
        }
        Err(ringwal::Error::Pruned { oldest }) => Err(Error::Usage(format!(
            "--from-ordinal {ordinal}: that record was removed by retention; choose a later one, or --from {oldest}"
        ))),
        Err(e) => Err(e.into()),
    }
}

pub(crate) fn dump(cli: &Cli, dump: &Dump) -> Result<()> {
    window::check(dump.from, dump.to, &dump.window)?;
    let later = to_come(&dump.window);
    let known = Window { until: dump.window.until.filter(|_| later.is_none()), ..dump.window };
    let (since, to) = window::positions(cli, &dump.dir, &known, dump.from, dump.to)?;
    let log = ReadOnlyWal::open_with_prefix(&dump.dir, &cli.prefix)?;
    let ordinal = dump.from_ordinal.map(|ordinal| position_of(&log, ordinal)).transpose()?;
    let since = since.max(ordinal.map_or(0, Lsn::as_u64));
    let mut out = stdout();
    let left = dump.limit.unwrap_or(u64::MAX);
    let mut wanted = Wanted { to, until: later, left, format: dump.format };
    if dump.follow {
        let mut follower = log.follow(Lsn::new(since))?;
        if !dump.tag.is_empty() {
            follower = follower.only_tags(dump.tag.iter().copied());
        }
        return follow(cli, &dump.dir, &log, follower, &mut out, &mut wanted);
    }
    let from = log.oldest_lsn()?.as_u64().max(since);
    let durable_end = log.durable_end()?.as_u64();
    let end = durable_end.min(to.unwrap_or(u64::MAX));
    // Records that go by on a terminal are progress enough.
    let mut bar = Bar::new(cli.quiet || std::io::stdout().is_terminal());
    let mut told = |lsn: u64| bar.set(lsn.saturating_sub(from), end.saturating_sub(from));
    // Above the end there is nothing to write, as between the last record and the end.
    let mut reader = log.reader(Lsn::new(since.min(durable_end)))?;
    if !dump.tag.is_empty() {
        reader = reader.only_tags(dump.tag.iter().copied());
    }
    write_all(reader, &mut out, &mut wanted, &mut told)
}

fn write_all(
    mut reader: ReadOnlyReader,
    out: &mut Out,
    wanted: &mut Wanted,
    told: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut written = 0_u64;
    while wanted.left > 0 && !stop::asked() {
        let next = match reader.next_ref() {
            Ok(next) => next,
            // The records read until then are wanted too.
            Err(e) => return out.flush().map_err(Into::into).and(Err(e.into())),
        };
        let Some(record) = next else { break };
        if written.is_multiple_of(1024) {
            told(record.lsn.as_u64());
        }
        if !wanted.write(out, record)? {
            break;
        }
        written += 1;
    }
    out.flush()?;
    if stop::asked() {
        return Err(Error::Interrupted(format!("{written} records were written")));
    }
    Ok(())
}

/// Writes records as they become durable, and flushes before each wait.
fn follow(
    cli: &Cli,
    dir: &Path,
    log: &ReadOnlyWal,
    mut follower: ReadOnlyFollow,
    out: &mut Out,
    wanted: &mut Wanted,
) -> Result<()> {
    loop {
        if wanted.until.is_some_and(|until| until <= SystemTime::now()) {
            let window = Window { since: None, until: wanted.until.take() };
            (_, wanted.to) = window::positions(cli, dir, &window, 0, wanted.to)?;
        }
        // Read before the records: otherwise a record that arrives in between is missed.
        let done = wanted.is_done(log.durable_end()?.as_u64());
        while let Some(record) = follower.try_next()? {
            if stop::asked() || !wanted.write(out, record)? {
                break;
            }
        }
        out.flush()?;
        if stop::asked() {
            return Err(Error::Interrupted(String::new()));
        }
        if reader_is_gone() {
            return Err(Error::Enough);
        }
        if done || wanted.left == 0 {
            return Ok(());
        }
        if let Some(record) = follower.next_timeout(LOOK)?
            && !wanted.write(out, record)?
        {
            return Ok(out.flush()?);
        }
    }
}

/// Returns the end of the window, if it lies in the future.
fn to_come(window: &Window) -> Option<SystemTime> {
    window.until.filter(|until| *until > SystemTime::now())
}

/// Returns whether the reader of standard output has closed it. A waiting command would otherwise
/// notice only at its next write.
fn reader_is_gone() -> bool {
    #[cfg(unix)]
    {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let stdout = std::io::stdout();
        let mut asked = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
        poll(&mut asked, PollTimeout::ZERO).is_ok()
            && asked[0].revents().is_some_and(|seen| seen.intersects(gone))
    }
    #[cfg(not(unix))]
    false
}

pub(crate) fn tail(cli: &Cli, tail: &Tail) -> Result<()> {
    window::check(0, None, &tail.window)?;
    let later = to_come(&tail.window);
    let known = Window { until: tail.window.until.filter(|_| later.is_none()), ..tail.window };
    let (since, to) = window::positions(cli, &tail.dir, &known, 0, None)?;
    let log = ReadOnlyWal::open_with_prefix(&tail.dir, &cli.prefix)?;
    let durable = log.durable_end()?;
    let end = to.map_or(durable, |to| durable.min(Lsn::new(to)));
    let most = tail.records.unwrap_or(if tail.window.since.is_some() { u64::MAX } else { 10 });
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    // Finds only where they begin: they may exceed memory.
    let mut first = None;
    for record in log.reader_back(end)?.take(most) {
        let lsn = record?.lsn;
        if lsn.as_u64() < since {
            break;
        }
        first = Some(lsn);
        if stop::asked() {
            return Err(Error::Interrupted("nothing was written".into()));
        }
    }
    let mut out = stdout();
    let wanted = |to, until| Wanted { to, until, left: u64::MAX, format: tail.format };
    if let Some(first) = first {
        let mut wanted = wanted(Some(end.as_u64()), None);
        write_all(log.reader(first)?, &mut out, &mut wanted, &mut |_| {})?;
    }
    if tail.follow {
        let follower = log.follow(end)?;
        return follow(cli, &tail.dir, &log, follower, &mut out, &mut wanted(to, later));
    }
    Ok(())
}
