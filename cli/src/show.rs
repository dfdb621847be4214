//! `dump` and `tail`: records on the way out.

use std::io::{BufWriter, IsTerminal, Write};
use std::time::Duration;

use ringwal::{Lsn, ReadOnlyFollow, ReadOnlyReader, ReadOnlyWal, RecordRef};

use crate::args::{Cli, Dump, Format, Tail};
use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::record::write;
use crate::stop;

type Out = BufWriter<std::io::StdoutLock<'static>>;

/// How often a command that waits for records looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) fn stdout() -> Out {
    BufWriter::with_capacity(64 << 10, std::io::stdout().lock())
}

/// Nothing lies in a range that ends before it begins, which nobody asks for on purpose.
pub(crate) fn check_range(from: u64, to: Option<u64>) -> Result<()> {
    match to {
        Some(to) if to < from => {
            Err(Error::Usage(format!("--to {to} lies before --from {from}; exchange them")))
        }
        _ => Ok(()),
    }
}

/// Which records, and how.
struct Wanted {
    to: Option<u64>,
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
    check_range(dump.from, dump.to)?;
    let log = ReadOnlyWal::open_with_prefix(&dump.dir, &cli.prefix)?;
    let mut out = stdout();
    let left = dump.limit.unwrap_or(u64::MAX);
    let mut wanted = Wanted { to: dump.to, left, format: dump.format };
    if dump.follow {
        let follower = log.follow(Lsn::new(dump.from))?;
        return follow(&log, follower, &mut out, &mut wanted);
    }
    let from = log.oldest_lsn()?.as_u64().max(dump.from);
    let end = log.durable_end()?.as_u64().min(dump.to.unwrap_or(u64::MAX));
    // Records that go by on a terminal are progress enough.
    let mut bar = Bar::new(cli.quiet || std::io::stdout().is_terminal());
    let mut told = |lsn: u64| bar.set(lsn.saturating_sub(from), end.saturating_sub(from));
    write_all(log.reader(Lsn::new(dump.from))?, &mut out, &mut wanted, &mut told)
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
    log: &ReadOnlyWal,
    mut follower: ReadOnlyFollow,
    out: &mut Out,
    wanted: &mut Wanted,
) -> Result<()> {
    loop {
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

pub(crate) fn tail(cli: &Cli, tail: &Tail) -> Result<()> {
    let log = ReadOnlyWal::open_with_prefix(&tail.dir, &cli.prefix)?;
    let end = log.durable_end()?;
    // Only where they begin: they may be more than memory holds.
    let mut first = None;
    for record in log.reader_back(end)?.take(tail.records) {
        first = Some(record?.lsn);
        if stop::asked() {
            return Err(Error::Interrupted("nothing was written".into()));
        }
    }
    let mut out = stdout();
    let mut wanted = Wanted { to: Some(end.as_u64()), left: u64::MAX, format: tail.format };
    if let Some(first) = first {
        write_all(log.reader(first)?, &mut out, &mut wanted, &mut |_| {})?;
    }
    if tail.follow {
        let follower = log.follow(end)?;
        let mut wanted = Wanted { to: None, ..wanted };
        return follow(&log, follower, &mut out, &mut wanted);
    }
    Ok(())
}
