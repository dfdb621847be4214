//! A simulated disk: crashes a service and its logs again and again, from a seed. Feature
//! `testing`.
//!
//! The whole log runs: the same ring, group commit, segments, retention and recovery as on a real
//! disk. Only the parts below and around them are simulated:
//!
//!  - **The disk** loses unsynced data when the power fails. Any part of it may survive: none, all,
//!    single sectors, torn sectors, in any order. Of file names, those of the directory's last sync
//!    survive, and any first part of the later changes. Operations in flight complete in any order.
//!    A test can make operations fail, and the disk full.
//!  - **The threads** are replaced by the caller. The log's calls do the work of the I/O thread and
//!    the other threads: sometimes in any call, and always in a call that would wait. Time passes
//!    only then. Hooks and callbacks run there too.
//!
//! Everything follows from the seed and the calls. While one thread uses the disk, the same test
//! with the same seed sees the same events, crash for crash. Several threads may use the disk; then
//! their schedule matters too. Futures work on any executor, and resolve when they are polled.
//!
//! The purpose is to test that *your* service keeps its promises. Write a loop over seeds. Let the
//! service work until the power fails, at any operation. Open it again on the same disk, and
//! compare its state with what it had acknowledged.
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
//!         // The service: counts, and acknowledges each number once it is durable.
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
//! The simulation cannot show how a real kernel, filesystem or device behaves, nor how fast
//! anything is. Segments are kept in memory, so choose small ones.
//! [`ReadOnlyWal`](crate::ReadOnlyWal) reads real directories only.

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
use crate::options::Options;
use crate::sys::sync::lock;
use crate::wal::Wal;
use crate::wal::builder::{OpenElsewhere, WalBuilder};

/// How an operation of a [`SimulatedDisk`] fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskFault {
    /// The operation fails with EIO.
    Failed,
    /// The operation fails with ENOSPC.
    NoSpace,
    /// Half of the bytes are written or read. An operation without bytes fails with EIO.
    Short,
    /// The operation fails with EINTR, before it has any effect.
    Interrupted,
    /// The operation fails with EAGAIN.
    Again,
    /// The operation fails with ECANCELED.
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

impl OpenElsewhere for SimulatedDisk {
    fn open(&self, options: &Options) -> Result<Wal> {
        let rng = lock(&self.rng).fork();
        open::open(&self.disk, &self.clock, options, rng)
    }
}

impl WalBuilder {
    /// Makes [`WalBuilder::open`] open the log on a simulated disk: a service that takes
    /// a builder is tested as it is. The builder's directory and its
    /// [`BackendChoice`](crate::BackendChoice) are ignored, as by [`SimulatedDisk::open`]. Feature
    /// `testing`.
    ///
    /// ```
    /// use ringwal::testing::SimulatedDisk;
    /// use ringwal::{Wal, WalBuilder};
    ///
    /// struct Service(Wal);
    /// impl Service {
    ///     fn start(settings: WalBuilder) -> ringwal::Result<Service> {
    ///         Ok(Service(settings.open()?))
    ///     }
    /// }
    ///
    /// let disk = SimulatedDisk::new(7);
    /// let settings = Wal::builder("data/log").segment_size(64 << 10).on(&disk);
    /// let service = Service::start(settings.clone())?;
    /// let lsn = service.0.append_durable(b"acknowledged")?;
    /// disk.crash();
    /// let service = Service::start(settings)?;
    /// assert_eq!(service.0.read(lsn)?.payload, b"acknowledged");
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    pub fn on(self, disk: &SimulatedDisk) -> Self {
        self.at(Arc::new(disk.clone()))
    }
}

/// A disk with one directory, in memory. When the power fails it loses what a real disk may lose.
/// Clones are the same disk. See the [module](self).
#[derive(Debug, Clone)]
pub struct SimulatedDisk {
    disk: SimDisk,
    clock: Arc<SimClock>,
    rng: Arc<Mutex<Rng>>,
}

