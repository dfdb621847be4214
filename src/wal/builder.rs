//! The builder: one method per option.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::hooks::{OnSealed, OnStall, SealedSegment, Stall};
use crate::options::{BackendChoice, CommitMethod, Creation, Durability, Options};
use crate::wal::Wal;

/// Settings of a log, from [`Wal::builder`]. Each method replaces a default. [`WalBuilder::open`]
/// checks all settings together. The guide says [what a log
/// costs](crate::guide#what-a-log-costs): disk, memory, threads, and a commit.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until open() is called"]
pub struct WalBuilder {
    dir: PathBuf,
    options: Options,
    #[cfg(simulated)]
    place: Option<Arc<dyn OpenElsewhere>>,
}

/// Where a log is opened, if not in a directory of the system.
#[cfg(simulated)]
pub(crate) trait OpenElsewhere: std::fmt::Debug + Send + Sync {
    /// Opens the log with these settings, which the callee checks.
    fn open(&self, options: &Options) -> Result<Wal>;
}

impl Wal {
    /// Opens the log in `dir` with the defaults, or creates it. See [`WalBuilder`] for the options
    /// and [`WalBuilder::open`] for the errors.
    pub fn open(dir: impl AsRef<Path>) -> Result<Wal> {
        Wal::builder(dir).open()
    }

    /// Returns a builder for a log in `dir`, to change settings before it is opened.
    pub fn builder(dir: impl AsRef<Path>) -> WalBuilder {
        WalBuilder::new(dir.as_ref())
    }
}

impl WalBuilder {
    /// The settings so far, for a log that is not opened in a directory.
    #[cfg(simulated)]
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn new(dir: &Path) -> Self {
        WalBuilder {
            dir: dir.into(),
            options: Options::default(),
            #[cfg(simulated)]
            place: None,
        }
    }

    #[cfg(simulated)]
    pub(crate) fn at(mut self, place: Arc<dyn OpenElsewhere>) -> Self {
        self.place = Some(place);
        self
    }

    fn with(mut self, set: impl FnOnce(&mut Options)) -> Self {
        set(&mut self.options);
        self
    }

