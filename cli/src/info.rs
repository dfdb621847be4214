//! `info`: what the log is, quickly.

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use indicatif::BinaryBytes;
use ringwal::inspect::{Directory, SegmentFile, StoredConsumer};
use ringwal::{Lsn, ReadOnlyWal, Record, TagFloor};
use serde_json::{Value, json};

use crate::args::{Cli, Look};
use crate::error::Result;
use crate::survey::counted;

pub(crate) fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of a process, for people.
fn process(pid: u32) -> String {
    let name = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm"));
    name.map_or_else(|_| format!("process {pid}"), |name| format!("process {pid}, {}", name.trim()))
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// Free space of the filesystem for this user, in bytes.
fn free_bytes(dir: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let stat = nix::sys::statvfs::statvfs(dir).ok()?;
        #[allow(clippy::useless_conversion, reason = "they have 32 bits on some systems")]
        u64::from(stat.blocks_available()).checked_mul(u64::from(stat.fragment_size()))
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        None
    }
}

/// Positions and times, known only for a log that can be opened.
struct Extent {
    oldest: Lsn,
    end: Lsn,
    newest: Option<Record>,
    /// When the oldest and the newest record were written.
    written: [Option<SystemTime>; 2],
}

fn extent(cli: &Cli, look: &Look, directory: &Directory) -> Result<Extent> {
    let log = ReadOnlyWal::open_with_prefix(&look.dir, &cli.prefix)?;
    let (oldest, end) = (log.oldest_lsn()?, log.durable_end()?);
    let newest = log.reader_back(end)?.next().transpose()?;
    let first = log.reader(Lsn::ZERO)?.next().transpose()?.map(|record| record.lsn);
    let written = |lsn: Option<Lsn>| lsn.map_or(Ok(None), |lsn| directory.written_at(lsn));
    let last = newest.as_ref().map(|record| record.lsn);
    Ok(Extent { oldest, end, newest, written: [written(first)?, written(last)?] })
}

pub(crate) fn info(cli: &Cli, look: &Look) -> Result<()> {
    let directory = Directory::open(&look.dir, &cli.prefix)?;
    let files = directory.segment_files()?;
    let identity = directory.identity()?;
    let writer = directory.writer();
    // The rest is printed for a damaged log too.
    let extent = extent(cli, look, &directory);
    let consumers = directory.stored_consumers()?;
    let floors = directory.stored_tag_floors()?;
    let end = extent.as_ref().ok().map(|extent| extent.end.as_u64());
    let lag = |position: Lsn| Some(end?.saturating_sub(position.as_u64()));
    let free = free_bytes(&look.dir);
    let mut out = std::io::stdout().lock();
    if look.json {
        let all = json!({
            "directory": look.dir.display().to_string(),
            "prefix": cli.prefix,
            "log_id": identity.map(|(id, _)| hex(&id)),
            "application_version": identity.map(|(_, version)| version),
            "segments": files.len(),
            "segment_bytes": files.last().map(|file| file.size),
            "bytes": files.iter().map(|file| file.size).sum::<u64>(),
            "free_bytes": free,
            "writer_pid": writer,
            "tag_floors": floors.as_ref().map(Vec::len),
            "lowest_tag_floor": floors.as_deref().and_then(lowest).map(floor_json),
            "consumers": consumers.iter().map(|c| consumer_json(c, lag)).collect::<Vec<_>>(),
        });
        writeln!(out, "{:#}", with_extent(all, extent.as_ref().ok()))?;
        return extent.map(drop);
    }
    let id = identity.map_or_else(|| "unknown".into(), |(id, _)| hex(&id));
    writeln!(out, "log          {}, prefix {}, id {id}", look.dir.display(), cli.prefix)?;
    match identity {
        Some((_, 0)) => writeln!(out, "application  version 0: it did not say any")?,
        Some((_, version)) => writeln!(out, "application  version {version}")?,
        None => writeln!(out, "application  version unknown")?,
    }
    writeln!(out, "segments     {}", sizes(&files))?;
    if let Ok(extent) = &extent {
        tell(&mut out, extent)?;
    }
    match writer {
        Some(pid) => writeln!(out, "writer       {}", process(pid))?,
        // One in another namespace of processes, or without the lock file, is not seen.
        None => writeln!(out, "writer       none seen")?,
    }
    if let Some(free) = free {
        writeln!(out, "free         {} in the filesystem", BinaryBytes(free))?;
    }
    for StoredConsumer { name, position, .. } in &consumers {
        match (position, position.and_then(lag)) {
            (None, _) => writeln!(out, "consumer     {name}, its position is damaged")?,
            (Some(at), None) => writeln!(out, "consumer     {name}, at {at}")?,
            (Some(at), Some(lag)) => {
                writeln!(out, "consumer     {name}, at {at}, {} behind", BinaryBytes(lag))?;
            }
        }
    }
    tell_floors(&mut out, floors.as_deref())?;
    out.flush()?;
    extent.map(drop)
}

