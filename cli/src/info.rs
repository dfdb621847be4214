//! `info`: what the log is, quickly.

use std::io::Write;
use std::path::Path;

use indicatif::BinaryBytes;
use ringwal::inspect::{Directory, SegmentFile};
use ringwal::{ConsumerInfo, Lsn, ReadOnlyWal, Record};
use serde_json::json;

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

/// What only a log that can be opened has.
struct Extent {
    oldest: Lsn,
    end: Lsn,
    newest: Option<Record>,
    consumers: Vec<ConsumerInfo>,
}

fn extent(cli: &Cli, look: &Look, directory: &Directory) -> Result<Extent> {
    let log = ReadOnlyWal::open_with_prefix(&look.dir, &cli.prefix)?;
    let (oldest, end) = (log.oldest_lsn()?, log.durable_end()?);
    let newest = log.reader_back(end)?.next().transpose()?;
    Ok(Extent { oldest, end, newest, consumers: directory.consumers()? })
}

pub(crate) fn info(cli: &Cli, look: &Look) -> Result<()> {
    let directory = Directory::open(&look.dir, &cli.prefix)?;
    let files = directory.segment_files()?;
    let identity = directory.identity()?;
    let writer = directory.writer();
    // A damaged log has the rest of it all the same.
    let extent = extent(cli, look, &directory);
    let mut out = std::io::stdout().lock();
    if look.json {
        let told = extent.as_ref().ok();
        let consumers = told.map(|extent| {
            let consumer = |c: &ConsumerInfo| {
                json!({ "name": c.name, "position": c.position.as_u64(), "lag_bytes": c.lag })
            };
            extent.consumers.iter().map(consumer).collect::<Vec<_>>()
        });
        let newest = told.and_then(|extent| extent.newest.as_ref());
        let all = json!({
            "directory": look.dir.display().to_string(),
            "prefix": cli.prefix,
            "log_id": identity.map(|(id, _)| hex(&id)),
            "application_version": identity.map(|(_, version)| version),
            "segments": files.len(),
            "segment_bytes": files.last().map(|file| file.size),
            "bytes": files.iter().map(|file| file.size).sum::<u64>(),
            "oldest_lsn": told.map(|extent| extent.oldest.as_u64()),
            "durable_end": told.map(|extent| extent.end.as_u64()),
            "newest_record": newest.map(|record| record.lsn.as_u64()),
            "writer_pid": writer,
            "consumers": consumers,
        });
        writeln!(out, "{all:#}")?;
        return extent.map(drop);
    }
    let id = identity.map_or_else(|| "unknown".into(), |(id, _)| hex(&id));
    writeln!(out, "log          {}, prefix {}, id {id}", look.dir.display(), cli.prefix)?;
    if let Some((_, version)) = identity.filter(|(_, version)| *version != 0) {
        writeln!(out, "application  version {version}")?;
    }
    writeln!(out, "segments     {}", sizes(&files))?;
    if let Ok(extent) = &extent {
        tell(&mut out, extent)?;
    }
    match writer {
        Some(pid) => writeln!(out, "writer       {}", process(pid))?,
        None => writeln!(out, "writer       none")?,
    }
    for consumer in extent.iter().flat_map(|extent| &extent.consumers) {
        writeln!(
            out,
            "consumer     {}, at {}, {} behind",
            consumer.name,
            consumer.position,
            BinaryBytes(consumer.lag)
        )?;
    }
    out.flush()?;
    extent.map(drop)
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
    match newest {
        Some(record) => {
            let bytes = counted(record.payload.len() as u64, "byte", "bytes");
            Ok(writeln!(out, "newest       {bytes} at {}", record.lsn)?)
        }
        None => Ok(writeln!(out, "newest       there is no record")?),
    }
}
