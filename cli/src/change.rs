//! `truncate-before`: with the log's lock. And how a log is opened for a change.

use std::io::Write;
use std::path::Path;

use indicatif::BinaryBytes;
use ringwal::inspect::{Directory, Survey};
use ringwal::{Lsn, ReadOnlyWal, Wal, WalBuilder};

use crate::args::{Cli, TruncateBefore};
use crate::error::{Error, Result};
use crate::owner::mode_of;
use crate::survey::{counted, look};

/// Options that match the log: new segments get the size and the mode of the newest.
pub(crate) fn builder(cli: &Cli, dir: &Path) -> WalBuilder {
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
        // Opening reports a damaged one.
        size if size >= 16 << 10 && size.is_multiple_of(4096) => builder.segment_size(size),
        _ => builder,
    }
}

/// Surveys a log before a change, and refuses damage.
pub(crate) fn sound(cli: &Cli, directory: &Directory, dir: &Path) -> Result<Survey> {
    let survey = look(cli, directory)?;
    match survey.damage.first() {
        None => Ok(survey),
        Some(first) => Err(Error::Damaged(format!(
            "{} is damaged ({}, byte {}: {}) and was left as it is; `ringwal verify` lists all damage, `ringwal repair` says \
             what can be done",
            dir.display(),
            first.segment,
            first.offset,
            first.found
        ))),
    }
}

/// What a truncation removes.
struct Gone {
    segments: u64,
    records: u64,
    bytes: u64,
}

impl Gone {
    fn below(survey: &Survey, oldest: u64) -> Self {
        let gone = survey.segments.iter().filter(|segment| segment.base.as_u64() < oldest);
        gone.fold(Gone { segments: 0, records: 0, bytes: 0 }, |gone, segment| Gone {
            segments: gone.segments + 1,
            records: gone.records + segment.records,
            bytes: gone.bytes + segment.size,
        })
    }

    fn words(&self) -> String {
        format!(
            "{} with {}, {}",
            counted(self.segments, "segment", "segments"),
            counted(self.records, "record", "records"),
            BinaryBytes(self.bytes)
        )
    }
}

pub(crate) fn truncate_before(cli: &Cli, args: &TruncateBefore) -> Result<()> {
    // Opening would create a log where there is none.
    let directory = Directory::open(&args.dir, &cli.prefix)?;
    let log = ReadOnlyWal::open_with_prefix(&args.dir, &cli.prefix)?;
    let (before, end) = (log.oldest_lsn()?, log.durable_end()?);
    drop(log);
    if args.lsn > end.as_u64() {
        return Err(Error::Usage(format!(
            "{} lies beyond the end of the log, {end}; nothing was removed",
            args.lsn
        )));
    }
    if !args.dry_run
        && let Some(pid) = directory.writer()
    {
        let path = args.dir.join(format!("{}.lock", cli.prefix));
        return Err(ringwal::Error::Locked { path, pid: Some(pid) }.into());
    }
    let survey = sound(cli, &directory, &args.dir)?;
    let mut out = std::io::stdout().lock();
    if args.dry_run {
        return foretell(&mut out, &directory, &survey, before, args.lsn);
    }
    let wal = builder(cli, &args.dir).open()?;
    let oldest = wal.truncate_before(Lsn::new(args.lsn))?;
    wal.close()?;
    writeln!(out, "the oldest position was {before}, and is {oldest}")?;
    let gone = Gone::below(&survey, oldest.as_u64());
    if gone.segments > 0 {
        writeln!(out, "removed {}", gone.words())?;
    } else {
        writeln!(out, "nothing was removed")?;
    }
    Ok(out.flush()?)
}

fn foretell(
    out: &mut impl Write,
    directory: &Directory,
    survey: &Survey,
    before: Lsn,
    asked: u64,
) -> Result<()> {
    let consumers = directory.stored_consumers()?;
    let holder = consumers.iter().filter_map(|one| Some((one.position?, &one.name))).min();
    let floors = directory.stored_tag_floors()?.unwrap_or_default();
    let floor = floors.iter().map(|floor| (floor.floor, floor.tag)).min();
    let limit = holder.as_ref().map_or(asked, |(position, _)| position.as_u64().min(asked));
    let limit = floor.map_or(limit, |(floor, _)| floor.as_u64().min(limit));
    let mut oldest = before.as_u64();
    // The newest segment always stays.
    for pair in survey.segments.windows(2) {
        let end = pair[0].base.as_u64() + pair[0].size;
        if end > limit {
            break;
        }
        oldest = end;
    }
    let gone = Gone::below(survey, oldest);
    match gone.segments {
        0 => writeln!(out, "would remove nothing: the oldest position stays {before}")?,
        _ => writeln!(
            out,
            "would remove {}; the oldest position is {before}, and would be {oldest}",
            gone.words()
        )?,
    }
    if let Some((position, name)) = holder.filter(|(position, _)| position.as_u64() < asked) {
        writeln!(out, "the consumer {name} is at {position}, and keeps what lies above that")?;
    }
    if let Some((floor, tag)) = floor.filter(|(floor, _)| floor.as_u64() < asked) {
        writeln!(out, "the floor of the tag {tag} is {floor}, and keeps what lies above that")?;
    }
    writeln!(out, "nothing was changed")?;
    Ok(out.flush()?)
}
