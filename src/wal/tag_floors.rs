//! What the log keeps for each tag.

use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::positions::TagFloor;
use crate::sys::reentrancy;
use crate::wal::Wal;

impl Wal {
    /// Makes the log keep every record at or above `from` for a tag, until [`Wal::release_tag`]
    /// moves this floor forward or [`Wal::remove_tag_floor`] removes it. Returns the floor.
    ///
    /// [`Lsn::ZERO`] is the oldest position that is kept. A floor that the tag has is replaced,
    /// also by a lower one. The floor is durable on return and survives restarts; it holds all
    /// records above, of whatever tag. Retention by number, size and age and
    /// [`Wal::truncate_before`] leave what the lowest floor needs, and [`Wal::held_by`] names its
    /// tag. Unlike a consumer, a floor has no limit: a stream that releases nothing holds the log
    /// until its disk is full.
    ///
    /// Costs one write of 16 bytes a floor, and one sync, for all floors together.
    /// [`Wal::hold_tags`] sets many at that price. A log has at most 1,048,576 floors.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-floor-{}", std::process::id()));
    /// use ringwal::{Lsn, Wal};
    /// let wal = Wal::open(&dir)?;
    /// wal.hold_tag(7, Lsn::ZERO)?;
    /// let applied = wal.append_tagged(7, b"an entry")?;
    /// wal.release_tag(7, applied.next())?; // the entry is in a checkpoint
    /// assert_eq!(wal.tag_floors()[0].floor, applied.next());
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Pruned` below the oldest position, `NotAppended` above the log's end, `TooManyTagFloors`,
    /// `NameTaken`, `Io` if the floor cannot be stored: it is as before. `Closed`, `Poisoned`,
    /// `WouldDeadlock`, `Reentrant`, `Forked`.
    pub fn hold_tag(&self, tag: u64, from: Lsn) -> Result<Lsn> {
        let floors = self.hold(&[(tag, from)])?;
        Ok(floors.first().map_or(from, |(_, floor)| Lsn::new(*floor)))
    }

    /// Sets the floors of several tags, all or none, with one write and one sync: see
    /// [`Wal::hold_tag`].
    ///
    /// # Errors
    ///
    /// As [`Wal::hold_tag`].
    pub fn hold_tags(&self, floors: &[(u64, Lsn)]) -> Result<()> {
        self.hold(floors).map(drop)
    }

    fn hold(&self, wanted: &[(u64, Lsn)]) -> Result<Vec<(u64, u64)>> {
        let state = &self.appender().state;
        state.durable.check_running()?;
        reentrancy::check_may_wait()?;
        let end = state.end();
        if let Some(&(_, lsn)) = wanted.iter().find(|(_, from)| from.as_u64() > end) {
            return Err(Error::NotAppended { lsn, end: Lsn::new(end) });
        }
        let table = &state.view.table;
        loop {
            let oldest = table.oldest();
            let is_gone =
                |oldest: u64| wanted.iter().any(|(_, from)| (1..oldest).contains(&from.as_u64()));
            if is_gone(oldest) {
                return Err(Error::Pruned { oldest: Lsn::new(oldest) });
            }
            let floor = |(tag, from): &(u64, Lsn)| match from.as_u64() {
                0 => (*tag, oldest),
                from => (*tag, from),
            };
            let floors: Vec<(u64, u64)> = wanted.iter().map(floor).collect();
            // They hold segments from now on. So the oldest that is read next stays.
            let before = state.tag_floors.enter(&floors)?;
            let now = table.oldest();
            let stored = match is_gone(now) {
                true => Err(Error::Pruned { oldest: Lsn::new(now) }),
                // Retention has just removed what was the oldest segment.
                false if now != oldest && wanted.iter().any(|(_, from)| *from == Lsn::ZERO) => {
                    state.tag_floors.withdraw(&floors, &before);
                    continue;
                }
                false => state.store_tag_floors(),
            };
            if let Err(e) = stored {
                state.tag_floors.withdraw(&floors, &before);
                return Err(e);
            }
            state.keeper.ring();
            return Ok(floors);
        }
    }

    /// Moves the floor of a tag forward: the log need not keep records below `before` for it. A
    /// position at or below the floor changes nothing.
    ///
    /// Does not block and writes nothing. The floor is stored with the next floor that
    /// [`Wal::hold_tag`] sets, when retention removes a segment, and when the log is closed. After
    /// a crash an older floor may be back, which keeps more.
    ///
    /// # Errors
    ///
    /// `NoTagFloor`, `NotAppended` above the log's end; `Closed`, `Poisoned`, `Forked`.
    pub fn release_tag(&self, tag: u64, before: Lsn) -> Result<()> {
        let state = &self.appender().state;
        state.durable.check_running()?;
        let end = state.end();
        if before.as_u64() > end {
            return Err(Error::NotAppended { lsn: before, end: Lsn::new(end) });
        }
        if state.tag_floors.raise(tag, before.as_u64())? {
            state.keeper.ring();
        }
        Ok(())
    }

    /// Removes the floor of a tag: the log keeps nothing for it. Durable on return.
    ///
    /// # Errors
    ///
    /// `NoTagFloor`; `Io` if that cannot be stored: the floor is as before. `Closed`, `Poisoned`,
    /// `WouldDeadlock`, `Reentrant`, `Forked`.
    pub fn remove_tag_floor(&self, tag: u64) -> Result<()> {
        let state = &self.appender().state;
        state.durable.check_running()?;
        reentrancy::check_may_wait()?;
        let floor = state.tag_floors.take(tag)?;
        if let Err(e) = state.store_tag_floors() {
            state.tag_floors.give_back(tag, floor);
            return Err(e);
        }
        state.keeper.ring();
        Ok(())
    }

    /// The floors of all tags, in ascending order of the tags. In a child of `fork()`: none.
    #[must_use]
    pub fn tag_floors(&self) -> Vec<TagFloor> {
        let state = &self.appender().state;
        if state.durable.is_forked() { Vec::new() } else { state.tag_floors.list() }
    }
}
