//! The bytes of one simulated file: what is durable, what a read sees, and what a crash may still
//! keep.

use std::sync::Arc;

use fastrand::Rng;

const SECTOR: usize = 512;

#[derive(Debug, Clone)]
struct Unsynced {
    id: u64,
    offset: u64,
    bytes: Arc<[u8]>,
    completed: bool,
}

/// Contents are shared between the images of one disk until they differ.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    durable: Arc<Vec<u8>>,
    /// What a read sees: the durable bytes and every completed write.
    current: Arc<Vec<u8>>,
    unsynced: Vec<Unsynced>,
}

fn apply(to: &mut Arc<Vec<u8>>, offset: u64, bytes: &[u8]) {
    let to = Arc::make_mut(to);
    let end = offset as usize + bytes.len();
    if to.len() < end {
        // Unoptimized, `resize` fills byte by byte.
        to.extend_from_slice(&vec![0; end - to.len()]);
    }
    to[offset as usize..end].copy_from_slice(bytes);
}

impl Content {
    pub(super) fn current(&self) -> &[u8] {
        &self.current
    }

    pub(super) fn begin(&mut self, id: u64, offset: u64, bytes: &[u8]) {
        self.unsynced.push(Unsynced { id, offset, bytes: bytes.into(), completed: false });
    }

    pub(super) fn end(&mut self, id: u64) {
        if let Some(w) = self.unsynced.iter_mut().find(|w| w.id == id) {
            w.completed = true;
            apply(&mut self.current, w.offset, &w.bytes);
        }
    }

    /// What a sync that begins now will make durable.
    pub(super) fn completed(&self) -> Vec<u64> {
        self.unsynced.iter().filter(|w| w.completed).map(|w| w.id).collect()
    }

    /// What a write with DSYNC makes durable with it: an older write to the same place cannot come
    /// out on top of this one any more.
    pub(super) fn under(&self, id: u64) -> Vec<u64> {
        let place = |w: &Unsynced| (w.offset, w.offset + w.bytes.len() as u64);
        let new = self.unsynced.iter().find(|w| w.id == id).map_or((0, 0), place);
        let over = |w: &&Unsynced| place(w).0 < new.1 && new.0 < place(w).1 && w.id <= id;
        self.unsynced.iter().filter(over).map(|w| w.id).collect()
    }

    pub(super) fn make_durable(&mut self, ids: &[u64]) {
        let durable = &mut self.durable;
        self.unsynced.retain(|w| {
            let synced = ids.contains(&w.id);
            if synced {
                apply(durable, w.offset, &w.bytes);
            }
            !synced
        });
    }

    /// Any subset of the sectors of what was not synced, in any order of the writes.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        let mut writes = std::mem::take(&mut self.unsynced);
        rng.shuffle(&mut writes);
        let mood = rng.u8(0..6);
        // The newest alone survives, or all but the oldest.
        let (newest, oldest) =
            writes.iter().fold((0, u64::MAX), |(new, old), w| (w.id.max(new), w.id.min(old)));
        for w in writes {
            for (i, sector) in w.bytes.chunks(SECTOR).enumerate() {
                let survives = match mood {
                    0 => false,
                    1 => true,
                    2 => w.id == newest,
                    3 => w.id != oldest,
                    _ => rng.bool(),
                };
                if survives {
                    // Now and then a sector is torn too.
                    let len = if rng.u8(0..16) == 0 { rng.usize(..=sector.len()) } else { SECTOR };
                    let offset = w.offset + (i * SECTOR) as u64;
                    apply(&mut self.durable, offset, &sector[..len.min(sector.len())]);
                }
            }
        }
        self.current = Arc::clone(&self.durable);
    }

    /// The writer is gone and the machine goes on: what was in flight ends, or never began.
    pub(super) fn abandon(&mut self, rng: &mut Rng) {
        self.unsynced.retain(|w| w.completed || rng.bool());
        for w in self.unsynced.iter_mut().filter(|w| !w.completed) {
            w.completed = true;
            apply(&mut self.current, w.offset, &w.bytes);
        }
    }

    /// Changes bytes behind everybody's back.
    pub(super) fn damage(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        self.durable = Arc::clone(&self.current);
        self.unsynced.clear();
        change(Arc::make_mut(&mut self.durable));
        self.current = Arc::clone(&self.durable);
    }
}
