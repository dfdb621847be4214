//! A log without files, for tests that step its loop over a backend of their own.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{IoLoop, Start};
use crate::cells::Cells;
use crate::durable::Durable;
use crate::engine::assemble::{IoStart, ReadyBackend};
use crate::engine::log_view::LogView;
use crate::engine::state::LogState;
use crate::format::{EpochId, Link, SegmentHeader};
use crate::io::backend::{Backend, ChosenMethod, Method, MethodReason};
use crate::io::fs::{Access, Dir, Entry, File};
use crate::options::{Durability, Options};
use crate::positions::{Consumers, TagFloors};
use crate::ring::{Placement, Ring};
use crate::segment::cuts::Cuts;
use crate::segment::recent::RecentGroups;
use crate::segment::{Names, SegmentTable};
use crate::sys::clock::Clock;

pub(super) const BLOCK: u32 = 4096;
const SEGMENT: u64 = 64 << 20;

/// A directory and a file that store nothing: the loop only passes them on.
#[derive(Debug)]
struct Nothing;

impl Dir for Nothing {
    fn list(&self) -> io::Result<Vec<Entry>> {
        Ok(Vec::new())
    }
    fn open(&self, name: &str, _: Access) -> io::Result<Arc<dyn File>> {
        // There are no floors of tags.
        if name.ends_with(".streams") {
            Err(io::ErrorKind::NotFound.into())
        } else {
            Ok(Arc::new(Nothing))
        }
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn block_size(&self) -> u32 {
        BLOCK
    }
    fn path_of(&self, name: &str) -> PathBuf {
        name.into()
    }
}

impl File for Nothing {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }
    fn write_at(&self, buf: &[u8], _: u64) -> io::Result<usize> {
        Ok(buf.len())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(SEGMENT)
    }
    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }
    fn write_zeroes(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn is_direct(&self) -> bool {
        false
    }
    fn raw_fd(&self) -> Option<i32> {
        None
    }
}

/// `buffers` of two blocks each.
pub(super) fn state(durability: Durability, buffers: usize) -> Arc<LogState> {
    let first = u64::from(BLOCK);
    let placement = Placement {
        next: first,
        segment_end: SEGMENT,
        prepared_end: SEGMENT,
        segment_size: SEGMENT,
        block: first,
    };
    let dir: Arc<dyn Dir> = Arc::new(Nothing);
    let names = Names::new("wal");
    let consumers = Consumers::load(&*dir, &names, &[], [0; 16], None).unwrap();
    let cells = Cells::load(&*dir, &names, false, [0; 16]).unwrap();
    let floors = TagFloors::load(&*dir, &names, [0; 16]).unwrap();
    let files =
        LogView::new(SegmentTable::new([], []), &dir, &names, RecentGroups::new(0), Cuts::new());
    let ring = Ring::new(2 * BLOCK, buffers, placement);
    let durable = Durable::new(first, durability != Durability::EveryGroup);
    Arc::new(LogState::new(ring, durable, files, (consumers, floors, cells), 0))
}

/// The loop over a backend, whose first step submits the epoch group.
pub(super) fn io_loop(
    state: &Arc<LogState>,
    durability: Durability,
    clock: Arc<dyn Clock>,
    backend: Box<dyn Backend>,
    method: Method,
    (depth, parks): (usize, bool),
) -> IoLoop {
    let active = SegmentHeader {
        log_id: [0; 16],
        block: BLOCK,
        size: SEGMENT,
        base: 0,
        max_group: 2 * BLOCK,
        created_at: 0,
        app_version: 0,
    };
    let start = Start {
        log_id: [0; 16],
        epoch: EpochId { counter: 1, nonce: 0 },
        link: Link::START,
        epoch_waits: false,
        replaceable: None,
        clean: false,
        active,
        active_file: Arc::new(Nothing),
        oldest: 0,
    };
    let options = Options {
        durability,
        commit_delay: Duration::ZERO,
        idle_seal: Duration::MAX,
        ..Options::default()
    };
    let io = IoStart {
        state: Arc::clone(state),
        clock,
        geometry: options.geometry(BLOCK).unwrap(),
        options,
        start,
    };
    let method = ChosenMethod {
        method,
        alone: method,
        reason: MethodReason::Pinned,
        parallel: true,
        detail: String::new(),
    };
    io.begin(ReadyBackend { backend, method, depth, end_file: None, parks }).unwrap()
}
