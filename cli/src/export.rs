//! `export`: records into a file that `import` reads.

use std::fs::File;
use std::io::{BufWriter, Write};

use indicatif::HumanCount;
use ringwal::inspect::{Directory, IntactRecord, Survey};
use ringwal::{Lsn, ReadOnlyWal};

use crate::args::{Cli, Export};
use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::record::{Written, write_framed};
use crate::show::stdout;
use crate::survey::{counted, look_with};
use crate::{stop, window};

pub(crate) fn export(cli: &Cli, export: &Export) -> Result<()> {
    window::check(export.from, export.to, &export.window)?;
    let mut count = 0;
    let Some(path) = &export.output else {
        let mut out = stdout();
        let exported = export_to(cli, export, &mut out, &mut count);
        // The records before an error are wanted too.
        out.flush()?;
        return exported.and_then(|survey| say(export, count, survey.as_ref()));
    };
    let wrong = |op| move |source| Error::File { op, path: path.clone(), source };
    // An existing file is never overwritten.
    let file = File::create_new(path).map_err(wrong("make"))?;
    let mut out = BufWriter::with_capacity(1 << 20, &file);
    let exported = export_to(cli, export, &mut out, &mut count).map_err(|e| match e {
        Error::Output(source) => wrong("write")(source),
        e => e,
    });
    let flushed = out.flush().map_err(wrong("write"));
    drop(out);
    let written = flushed.and_then(|()| file.sync_all().map_err(wrong("sync")));
    if written.is_err() || exported.is_err() && count == 0 {
        // It is empty, or ends within a record, and would block the next attempt.
        let _ = std::fs::remove_file(path);
        return exported.map(drop).and(written);
    }
    let said = say(export, count, exported.as_ref().ok().and_then(Option::as_ref));
    exported.and(said)
}

/// On standard error: records may be on standard output.
fn say(export: &Export, count: u64, survey: Option<&Survey>) -> Result<()> {
    let mut out = anstream::stderr();
    if let Some(path) = &export.output {
        writeln!(out, "{} in {}", counted(count, "record is", "records are"), path.display())?;
    }
    if let Some(survey) = survey.filter(|survey| survey.damaged_places > 0) {
        let known = survey.damage.iter().all(|place| place.records_lost.is_some());
        let places = counted(survey.damaged_places, "place", "places");
        let at_least = if known { "" } else { "at least " };
        let lost = HumanCount(survey.records_lost);
        writeln!(out, "the log is damaged in {places}; {at_least}{lost} of its records are lost")?;
    }
    Ok(())
}

fn export_to(
    cli: &Cli,
    export: &Export,
    out: &mut impl Write,
    count: &mut u64,
) -> Result<Option<Survey>> {
    let mut bar = Bar::new(cli.quiet);
    let (from, to) = window::positions(cli, &export.dir, &export.window, export.from, export.to)?;
    let wanted = |lsn: Lsn| lsn.as_u64() >= from && to.is_none_or(|to| lsn.as_u64() < to);
    let interrupted = |count| {
        Err(Error::Interrupted(counted(count, "record was written", "records were written")))
    };
    if export.damaged {
        let log = Directory::open(&export.dir, &cli.prefix)?;
        // Read twice: the first pass finds which records are void.
        let survey = look_with(&mut bar, &log, 2)?;
        let first = survey.segments.first().map_or(0, |segment| segment.base.as_u64());
        let all = survey.end.as_u64().saturating_sub(first);
        let mut failed = None;
        log.intact_tagged_records(&survey, &mut |record| {
            let IntactRecord { lsn, tag, payload, .. } = record;
            if wanted(lsn) {
                *count += 1;
                let record = Written { lsn, tag, payload };
                failed = write_framed(out, export.format, record).err();
            }
            let read = lsn.as_u64().saturating_sub(first);
            bar.set(all.saturating_add(read) / 2, all);
            failed.is_none() && !stop::asked()
        })?;
        if stop::asked() {
            return interrupted(*count);
        }
        return failed.map_or(Ok(Some(survey)), Err);
    }
    let log = ReadOnlyWal::open_with_prefix(&export.dir, &cli.prefix)?;
    // Above the end there is nothing to write, as between the last record and the end.
    let mut reader = log.reader(Lsn::new(from).min(log.durable_end()?))?;
    let (from, end) = (log.oldest_lsn()?.as_u64().max(from), log.durable_end()?.as_u64());
    while let Some(record) = reader.next_ref()? {
        if !wanted(record.lsn) {
            break;
        }
        if stop::asked() {
            return interrupted(*count);
        }
        *count += 1;
        let (lsn, tag, payload) = (record.lsn, record.tag(), record.payload);
        write_framed(out, export.format, Written { lsn, tag, payload })?;
        if count.is_multiple_of(1024) {
            bar.set(record.lsn.as_u64().saturating_sub(from), end.saturating_sub(from));
        }
    }
    Ok(None)
}
