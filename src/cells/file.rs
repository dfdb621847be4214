//! The file of the cells: two slots, of which each holds every cell.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::{CELLS_SLOT, CellsSlot, encode_cells};
use crate::io::fs::{Access, Dir, File, Refused};
use crate::positions::{ReadSlots, TwoSlots};
use crate::segment::Names;

/// Every cell with its value.
pub(crate) type CellMap = BTreeMap<Arc<str>, Arc<[u8]>>;

/// Reads until two in a row agree. A writer takes microseconds to copy a slot, and then syncs it.
const READS: u32 = 1000;

/// The writer's end of the file.
#[derive(Debug)]
pub(super) struct CellsFile {
    slots: TwoSlots,
    /// Of the slot written last.
    counter: u64,
}

/// A store that was not made.
#[derive(Debug)]
pub(super) struct NotStored {
    pub(super) error: Error,
    /// What the file holds is unknown: nothing is stored any more.
    pub(super) is_final: bool,
}

/// The newer of the two slots of a file's content. The file has both from its creation on: if it is
/// shorter, the newer one may be what is missing.
fn newest<'a>(both: &'a [u8], log_id: &[u8; 16]) -> Option<CellsSlot<'a>> {
    let both = both.get(..2 * CELLS_SLOT)?;
    let slots = both.chunks(CELLS_SLOT).zip(0..2);
    let sound = slots.filter_map(|(slot, index)| CellsSlot::decode(slot, index, log_id));
    sound.max_by_key(|slot| slot.counter)
}

fn to_map(slot: CellsSlot<'_>) -> CellMap {
    slot.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn encode(log_id: &[u8; 16], counter: u64, cells: &CellMap) -> Option<Vec<u8>> {
    let mut slot = vec![0; CELLS_SLOT];
    let entries = cells.iter().map(|(name, value)| (&**name, &**value));
    let used = encode_cells(&mut slot, log_id, counter, entries)?;
    slot.truncate(used);
    Some(slot)
}

impl CellsFile {
    /// Opens the file, reads it past the page cache and makes it durable.
    pub(super) fn open(dir: &dyn Dir, name: &str, log_id: &[u8; 16]) -> Result<(Self, CellMap)> {
        let refused = |e: Refused| Error::io(e.op, e.path, e.source);
        let (slots, both) = TwoSlots::open(dir, name, CELLS_SLOT).map_err(refused)?;
        let Some(slot) = newest(both.bytes(), log_id) else {
            return Err(Error::CellsDamaged { file: dir.path_of(name) });
        };
        slots.sync().map_err(|e| Error::io("sync", dir.path_of(name), e))?;
        Ok((CellsFile { slots, counter: slot.counter }, to_map(slot)))
    }

    /// Stores the cells durably. Without a file, creates it.
    pub(super) fn store(
        file: &mut Option<Self>,
        dir: &dyn Dir,
        names: &Names,
        log_id: &[u8; 16],
        cells: &CellMap,
    ) -> Result<(), NotStored> {
        let counter = file.as_ref().map_or(0, |file| file.counter + 1);
        let Some(bytes) = encode(log_id, counter, cells) else {
            let error = Error::CellsFull { len: CELLS_SLOT + 1, max: CELLS_SLOT };
            return Err(NotStored { error, is_final: false });
        };
        let name = names.cells();
        let Some(file) = file else {
            let created =
                TwoSlots::create(dir, &name, &names.cells_temporary(), CELLS_SLOT, &bytes);
            let slots = created.map_err(not_created)?;
            *file = Some(CellsFile { slots, counter });
            return Ok(());
        };
        file.slots.store(counter, &bytes).map_err(|source| {
            let is_final = file.slots.has_failed();
            let error = match is_final {
                true => Error::CellsFailed { file: dir.path_of(&name), source: Arc::new(source) },
                false => Error::io("write", dir.path_of(&name), source),
            };
            NotStored { error, is_final }
        })?;
        file.counter = counter;
        Ok(())
    }
}

/// Why the file could not be created. Unless its name may be on the disk, a later store tries
/// again.
fn not_created(refused: Refused) -> NotStored {
    let Refused { op, path, source, half_done } = refused;
    let error = match source.kind() {
        _ if half_done => Error::CellsFailed { file: path, source: Arc::new(source) },
        io::ErrorKind::AlreadyExists => Error::NameTaken { path },
        _ => Error::io(op, path, source),
    };
    NotStored { error, is_final: half_done }
}

/// The content of a file of cells, as a process that does not write it finds it.
#[derive(Debug)]
pub(crate) struct ReadCells {
    file: Arc<dyn File>,
    content: Vec<u8>,
}

impl ReadCells {
    /// Reads the file beside its writer. `None`: there is none, and every cell is empty.
    ///
    /// A writer changes one slot at a time. If it changes both while they are read, the newest
    /// value could be missed. So the file is read until two reads in a row agree.
    pub(crate) fn read(dir: &dyn Dir, names: &Names) -> Result<Option<Self>> {
        let io = |op, e| Error::io(op, dir.path_of(&names.cells()), e);
        let file = match dir.open(&names.cells(), Access::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|e| io("open", e))?,
        };
        let read = || ReadSlots::read(&*file, CELLS_SLOT).map_err(|e| io("read", e));
        let mut before = read()?;
        for _ in 0..READS {
            let again = read()?;
            if again.bytes() == before.bytes() {
                let content = again.bytes().to_vec();
                return Ok(Some(ReadCells { file, content }));
            }
            before = again;
        }
        Err(io("read", io::Error::other("the writer changes it all the time; try again")))
    }

    /// Makes the values durable that were read: the writer may not have synced them yet.
    pub(crate) fn sync(&self, dir: &dyn Dir, names: &Names) -> Result<()> {
        match self.file.sync_data() {
            // Some systems let only a writer sync.
            Err(e) if e.kind() != io::ErrorKind::PermissionDenied => {
                Err(Error::io("sync", dir.path_of(&names.cells()), e))
            }
            _ => Ok(()),
        }
    }

    /// The cells. `None`: the file is damaged, or of another log.
    pub(crate) fn cells(&self, log_id: &[u8; 16]) -> Option<CellMap> {
        newest(&self.content, log_id).map(to_map)
    }

    /// The bytes of the file.
    pub(crate) fn into_content(self) -> Vec<u8> {
        self.content
    }
}
