//! `archive`, `restore` and `list`: segments in an object store.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use indicatif::BinaryBytes;
use ringwal::Lsn;
use ringwal_archive::{
    Archive, ArchiveStats, ArchivedSegment, Archiver, CaughtUp, KeepFrom, Listing, Until,
    VerifiedArchive,
};
use serde_json::{Value, json};

use crate::args::{self, ArchiveCommand, ArchiveTo, Cli, ListArchive, PruneArchive, Restore};
use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::stop;
use crate::survey::counted;
use crate::units::PositionOrTime;

/// Attempts for a segment, unless the command follows the log.
const ATTEMPTS: u32 = 5;
/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How soon a signal is noticed.
const NOTICE: Duration = Duration::from_millis(50);

pub(crate) fn archive(cli: &Cli, args: &args::Archive) -> Result<()> {
    match (&args.command, &args.to) {
        (Some(ArchiveCommand::Prune(args)), _) => prune(args),
        (None, Some(args)) => archive_to(cli, args),
        (None, None) => Err(Error::Usage("name the log's directory, and --to".into())),
    }
}

fn prune(args: &PruneArchive) -> Result<()> {
    let keep = match (args.keep_from, args.older_than) {
        (Some(PositionOrTime::Position(lsn)), _) => KeepFrom::Lsn(Lsn::new(lsn)),
        (Some(PositionOrTime::Time(time)), _) | (None, Some(time)) => KeepFrom::Time(time),
        (None, None) => return Err(Error::Usage("write --keep-from or --older-than".into())),
    };
    let archive = Archive::existing(&args.from)?;
    let pruned = if args.dry_run { archive.prunable(keep)? } else { archive.prune(keep)? };
    let mut out = io::stdout().lock();
    if args.json {
        let all = json!({
            "log_id": pruned.log_id,
            "kept_from": pruned.kept_from.as_u64(),
            "first_written": rfc3339(pruned.first_written),
            "kept_segments": pruned.kept_segments,
            "removed_segments": pruned.segments,
            "removed_objects": pruned.objects,
            "removed_bytes": pruned.bytes,
            "dry_run": args.dry_run,
        });
        writeln!(out, "{all:#}")?;
        return Ok(out.flush()?);
    }
    writeln!(
        out,
        "{} {}, {}, {}",
        if args.dry_run { "would remove" } else { "removed" },
        counted(pruned.segments, "segment", "segments"),
        counted(pruned.objects, "object", "objects"),
        BinaryBytes(pruned.bytes),
    )?;
    writeln!(
        out,
        "kept {} from {} on, the first written {}",
        counted(pruned.kept_segments, "segment", "segments"),
        pruned.kept_from,
        rfc3339(pruned.first_written),
    )?;
    Ok(out.flush()?)
}

fn archive_to(cli: &Cli, args: &ArchiveTo) -> Result<()> {
    // A wrong directory must not leave an empty archive.
    let log = ringwal::ReadOnlyWal::open_with_prefix(&args.dir, &cli.prefix)?;
    drop(log);
    let local = args.to.strip_prefix("file://").unwrap_or(&args.to);
    let same = |path: &str| std::fs::canonicalize(path).ok();
    if same(local).is_some_and(|place| std::fs::canonicalize(&args.dir).is_ok_and(|d| d == place)) {
        return Err(Error::Usage("--to is the log's own directory; name another place".into()));
    }
    let mut builder = Archiver::builder(Archive::at(&args.to)?);
    if args.follow {
        builder = builder.on_error(|e| {
            // Of any other error the command itself says more.
            if e.is_retried() {
                warn(&format!("{e}; it is tried again"));
            }
        });
    } else {
        builder = builder.attempts(ATTEMPTS);
    }
    let archiver = builder.start()?;
    let (stopper, done) = (archiver.stopper(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watch = || {
            while !done.load(Ordering::SeqCst) {
                if stop::asked() {
                    stopper();
                }
                std::thread::sleep(NOTICE);
            }
        };
        std::thread::Builder::new().spawn_scoped(scope, watch).map_err(Error::no_thread)?;
        let shipped = ship(cli, args, &archiver);
        done.store(true, Ordering::SeqCst);
        shipped
    })
}

fn warn(text: &str) {
    let _ = writeln!(anstream::stderr(), "ringwal: {text}");
}

fn ship(cli: &Cli, args: &ArchiveTo, archiver: &Archiver) -> Result<()> {
    loop {
        let round = archiver.catch_up(&args.dir, &cli.prefix);
        let round = match round {
            Ok(round) => round,
            Err(e) => {
                // The next run may find what follows archived, and say nothing of it.
                lost(&archiver.stats()).iter().for_each(|lost| warn(lost));
                if !matches!(e, ringwal_archive::Error::Stopped) {
                    return Err(e.into());
                }
                let shipped = counted(archiver.stats().shipped, "segment was", "segments were");
                return Err(Error::Interrupted(format!("{shipped} archived; repeat to go on")));
            }
        };
        let has_lost = round.overtaken > 0 || round.missing > 0;
        if !args.follow || round.shipped > 0 || has_lost {
            report(args, &round)?;
        }
        if let Some(lost) = lost(&archiver.stats()).filter(|_| has_lost) {
            if !args.follow {
                return Err(Error::Damaged(lost));
            }
            warn(&lost);
        }
        if !args.follow {
            return Ok(());
        }
        let mut waited = Duration::ZERO;
        while waited < LOOK && !stop::asked() {
            std::thread::sleep(NOTICE);
            waited += NOTICE;
        }
    }
}

