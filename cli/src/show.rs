//! `dump`, `tail` and `export`: records on the way out.

use std::fs::File;
use std::io::{BufWriter, Write};

use ringwal::inspect::Directory;
use ringwal::{Lsn, ReadOnlyFollow, ReadOnlyWal, RecordRef};

use crate::args::{Cli, Dump, Export, Format, Tail};
use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::record::{write, write_framed};

fn stdout() -> BufWriter<std::io::StdoutLock<'static>> {
    BufWriter::with_capacity(64 << 10, std::io::stdout().lock())
}

/// Nothing lies in a range that ends before it begins, which nobody asks for on purpose.
fn check_range(from: u64, to: Option<u64>) -> Result<()> {
    match to {
        Some(to) if to < from => {
            Err(Error::Usage(format!("--to {to} lies before --from {from}; exchange them")))
        }
        _ => Ok(()),
    }
}

pub(crate) fn dump(cli: &Cli, dump: &Dump) -> Result<()> {
    check_range(dump.from, dump.to)?;
    let log = ReadOnlyWal::open_with_prefix(&dump.dir, &cli.prefix)?;
    let mut out = stdout();
    let mut left = dump.limit.unwrap_or(u64::MAX);
    let mut one = |out: &mut BufWriter<_>, record: RecordRef<'_>| -> Result<bool> {
        if left == 0 || dump.to.is_some_and(|to| record.lsn.as_u64() >= to) {
            return Ok(false);
        }
        left -= 1;
        write(out, dump.format, record.lsn.as_u64(), record.payload)?;
        Ok(left > 0)
    };
    if dump.follow {
        let follower = log.follow(Lsn::new(dump.from))?;
        return follow(follower, &mut out, one);
    }
    let mut reader = log.reader(Lsn::new(dump.from))?;
    while let Some(record) = reader.next_ref()? {
        if !one(&mut out, record)? {
            break;
        }
    }
    Ok(out.flush()?)
}

/// Writes what is there, and flushes whenever it waits.
fn follow<W: Write>(
    mut follower: ReadOnlyFollow,
    out: &mut BufWriter<W>,
    mut one: impl FnMut(&mut BufWriter<W>, RecordRef<'_>) -> Result<bool>,
) -> Result<()> {
    loop {
        while let Some(record) = follower.try_next()? {
            if !one(out, record)? {
                return Ok(out.flush()?);
            }
        }
        out.flush()?;
        match follower.next_ref()? {
            Some(record) if one(out, record)? => {}
            _ => return Ok(out.flush()?),
        }
    }
}

pub(crate) fn tail(cli: &Cli, tail: &Tail) -> Result<()> {
    let log = ReadOnlyWal::open_with_prefix(&tail.dir, &cli.prefix)?;
    let end = log.durable_end()?;
    let mut newest = Vec::new();
    for record in log.reader_back(end)?.take(tail.records) {
        newest.push(record?);
    }
    let mut out = stdout();
    for record in newest.iter().rev() {
        write(&mut out, tail.format, record.lsn.as_u64(), &record.payload)?;
    }
    out.flush()?;
    if tail.follow {
        let follower = log.follow(end)?;
        let format: Format = tail.format;
        return follow(follower, &mut out, |out, record| {
            write(out, format, record.lsn.as_u64(), record.payload).map(|()| true)
        });
    }
    Ok(())
}

pub(crate) fn export(cli: &Cli, export: &Export) -> Result<()> {
    check_range(export.from, export.to)?;
    let Some(path) = &export.output else {
        let mut out = stdout();
        export_to(cli, export, &mut out)?;
        return Ok(out.flush()?);
    };
    let wrong = |op| move |source| Error::File { op, path: path.clone(), source };
    // What is there is not overwritten: it may be the only copy of something.
    let file = File::create_new(path).map_err(wrong("make"))?;
    let mut out = BufWriter::with_capacity(1 << 20, &file);
    let count = export_to(cli, export, &mut out)?;
    out.flush().map_err(wrong("write"))?;
    drop(out);
    file.sync_all().map_err(wrong("sync"))?;
    writeln!(anstream::stderr(), "{count} records are in {}", path.display())?;
    Ok(())
}

fn export_to(cli: &Cli, export: &Export, out: &mut impl Write) -> Result<u64> {
    let mut bar = Bar::new(cli.quiet);
    let mut count = 0;
    let wanted =
        |lsn: Lsn| lsn.as_u64() >= export.from && export.to.is_none_or(|to| lsn.as_u64() < to);
    if export.damaged {
        let log = Directory::open(&export.dir, &cli.prefix)?;
        let survey = log.survey(&mut |p| bar.set(p.done / 2, p.total))?;
        let mut failed = None;
        log.intact_records(&survey, &mut |lsn, payload| {
            if wanted(lsn) {
                count += 1;
                failed = write_framed(out, export.format, lsn.as_u64(), payload).err();
            }
            failed.is_none()
        })?;
        return failed.map_or(Ok(count), Err);
    }
    let log = ReadOnlyWal::open_with_prefix(&export.dir, &cli.prefix)?;
    let (from, end) = (log.oldest_lsn()?.as_u64().max(export.from), log.durable_end()?.as_u64());
    let mut reader = log.reader(Lsn::new(export.from))?;
    while let Some(record) = reader.next_ref()? {
        if !wanted(record.lsn) {
            break;
        }
        count += 1;
        write_framed(out, export.format, record.lsn.as_u64(), record.payload)?;
        if count % 1024 == 0 {
            bar.set(record.lsn.as_u64().saturating_sub(from), end.saturating_sub(from));
        }
    }
    Ok(count)
}
