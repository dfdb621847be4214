//! A simulated disk, to crash a service with its logs again and again, from a seed. Feature `testing`.
//!
//! The log runs whole: the same ring, group commit, segments, retention and recovery as on a real disk. Only what
//! is below and around them is simulated:
//!
//!  - **The disk** keeps of what was not synced any part when the power goes: none, all, single sectors, torn
//!    ones, in any order; of created and renamed files what the directory's last sync had, and any first part of what
//!    came after. Operations in flight complete in any order. They can be made to fail, and the disk to be full.
//!  - **The threads** are the caller's: what the I/O thread and the others would do is done inside the calls
//!    of the log, now and then in any of them, and where one would wait, until it need not. Time passes
//!    only then. Hooks and callbacks are called from there too.
//!
//! So everything follows from the seed and from the calls: as long as one thread uses the disk, the same test
//! with the same seed sees the same, crash for crash. Several threads may use it too, and then their schedule
//! matters. Futures work on any executor, and resolve when they are polled.
//!
//! What it is for: that *your* service keeps what it has promised. Write a loop over seeds; let the service work until
//! the power goes, at any operation; open it again on the same disk; compare with what it had acknowledged.
//!
//! ```
//! use ringwal::testing::SimulatedDisk;
//! use ringwal::{Lsn, Wal};
//!
//! for seed in 0..50 {
//!     let disk = SimulatedDisk::new(seed);
//!     let settings = Wal::builder("accounts").segment_size(64 << 10);
//!     let mut acknowledged = 0;
//!     disk.power_off_after(seed * 3);
//!     if let Ok(wal) = disk.open(&settings) {
//!         // The service: counts, and tells somebody when that is durable.
//!         while wal.append_durable(&u64::to_le_bytes(acknowledged)).is_ok() {
//!             acknowledged += 1;
//!         }
//!     }
//!     disk.crash();
//!     let wal = disk.open(&settings)?;
//!     let found: Vec<_> = wal.reader(Lsn::ZERO).map(|r| r.unwrap().payload).collect();
//!     assert!(found.len() as u64 >= acknowledged, "seed {seed}: an acknowledgement was lost");
//!     for (n, payload) in found.iter().enumerate() {
//!         assert_eq!(*payload, (n as u64).to_le_bytes(), "seed {seed}");
//!     }
//! }
//! # Ok::<(), ringwal::Error>(())
//! ```
//!
//! What it cannot show: how a real kernel, filesystem or device behaves, and how fast anything is. Segments are kept in
//! memory: choose small ones. [`ReadOnlyWal`](crate::ReadOnlyWal) reads real directories only.

mod clock;
mod file;
mod machine;
mod open;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;

pub(crate) use clock::SimClock;
pub use file::SimulatedFile;

use crate::error::Result;
use crate::io::fs::sim::{Fault, SimDisk};
use crate::sys::sync::lock;
use crate::wal::Wal;
use crate::wal::builder::WalBuilder;

/// How an operation of a [`SimulatedDisk`] fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskFault {
    /// EIO.
    Failed,
    /// ENOSPC.
    NoSpace,
    /// Half of the bytes are written or read; where there are none, EIO.
    Short,
    /// EINTR, before anything is done.
    Interrupted,
    /// EAGAIN.
    Again,
    /// ECANCELED.
    Cancelled,
}

impl DiskFault {
    fn inner(self) -> Fault {
        match self {
            DiskFault::Failed => Fault::Eio,
            DiskFault::NoSpace => Fault::NoSpace,
            DiskFault::Short => Fault::Short,
            DiskFault::Interrupted => Fault::Interrupted,
            DiskFault::Again => Fault::Again,
            DiskFault::Cancelled => Fault::Cancelled,
        }
    }
}

/// A disk with one directory, in memory, that forgets when the power goes what a real one may forget. Clones are the
/// same disk. See the [module](self).
#[derive(Debug, Clone)]
pub struct SimulatedDisk {
    disk: SimDisk,
    clock: Arc<SimClock>,
    rng: Arc<Mutex<Rng>>,
}

