//! Lists and removes the files in which consumers store their positions, and lists the floors of
//! tags.

use super::Directory;
use super::files::list;
use super::survey::log_id;
use crate::error::{Error, Result};
use crate::io::fs::Dir;
use crate::lsn::Lsn;
use crate::options::DEFAULT_LOCK_WAIT;
use crate::positions::{TagFloor, floors_in, position_in};
use crate::segment::DirLock;

/// A consumer as stored in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredConsumer {
    /// Its name.
    pub name: String,
    /// The name of its file.
    pub file: String,
    /// The consumer's position: every record below it was processed. `None`: neither slot of the
    /// file is sound.
    pub position: Option<Lsn>,
}

pub(super) fn stored(log: &Directory) -> Result<Vec<StoredConsumer>> {
    let entries = log.dir.list().map_err(|e| Error::io("list", log.dir.path(), e))?;
    let consumer = |file: &str| log.names.parse_consumer(file).map(str::to_owned);
    let mut found: Vec<(String, String)> = entries
        .into_iter()
        .filter_map(|entry| Some((consumer(&entry.name)?, entry.name)))
        .collect();
    if found.is_empty() {
        return Ok(Vec::new());
    }
    found.sort_unstable();
    let id = log_id(&list(&log.view)?);
    let stored = |(name, file): (String, String)| {
        let position = id.and_then(|id| position_in(&*log.dir, &file, &id)).map(Lsn::new);
        StoredConsumer { name, file, position }
    };
    Ok(found.into_iter().map(stored).collect())
}

pub(super) fn stored_floors(log: &Directory) -> Result<Option<Vec<TagFloor>>> {
    let name = log.names.streams();
    let entries = log.dir.list().map_err(|e| Error::io("list", log.dir.path(), e))?;
    if !entries.iter().any(|entry| entry.name == name) {
        return Ok(Some(Vec::new()));
    }
    let id = log_id(&list(&log.view)?);
    let floors = id.and_then(|id| floors_in(&*log.dir, &name, &id));
    let floor = |(tag, floor)| TagFloor { tag, floor: Lsn::new(floor) };
    Ok(floors.map(|floors| floors.into_iter().map(floor).collect()))
}

pub(super) fn remove(log: &Directory, name: &str) -> Result<StoredConsumer> {
    let find = || Ok::<_, Error>(stored(log)?.into_iter().find(|consumer| consumer.name == name));
    let none = || Error::NoConsumer { name: name.into() };
    // First: the lock makes a file.
    find()?.ok_or_else(none)?;
    if let Some(newest) = log.segment_files()?.last() {
        log.dir.create_like_neighbour(&newest.name);
    }
    let _lock = DirLock::acquire(&log.dir, &log.names, DEFAULT_LOCK_WAIT)?;
    let consumer = find()?.ok_or_else(none)?;
    let io = |op, e| Error::io(op, log.dir.path_of(&consumer.file), e);
    log.dir.remove(&consumer.file).map_err(|e| io("remove", e))?;
    log.dir.sync().map_err(|e| io("sync the directory of", e))?;
    Ok(consumer)
}