impl SimulatedDisk {
    /// Creates an empty disk. The seed decides every random choice: which operation completes
    /// first, which data survives.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        SimulatedDisk {
            disk: SimDisk::new(),
            clock: Arc::new(SimClock::default()),
            rng: Arc::new(Mutex::new(Rng::with_seed(seed))),
        }
    }

    /// Opens or creates a log on this disk, as [`WalBuilder::open`] does. The builder's directory
    /// and its [`BackendChoice`](crate::BackendChoice) are ignored;
    /// [`CommitMethod::Auto`](crate::CommitMethod::Auto) chooses a method at random. Logs with
    /// different prefixes may share the disk.
    ///
    /// # Errors
    ///
    /// As [`WalBuilder::open`]: among them `Locked` while the log is open, `Io` and `Poisoned` if
    /// the power fails.
    pub fn open(&self, builder: &WalBuilder) -> Result<Wal> {
        OpenElsewhere::open(self, builder.options())
    }

    /// Turns the power off and on. A random part of the unsynced data survives. Every open log and
    /// file is dead: its calls fail and change nothing. Planned faults are forgotten.
    pub fn crash(&self) {
        self.disk.crash(&mut lock(&self.rng));
    }

    /// Kills the service while the machine runs on. Completed writes stay; each operation in flight
    /// took effect or did not. Every open log and file is dead.
    pub fn kill(&self) {
        self.disk.kill(&mut lock(&self.rng));
    }

    /// Turns the power off after this many more operations. From then on every operation fails,
    /// until [`SimulatedDisk::crash`] turns the power on.
    pub fn power_off_after(&self, operations: u64) {
        self.disk.crash_at(self.disk.operations().saturating_add(operations));
    }

    /// Whether the power is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.disk.is_off()
    }

    /// Number of operations so far that change the disk: writes, syncs, and changes of names. To
    /// crash a test at each of its operations, run it once to count them.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.disk.operations()
    }

    /// Makes the operation after this many more fail. With `for_ever`, every later operation fails
    /// too.
    pub fn fail_after(&self, operations: u64, fault: DiskFault, for_ever: bool) {
        let at = self.disk.operations().saturating_add(operations);
        self.disk.fault(at, fault.inner(), for_ever);
    }

    /// Makes the read after this many more fail, of content or of names. With `for_ever`, every
    /// later read fails too.
    pub fn fail_read_after(&self, reads: u64, fault: DiskFault, for_ever: bool) {
        let at = self.disk.reads().saturating_add(reads);
        self.disk.read_fault(at, fault.inner(), for_ever);
    }

    /// Number of operations and reads that have failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.disk.failed()
    }

    /// Forgets planned faults and a planned power failure.
    pub fn heal(&self) {
        self.disk.heal();
    }

    /// Sets the disk's capacity: bytes of all files together. At first there is no limit.
    pub fn set_capacity(&self, bytes: u64) {
        self.disk.set_capacity(bytes);
    }

    /// Returns another disk, with data that could survive if the power failed now, chosen at
    /// random. This disk is unchanged, so a test can check many images.
    #[must_use]
    pub fn image(&self) -> SimulatedDisk {
        let mut rng = lock(&self.rng);
        SimulatedDisk {
            disk: self.disk.image(&mut rng),
            clock: Arc::new(SimClock::default()),
            rng: Arc::new(Mutex::new(rng.fork())),
        }
    }

    /// Advances the clock that the logs measure intervals and ages by. The next calls do what has
    /// become due.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Sets the wall clock ahead by `seconds`, or back if negative. Segments are stamped with it.
    /// It decides the ages of segments that an earlier run left.
    pub fn step_wall_clock(&self, seconds: i64) {
        self.clock.step_wall(seconds);
    }

    /// Creates a file beside the logs, for example for a snapshot. [`SimulatedDisk::sync_names`]
    /// makes its name durable, [`SimulatedFile::sync`] its content.
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

    /// Renames a file. The new name must be free: remove a file that has it first.
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

    /// Makes all names durable, as a sync of the directory does.
    ///
    /// # Errors
    ///
    /// Those of a disk without power, and of faults.
    pub fn sync_names(&self) -> io::Result<()> {
        self.disk.dir().sync()
    }

    /// The names of all files in ascending order, with the logs' files.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.disk.names()
    }

    /// Changes the bytes of a file without an operation, as a failing medium does. The file's whole
    /// content is durable afterwards.
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
