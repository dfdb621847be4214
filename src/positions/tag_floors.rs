//! The floors of tags: what retention keeps until a stream releases it.
//!
//! 1. A floor is entered before it is stored, and retention takes segments under the lock of the
//!    floors. So retention removes nothing at or above a floor that a call has returned.
//! 2. A new floor, and one that goes back, is durable before the call returns. One that goes
//!    forward is stored later: with the next of those, when retention has removed a segment, and at
//!    close. Until then an older floor is in the file, which only keeps more.
//! 3. No stored floor lies above the durable end of that time.
//! 4. One store at a time. It stores all changes made until it began, so calls that wait for it
//!    find theirs stored.

use std::collections::{BTreeMap, BTreeSet};

use super::floors_file::FloorsFile;
use crate::error::{Error, Result};
use crate::format::MAX_TAG_FLOORS;
use crate::io::fs::Dir;
use crate::lsn::Lsn;
use crate::segment::Names;
use crate::sys::sync::{Mutex, lock};

/// A floor as [`Wal::tag_floors`](crate::Wal::tag_floors) lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TagFloor {
    /// The tag.
    pub tag: u64,
    /// The log keeps every record at or above.
    pub floor: Lsn,
}

/// The floors in memory.
#[derive(Debug, Default)]
struct Floors {
    by_tag: BTreeMap<u64, u64>,
    /// Floor and tag: the first one holds the log.
    ordered: BTreeSet<(u64, u64)>,
    /// Number of changes.
    changes: u64,
}

impl Floors {
    /// Sets or removes a floor. Returns the one before.
    fn set(&mut self, tag: u64, floor: Option<u64>) -> Option<u64> {
        let before = match floor {
            Some(floor) => self.by_tag.insert(tag, floor),
            None => self.by_tag.remove(&tag),
        };
        if let Some(before) = before {
            self.ordered.remove(&(before, tag));
        }
        if let Some(floor) = floor {
            self.ordered.insert((floor, tag));
        }
        self.changes += 1;
        before
    }

    fn lowest(&self) -> Option<(u64, u64)> {
        self.ordered.first().copied()
    }
}

#[derive(Debug)]
pub(crate) struct TagFloors {
    log_id: [u8; 16],
    floors: Mutex<Floors>,
    stored: Mutex<Stored>,
}

#[derive(Debug)]
struct Stored {
    file: FloorsFile,
    /// Changes that are in the file.
    changes: u64,
}

/// Where the floors are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FloorsPlace<'a> {
    pub(crate) dir: &'a dyn Dir,
    pub(crate) names: &'a Names,
    /// The durable end.
    pub(crate) end: u64,
}

impl TagFloors {
    /// Reads the floors of the log.
    pub(crate) fn load(dir: &dyn Dir, names: &Names, log_id: [u8; 16]) -> Result<Self> {
        let (file, found) = FloorsFile::open(dir, names, &log_id)?;
        let mut floors = Floors::default();
        for (tag, floor) in found {
            floors.set(tag, Some(floor));
        }
        let stored = Mutex::new(Stored { file, changes: floors.changes });
        Ok(TagFloors { log_id, floors: Mutex::new(floors), stored })
    }

    /// The lowest floor, and its tag.
    pub(crate) fn lowest(&self) -> Option<(u64, u64)> {
        lock(&self.floors).lowest()
    }

    /// Calls `take` with the address below which no floor holds a segment. No floor changes
    /// meanwhile.
    pub(crate) fn take_unheld<T>(&self, take: impl FnOnce(u64) -> T) -> T {
        let floors = lock(&self.floors);
        take(floors.lowest().map_or(u64::MAX, |(floor, _)| floor))
    }

    pub(crate) fn list(&self) -> Vec<TagFloor> {
        let floors = lock(&self.floors);
        let floor = |(tag, floor): (&u64, &u64)| TagFloor { tag: *tag, floor: Lsn::new(*floor) };
        floors.by_tag.iter().map(floor).collect()
    }

    /// Enters floors, unless there would be too many. Returns those before.
    pub(crate) fn enter(&self, wanted: &[(u64, u64)]) -> Result<Vec<Option<u64>>> {
        let mut floors = lock(&self.floors);
        let new = wanted.iter().filter(|(tag, _)| !floors.by_tag.contains_key(tag)).count();
        if floors.by_tag.len() + new > MAX_TAG_FLOORS {
            return Err(Error::TooManyTagFloors { max: MAX_TAG_FLOORS });
        }
        Ok(wanted.iter().map(|&(tag, floor)| floors.set(tag, Some(floor))).collect())
    }

