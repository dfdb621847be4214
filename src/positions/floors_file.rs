//! The file that holds the floors of all tags, which survive a crash.
//!
//! 1. A store writes a slot beside the newest one, and syncs it. So the floors stored last are
//!    sound at any moment.
//! 2. The sound slot with the highest counter holds the floors stored last, or those in flight.
//! 3. The file gets its name once it is whole and synced.
//! 4. After a failed write or sync every further store fails: the file's content is unknown.

use std::io;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::{MAX_TAG_FLOORS, StoredFloors};
use crate::io::fs::{Access, AlignedBuf, Dir, File, read_full, write_full};
use crate::segment::Names;

/// Bytes that the file has at most: a slot before the newest one, that one, and one after it.
const LONGEST: u64 = 4 * (MAX_TAG_FLOORS as u64 * 16 + 8192);

/// The writer's end of the file.
#[derive(Debug)]
pub(super) struct FloorsFile {
    /// `None` until floors are stored for the first time.
    file: Option<Arc<dyn File>>,
    /// Of the newest slot.
    counter: u64,
    /// Where the newest slot lies in the file, and its bytes.
    slot: (usize, usize),
    /// A write or a sync has failed.
    failed: bool,
}

/// The file's content. `None`: it is longer than any.
fn content(file: &dyn File) -> io::Result<Option<AlignedBuf>> {
    let len = file.len()?;
    if len > LONGEST {
        return Ok(None);
    }
    let mut content = AlignedBuf::new(len as usize);
    let n = read_full(file, &mut content, 0)?;
    content[n..].fill(0);
    Ok(Some(content))
}

/// Reads the floors in the file `name`. `None`: the file is missing, unreadable or damaged.
///
/// The floors may not be durable.
pub(crate) fn floors_in(dir: &dyn Dir, name: &str, log_id: &[u8; 16]) -> Option<Vec<(u64, u64)>> {
    let file = dir.open(name, Access::Read).ok()?;
    let content = content(&*file).ok()??;
    StoredFloors::newest(&content, log_id).map(|(stored, _)| stored.floors)
}

impl FloorsFile {
    /// Opens the file, if there is one, reads its floors past the page cache and makes them
    /// durable.
    pub(super) fn open(
        dir: &dyn Dir,
        names: &Names,
        log_id: &[u8; 16],
    ) -> Result<(Self, Vec<(u64, u64)>)> {
        let name = names.streams();
        let io = |op, e| Error::io(op, dir.path_of(&name), e);
        let file = match dir.open(&name, Access::WriteCached) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let none = FloorsFile { file: None, counter: 0, slot: (0, 0), failed: false };
                return Ok((none, Vec::new()));
            }
            file => file.map_err(|e| io("open", e))?,
        };
        let content = content(&*file).map_err(|e| io("read", e))?;
        let newest = content.and_then(|content| StoredFloors::newest(&content, log_id));
        let Some((StoredFloors { counter, floors }, at)) = newest else {
            return Err(Error::TagFloorsDamaged { file: dir.path_of(&name) });
        };
        // A killed process may have written this slot, or named the file, without syncing that.
        file.sync_data().map_err(|e| io("sync", e))?;
        dir.sync().map_err(|e| io("sync the directory of", e))?;
        let slot = (at, StoredFloors::slot_len(floors.len()));
        Ok((FloorsFile { file: Some(file), counter, slot, failed: false }, floors))
    }

    /// Stores the floors, which ascend by tag. They are durable on return.
    pub(super) fn store(
        &mut self,
        dir: &dyn Dir,
        names: &Names,
        log_id: &[u8; 16],
        floors: Vec<(u64, u64)>,
    ) -> Result<()> {
        let name = names.streams();
        let io = |op, e| Error::io(op, dir.path_of(&name), e);
        if self.failed {
            let earlier = io::Error::other("earlier floors could not be stored");
            return Err(io("store the floors of tags in", earlier));
        }
        let len = StoredFloors::slot_len(floors.len());
        let stored = StoredFloors { counter: self.counter + 1, floors };
        let mut slot = AlignedBuf::new(len);
        stored.encode(log_id, &mut slot[..len]);
        let Some(file) = &self.file else {
            self.file = Some(create(dir, names, &slot)?);
            (self.counter, self.slot) = (stored.counter, (0, len));
            return Ok(());
        };
        let (start, bytes) = self.slot;
        let at = if start >= len { 0 } else { start + bytes };
        let written = write_full(&**file, &slot, at as u64).and_then(|()| file.sync_data());
        self.failed = written.is_err();
        written.map_err(|e| io("store the floors of tags in", e))?;
        (self.counter, self.slot) = (stored.counter, (at, len));
        Ok(())
    }
}

