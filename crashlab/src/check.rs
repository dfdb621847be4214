//! Checks that a filesystem holds the log that it must hold.

use std::path::Path;

use ringwal::{BackendChoice, Lsn, Wal};

use crate::workload::{Ack, Config, Tag, tag};

#[derive(Debug)]
struct Found {
    lsn: Lsn,
    tag: Tag,
}

fn read(wal: &Wal) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    for record in wal.reader(Lsn::ZERO) {
        let record = record.map_err(|e| format!("read: {e}"))?;
        let tag = tag(&record.payload)
            .ok_or_else(|| format!("the record at {} was never appended", record.lsn))?;
        found.push(Found { lsn: record.lsn, tag });
    }
    Ok(found)
}

/// Opens the log under `mount` and compares it with the acknowledgements received before. `by`
/// chooses the backend, at times another than the writer's.
pub(crate) fn check(mount: &Path, config: &Config, acks: &[Ack], by: u64) -> Result<(), String> {
    let dir = mount.join("log");
    if !dir.exists() {
        return match acks {
            [] => Ok(()),
            _ => Err(format!("{} records were acknowledged, and there is no log", acks.len())),
        };
    }
    let open = |by: u64| {
        let backend = if by.is_multiple_of(2) { BackendChoice::Std } else { BackendChoice::Auto };
        config.builder(mount).backend(backend).open().map_err(|e| format!("open: {e}"))
    };
    let wal = open(by)?;
    let found = read(&wal)?;
    hold(&found, &wal, config, acks)?;
    if by.is_multiple_of(3) {
        // A new record must follow the old ones, and the next open must find all of them.
        wal.append_durable(b"after").map_err(|e| format!("append: {e}"))?;
        wal.close().map_err(|e| format!("close: {e}"))?;
        drop(wal);
        let wal = open(by + 1)?;
        let mut again = 0;
        let mut last = Vec::new();
        for record in wal.reader(wal.oldest_lsn().max(Lsn::ZERO)) {
            last = record.map_err(|e| format!("read again: {e}"))?.payload;
            again += 1;
        }
        let pruned = config.max_segments.is_some();
        if last != b"after" || (again != found.len() + 1 && !pruned) {
            return Err(format!(
                "{again} records when it was opened again, not {}",
                found.len() + 1
            ));
        }
    }
    Ok(())
}

fn hold(found: &[Found], wal: &Wal, config: &Config, acks: &[Ack]) -> Result<(), String> {
    if let Some(w) = found.windows(2).find(|w| w[0].lsn >= w[1].lsn) {
        return Err(format!("positions do not rise at {}", w[1].lsn));
    }
    let mut next: Vec<Option<u32>> = vec![None; config.threads as usize];
    let mut batch: Option<Tag> = None;
    for Found { lsn, tag } in found {
        let next = next.get_mut(tag.thread as usize).ok_or("a thread that there was not")?;
        let first = if config.max_segments.is_none() { 0 } else { tag.n };
        if next.unwrap_or(first) != tag.n {
            return Err(format!("thread {}: {} at {lsn} instead of {next:?}", tag.thread, tag.n));
        }
        *next = Some(tag.n + 1);
        let follows = match batch {
            Some(before) => tag.batch == before.batch && tag.index == before.index + 1,
            None => tag.index == 0,
        };
        if !follows {
            return Err(format!("a batch is not whole at {lsn}"));
        }
        batch = (tag.index + 1 < tag.batch).then_some(*tag);
    }
    if batch.is_some() {
        return Err("the last batch is not whole".into());
    }
    let oldest = wal.oldest_lsn().as_u64();
    for ack in acks {
        let lost = next[ack.thread as usize].is_none_or(|next| next <= ack.n);
        if lost && (ack.lsn >= oldest || config.max_segments.is_none()) {
            let end = wal.recovery().durable_end;
            return Err(format!("{ack:?} is lost; the log is from {oldest} to {end}"));
        }
    }
    Ok(())
}
