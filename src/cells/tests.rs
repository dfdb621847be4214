//! Batches, failures and readers of cells, on a disk that a test holds up or has fail.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex as StdMutex, PoisonError};
use std::task::{Context, Poll, Wake};

use super::*;
use crate::io::fs::hooked::{Call, HookedDir, TempPath};
use crate::io::fs::sim::SimDisk;
use crate::io::fs::{Access, OsDir};
use crate::wal::Wal;

const ID: [u8; 16] = [9; 16];

fn names() -> Names {
    Names::new("wal")
}

fn load(dir: &dyn Dir) -> Result<Cells> {
    let exists = dir.list().unwrap().iter().any(|entry| entry.name == "wal.cells");
    Cells::load(dir, &names(), exists, ID)
}

fn store(cells: &Cells, dir: &dyn Dir, name: &str, value: &[u8]) -> Result<()> {
    let batch = cells.enter(name, Some(value))?.unwrap();
    cells.settle(dir, &names(), &batch)
}

fn value(cells: &Cells, name: &str) -> Option<Vec<u8>> {
    cells.get(name).unwrap().map(|value| value.to_vec())
}

/// Lets calls through while it is open.
#[derive(Default)]
struct Gate {
    closed: StdMutex<bool>,
    opened: Condvar,
    /// Calls that have come to the gate.
    came: AtomicU32,
}