/// Creates the file. It has another name until it is durable.
fn create(dir: &dyn Dir, names: &Names, slot: &[u8]) -> Result<Arc<dyn File>> {
    let (name, temporary) = (names.streams(), names.streams_temporary());
    let io = |op, e| Error::io(op, dir.path_of(&name), e);
    match dir.remove(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io("replace", e)),
        _ => {}
    }
    let file = dir.open(&temporary, Access::CreateCached).map_err(|e| io("create", e))?;
    write_full(&*file, slot, 0).map_err(|e| io("write", e))?;
    file.sync_data().map_err(|e| io("sync", e))?;
    dir.rename(&temporary, &name).map_err(|e| {
        let _ = dir.remove(&temporary);
        match e.kind() {
            io::ErrorKind::AlreadyExists => Error::NameTaken { path: dir.path_of(&name) },
            _ => io("rename", e),
        }
    })?;
    dir.sync().map_err(|e| io("sync the directory of", e))?;
    Ok(file)
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;
    use crate::io::fs::sim::SimDisk;

    const ID: [u8; 16] = [9; 16];

    fn open(disk: &SimDisk) -> Result<(FloorsFile, Vec<(u64, u64)>)> {
        FloorsFile::open(&*disk.dir(), &Names::new("wal"), &ID)
    }

    fn store(disk: &SimDisk, file: &mut FloorsFile, floors: &[(u64, u64)]) -> Result<()> {
        file.store(&*disk.dir(), &Names::new("wal"), &ID, floors.to_vec())
    }

    /// Floors of `round`, whose number goes up and down.
    fn floors(round: u64) -> Vec<(u64, u64)> {
        let count = [1, 300, 2, 900, 0, 600][round as usize % 6];
        (0..count).map(|tag| (tag, round * 10_000 + tag)).collect()
    }

    #[test]
    fn crash_at_any_operation_leaves_the_last_floors_or_those_in_flight() {
        let mut rng = fastrand::Rng::with_seed(5);
        let mut crashes = 0;
        for at in 0..60 {
            for _ in 0..4 {
                let disk = SimDisk::new();
                let mut file = open(&disk).unwrap().0;
                disk.crash_at(disk.operations() + at);
                let (mut stored, mut trying) = (Vec::new(), Vec::new());
                for round in 0..20 {
                    trying = floors(round);
                    if store(&disk, &mut file, &trying).is_err() {
                        crashes += 1;
                        break;
                    }
                    stored.clone_from(&trying);
                }
                drop(file);
                disk.crash(&mut rng);
                let (mut file, found) = open(&disk).unwrap();
                assert!(found == stored || found == trying, "{at}: {}", found.len());
                store(&disk, &mut file, &[(7, 7)]).unwrap();
                disk.crash(&mut rng);
                assert_eq!(open(&disk).unwrap().1, [(7, 7)]);
            }
        }
        assert!(crashes > 100, "{crashes}");
    }

    #[test]
    fn file_stays_within_three_slots_of_its_largest_floors() {
        let disk = SimDisk::new();
        let mut file = open(&disk).unwrap().0;
        for round in 0..200 {
            store(&disk, &mut file, &floors(round)).unwrap();
        }
        let len = disk.content("wal.streams").unwrap().len();
        assert!(len <= 3 * StoredFloors::slot_len(900), "{len}");
    }

    #[test]
    fn damaged_foreign_empty_and_endless_files_are_rejected_by_name() {
        let disk = SimDisk::new();
        let mut file = open(&disk).unwrap().0;
        store(&disk, &mut file, &[(1, 1)]).unwrap();
        store(&disk, &mut file, &[(1, 2)]).unwrap();
        let rejected = || match open(&disk) {
            Err(Error::TagFloorsDamaged { file }) => file.ends_with("wal.streams"),
            _ => false,
        };
        disk.damage("wal.streams", |bytes| bytes[4096 + 50] ^= 1);
        assert_eq!(open(&disk).unwrap().1, [(1, 1)], "the slot before");
        disk.damage("wal.streams", |bytes| bytes[50] ^= 1);
        assert!(rejected());
        disk.damage("wal.streams", Vec::clear);
        assert!(rejected());
        let foreign = StoredFloors { counter: 1, floors: vec![] };
        disk.damage("wal.streams", |bytes| {
            bytes.resize(4096, 0);
            foreign.encode(&[8; 16], bytes);
        });
        assert!(rejected());
        assert_eq!(floors_in(&*disk.dir(), "wal.streams", &[8; 16]), Some(vec![]));
        assert_eq!(floors_in(&*disk.dir(), "wal.streams", &ID), None);
    }
}
