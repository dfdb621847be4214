//! The builder: one method an option.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::hooks::{OnSealed, OnStall, SealedSegment, Stall};
use crate::options::{BackendChoice, CommitMethod, Durability, Options};
use crate::wal::Wal;

/// Settings of a log, from [`Wal::builder`]. Each method takes the place of a default; all are
/// checked together by [`WalBuilder::open`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until open() is called"]
pub struct WalBuilder {
    dir: PathBuf,
    options: Options,
}

impl Wal {
    /// Opens the log in `dir` with the defaults, or makes it. See [`WalBuilder`] for the options and
    /// [`WalBuilder::open`] for the errors.
    pub fn open(dir: impl AsRef<Path>) -> Result<Wal> {
        Wal::builder(dir).open()
    }

    /// A builder, to open the log in `dir` with other settings than the defaults.
    pub fn builder(dir: impl AsRef<Path>) -> WalBuilder {
        WalBuilder::new(dir.as_ref())
    }
}

impl WalBuilder {
    /// What has been set, for a log that is not opened in a directory.
    #[cfg(simulated)]
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn new(dir: &Path) -> Self {
        WalBuilder { dir: dir.into(), options: Options::default() }
    }

    fn with(mut self, set: impl FnOnce(&mut Options)) -> Self {
        set(&mut self.options);
        self
    }

