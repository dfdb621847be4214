//! A position that survives a crash: two slots in blocks of their own, written in turn.
//!
//! ```text
//!   0 magic 4 | 4 CRC 4 | 8 log id 16 | 24 counter 8 | 32 position 8 | 40 zero, to the end of the block
//! ```
//!
//! 1. A slot is written whole and synced before the position counts as stored; the other slot is left
//!    alone meanwhile. So one of the two is sound at any moment, and the one with the higher counter
//!    says what was stored last, or what was being stored.
//! 2. The file gets its name when it is whole and synced.
//! 3. The blocks are of 4096 bytes whatever the device asks for, and so are written through the page
//!    cache: direct I/O may want larger ones. Nothing that was cached before an open is believed.
//! 4. After a failed write or sync nothing more is stored: what the file says is not known.

use std::io;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::{put, u32_at, u64_at};
use crate::io::fs::{Access, AlignedBuf, Dir, File, read_full, write_full};

const BLOCK: usize = 4096;
const LEN: usize = 40;
const MAGIC: [u8; 4] = *b"RWCp";
/// Counters stay below: one that could be counted to its end is not what a writer has written.
const COUNTERS: u64 = 1 << 63;

#[derive(Debug)]
pub(crate) struct Slots {
    file: Arc<dyn File>,
    log_id: [u8; 16],
    counter: u64,
    failed: bool,
}

fn encode(log_id: &[u8; 16], counter: u64, position: u64) -> [u8; LEN] {
    let mut b = [0; LEN];
    put(&mut b, 0, &MAGIC);
    put(&mut b, 8, log_id);
    put(&mut b, 24, &counter.to_le_bytes());
    put(&mut b, 32, &position.to_le_bytes());
    let crc = crc32fast::hash(&b[8..]);
    put(&mut b, 4, &crc.to_le_bytes());
    b
}

/// Counter and position of a slot, if it is sound and this log's.
fn decode(block: &[u8], log_id: &[u8; 16]) -> Option<(u64, u64)> {
    let b: &[u8; LEN] = block.first_chunk()?;
    let sound = b[..4] == MAGIC && u32_at(b, 4) == crc32fast::hash(&b[8..]) && b[8..24] == *log_id;
    let (counter, position) = (u64_at(b, 24), u64_at(b, 32));
    (sound && counter < COUNTERS).then_some((counter, position))
}

/// The position in such a file, read and not made sure of. `None`: there is none that is sound.
pub(crate) fn position_in(dir: &dyn Dir, name: &str, log_id: &[u8; 16]) -> Option<u64> {
    let file = dir.open(name, Access::Read).ok()?;
    let mut both = AlignedBuf::new(2 * BLOCK);
    let n = read_full(&*file, &mut both, 0).ok()?;
    let slots = both[..n].chunks(BLOCK).filter_map(|block| decode(block, log_id));
    slots.max().map(|(_, position)| position)
}

/// The highest of the positions in these files, and the file that it is in. All below it was durable when it was stored.
pub(crate) fn furthest_position(
    dir: &dyn Dir,
    files: &[String],
    log_id: &[u8; 16],
) -> Option<(u64, String)> {
    let position = |file: &String| Some((position_in(dir, file, log_id)?, file.clone()));
    files.iter().filter_map(position).max()
}

