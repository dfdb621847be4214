//! A file that holds one position, which survives a crash: two slots in blocks of their own.
//!
//! 1. The sound slot with the higher counter holds the position stored last, or the one in flight.
//! 2. `two_slots` has the rules of writing.

use std::io;

use super::floors_file::floors_in;
use super::two_slots::{ReadSlots, TwoSlots};
use crate::error::{Error, Result};
use crate::format::StoredPosition;
use crate::io::fs::{Access, Dir, Refused};
use crate::segment::is_streams;

const BLOCK: usize = 4096;

/// The writer's end of a position file.
#[derive(Debug)]
pub(crate) struct PositionFile {
    slots: TwoSlots,
    log_id: [u8; 16],
    /// Of the slot written last.
    counter: u64,
}

/// The later of the two slots of a file's content.
fn newest(content: &[u8], log_id: &[u8; 16]) -> Option<StoredPosition> {
    content.chunks(BLOCK).filter_map(|block| StoredPosition::decode(block, log_id)).max()
}

/// Reads the position in the file `name`, or the highest floor in the file of floors. `None`: the
/// file is missing, unreadable or damaged.
///
/// The position may not be durable.
pub(crate) fn position_in(dir: &dyn Dir, name: &str, log_id: &[u8; 16]) -> Option<u64> {
    if is_streams(name) {
        let floors = floors_in(dir, name, log_id)?;
        return Some(floors.iter().map(|(_, floor)| *floor).max().unwrap_or(0));
    }
    let file = dir.open(name, Access::Read).ok()?;
    let both = ReadSlots::read(&*file, BLOCK).ok()?;
    newest(both.bytes(), log_id).map(|stored| stored.position)
}

/// The highest of the positions in these files, with its file.
///
/// Everything below a position was durable when the position was stored.
pub(crate) fn furthest_position(
    dir: &dyn Dir,
    files: &[String],
    log_id: &[u8; 16],
) -> Option<(u64, String)> {
    let position = |file: &String| Some((position_in(dir, file, log_id)?, file.clone()));
    files.iter().filter_map(position).max()
}

impl PositionFile {
    /// Creates the file `name` with this position. It is called `temporary` until it is durable.
    pub(crate) fn create(
        dir: &dyn Dir,
        name: &str,
        temporary: &str,
        log_id: [u8; 16],
        position: u64,
    ) -> Result<Self> {
        let first = StoredPosition { counter: 0, position }.encode(&log_id);
        let slots = TwoSlots::create(dir, name, temporary, BLOCK, &first).map_err(error)?;
        Ok(PositionFile { slots, log_id, counter: 0 })
    }

    /// Opens the file, reads its position past the page cache and makes it durable.
    pub(crate) fn open(dir: &dyn Dir, name: &str, log_id: [u8; 16]) -> Result<(Self, u64)> {
        let (slots, both) = TwoSlots::open(dir, name, BLOCK).map_err(error)?;
        let Some(StoredPosition { counter, position }) = newest(both.bytes(), &log_id) else {
            return Err(Error::ConsumerDamaged { file: dir.path_of(name) });
        };
        slots.sync().map_err(|e| Error::io("sync", dir.path_of(name), e))?;
        Ok((PositionFile { slots, log_id, counter }, position))
    }

    /// Stores a position, which is durable on return.
    pub(crate) fn store(&mut self, position: u64) -> io::Result<()> {
        let counter = self.counter + 1;
        let next = StoredPosition { counter, position };
        self.slots.store(counter, &next.encode(&self.log_id))?;
        self.counter = counter;
        Ok(())
    }
}

