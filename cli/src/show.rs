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
use crate::record::write;
use crate::{stop, window};

type Out = BufWriter<std::io::StdoutLock<'static>>;

/// How often a command that waits for records looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) fn stdout() -> Out {
    BufWriter::with_capacity(64 << 10, std::io::stdout().lock())
}

/// Which records, and how.
struct Wanted {
    to: Option<u64>,
    /// A time that is still to come: once it has, `to` is known.
    until: Option<SystemTime>,
    left: u64,
    format: Format,
}

impl Wanted {
    /// Nothing below `end` is wanted any more.
    fn is_done(&self, end: u64) -> bool {
        self.left == 0 || self.to.is_some_and(|to| end >= to)
    }

    /// False: it is not wanted, and none behind it is.
    fn write(&mut self, out: &mut Out, record: RecordRef<'_>) -> Result<bool> {
        if self.is_done(record.lsn.as_u64()) {
            return Ok(false);
        }
        self.left -= 1;
        write(out, self.format, record.lsn.as_u64(), record.payload)?;
        Ok(true)
    }
}

pub(crate) fn dump(cli: &Cli, dump: &Dump) -> Result<()> {
    window::check(dump.from, dump.to, &dump.window)?;
    let later = to_come(&dump.window);
    let known = Window { until: dump.window.until.filter(|_| later.is_none()), ..dump.window };
    let (since, to) = window::positions(cli, &dump.dir, &known, dump.from, dump.to)?;
    let log = ReadOnlyWal::open_with_prefix(&dump.dir, &cli.prefix)?;
    let mut out = stdout();
    let left = dump.limit.unwrap_or(u64::MAX);
    let mut wanted = Wanted { to, until: later, left, format: dump.format };
    if dump.follow {
        let follower = log.follow(Lsn::new(since))?;
        return follow(cli, &dump.dir, &log, follower, &mut out, &mut wanted);
    }
    let from = log.oldest_lsn()?.as_u64().max(since);
    let end = log.durable_end()?.as_u64().min(to.unwrap_or(u64::MAX));
    // Records that go by on a terminal are progress enough.
    let mut bar = Bar::new(cli.quiet || std::io::stdout().is_terminal());
    let mut told = |lsn: u64| bar.set(lsn.saturating_sub(from), end.saturating_sub(from));
    write_all(log.reader(Lsn::new(since))?, &mut out, &mut wanted, &mut told)
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
            // What was read until then has been asked for all the same.
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

/// Writes what is there, and flushes whenever it waits.
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
        // Before the look: what is wanted lies below the end that is known, or may still come.
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

/// The end of the window, if it lies in the future.
fn to_come(window: &Window) -> Option<SystemTime> {
    window.until.filter(|until| *until > SystemTime::now())
}

/// Whether the reader of standard output has closed it: a command that waits would not see it before it writes.
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
    // Only where they begin: they may be more than memory holds.
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