/// Says what retention has removed too early, if it has.
fn lost(stats: &ArchiveStats) -> Option<String> {
    let segments = (stats.overtaken > 0).then(|| counted(stats.overtaken, "segment", "segments"));
    let older =
        (stats.missing > 0).then(|| format!("{} of older segments", BinaryBytes(stats.missing)));
    let both = [segments, older].into_iter().flatten().collect::<Vec<_>>().join(", and ");
    (!both.is_empty()).then(|| {
        format!(
            "{both}: removed by retention before being archived; `ringwal list` shows the gaps; keep more segments, or \
             let the program that writes the log archive it"
        )
    })
}

fn report(args: &ArchiveTo, round: &CaughtUp) -> Result<()> {
    let mut out = io::stdout().lock();
    if args.json {
        let all = json!({
            "shipped_segments": round.shipped,
            "shipped_bytes": round.shipped_bytes,
            "present_segments": round.present,
            "pruned_segments": round.pruned,
            "overtaken_segments": round.overtaken,
            "missing_bytes": round.missing,
            "archived_to": round.archived_to.as_u64(),
        });
        if args.follow {
            writeln!(out, "{all}")?
        } else {
            writeln!(out, "{all:#}")?
        }
        return Ok(out.flush()?);
    }
    writeln!(
        out,
        "shipped  {}, {}; {} in the archive already",
        counted(round.shipped, "segment", "segments"),
        BinaryBytes(round.shipped_bytes),
        counted(round.present, "was", "were"),
    )?;
    if round.pruned > 0 {
        let pruned = counted(
            round.pruned,
            "segment that the log still has was",
            "segments that the log still has were",
        );
        writeln!(out, "{pruned} pruned from the archive before")?;
    }
    writeln!(out, "archived up to {}; what follows is not sealed yet", round.archived_to)?;
    Ok(out.flush()?)
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

pub(crate) fn restore(cli: &Cli, args: &Restore) -> Result<()> {
    let archive = Archive::existing(&args.from)?;
    let until = match (args.to_lsn, args.to_time) {
        (Some(lsn), _) => Until::Lsn(Lsn::new(lsn)),
        (None, Some(time)) => Until::Time(time),
        (None, None) => Until::Newest,
    };
    let bar = std::sync::Mutex::new(Bar::new(cli.quiet));
    let mut restore = archive.restore().prefix(&cli.prefix).until(until).progress(|at| {
        if let Ok(mut bar) = bar.lock() {
            bar.set(at.done, at.total);
        }
        if stop::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if let Some(lsn) = args.from_lsn {
        restore = restore.from(Lsn::new(lsn));
    }
    let restored = restore.into(&args.dir);
    if let Ok(bar) = bar.lock() {
        bar.clear();
    }
    let restored = match restored {
        Err(ringwal_archive::Error::Stopped) => {
            return Err(Error::Interrupted("nothing was restored".into()));
        }
        restored => restored?,
    };
    let mut out = io::stdout().lock();
    if args.json {
        let all = json!({
            "log_id": restored.log_id,
            "from": restored.from.as_u64(),
            "end": restored.end.as_u64(),
            "segments": restored.segments,
            "records": restored.records,
            "bytes": restored.bytes,
            "last_written": rfc3339(restored.last_written),
            "left_out": restored.left_out,
        });
        writeln!(out, "{all:#}")?;
        out.flush()?;
        return whole(&restored.left_out);
    }
    writeln!(
        out,
        "restored {} from {} to {}, {}, the last written {}",
        counted(restored.records, "record", "records"),
        restored.from,
        restored.end,
        counted(restored.segments, "segment", "segments"),
        rfc3339(restored.last_written),
    )?;
    writeln!(out, "verified all of it, in {}", args.dir.display())?;
    out.flush()?;
    whole(&restored.left_out)
}

/// An error if something after the end of a restored log is damaged.
fn whole(left_out: &[String]) -> Result<()> {
    let Some(first) = left_out.first() else { return Ok(()) };
    Err(Error::Damaged(format!(
        "{first} is torn or damaged: what it is of was not restored, and the log ends before it; put a sound copy back, or \
         give the end by --to-lsn"
    )))
}

pub(crate) fn list(cli: &Cli, args: &ListArchive) -> Result<()> {
    let archive = Archive::existing(&args.from)?;
    let listing = archive.list()?;
    let verified = args.verify.then(|| verify(cli, &archive)).transpose()?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", listing_json(&listing, verified.as_ref()))?;
    } else {
        print(&mut out, &listing)?;
        if let Some(verified) = &verified {
            print_verified(&mut out, verified)?;
        }
    }
    out.flush()?;
    let found = verified.map_or(0, |verified| verified.findings.len());
    let listed = listing.gaps.iter().map(|gap| &gap.missing).chain(&listing.invalid_manifests);
    // A damaged manifest leaves a gap, and findings have both.
    let listed = listed.collect::<BTreeSet<_>>().len() + listing.other_histories.len();
    let missing = found.max(listed);
    match missing as u64 {
        0 => Ok(()),
        n => Err(Error::Damaged(format!(
            "{} missing or damaged; remove what is damaged and archive the log again while it has the segments, or put sound \
             objects back",
            counted(n, "object is", "objects are")
        ))),
    }
}

fn verify(cli: &Cli, archive: &Archive) -> Result<VerifiedArchive> {
    let mut bar = Bar::new(cli.quiet);
    let verified = archive.verify(|at| {
        bar.set(at.done, at.total);
        if stop::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.clear();
    match verified {
        Err(ringwal_archive::Error::Stopped) => {
            Err(Error::Interrupted("not all of the archive was verified".into()))
        }
        verified => Ok(verified?),
    }
}

fn print_verified(out: &mut impl Write, verified: &VerifiedArchive) -> io::Result<()> {
    for finding in &verified.findings {
        writeln!(out, "{finding}")?;
    }
    let bytes = BinaryBytes(verified.bytes);
    match verified.findings.len() as u64 {
        0 => writeln!(out, "verified {bytes}: all of it can be restored"),
        n => {
            writeln!(out, "verified {bytes}: {} damaged", counted(n, "segment is", "segments are"))
        }
    }
}

fn listing_json(listing: &Listing, verified: Option<&VerifiedArchive>) -> Value {
    let segment = |segment: &ArchivedSegment| {
        json!({
            "base": segment.base.as_u64(),
            "end": segment.end.as_u64(),
            "groups_end": segment.groups_end.as_u64(),
            "records": segment.records,
            "first_ordinal": segment.first_ordinal,
            "first_written": rfc3339(segment.first_written),
            "last_written": rfc3339(segment.last_written),
            "bytes": segment.bytes,
            "object": segment.object,
            "application_version": segment.application_version,
        })
    };
    let gaps = listing.gaps.iter().map(
        |gap| json!({ "from": gap.from.as_u64(), "to": gap.to.as_u64(), "missing": gap.missing }),
    );
    let verified = verified.map(|verified| {
        json!({
            "bytes": verified.bytes,
            "findings": verified.findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    });
    json!({
        "log_id": listing.log_id,
        "floor": listing.floor.as_u64(),
        "verified": verified,
        "segments": listing.segments.iter().map(segment).collect::<Vec<_>>(),
        "gaps": gaps.collect::<Vec<_>>(),
        "other_histories": listing.other_histories.iter().map(|l| l.as_u64()).collect::<Vec<_>>(),
        "invalid_manifests": listing.invalid_manifests,
        "unconfirmed_objects": listing.unconfirmed_objects,
    })
}

fn print(out: &mut impl Write, listing: &Listing) -> io::Result<()> {
    writeln!(out, "log      {}", listing.log_id)?;
    if listing.floor > Lsn::ZERO {
        writeln!(out, "pruned   up to {}", listing.floor)?;
    }
    if !listing.segments.is_empty() {
        writeln!(
            out,
            "{:>20} {:>20} {:>12} {:>12}  {:24}  {:24}",
            "from", "to", "records", "bytes", "first written", "last written"
        )?;
    }
    for segment in &listing.segments {
        writeln!(
            out,
            "{:>20} {:>20} {:>12} {:>12}  {:24}  {:24}",
            segment.base.as_u64(),
            segment.groups_end.as_u64(),
            segment.records,
            segment.bytes,
            rfc3339(segment.first_written),
            rfc3339(segment.last_written),
        )?;
    }
    for gap in &listing.gaps {
        writeln!(out, "missing  {} to {}: {}", gap.from, gap.to, gap.missing)?;
    }
    for base in &listing.other_histories {
        writeln!(out, "another history from {base} on: no restore has what is before it too")?;
    }
    for name in &listing.invalid_manifests {
        writeln!(out, "damaged  {name}")?;
    }
    for name in &listing.unconfirmed_objects {
        writeln!(out, "not confirmed, and ignored: {name}")?;
    }
    let records: u64 = listing.segments.iter().map(|segment| segment.records).sum();
    let bytes = listing.segments.iter().map(|segment| segment.bytes).sum();
    let segments = counted(listing.segments.len() as u64, "segment", "segments");
    let records = counted(records, "record", "records");
    writeln!(out, "archived {segments}, {records}, {}", BinaryBytes(bytes))
}