/// The error of a call that the system refused. A filesystem may have the name of another file.
fn error(refused: Refused) -> Error {
    match refused.source.kind() {
        io::ErrorKind::AlreadyExists => Error::NameTaken { path: refused.path },
        _ => Error::io(refused.op, refused.path, refused.source),
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;
    use crate::io::fs::sim::SimDisk;

    const ID: [u8; 16] = [9; 16];

    fn create(dir: &dyn Dir, position: u64) -> Result<PositionFile> {
        PositionFile::create(dir, "p", "p.new", ID, position)
    }

    #[test]
    fn crash_at_any_operation_leaves_the_last_position_or_the_one_in_flight() {
        let mut rng = fastrand::Rng::with_seed(5);
        let mut crashes = 0;
        for round in 0..400 {
            for at in 0.. {
                let disk = SimDisk::new();
                disk.crash_at(at);
                let mut stored = None;
                let mut trying = 100;
                if let Ok(mut file) = create(&*disk.dir(), trying) {
                    stored = Some(trying);
                    while trying < 106 {
                        trying += 1;
                        if file.store(trying).is_err() {
                            break;
                        }
                        stored = Some(trying);
                    }
                }
                let survived = !disk.is_off();
                disk.crash(&mut rng);
                match (PositionFile::open(&*disk.dir(), "p", ID), stored) {
                    (Ok((mut file, found)), _) => {
                        let expected = [stored.unwrap_or(trying), trying];
                        assert!(
                            expected.contains(&found),
                            "{round}, {at}: {found}, not {expected:?}"
                        );
                        file.store(found + 1).unwrap();
                        disk.crash(&mut rng);
                        assert_eq!(PositionFile::open(&*disk.dir(), "p", ID).unwrap().1, found + 1);
                    }
                    // The file has no name yet.
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

    /// A device may ask direct I/O for blocks of more than 4096 bytes.
    #[test]
    fn store_on_a_device_with_large_blocks_uses_no_direct_io() {
        use crate::io::fs::hooked::{Call, HookedDir};
        let direct = |call, _: &str| match call {
            Call::Open(Access::Write | Access::Create | Access::ReadDevice) => {
                Err(io::ErrorKind::InvalidInput.into())
            }
            _ => Ok(()),
        };
        let disk = SimDisk::new();
        let dir = HookedDir::new(disk.dir(), direct).with_block(16_384);
        let mut file = create(&dir, 1).unwrap();
        file.store(2).unwrap();
        let (mut file, position) = PositionFile::open(&dir, "p", ID).unwrap();
        assert_eq!(position, 2);
        file.store(3).unwrap();
        assert_eq!(position_in(&dir, "p", &ID), Some(3));
    }

    #[test]
    fn create_under_a_name_in_use_is_rejected() {
        let disk = SimDisk::new();
        create(&*disk.dir(), 1).unwrap();
        let taken = create(&*disk.dir(), 2);
        assert!(matches!(taken, Err(Error::NameTaken { .. })), "{taken:?}");
        assert_eq!(PositionFile::open(&*disk.dir(), "p", ID).unwrap().1, 1);
        assert_eq!(disk.dir().list().unwrap().len(), 1, "the temporary file is gone");
    }

    #[test]
    fn open_with_one_damaged_slot_finds_the_position_before_and_with_two_fails() {
        let disk = SimDisk::new();
        let mut file = create(&*disk.dir(), 1).unwrap();
        file.store(2).unwrap();
        file.store(3).unwrap();
        let position = || PositionFile::open(&*disk.dir(), "p", ID).map(|(_, position)| position);
        assert_eq!(position().unwrap(), 3);
        disk.damage("p", |bytes| bytes[33] ^= 1);
        assert_eq!(position().unwrap(), 2);
        let foreign = PositionFile::open(&*disk.dir(), "p", [8; 16]);
        assert!(matches!(foreign, Err(Error::ConsumerDamaged { .. })));
        disk.damage("p", |bytes| bytes[BLOCK + 10] ^= 1);
        assert!(matches!(position(), Err(Error::ConsumerDamaged { .. })));
        disk.damage("p", |bytes| bytes.truncate(10));
        assert!(matches!(position(), Err(Error::ConsumerDamaged { .. })));
    }

    #[test]
    fn file_with_its_counter_at_the_limit_is_rejected() {
        let disk = SimDisk::new();
        drop(create(&*disk.dir(), 1).unwrap());
        let forge = |counter| {
            let forged = StoredPosition { counter, position: 7 }.encode(&ID);
            disk.damage("p", |b| b[..forged.len()].copy_from_slice(&forged));
        };
        for counter in [u64::MAX, 1 << 63] {
            forge(counter);
            let found = PositionFile::open(&*disk.dir(), "p", ID);
            assert!(matches!(found, Err(Error::ConsumerDamaged { .. })), "{counter}");
        }
        forge((1 << 63) - 1);
        let (mut file, position) = PositionFile::open(&*disk.dir(), "p", ID).unwrap();
        assert_eq!(position, 7);
        file.store(8).unwrap();
    }
}
