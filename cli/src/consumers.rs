//! `consumers` and `remove-consumer`.

use std::io::Write;

use indicatif::BinaryBytes;
use ringwal::inspect::{Directory, StoredConsumer};
use ringwal::{Lsn, ReadOnlyWal};
use serde_json::json;

use crate::args::{Cli, Look, RemoveConsumer};
use crate::error::Result;
use crate::survey::counted;

/// Segments and bytes that only this consumer holds: those below the lowest other position.
fn held_alone(log: &Directory, all: &[StoredConsumer], name: &str, end: u64) -> Result<(u64, u64)> {
    let position = |consumer: &StoredConsumer| consumer.position.map(Lsn::as_u64);
    let own = all.iter().find(|one| one.name == name).and_then(position).unwrap_or(0);
    let others = all.iter().filter(|one| one.name != name).map(|one| position(one).unwrap_or(0));
    let lowest = others.min().unwrap_or(end).min(end);
    let files = log.segment_files()?;
    let between = files.iter().filter(|file| {
        let behind = file.base.as_u64().saturating_add(file.size);
        behind > own && behind <= lowest
    });
    Ok(between.fold((0, 0), |(count, bytes), file| (count + 1, bytes + file.size)))
}

fn durable_end(cli: &Cli, dir: &std::path::Path) -> ringwal::Result<Lsn> {
    ReadOnlyWal::open_with_prefix(dir, &cli.prefix)?.durable_end()
}

pub(crate) fn consumers(cli: &Cli, look: &Look) -> Result<()> {
    let log = Directory::open(&look.dir, &cli.prefix)?;
    let all = log.stored_consumers()?;
    // The rest is printed for a damaged log too.
    let end = durable_end(cli, &look.dir);
    if all.is_empty() {
        end.as_ref().map_err(ringwal::Error::clone)?;
    }
    let mut out = std::io::stdout().lock();
    let lag = |position: Lsn| Some(end.as_ref().ok()?.as_u64().saturating_sub(position.as_u64()));
    let known = end.as_ref().map_or(0, |end| end.as_u64());
    let mut rows = Vec::new();
    for one in &all {
        let (segments, bytes) = held_alone(&log, &all, &one.name, known)?;
        rows.push(json!({
            "name": one.name,
            "position": one.position.map(Lsn::as_u64),
            "lag_bytes": one.position.and_then(lag),
            "damaged": one.position.is_none(),
            "holds_alone_segments": segments,
            "holds_alone_bytes": bytes,
        }));
        if look.json {
            continue;
        }
        let at = match one.position {
            Some(position) => format!("at {position}"),
            None => "its position is damaged".into(),
        };
        let behind = one.position.and_then(lag).map(|lag| format!(", {} behind", BinaryBytes(lag)));
        let segments = counted(segments, "segment", "segments");
        let held = if bytes == 0 { String::new() } else { format!(", alone holds {segments}") };
        writeln!(out, "{}  {at}{}{held}", one.name, behind.unwrap_or_default())?;
    }
    if look.json {
        writeln!(out, "{:#}", serde_json::Value::Array(rows))?;
    } else if all.is_empty() {
        writeln!(out, "there is no consumer")?;
    }
    out.flush()?;
    Ok(end.map(drop)?)
}

pub(crate) fn remove(cli: &Cli, args: &RemoveConsumer) -> Result<()> {
    let log = Directory::open(&args.dir, &cli.prefix)?;
    let all = log.stored_consumers()?;
    let end = durable_end(cli, &args.dir).map_or(0, Lsn::as_u64);
    let (segments, bytes) = held_alone(&log, &all, &args.name, end)?;
    let mut out = std::io::stdout().lock();
    let removed = if args.dry_run {
        let found = all.into_iter().find(|one| one.name == args.name);
        found.ok_or_else(|| ringwal::Error::NoConsumer { name: args.name.clone() })?
    } else {
        log.remove_consumer(&args.name)?
    };
    let was = match removed.position {
        Some(position) => format!("it was at {position}"),
        None => "its position was damaged".into(),
    };
    let verb = if args.dry_run { "would remove" } else { "removed" };
    writeln!(out, "{verb} {}; {was}", args.name)?;
    match segments {
        0 => writeln!(out, "no segment was held by it alone")?,
        n => writeln!(
            out,
            "it alone held {}, {}: retention may remove them when the log is open, or `ringwal truncate-before`",
            counted(n, "segment", "segments"),
            BinaryBytes(bytes)
        )?,
    }
    if args.dry_run {
        writeln!(out, "nothing was changed")?;
    }
    Ok(out.flush()?)
}