impl Gate {
    fn set(&self, closed: bool) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = closed;
        self.opened.notify_all();
    }

    fn pass(&self) {
        self.came.fetch_add(1, Ordering::SeqCst);
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        while *closed {
            closed = self.opened.wait(closed).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[test]
fn stores_that_wait_for_a_sync_share_the_next_one() {
    let disk = SimDisk::new();
    let (gate, syncs) = (Arc::new(Gate::default()), Arc::new(AtomicU32::new(0)));
    let (at_gate, counted) = (Arc::clone(&gate), Arc::clone(&syncs));
    let dir = HookedDir::new(disk.dir(), move |call, _| {
        if call == Call::Sync {
            counted.fetch_add(1, Ordering::SeqCst);
            at_gate.pass();
        }
        Ok(())
    });
    let cells = load(&dir).unwrap();
    store(&cells, &dir, "first", b"0").unwrap();
    let before = syncs.load(Ordering::SeqCst);
    gate.set(true);
    std::thread::scope(|scope| {
        let came = gate.came.load(Ordering::SeqCst);
        for n in 0..16_u8 {
            let (cells, dir, gate) = (&cells, &dir, &gate);
            scope.spawn(move || store(cells, dir, &format!("c{n}"), &[n]).unwrap());
            while n == 0 && gate.came.load(Ordering::SeqCst) == came {
                std::thread::yield_now();
            }
        }
        // The first holds the disk. The others have entered their changes.
        while lock(&cells.state).next.len() < 17 {
            std::thread::yield_now();
        }
        assert_eq!(cells.names().unwrap(), ["first"], "nothing is visible before it is durable");
        gate.set(false);
    });
    assert_eq!(syncs.load(Ordering::SeqCst) - before, 2);
    assert_eq!(cells.names().unwrap().len(), 17);
    assert_eq!(value(&load(&dir).unwrap(), "c9"), Some(vec![9]));
}

/// A directory whose writes or syncs of the cells fail while they are told to.
fn failing(disk: &SimDisk, kind: Call, error: io::ErrorKind) -> (HookedDir, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&fails);
    let dir = HookedDir::new(disk.dir(), move |call, _| {
        if call == kind && told.load(Ordering::SeqCst) { Err(error.into()) } else { Ok(()) }
    });
    (dir, fails)
}

#[test]
fn failed_sync_or_write_ends_the_cells_until_they_are_opened_again() {
    for kind in [Call::Sync, Call::Write] {
        let disk = SimDisk::new();
        let (dir, fails) = failing(&disk, kind, io::ErrorKind::Other);
        let cells = load(&dir).unwrap();
        store(&cells, &dir, "vote", b"old").unwrap();
        fails.store(true, Ordering::SeqCst);
        let is_failed = |result: Result<()>| matches!(result, Err(Error::CellsFailed { .. }));
        assert!(is_failed(store(&cells, &dir, "vote", b"new")));
        fails.store(false, Ordering::SeqCst);
        let operations = disk.operations();
        assert!(is_failed(store(&cells, &dir, "vote", b"newer")));
        assert!(is_failed(cells.get("vote").map(drop)) && is_failed(cells.names().map(drop)));
        assert_eq!(disk.operations(), operations, "nothing is tried again");
        let found = value(&load(&dir).unwrap(), "vote").unwrap();
        assert!(found == b"old" || found == b"new", "{found:?}");
    }
}

#[test]
fn disk_without_space_stores_nothing_and_ends_nothing() {
    for kind in [Call::Write, Call::Open(Access::CreateCached)] {
        let disk = SimDisk::new();
        let (dir, fails) = failing(&disk, kind, io::ErrorKind::StorageFull);
        let cells = load(&dir).unwrap();
        let full = |result: Result<()>| match result {
            Err(Error::Io { source, .. }) => source.kind() == io::ErrorKind::StorageFull,
            _ => false,
        };
        fails.store(true, Ordering::SeqCst);
        assert!(full(store(&cells, &dir, "vote", b"none")));
        assert!(disk.names().is_empty(), "{:?}", disk.names());
        fails.store(false, Ordering::SeqCst);
        store(&cells, &dir, "vote", b"one").unwrap();
        fails.store(true, Ordering::SeqCst);
        if kind == Call::Write {
            assert!(full(store(&cells, &dir, "vote", b"two")));
            assert_eq!(value(&cells, "vote").unwrap(), b"one");
        }
        fails.store(false, Ordering::SeqCst);
        store(&cells, &dir, "vote", b"three").unwrap();
        assert_eq!(value(&load(&dir).unwrap(), "vote").unwrap(), b"three");
    }
}

#[test]
fn creation_that_fails_at_any_operation_is_repeated_by_the_next_store() {
    for at in 0..20 {
        let disk = SimDisk::new();
        disk.fault(at, crate::io::fs::sim::Fault::Eio, false);
        let (dir, names) = (disk.dir(), names());
        let cells = load(&*dir).unwrap();
        match store(&cells, &*dir, "vote", b"one") {
            Ok(()) => {
                assert!(at >= 4, "{at}");
                break;
            }
            // The name may be on the disk.
            Err(Error::CellsFailed { .. }) => assert_eq!(disk.names(), [names.cells()]),
            Err(Error::Io { .. }) => {
                store(&cells, &*dir, "vote", b"two").unwrap();
                assert_eq!(value(&load(&*dir).unwrap(), "vote").unwrap(), b"two");
                assert_eq!(disk.names(), [names.cells()]);
            }
            Err(e) => panic!("{at}: {e}"),
        }
    }
}

#[test]
fn damage_in_one_slot_finds_the_value_before_and_in_both_is_an_error() {
    let disk = SimDisk::new();
    let dir = disk.dir();
    let cells = load(&*dir).unwrap();
    store(&cells, &*dir, "vote", b"one").unwrap();
    store(&cells, &*dir, "vote", b"two").unwrap();
    disk.damage("wal.cells", |bytes| bytes[CELLS_SLOT + 45] ^= 1);
    assert_eq!(value(&load(&*dir).unwrap(), "vote").unwrap(), b"one");
    let foreign = Cells::load(&*dir, &names(), true, [8; 16]);
    assert!(matches!(foreign, Err(Error::CellsDamaged { .. })));
    disk.damage("wal.cells", |bytes| bytes[30] ^= 1);
    let damaged = load(&*dir);
    assert!(matches!(&damaged, Err(Error::CellsDamaged { file }) if file.ends_with("wal.cells")));
    disk.damage("wal.cells", |bytes| bytes.clear());
    assert!(matches!(load(&*dir), Err(Error::CellsDamaged { .. })));
}

/// A writer that was killed has written a slot and not synced it. Opening has returned its value,
/// so a power failure must not take it back.
#[test]
fn value_that_opening_returned_survives_the_next_crash() {
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..50 {
        let disk = SimDisk::new();
        {
            let (dir, fails) = failing(&disk, Call::Sync, io::ErrorKind::Other);
            let cells = load(&dir).unwrap();
            store(&cells, &dir, "vote", b"old").unwrap();
            fails.store(true, Ordering::SeqCst);
            let _ = store(&cells, &dir, "vote", b"new");
        }
        disk.kill(&mut rng);
        let found = value(&load(&*disk.dir()).unwrap(), "vote");
        disk.crash(&mut rng);
        assert_eq!(value(&load(&*disk.dir()).unwrap(), "vote"), found);
    }
}

#[test]
fn cells_that_take_too_much_are_rejected_and_room_is_freed_by_a_removal() {
    let disk = SimDisk::new();
    let dir = disk.dir();
    let cells = load(&*dir).unwrap();
    let large = [7; MAX_CELL_VALUE];
    for n in 10..25 {
        store(&cells, &*dir, &n.to_string(), &large).unwrap();
    }
    let full = store(&cells, &*dir, "one-more", &large);
    assert!(matches!(full, Err(Error::CellsFull { len, max: CELLS_SLOT }) if len > CELLS_SLOT));
    store(&cells, &*dir, "10", &large).unwrap();
    let batch = cells.enter("10", None).unwrap().unwrap();
    cells.settle(&*dir, &names(), &batch).unwrap();
    store(&cells, &*dir, "one-more", &large).unwrap();
    assert!(cells.enter("10", None).unwrap().is_none(), "there is nothing to remove");
    assert_eq!(load(&*dir).unwrap().names().unwrap(), cells.names().unwrap());
}

#[test]
fn reader_beside_a_writer_never_finds_an_older_value_or_damage() {
    let path = TempPath::new();
    let dir: Arc<dyn Dir> = Arc::new(OsDir::open_or_create(&path).unwrap());
    let cells = load(&*dir).unwrap();
    let (stored, over) = (AtomicU32::new(0), AtomicBool::new(false));
    store(&cells, &*dir, "n", &[0; 4000]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let before = stored.load(Ordering::SeqCst);
                let read = ReadCells::read(&*dir, &names()).unwrap().unwrap();
                let found = read.cells(&ID).expect("one slot is sound");
                let bytes = found.get("n").unwrap();
                let n = u32::from_le_bytes(*bytes.first_chunk().unwrap());
                assert!(n >= before, "{n} after {before}");
                assert!(bytes.chunks(4).all(|part| *part == bytes[..4]), "a mix");
            }
        });
        for n in 1..400_u32 {
            store(&cells, &*dir, "n", &n.to_le_bytes().repeat(1000)).unwrap();
            stored.store(n, Ordering::SeqCst);
        }
        over.store(true, Ordering::SeqCst);
    });
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn tasks_are_woken_when_their_values_are_durable() {
    let path = TempPath::new();
    let wal = Wal::builder(&*path).segment_size(64 << 10).open().unwrap();
    let (vote, other) = (wal.cell("vote"), wal.cell("other"));
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    let mut cx = Context::from_waker(&waker);
    let (mut one, mut two) = (pin!(vote.store_async(b"7")), pin!(other.store_async(b"8")));
    let mut results = [one.as_mut().poll(&mut cx), two.as_mut().poll(&mut cx)];
    while results.iter().any(Poll::is_pending) {
        while woken.0.swap(0, Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        if results[0].is_pending() {
            results[0] = one.as_mut().poll(&mut cx);
        }
        if results[1].is_pending() {
            results[1] = two.as_mut().poll(&mut cx);
        }
    }
    assert!(results.iter().all(|done| matches!(done, Poll::Ready(Ok(())))), "{results:?}");
    assert!(matches!(one.as_mut().poll(&mut cx), Poll::Ready(Err(_))), "polled once too often");
    assert_eq!(vote.load().unwrap().unwrap(), b"7");
    drop(vote.store_async(b"never polled"));
    assert_eq!(vote.load().unwrap().unwrap(), b"7");
    wal.close().unwrap();
    assert!(matches!(vote.load(), Err(Error::Closed)));
    let mut late = pin!(vote.store_async(b"9"));
    assert!(matches!(late.as_mut().poll(&mut cx), Poll::Ready(Err(Error::Closed))));
}