fn lowest(floors: &[TagFloor]) -> Option<TagFloor> {
    floors.iter().copied().min_by_key(|floor| (floor.floor, floor.tag))
}

fn floor_json(floor: TagFloor) -> Value {
    json!({ "tag": floor.tag, "floor": floor.floor.as_u64() })
}

/// `floors`: `None` if they are damaged.
fn tell_floors(out: &mut impl Write, floors: Option<&[TagFloor]>) -> Result<()> {
    let Some(all) = floors else {
        return Ok(writeln!(out, "tags         their floors are damaged")?);
    };
    let Some(TagFloor { tag, floor, .. }) = lowest(all) else { return Ok(()) };
    let count = counted(all.len() as u64, "floor", "floors");
    Ok(writeln!(out, "tags         {count}, the lowest at {floor}, of {tag}")?)
}

fn consumer_json(consumer: &StoredConsumer, lag: impl Fn(Lsn) -> Option<u64>) -> Value {
    json!({
        "name": consumer.name,
        "position": consumer.position.map(Lsn::as_u64),
        "lag_bytes": consumer.position.and_then(lag),
        "damaged": consumer.position.is_none(),
    })
}

/// Adds the extent, or nulls for a log that cannot be read.
fn with_extent(mut all: Value, extent: Option<&Extent>) -> Value {
    let written = |at: usize| extent.and_then(|extent| extent.written[at]).map(rfc3339);
    let newest = extent.and_then(|extent| extent.newest.as_ref());
    all["oldest_lsn"] = extent.map(|extent| extent.oldest.as_u64()).into();
    all["durable_end"] = extent.map(|extent| extent.end.as_u64()).into();
    all["newest_record"] = newest.map(|record| record.lsn.as_u64()).into();
    all["oldest_written"] = written(0).into();
    all["newest_written"] = written(1).into();
    all
}

fn sizes(files: &[SegmentFile]) -> String {
    let bytes: u64 = files.iter().map(|file| file.size).sum();
    let each = files.last().map_or(0, |file| file.size);
    let count = files.len() as u64;
    match files.iter().all(|file| file.size == each) {
        true if count == 1 => format!("1 of {}", BinaryBytes(bytes)),
        true => format!("{count}, {} each, {} together", BinaryBytes(each), BinaryBytes(bytes)),
        false => format!("{count}, of several sizes, {} together", BinaryBytes(bytes)),
    }
}

fn tell(out: &mut impl Write, extent: &Extent) -> Result<()> {
    let Extent { oldest, end, newest, .. } = extent;
    let kept = end.as_u64().saturating_sub(oldest.as_u64());
    writeln!(out, "positions    {oldest} to {end}, {}", BinaryBytes(kept))?;
    if let Some(time) = extent.written[0] {
        writeln!(out, "oldest       written {}", rfc3339(time))?;
    }
    let written = extent.written[1].map(|time| format!(", written {}", rfc3339(time)));
    match newest {
        Some(record) => {
            let bytes = counted(record.payload.len() as u64, "byte", "bytes");
            let written = written.unwrap_or_default();
            Ok(writeln!(out, "newest       {bytes} at {}{written}", record.lsn)?)
        }
        None => Ok(writeln!(out, "newest       there is no record")?),
    }
}