impl SimulatedDisk {
    /// An empty disk. The seed decides everything that is drawn: what completes first, what survives.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        SimulatedDisk {
            disk: SimDisk::new(),
            clock: Arc::new(SimClock::default()),
            rng: Arc::new(Mutex::new(Rng::with_seed(seed))),
        }
    }

    /// Opens a log on this disk, or makes it: as [`WalBuilder::open`], of which the directory is not looked
    /// at. Logs of other prefixes share the disk. [`BackendChoice`](crate::BackendChoice) says nothing here;
    /// with [`CommitMethod::Auto`](crate::CommitMethod::Auto) one is drawn.
    ///
    /// # Errors
    ///
    /// As [`WalBuilder::open`]: among them `Locked` while the log is open, `Io` and `Poisoned` if the power
    /// went.
    pub fn open(&self, builder: &WalBuilder) -> Result<Wal> {
        let rng = lock(&self.rng).fork();
        open::open(&self.disk, &self.clock, builder.options(), rng)
    }

    /// The power goes, and comes back: what was not synced survives in part, as drawn. Every log and file that was open is
    /// dead: its calls fail, and it changes nothing any more. Faults to come are forgotten.
    pub fn crash(&self) {
        self.disk.crash(&mut lock(&self.rng));
    }

    /// The service is killed, and the machine runs on: what had been written stays, what was in flight was
    /// carried out or not. What was open is dead.
    pub fn kill(&self) {
        self.disk.kill(&mut lock(&self.rng));
    }

    /// The power goes after this many more operations: from then on everything fails, until
    /// [`SimulatedDisk::crash`] brings it back.
    pub fn power_off_after(&self, operations: u64) {
        self.disk.crash_at(self.disk.operations().saturating_add(operations));
    }

    /// Whether the power is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.disk.is_off()
    }

    /// Operations so far that could change something: writes, syncs, and changes of names. To crash a test at each
    /// of its operations, run it once to count them.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.disk.operations()
    }

    /// The operation after this many more fails, and if `for_ever` all that follow.
    pub fn fail_after(&self, operations: u64, fault: DiskFault, for_ever: bool) {
        let at = self.disk.operations().saturating_add(operations);
        self.disk.fault(at, fault.inner(), for_ever);
    }

    /// The same for reads, of content and of names.
    pub fn fail_read_after(&self, reads: u64, fault: DiskFault, for_ever: bool) {
        let at = self.disk.reads().saturating_add(reads);
        self.disk.read_fault(at, fault.inner(), for_ever);
    }

    /// Operations and reads that have failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.disk.failed()
    }

    /// Forgets faults to come, and a power cut to come.
    pub fn heal(&self) {
        self.disk.heal();
    }

    /// Bytes that the files may have together; above that the disk is full. At first there is no limit.
    pub fn set_capacity(&self, bytes: u64) {
        self.disk.set_capacity(bytes);
    }

    /// Another disk, with what could be there if the power went now, as drawn. This one goes on: look at many.
    #[must_use]
    pub fn image(&self) -> SimulatedDisk {
        let mut rng = lock(&self.rng);
        SimulatedDisk {
            disk: self.disk.image(&mut rng),
            clock: Arc::new(SimClock::default()),
            rng: Arc::new(Mutex::new(rng.fork())),
        }
    }

    /// Lets time pass: intervals and ages of the logs are by this clock. What is due happens in the next calls.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Sets the wall clock so many seconds ahead, or back: by it segments are stamped, and the ages of those that an
    /// earlier run has left are judged.
    pub fn step_wall_clock(&self, seconds: i64) {
        self.clock.step_wall(seconds);
    }

    /// Makes a file beside the logs, say for a snapshot. Its name is not durable before
    /// [`SimulatedDisk::sync_names`], its content not before [`SimulatedFile::sync`].
    ///
    /// # Errors
    ///
    /// `AlreadyExists`; those of a disk without power, and of faults.
    pub fn create(&self, name: &str) -> io::Result<SimulatedFile> {
        SimulatedFile::create(&self.disk, name)
    }

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    ///
    /// `NotFound`; those of a disk without power, and of faults.
    pub fn open_file(&self, name: &str) -> io::Result<SimulatedFile> {
        SimulatedFile::open(&self.disk, name)
    }

    /// Renames a file. The new name must be free: remove what has it.
    ///
    /// # Errors
    ///
    /// `NotFound`, `AlreadyExists`; those of a disk without power, and of faults.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.dir().rename(from, to)
    }

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// `NotFound`; those of a disk without power, and of faults.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.dir().remove(name)
    }

    /// Makes all names durable, as syncing the directory does.
    ///
    /// # Errors
    ///
    /// Those of a disk without power, and of faults.
    pub fn sync_names(&self) -> io::Result<()> {
        self.disk.dir().sync()
    }

    /// The names of all files, the logs' too, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.disk.names()
    }

    /// Changes the bytes of a file behind everybody's back, as a failing medium does. What of it was not synced is durable
    /// then.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.disk.content(name).ok_or(io::ErrorKind::NotFound)?;
        self.disk.damage(name, change);
        Ok(())
    }
}