impl Slots {
    /// Makes the file, with this position, under its name. `temporary`: a name for it until then.
    pub(crate) fn create(
        dir: &dyn Dir,
        name: &str,
        temporary: &str,
        log_id: [u8; 16],
        position: u64,
    ) -> Result<Self> {
        let io = |op, e| Error::io(op, dir.path_of(name), e);
        match dir.remove(temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io("replace", e)),
            _ => {}
        }
        let file = dir.open(temporary, Access::CreateCached).map_err(|e| io("create", e))?;
        let mut both = AlignedBuf::new(2 * BLOCK);
        both[..LEN].copy_from_slice(&encode(&log_id, 0, position));
        write_full(&*file, &both, 0).map_err(|e| io("write", e))?;
        file.sync_data().map_err(|e| io("sync", e))?;
        dir.rename(temporary, name).map_err(|e| {
            let _ = dir.remove(temporary);
            match e.kind() {
                io::ErrorKind::AlreadyExists => Error::NameTaken { path: dir.path_of(name) },
                _ => io("rename", e),
            }
        })?;
        dir.sync().map_err(|e| io("sync the directory of", e))?;
        Ok(Slots { file, log_id, counter: 0, failed: false })
    }

    /// Opens the file, and reads its position past the page cache.
    pub(crate) fn open(dir: &dyn Dir, name: &str, log_id: [u8; 16]) -> Result<(Self, u64)> {
        let io = |op, e| Error::io(op, dir.path_of(name), e);
        let file = dir.open(name, Access::WriteCached).map_err(|e| io("open", e))?;
        let mut both = AlignedBuf::new(2 * BLOCK);
        let n = read_full(&*file, &mut both, 0).map_err(|e| io("read", e))?;
        let slots = both[..n].chunks(BLOCK).filter_map(|block| decode(block, &log_id));
        let Some((counter, position)) = slots.max() else {
            return Err(Error::ConsumerDamaged { file: dir.path_of(name) });
        };
        // What a killed process had written is made sure of before it counts.
        file.sync_data().map_err(|e| io("sync", e))?;
        Ok((Slots { file, log_id, counter, failed: false }, position))
    }

    /// Stores a position; durable when this returns.
    pub(crate) fn store(&mut self, position: u64) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("an earlier position could not be stored"));
        }
        let counter = self.counter + 1;
        let mut block = AlignedBuf::new(BLOCK);
        block[..LEN].copy_from_slice(&encode(&self.log_id, counter, position));
        let offset = counter % 2 * BLOCK as u64;
        let stored = write_full(&*self.file, &block, offset).and_then(|()| self.file.sync_data());
        self.failed = stored.is_err();
        self.counter = counter;
        stored
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;
    use crate::io::fs::sim::SimDisk;

    const ID: [u8; 16] = [9; 16];

    fn create(dir: &dyn Dir, position: u64) -> Result<Slots> {
        Slots::create(dir, "p", "p.new", ID, position)
    }

    /// A crash at every operation: the position is the last one stored or the one in flight.
    #[test]
    fn a_crash_at_any_moment_leaves_the_last_position_or_the_next() {
        let mut rng = fastrand::Rng::with_seed(5);
        let mut crashes = 0;
        for round in 0..400 {
            for at in 0.. {
                let disk = SimDisk::new();
                disk.crash_at(at);
                let mut stored = None;
                let mut trying = 100;
                if let Ok(mut slots) = create(&*disk.dir(), trying) {
                    stored = Some(trying);
                    while trying < 106 {
                        trying += 1;
                        if slots.store(trying).is_err() {
                            break;
                        }
                        stored = Some(trying);
                    }
                }
                let survived = !disk.is_off();
                disk.crash(&mut rng);
                match (Slots::open(&*disk.dir(), "p", ID), stored) {
                    (Ok((mut slots, found)), _) => {
                        let expected = [stored.unwrap_or(trying), trying];
                        assert!(
                            expected.contains(&found),
                            "{round}, {at}: {found}, not {expected:?}"
                        );
                        slots.store(found + 1).unwrap();
                        disk.crash(&mut rng);
                        assert_eq!(Slots::open(&*disk.dir(), "p", ID).unwrap().1, found + 1);
                    }
                    // It has no name yet.
                    (Err(Error::Io { .. }), None) => {}
                    (other, stored) => panic!("{round}, {at}: {other:?}, stored {stored:?}"),
                }
                crashes += 1;
                if survived {
                    break;
                }
            }
        }
        assert!(crashes > 4000, "{crashes}");
    }

    /// A device may ask direct I/O for more than the 4096 bytes of a slot.
    #[test]
    fn positions_are_stored_without_direct_io() {
        use crate::io::fs::hooked::{Call, HookedDir};
        let direct = |call, _: &str| match call {
            Call::Open(Access::Write | Access::Create | Access::ReadDevice) => {
                Err(io::ErrorKind::InvalidInput.into())
            }
            _ => Ok(()),
        };
        let disk = SimDisk::new();
        let dir = HookedDir::new(disk.dir(), direct).with_block(16_384);
        let mut slots = create(&dir, 1).unwrap();
        slots.store(2).unwrap();
        let (mut slots, position) = Slots::open(&dir, "p", ID).unwrap();
        assert_eq!(position, 2);
        slots.store(3).unwrap();
        assert_eq!(position_in(&dir, "p", &ID), Some(3));
    }

    #[test]
    fn a_file_that_has_the_name_already_is_not_replaced() {
        let disk = SimDisk::new();
        create(&*disk.dir(), 1).unwrap();
        let taken = create(&*disk.dir(), 2);
        assert!(matches!(taken, Err(Error::NameTaken { .. })), "{taken:?}");
        assert_eq!(Slots::open(&*disk.dir(), "p", ID).unwrap().1, 1);
        assert_eq!(disk.dir().list().unwrap().len(), 1, "the temporary file is gone");
    }

    #[test]
    fn one_damaged_slot_is_the_position_before_and_two_are_an_error() {
        let disk = SimDisk::new();
        let mut slots = create(&*disk.dir(), 1).unwrap();
        slots.store(2).unwrap();
        slots.store(3).unwrap();
        let position = || Slots::open(&*disk.dir(), "p", ID).map(|(_, position)| position);
        assert_eq!(position().unwrap(), 3);
        disk.damage("p", |bytes| bytes[33] ^= 1);
        assert_eq!(position().unwrap(), 2);
        let foreign = Slots::open(&*disk.dir(), "p", [8; 16]);
        assert!(matches!(foreign, Err(Error::ConsumerDamaged { .. })));
        disk.damage("p", |bytes| bytes[BLOCK + 10] ^= 1);
        assert!(matches!(position(), Err(Error::ConsumerDamaged { .. })));
        disk.damage("p", |bytes| bytes.truncate(10));
        assert!(matches!(position(), Err(Error::ConsumerDamaged { .. })));
    }

    #[test]
    fn a_counter_at_its_end_is_refused_and_one_below_counts_on() {
        let disk = SimDisk::new();
        drop(create(&*disk.dir(), 1).unwrap());
        let forge =
            |counter| disk.damage("p", |b| b[..LEN].copy_from_slice(&encode(&ID, counter, 7)));
        for counter in [u64::MAX, COUNTERS] {
            forge(counter);
            let found = Slots::open(&*disk.dir(), "p", ID);
            assert!(matches!(found, Err(Error::ConsumerDamaged { .. })), "{counter}");
        }
        forge(COUNTERS - 1);
        let (mut slots, position) = Slots::open(&*disk.dir(), "p", ID).unwrap();
        assert_eq!(position, 7);
        slots.store(8).unwrap();
    }
}