    /// Start of the file names. Several logs with different prefixes can share a directory. Default
    /// `wal`; 1 to 200 bytes, no path separator, no control character, no leading dot, no `..`.
    /// A log moves between systems, so what is no file name on Windows is refused on all: a
    /// character of `:*?"<>|`, a dot or a space at the end, and a device's name (`nul`, `con`,
    /// `com1`) before the first dot.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        self.with(|o| o.prefix = prefix.into())
    }

    /// Bytes of a segment file. Default 64 MiB; a multiple of the filesystem's block (4096 as a
    /// rule), from four blocks to 1 TiB. Large segments rotate less often. Opening reads at most
    /// the last two segments and the prepared ones. A new log has one segment on disk; the next is
    /// prepared when a quarter of it is full, or a sixteenth if the log fills it quickly.
    pub fn segment_size(self, bytes: u64) -> Self {
        self.with(|o| o.segment_size = bytes)
    }

    /// Bytes of the ring, which is the only buffer. Default 8 MiB, less for small segments and more
    /// for large records; at least two buffers, at most 64 GiB. The ring is split into equal
    /// buffers. One commit writes at most one buffer: an eighth of the ring, at most a quarter of a
    /// segment. A page of the ring takes memory once a record was written to it.
    pub fn ring_capacity(self, bytes: usize) -> Self {
        self.with(|o| o.ring_capacity = Some(bytes))
    }

    /// Bytes of the largest payload. For a batch it bounds the whole batch. From 1 to 268,435,309:
    /// 256 MiB less 147 bytes for headers. A record must also fit in a segment: the segment size
    /// less one block and 147 bytes. The buffers of the ring grow to fit.
    ///
    /// Default: the room of one buffer of the ring. A buffer takes an eighth of the ring capacity
    /// or a quarter of what a segment holds beside its first block, whichever is less. Both are
    /// rounded down to whole blocks, and a buffer has from one block to 256 MiB. Its room is 147
    /// bytes less, rounded down to a multiple of 8: 1,048,424 with the other defaults, 257,896 with
    /// segments of 1 MiB.
    pub fn max_record_size(self, bytes: usize) -> Self {
        self.with(|o| o.max_record_size = Some(bytes))
    }

    /// Version that the application gives to the form of its records. Any number; default 0.
    ///
    /// A new log stores the version in every segment. Opening compares it, and fails with
    /// `ApplicationVersion` if the log has another version or none. With 0, opening compares
    /// nothing and a new log has no version. See
    /// [`RecoveryReport::application_version`](crate::RecoveryReport::application_version).
    pub fn application_version(self, version: u32) -> Self {
        self.with(|o| o.application_version = version)
    }

    /// Bytes from a consumer's position to the durable end, up to which retention keeps segments
    /// for that [`Consumer`](crate::Consumer), attached or not.
    ///
    /// A consumer that lags by more is no longer protected: it gets `Pruned` when its next record
    /// is removed. Any number; with 0 consumers protect nothing. Default: no limit, so that an
    /// abandoned consumer keeps every segment until [`Wal::remove_consumer`].
    pub fn consumer_limit(self, bytes: u64) -> Self {
        self.with(|o| o.consumer_limit = Some(bytes))
    }

    /// Commits in flight at most. Default 4; 1 to 256. The std backend has one.
    pub fn depth(self, groups: usize) -> Self {
        self.with(|o| o.depth = groups)
    }

    /// When records become durable without a request. Default [`Durability::EveryGroup`]. The
    /// duration of an [`Durability::Interval`] is longer than zero. If it is shorter than a sync,
    /// syncs follow each other without a pause.
    pub fn durability(self, durability: Durability) -> Self {
        self.with(|o| o.durability = durability)
    }

    /// How long a commit waits for more records after its first one, while nothing is in flight.
    /// Default zero, which is best or nearly so for every measured load; at most a second.
    ///
    /// With zero, a commit waits only for the committers of the last one, if that proved faster: at
    /// most for the time of a commit and 200 us. With another delay it waits for that alone.
    pub fn commit_delay(self, delay: Duration) -> Self {
        self.with(|o| o.commit_delay = delay)
    }

    /// How long the log is idle, with everything durable, until it writes a block that states so.
    /// Default 20 ms; at least 1 ms; [`Duration::MAX`] is never.
    ///
    /// After that block, no damage to acknowledged records can pass for a torn write. While groups
    /// come regularly, the log waits for twice the longest recent time between two groups, up to 10
    /// s: each group states the same of the earlier ones.
    pub fn idle_seal(self, after: Duration) -> Self {
        self.with(|o| o.idle_seal = after)
    }

    /// Segments to keep at most, the active one included. The oldest are removed first. Default: no
    /// limit. At least 2. Segments that are not durable, or that a reader is in, stay.
    ///
    /// Only segments that hold groups count. Prepared segments come on top: two at most, and one
    /// at most if `segments` is less than 4. [`WalBuilder::max_total_bytes`] limits all files.
    /// A commit takes whole blocks of 4 KiB, so a segment of 16 KiB holds three records of a lone
    /// caller that waits for each. See [what a log costs](crate::guide#what-a-log-costs).
    pub fn max_segments(self, segments: usize) -> Self {
        self.with(|o| o.max_segments = Some(segments))
    }

    /// Bytes of all segment files at most, with the active one and the prepared ones. Default: no
    /// limit. At least two segments. The oldest are removed first. Segments that are not durable,
    /// or that a reader is in, stay. The limit is exceeded by one file while a rotation would
    /// otherwise block.
    pub fn max_total_bytes(self, bytes: u64) -> Self {
        self.with(|o| o.max_total_bytes = Some(bytes))
    }

    /// Age of its last record at which a segment is removed. Default: never. Longer than zero.
    /// Retention checks ten times in that duration, at most every 10 ms and at least every minute.
    ///
    /// The age is measured by the monotonic clock, which stands still while the machine is
    /// suspended. Segments of an earlier run are also measured by the wall clock at the opening. A
    /// segment that is old only by the wall clock is removed after this age, or 10 s after the
    /// opening if that is sooner; then a quarter of such segments at a time.
    pub fn max_age(self, age: Duration) -> Self {
        self.with(|o| o.max_age = Some(age))
    }

    /// The name of an option that was set, and by which the log itself removes segments:
    /// `max_segments`, `max_total_bytes` or `max_age`. `None` if only
    /// [`Wal::truncate_before`](crate::Wal::truncate_before) removes them.
    ///
    /// For crates that build on the log, and decide themselves which records may go.
    ///
    /// ```
    /// let builder = ringwal::Wal::builder("data");
    /// assert_eq!(builder.retention_limit(), None);
    /// assert_eq!(builder.max_segments(9).retention_limit(), Some("max_segments"));
    /// ```
    #[must_use]
    pub fn retention_limit(&self) -> Option<&'static str> {
        let options = &self.options;
        let set = [
            ("max_segments", options.max_segments.is_some()),
            ("max_total_bytes", options.max_total_bytes.is_some()),
            ("max_age", options.max_age.is_some()),
        ];
        set.into_iter().find_map(|(name, is_set)| is_set.then_some(name))
    }

    /// Permission bits of the log's files. Default `0o600`; from `0o600` to `0o777`, always with
    /// reading and writing for the owner. `0o640` lets another user of the group read the log, with
    /// [`ReadOnlyWal`](crate::ReadOnlyWal) or the command.
    ///
    /// Files get exactly these bits, whatever the umask. A directory that opening creates gets them
    /// too, with permission to enter for everyone with permission to read: `0o750` for `0o640`. An
    /// existing directory keeps its mode. With the option set, opening gives the mode to the log's
    /// existing files. Systems without permission bits ignore it.
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

    /// Whether a log must be there already. Default false: opening creates one if there is none.
    ///
    /// A service whose volume is not mounted, or whose prefix is wrong, otherwise starts with a
    /// new, empty log. With `true` it gets [`NoLog`](crate::Error::NoLog), and nothing is created.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-must-{}", std::process::id()));
    /// let opened = ringwal::Wal::builder(&dir).must_exist(true).open();
    /// assert!(matches!(opened, Err(ringwal::Error::NoLog { .. })));
    /// assert!(!dir.exists());
    /// ```
    pub fn must_exist(self, must: bool) -> Self {
        self.with(|o| o.creation = if must { Creation::Never } else { Creation::IfMissing })
    }

    /// Whether the log must be new. Default false. With `true` a log that is there is an error,
    /// [`LogExists`](crate::Error::LogExists), and stays as it is. Replaces
    /// [`WalBuilder::must_exist`]: the last call of the two counts.
    pub fn create_new(self, new: bool) -> Self {
        self.with(|o| o.creation = if new { Creation::Always } else { Creation::IfMissing })
    }

    /// Opens only the log with this id, [`Wal::log_id`]. Default: any. Another log is
    /// [`OtherLog`](crate::Error::OtherLog), no log is [`NoLog`](crate::Error::NoLog); nothing is
    /// changed or created. Store the id where the service stores its configuration.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-id-{}", std::process::id()));
    /// let wal = ringwal::Wal::builder(&dir).create_new(true).open()?;
    /// let id = wal.log_id();
    /// wal.close()?;
    /// let wal = ringwal::Wal::builder(&dir).expect_log_id(id).open()?;
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    pub fn expect_log_id(self, id: [u8; 16]) -> Self {
        self.with(|o| o.log_id = Some(id))
    }

    /// The backend that does the I/O. Default [`BackendChoice::Auto`].
    pub fn backend(self, choice: BackendChoice) -> Self {
        self.with(|o| o.backend = choice)
    }

    /// How the io_uring backend makes a group durable. Default [`CommitMethod::Auto`].
    pub fn commit_method(self, method: CommitMethod) -> Self {
        self.with(|o| o.commit_method = method)
    }

    /// Time that a write, a sync or a step of preparing a segment may take until the log reports a
    /// stall. Default one second; 1 ms to one hour.
    ///
    /// The log reports by a `tracing` event, in [`Stats::stalls`](crate::Stats::stalls) and
    /// [`Stats::stalled_for`](crate::Stats::stalled_for), and through [`WalBuilder::on_stall`]. A
    /// stall cancels nothing and fails nothing.
    pub fn stall_threshold(self, threshold: Duration) -> Self {
        self.with(|o| o.stall_threshold = threshold)
    }

    /// Calls `tell` when an operation has taken longer than the threshold, each time that the
    /// duration has doubled, and when the operation has ended.
    ///
    /// `tell` runs on a watchdog thread, which does no I/O, so that reports come while the disk
    /// does not answer. Logs share these threads; a call that does not return delays no other log.
    /// A blocking call of the log from `tell` gets `WouldDeadlock`. A panic in `tell` is caught.
    /// [`Wal::close`] waits at most a second for a running call. Time for which the process was
    /// stopped or the machine suspended does not count.
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

    /// Calls `archive` for each segment that the log has left, oldest first, once the whole segment
    /// is durable.
    ///
    /// The segment stays until `archive` has returned `Ok` for it, whatever retention or
    /// [`Wal::truncate_before`] request. After an error or a panic the log emits an event, counts
    /// it in [`Stats::sealed_failures`](crate::Stats::sealed_failures), and retries after 100 ms,
    /// doubled up to a minute. Archived segments are remembered over restarts. A segment may come
    /// again; none is left out. The active segment comes when the log has left it.
    /// [`Wal::truncate_from`] may later cut records of an archived segment; the segment with the
    /// cut states so, and comes too.
    ///
    /// `archive` runs on the archiver thread. Appends do not wait for it, but nothing is removed
    /// while it does not return. A blocking call of the log from `archive` gets `WouldDeadlock`.
    /// [`Wal::close`] waits at most five seconds for a running call.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-sealed-{}", std::process::id()));
    /// # let archive = dir.join("archive"); std::fs::create_dir_all(&archive).unwrap();
    /// let wal = ringwal::Wal::builder(dir.join("log"))
    ///     .max_segments(8)
    ///     .on_sealed(move |segment| {
    ///         let copy = archive.join(format!("{:020}", segment.base.as_u64()));
    ///         std::fs::copy(&segment.path, &copy)?;
    ///         // Windows flushes only what may be written.
    ///         Ok(std::fs::OpenOptions::new().write(true).open(copy)?.sync_all()?)
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

    /// How long [`WalBuilder::open`] waits for a lock that another writer holds, before it fails
    /// with `Locked`. Default two seconds; zero fails at once.
    ///
    /// A killed writer holds the lock until the kernel has ended its last write, which may take
    /// longer on a slow disk. Opening does not check whether the holder is alive: process ids mean
    /// nothing across containers.
    pub fn lock_wait(self, longest: Duration) -> Self {
        self.with(|o| o.lock_wait = longest)
    }

    /// Opens the log, or creates it, and recovers its records. Blocks: a new log writes its first
    /// segment from end to end, an old log reads its last segments.
    ///
    /// # Errors
    ///
    /// [`Error::Options`](crate::Error::Options) for a setting out of range, `Locked` if a writer
    /// has the log open, `Corruption`, `Unsupported` or `ForeignSegment` for what opening finds in
    /// the directory, `NameTaken` if the prefix of a new log differs from another's in case alone
    /// (some filesystems have one file for both), `NoSpace` if there is no room for the first
    /// segment, `BackendUnavailable` if io_uring was requested and cannot run, `Io` for any other
    /// refusal of the system. Opening changes nothing on disk before it has judged the log valid.
    pub fn open(self) -> Result<Wal> {
        #[cfg(simulated)]
        if let Some(place) = &self.place {
            return place.open(&self.options);
        }
        self.options.validate()?;
        crate::wal::open::open(&self.dir, &self.options)
    }
}