    /// Undoes [`TagFloors::enter`], except where a floor was changed since.
    pub(crate) fn withdraw(&self, wanted: &[(u64, u64)], before: &[Option<u64>]) {
        let mut floors = lock(&self.floors);
        // The last of two floors of one tag was entered last.
        for (&(tag, floor), before) in wanted.iter().zip(before).rev() {
            if floors.by_tag.get(&tag) == Some(&floor) {
                floors.set(tag, *before);
            }
        }
    }

    /// Moves the floor of a tag forward. True: the lowest floor rose. A lower floor changes
    /// nothing.
    pub(crate) fn raise(&self, tag: u64, floor: u64) -> Result<bool> {
        let mut floors = lock(&self.floors);
        let lowest = floors.lowest();
        match floors.by_tag.get(&tag) {
            None => Err(Error::NoTagFloor { tag }),
            Some(before) if *before >= floor => Ok(false),
            Some(_) => {
                floors.set(tag, Some(floor));
                Ok(floors.lowest() != lowest)
            }
        }
    }

    /// Removes the floor of a tag, and returns it.
    pub(crate) fn take(&self, tag: u64) -> Result<u64> {
        lock(&self.floors).set(tag, None).ok_or(Error::NoTagFloor { tag })
    }

    /// Enters a floor that [`TagFloors::take`] has removed, unless there is one again.
    pub(crate) fn give_back(&self, tag: u64, floor: u64) {
        let mut floors = lock(&self.floors);
        if !floors.by_tag.contains_key(&tag) {
            floors.set(tag, Some(floor));
        }
    }

    /// Whether a change is not stored yet.
    pub(crate) fn is_unstored(&self) -> bool {
        let changes = lock(&self.floors).changes;
        lock(&self.stored).changes < changes
    }

    /// Stores every change made before this call. It is durable on return.
    pub(crate) fn store(&self, place: FloorsPlace<'_>) -> Result<()> {
        let wanted = lock(&self.floors).changes;
        let mut stored = lock(&self.stored);
        if stored.changes >= wanted {
            return Ok(());
        }
        let (floors, changes) = {
            let floors = lock(&self.floors);
            let stated = |(tag, floor): (&u64, &u64)| (*tag, (*floor).min(place.end));
            (floors.by_tag.iter().map(stated).collect(), floors.changes)
        };
        stored.file.store(place.dir, place.names, &self.log_id, floors)?;
        stored.changes = changes;
        Ok(())
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;
    use crate::io::fs::sim::SimDisk;
    use crate::positions::floors_in;

    #[test]
    fn stored_floor_never_lies_above_the_durable_end() {
        let (disk, names) = (SimDisk::new(), Names::new("wal"));
        let floors = TagFloors::load(&*disk.dir(), &names, [9; 16]).unwrap();
        assert!(!floors.is_unstored());
        floors.enter(&[(1, 5000), (2, 50)]).unwrap();
        assert!(floors.is_unstored());
        floors.store(FloorsPlace { dir: &*disk.dir(), names: &names, end: 100 }).unwrap();
        let stored = floors_in(&*disk.dir(), &names.streams(), &[9; 16]);
        assert_eq!(stored, Some(vec![(1, 100), (2, 50)]));
        assert_eq!(floors.list()[0].floor, Lsn::new(5000));
        assert_eq!(floors.lowest(), Some((50, 2)));
    }

    #[test]
    fn withdrawn_floors_are_as_before_except_where_they_changed_since() {
        let (disk, names) = (SimDisk::new(), Names::new("wal"));
        let floors = TagFloors::load(&*disk.dir(), &names, [9; 16]).unwrap();
        floors.enter(&[(1, 10), (2, 20)]).unwrap();
        let wanted = [(1, 5), (3, 30), (2, 15), (1, 4)];
        let before = floors.enter(&wanted).unwrap();
        assert!(floors.raise(2, 25).unwrap_or(true) || floors.lowest() == Some((4, 1)));
        floors.withdraw(&wanted, &before);
        let left: Vec<_> = floors.list().iter().map(|f| (f.tag, f.floor.as_u64())).collect();
        assert_eq!(left, [(1, 10), (2, 25)]);
        assert_eq!(floors.lowest(), Some((10, 1)));
    }
}