    /// Start of the file names, which lets several logs share a directory. Default `wal`; 1 to 200
    /// bytes, no path separator, no control character, no leading dot, no `..`.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        self.with(|o| o.prefix = prefix.into())
    }

    /// Bytes of a segment file. Default 64 MiB; a multiple of the filesystem's block (4096 as a
    /// rule), from four blocks to 1 TiB. Large segments rotate less often; opening reads up to the
    /// last two and those prepared ahead.
    pub fn segment_size(self, bytes: u64) -> Self {
        self.with(|o| o.segment_size = bytes)
    }

    /// Bytes of the ring, which is all that is ever buffered. Default 8 MiB, less for small segments
    /// and more for large records; at least two buffers, at most 64 GiB. The ring is split into
    /// equal buffers, each the most that one commit writes: an eighth of the ring, at most a quarter
    /// of a segment.
    pub fn ring_capacity(self, bytes: usize) -> Self {
        self.with(|o| o.ring_capacity = Some(bytes))
    }

    /// Bytes of the largest payload. Default: what one buffer of the ring holds (a little under
    /// 1 MiB); at least 1, at most what a segment holds, and at most 256 MiB. For a batch it bounds the batch. The ring's
    /// buffers are made as large as that needs.
    pub fn max_record_size(self, bytes: usize) -> Self {
        self.with(|o| o.max_record_size = Some(bytes))
    }

    /// What the application calls the form of its records: kept in every segment of a new log, and
    /// compared when a log is opened, which fails with `ApplicationVersion` if it has another, or
    /// none. Any number; default 0: not compared, and a new log has none. See
    /// [`RecoveryReport::application_version`](crate::RecoveryReport::application_version).
    pub fn application_version(self, version: u32) -> Self {
        self.with(|o| o.application_version = version)
    }

    /// Bytes of the log, from its position to the durable end, for which a [`Consumer`](crate::Consumer) keeps
    /// segments from being removed, attached or not. One that lags by more, or hangs, is no longer waited for, and gets
    /// `Pruned` when what it needs is gone. Any number; with 0 consumers keep nothing. Default: no limit, so that an
    /// abandoned consumer keeps everything until [`Wal::remove_consumer`].
    pub fn consumer_limit(self, bytes: u64) -> Self {
        self.with(|o| o.consumer_limit = Some(bytes))
    }

    /// Commits in flight at most. Default 4; 1 to 256. The std backend has one.
    pub fn depth(self, groups: usize) -> Self {
        self.with(|o| o.depth = groups)
    }

    /// When records become durable without being asked for. Default [`Durability::EveryGroup`]. The time of an
    /// [`Durability::Interval`] is longer than zero; shorter ones than a sync takes come to syncs one after the other.
    pub fn durability(self, durability: Durability) -> Self {
        self.with(|o| o.durability = durability)
    }

    /// How long a commit waits for company after its first record while nothing is in flight.
    /// Default zero, which is best or nearly so for every load that was measured; at most a second.
    pub fn commit_delay(self, delay: Duration) -> Self {
        self.with(|o| o.commit_delay = delay)
    }

    /// How long the log is idle, with everything durable, until it writes a block that says so.
    /// From then on no damage to what was acknowledged can pass for a torn write. Default 20 ms; at
    /// least 1 ms; [`Duration::MAX`] is never. While groups come regularly the log waits for twice the longest recent time
    /// between two of them, up to 10 s: each states the same of those before it.
    pub fn idle_seal(self, after: Duration) -> Self {
        self.with(|o| o.idle_seal = after)
    }

    /// Segment files to keep at most, with the active one and those prepared ahead; the oldest go
    /// first. Default: no limit. At least 2. What is not durable, or is being read, stays; where the
    /// log could not go on otherwise there is one file more for a moment.
    pub fn max_segments(self, segments: usize) -> Self {
        self.with(|o| o.max_segments = Some(segments))
    }

    /// Bytes of all segment files at most, counted as for [`WalBuilder::max_segments`]. Default: no
    /// limit. At least two segments.
    pub fn max_total_bytes(self, bytes: u64) -> Self {
        self.with(|o| o.max_total_bytes = Some(bytes))
    }

    /// Removes a segment when its last record is older than this. Default: never. Longer than zero;
    /// looked at ten times in that time, at most every 10 ms and at least every minute.
    ///
    /// The monotonic clock counts, which stands still while the machine is suspended; for segments of an earlier run
    /// the wall clock at the opening, too. What is old by the wall clock alone goes after this age, or 10 s
    /// after the opening if that is sooner, and then a quarter of it at a time.
    pub fn max_age(self, age: Duration) -> Self {
        self.with(|o| o.max_age = Some(age))
    }

    /// Permission bits of the log's files. Default `0o600`; from `0o600` to `0o777`, always with reading
    /// and writing for the owner. `0o640` lets another user of the group read the log, with
    /// [`ReadOnlyWal`](crate::ReadOnlyWal) or the command.
    ///
    /// The bits are those that the files get, whatever the umask. A directory that opening creates
    /// gets them too, and may be entered by whoever may read: `0o750` for `0o640`. A directory that
    /// is there keeps its mode. With the option set, opening gives the mode to the log's existing
    /// files. Systems without permission bits ignore it.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-mode-{}", std::process::id()));
    /// let wal = ringwal::Wal::builder(&dir).file_mode(0o640).open()?;
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    pub fn file_mode(self, mode: u32) -> Self {
        self.with(|o| o.file_mode = Some(mode))
    }

    /// Which backend does the I/O. Default [`BackendChoice::Auto`].
    pub fn backend(self, choice: BackendChoice) -> Self {
        self.with(|o| o.backend = choice)
    }

    /// How the io_uring backend makes a group durable. Default [`CommitMethod::Auto`].
    pub fn commit_method(self, method: CommitMethod) -> Self {
        self.with(|o| o.commit_method = method)
    }

    /// How long a write, a sync or a step of preparing a segment may take until the log says that
    /// the disk is stalled: by a `tracing` event, in [`Stats::stalls`](crate::Stats::stalls) and
    /// [`Stats::stalled_for`](crate::Stats::stalled_for), and through [`WalBuilder::on_stall`].
    /// Default one second; 1 ms to one hour. Nothing is cancelled or failed by it.
    pub fn stall_threshold(self, threshold: Duration) -> Self {
        self.with(|o| o.stall_threshold = threshold)
    }

    /// Calls `tell` when an operation has taken longer than the threshold, each time that this time
    /// has doubled, and when it has ended: on a thread that does nothing else, so that it is told
    /// while the disk does not answer. A blocking call of the log from there gets `WouldDeadlock`; a
    /// panic is caught. [`Wal::close`] waits for a call that goes on for at most a second. The time
    /// for which the process was stopped or the machine suspended does not count.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-stall-{}", std::process::id()));
    /// use std::time::Duration;
    /// let wal = ringwal::Wal::builder(&dir)
    ///     .stall_threshold(Duration::from_millis(500))
    ///     .on_stall(|stall| eprintln!("{} takes {:?}", stall.kind, stall.lasted))
    ///     .open()?;
    /// assert_eq!(wal.stats().stalled_for, Duration::ZERO);
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    pub fn on_stall(self, tell: impl Fn(&Stall) + Send + Sync + 'static) -> Self {
        self.with(|o| o.on_stall = Some(OnStall(Arc::new(tell))))
    }

    /// Calls `archive` for each segment that the log has left, oldest first, when it is durable as a whole. The
    /// segment stays, whatever retention or [`Wal::truncate_before`] want, until `archive` has
    /// returned `Ok` for it; an error or a panic is an event, counts in
    /// [`Stats::sealed_failures`](crate::Stats::sealed_failures), and the call is made again after
    /// 100 ms, doubled up to a minute. What was let go is remembered over restarts; a segment may come
    /// again, and none is left out. The active segment comes when the log has left it. What is in it may be cut out of
    /// the log later by [`Wal::truncate_after`]: the segment with the cut says so, and comes too.
    ///
    /// It runs on a thread of its own: appends do not wait for it, but while it does not return nothing is
    /// removed. A blocking call of the log from there gets `WouldDeadlock`. [`Wal::close`] waits for a
    /// call that goes on for up to five seconds.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-sealed-{}", std::process::id()));
    /// # let archive = dir.join("archive"); std::fs::create_dir_all(&archive).unwrap();
    /// let wal = ringwal::Wal::builder(dir.join("log"))
    ///     .max_segments(8)
    ///     .on_sealed(move |segment| {
    ///         let copy = archive.join(format!("{:020}", segment.base.as_u64()));
    ///         std::fs::copy(&segment.path, &copy)?;
    ///         Ok(std::fs::File::open(copy)?.sync_all()?)
    ///     })
    ///     .open()?;
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    pub fn on_sealed(
        self,
        archive: impl FnMut(&SealedSegment) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
        + Send
        + 'static,
    ) -> Self {
        self.with(|o| o.on_sealed = Some(OnSealed::new(archive)))
    }

    /// How long [`WalBuilder::open`] waits for a lock that another writer holds, until it fails with
    /// `Locked`. Default two seconds; zero refuses at once. A writer that was killed holds the lock
    /// until the kernel has ended its last write, which on a slow disk may take longer. Who holds it is
    /// not asked: process ids mean nothing across containers.
    pub fn lock_wait(self, longest: Duration) -> Self {
        self.with(|o| o.lock_wait = longest)
    }

    /// Opens the log, or makes it, and recovers what is in it. Blocks: a new log writes its first
    /// segment from end to end, an old one reads its last.
    ///
    /// # Errors
    ///
    /// [`Error::Options`](crate::Error::Options) for a setting out of range, `Locked` if a writer has
    /// it open, `Corruption`, `Unsupported` or `ForeignSegment` for what is found in the directory,
    /// `NameTaken` if the prefix is another log's to a filesystem that ignores case,
    /// `NoSpace` if there is no room for the first segment, `BackendUnavailable` if io_uring was asked
    /// for and cannot run, `Io` for anything that the system refuses. Nothing is changed on disk
    /// before the log has been judged sound.
    pub fn open(self) -> Result<Wal> {
        self.options.validate()?;
        crate::wal::open::open(&self.dir, &self.options)
    }
}
