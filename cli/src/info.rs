//! `info`: what the log is, quickly.

use std::io::Write;
use std::path::Path;

use indicatif::{BinaryBytes, HumanCount};
use ringwal::ReadOnlyWal;
use ringwal::inspect::Directory;
use serde_json::json;

use crate::args::{Cli, Look};
use crate::error::Result;

pub(crate) fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of a process, for people.
fn process(pid: u32) -> String {
    let name = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm"));
    name.map_or_else(|_| format!("process {pid}"), |name| format!("process {pid}, {}", name.trim()))
}

pub(crate) fn info(cli: &Cli, look: &Look) -> Result<()> {
    let directory = Directory::open(&look.dir, &cli.prefix)?;
    let log = ReadOnlyWal::open_with_prefix(&look.dir, &cli.prefix)?;
    let (oldest, end) = (log.oldest_lsn()?, log.durable_end()?);
    let files = directory.segment_files()?;
    let newest = log.reader_back(end)?.next().transpose()?;
    let identity = directory.identity()?;
    let (writer, consumers) = (directory.writer(), directory.consumers()?);
    let bytes: u64 = files.iter().map(|file| file.size).sum();
    let mut out = std::io::stdout().lock();
    if look.json {
        let consumers: Vec<_> = consumers
            .iter()
            .map(|c| json!({ "name": c.name, "position": c.position.as_u64(), "lag_bytes": c.lag }))
            .collect();
        let all = json!({
            "directory": look.dir.display().to_string(),
            "prefix": cli.prefix,
            "log_id": identity.map(|(id, _)| hex(&id)),
            "application_version": identity.map(|(_, version)| version),
            "segments": files.len(),
            "segment_bytes": files.last().map(|file| file.size),
            "bytes": bytes,
            "oldest_lsn": oldest.as_u64(),
            "durable_end": end.as_u64(),
            "newest_record": newest.as_ref().map(|record| record.lsn.as_u64()),
            "writer_pid": writer,
            "consumers": consumers,
        });
        return Ok(writeln!(out, "{all:#}")?);
    }
    let id = identity.map_or_else(|| "unknown".into(), |(id, _)| hex(&id));
    writeln!(out, "log          {}, prefix {}, id {id}", look.dir.display(), cli.prefix)?;
    if let Some((_, version)) = identity.filter(|(_, version)| *version != 0) {
        writeln!(out, "application  version {version}")?;
    }
    let size = files.last().map_or(0, |file| file.size);
    writeln!(
        out,
        "segments     {}, {} each, {} together",
        HumanCount(files.len() as u64),
        BinaryBytes(size),
        BinaryBytes(bytes)
    )?;
    let kept = end.as_u64().saturating_sub(oldest.as_u64());
    writeln!(out, "positions    {oldest} to {end}, {}", BinaryBytes(kept))?;
    match newest {
        Some(record) => {
            writeln!(out, "newest       {} bytes at {}", record.payload.len(), record.lsn)?;
        }
        None => writeln!(out, "newest       there is no record")?,
    }
    match writer {
        Some(pid) => writeln!(out, "writer       {}", process(pid))?,
        None => writeln!(out, "writer       none")?,
    }
    for consumer in consumers {
        writeln!(
            out,
            "consumer     {}, at {}, {} behind",
            consumer.name,
            consumer.position,
            BinaryBytes(consumer.lag)
        )?;
    }
    Ok(())
}
