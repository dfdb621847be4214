//! The archiver: one thread that ships segments, and the hook through which a log waits for it.
//!
//! 1. The hook returns `Ok` for a segment when its archive is confirmed, and not before. Until then
//!    the log keeps the segment, and names the hook as the holder (`HeldBy::SealedHook`).
//! 2. The thread has a runtime of its own. Neither the log's I/O thread nor an appending thread
//!    waits for a store.
//! 3. After a failure of the store the thread tries again, after a pause that doubles up to a bound
//!    and is shortened at random.
//! 4. Stopping drops the request in flight. What that leaves in the store is no archived segment.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use ringwal::inspect::Directory;
use ringwal::{Lsn, SealedSegment, WalBuilder};
use tokio::sync::watch;

use crate::block_on::runtime;
use crate::error::{Error, Result};
use crate::manifest::MAX_PART;
use crate::ship::{Shipped, Source, compare, has_common_history, ship};
use crate::store::{Archive, Found};

const DEFAULT_PART: u64 = 8 << 20;
const LEAST_PART: u64 = 64 << 10;

/// Receives each error of an archiver.
type OnError = Arc<dyn Fn(&Error) + Send + Sync>;

/// Settings of an [`Archiver`].
#[derive(Clone)]
#[must_use = "a builder does nothing until start() is called"]
pub struct ArchiverBuilder {
    archive: Archive,
    part_bytes: u64,
    first_pause: Duration,
    longest_pause: Duration,
    attempts: Option<u32>,
    on_error: Option<OnError>,
}

impl fmt::Debug for ArchiverBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiverBuilder").field("archive", &self.archive).finish_non_exhaustive()
    }
}

/// Counters of an archiver, from [`Archiver::stats`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchiveStats {
    /// Segments that were shipped and confirmed.
    pub shipped: u64,
    /// Bytes of their objects.
    pub shipped_bytes: u64,
    /// Segments that were found in the store.
    pub present: u64,
    /// Segments that wait for their confirmation now.
    pub waiting: u64,
    /// Attempts that were repeated after a failure.
    pub retries: u64,
    /// Segments that retention removed before they were archived. 0 unless another process writes
    /// the log, or the hook was not set at times.
    pub overtaken: u64,
    /// Bytes that retention removed before any call could see them: see [`CaughtUp::missing`].
    pub missing: u64,
    /// The end of the newest segment that was confirmed, or found in the store. A restore and a
    /// prune take it as a position.
    pub archived_to: Lsn,
    /// The last error, until the next confirmation.
    pub last_error: Option<String>,
}

/// The result of [`Archiver::catch_up`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CaughtUp {
    /// Segments that were shipped now.
    pub shipped: u64,
    /// Bytes of their objects.
    pub shipped_bytes: u64,
    /// Segments that were in the store already.
    pub present: u64,
    /// Segments that the log still has, and that were pruned from the archive: they stay out of it.
    pub pruned: u64,
    /// Segments that retention removed during this call, before they could be shipped.
    pub overtaken: u64,
    /// Bytes between what was archived before this call and the oldest segment that the log still
    /// had: retention removed them before this call could see them. Each gap counts once, in the
    /// first call that finds it; if that call then fails, in [`ArchiveStats::missing`] alone.
    /// [`Archive::list`] shows every gap.
    pub missing: u64,
    /// The first position that is not archived: everything from there on is not sealed yet.
    pub archived_to: Lsn,
}

enum Job {
    /// Ship one segment, and first those before it that the store does not have.
    Segment {
        source: Source,
        base: u64,
        reply: mpsc::SyncSender<Result<()>>,
    },
    CatchUp {
        source: Source,
        reply: mpsc::SyncSender<Result<CaughtUp>>,
    },
}

/// Ships sealed segments to an object store, on a thread of its own.
///
/// A log that this process writes waits for the archiver before it removes a segment:
///
/// ```
/// use ringwal_archive::{Archive, Archiver};
///
/// # let dir = std::env::temp_dir().join(format!("ringwal-doc-archiver-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir).unwrap();
/// # let url = dir.join("store"); let url = url.to_str().unwrap();
/// let archiver = Archiver::builder(Archive::at(url)?)
///     .on_error(|error| eprintln!("archive: {error}"))
///     .start()?;
/// let builder = ringwal::Wal::builder(dir.join("log")).segment_size(64 << 10).max_segments(8);
/// let wal = archiver.attach(builder).open()?;
/// for _ in 0..200 {
///     wal.append(&[7; 1000])?;
/// }
/// wal.sync()?;
/// # while archiver.stats().shipped == 0 { std::thread::yield_now() }
/// archiver.stop();
/// wal.close()?;
///
/// let restored = Archive::at(url)?.restore().into(dir.join("restored"))?;
/// assert!(restored.records > 0);
/// # std::fs::remove_dir_all(&dir).unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Dropping it stops it.
#[derive(Debug)]
pub struct Archiver {
    jobs: mpsc::Sender<Job>,
    stop: watch::Sender<bool>,
    stats: Arc<Mutex<ArchiveStats>>,
    thread: Option<JoinHandle<()>>,
}

fn lock(stats: &Mutex<ArchiveStats>) -> MutexGuard<'_, ArchiveStats> {
    stats.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ArchiverBuilder {
    /// Bytes of a part of an upload, and of the unit that is verified: 64 KiB to 256 MiB, default 8
    /// MiB. S3 wants at least 5 MiB. Four are in memory at once.
    pub fn part_bytes(mut self, bytes: u64) -> Self {
        self.part_bytes = bytes;
        self
    }

    /// The pause after a failure: `first`, doubled after each further one up to `longest`. Each is
    /// shortened by up to half, at random. Default 100 ms and 30 s.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        (self.first_pause, self.longest_pause) = (first, longest);
        self
    }

    /// Gives up a segment after so many attempts. By default the archiver tries until it is
    /// stopped. A log with the hook keeps the segment, and calls the hook again.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts.max(1));
        self
    }

    /// Calls `report` with each error, on the archiver's thread.
    pub fn on_error(mut self, report: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(report));
        self
    }

    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a setting out of range; `Io` if the thread cannot be started. The
    /// store is not asked yet.
    pub fn start(self) -> Result<Archiver> {
        if !(LEAST_PART..=MAX_PART).contains(&self.part_bytes) {
            return Err(Error::Setting("part_bytes must be from 64 KiB to 256 MiB"));
        }
        if self.first_pause.is_zero() || self.longest_pause < self.first_pause {
            return Err(Error::Setting(
                "backoff needs a first pause above zero, and at least as long a longest one",
            ));
        }
        let (jobs, received) = mpsc::channel();
        let (stop, stopped) = watch::channel(false);
        let stats = Arc::new(Mutex::new(ArchiveStats::default()));
        let runtime = runtime()?;
        let worker = Worker {
            settings: self,
            stats: Arc::clone(&stats),
            stopped,
            is_known: false,
            has_caught_up: false,
            of: None,
            confirmed: BTreeSet::new(),
            compared: None,
            archived_to: None,
            linked_to: None,
            seen_to: None,
        };
        let thread = std::thread::Builder::new().name("ringwal-archive".into());
        let thread = thread.spawn(move || worker.run(&runtime, &received));
        let thread =
            thread.map_err(|source| Error::Io { op: "start", path: "a thread".into(), source })?;
        Ok(Archiver { jobs, stop, stats, thread: Some(thread) })
    }
}

impl Archiver {
    /// Returns the settings of an archiver for this place.
    pub fn builder(archive: Archive) -> ArchiverBuilder {
        ArchiverBuilder {
            archive,
            part_bytes: DEFAULT_PART,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(30),
            attempts: None,
            on_error: None,
        }
    }

    /// Makes a log wait for this archiver before it removes a segment, also over restarts. An
    /// archiver is for one log.
    pub fn attach(&self, builder: WalBuilder) -> WalBuilder {
        builder.on_sealed(self.hook())
    }

    /// The function for [`WalBuilder::on_sealed`], for a program that does more there. It returns
    /// when the archive of the segment is confirmed. Its first call also ships the segments before
    /// that one which the log still has and the store has not.
    pub fn hook(
        &self,
    ) -> impl FnMut(&SealedSegment) -> Result<(), Box<dyn StdError + Send + Sync>> + Send + use<>
    {
        let jobs = self.jobs.clone();
        move |segment| {
            let (reply, confirmed) = mpsc::sync_channel(1);
            let source = source_of(&segment.path);
            let job = Job::Segment { source, base: segment.base.as_u64(), reply };
            jobs.send(job).map_err(|_| Error::Stopped)?;
            Ok(confirmed.recv().map_err(|_| Error::Stopped)??)
        }
    }

    /// Ships every sealed segment of a log that the store does not have, oldest first, and returns
    /// when all are confirmed. Reads the log from outside: another process may have it open. The
    /// log does not wait for it: what retention removes meanwhile is counted and left out.
    ///
    /// # Errors
    ///
    /// As reading the log and the store, without those that are retried; [`Error::Stopped`] if the
    /// archiver is stopped meanwhile.
    pub fn catch_up(&self, dir: impl AsRef<Path>, prefix: &str) -> Result<CaughtUp> {
        let (reply, done) = mpsc::sync_channel(1);
        let source = Source { dir: dir.as_ref().into(), prefix: prefix.into() };
        self.jobs.send(Job::CatchUp { source, reply }).map_err(|_| Error::Stopped)?;
        done.recv().map_err(|_| Error::Stopped)?
    }

    /// Returns the counters.
    #[must_use]
    pub fn stats(&self) -> ArchiveStats {
        lock(&self.stats).clone()
    }

    /// Returns a function that makes [`Archiver::catch_up`] end early, for a handler of signals.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + use<> {
        let stop = self.stop.clone();
        move || {
            let _ = stop.send_replace(true);
        }
    }

    /// Stops the thread and waits for it. A running upload is given up; the hook returns an error,
    /// and the log keeps the segment. Stop the archiver before the log is closed: `close` waits up
    /// to five seconds for the hook.
    pub fn stop(self) {}
}

impl Drop for Archiver {
    fn drop(&mut self) {
        let _ = self.stop.send_replace(true);
        // The thread waits for jobs, and hooks hold senders: one without a waiter wakes it.
        let (reply, _) = mpsc::sync_channel(1);
        let source = Source { dir: PathBuf::new(), prefix: String::new() };
        let _ = self.jobs.send(Job::CatchUp { source, reply });
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The log of a segment file.
fn source_of(path: &Path) -> Source {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // `<prefix>.<20 digits>.wal`
    let prefix = name.len().checked_sub(25).and_then(|len| name.get(..len)).unwrap_or_default();
    Source { dir: path.parent().unwrap_or(Path::new("")).into(), prefix: prefix.into() }
}

struct Worker {
    settings: ArchiverBuilder,
    stats: Arc<Mutex<ArchiveStats>>,
    stopped: watch::Receiver<bool>,
    /// The place was found to be this log's.
    is_known: bool,
    /// The segments before the hook's first were looked for.
    has_caught_up: bool,
    /// The log of `confirmed` and `compared`, with its id.
    of: Option<(Source, [u8; 16])>,
    /// Segments that were found in the store, or shipped. They are not asked for again: a followed
    /// log is looked at every second.
    confirmed: BTreeSet<u64>,
    /// The newest segment whose history was compared with the archive's.
    compared: Option<u64>,
    /// The end of what is archived of the log. `None`: the store was not asked, and nothing was
    /// confirmed.
    archived_to: Option<Lsn>,
    /// The end of a segment that was compared or shipped: one that begins there continues the
    /// archive's history.
    linked_to: Option<u64>,
    /// Up to here every segment is archived, or was counted as lost. `None`: the store knows.
    seen_to: Option<u64>,
}

impl Worker {
    fn run(mut self, runtime: &tokio::runtime::Runtime, jobs: &mpsc::Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            if *self.stopped.borrow() {
                // Jobs that are left are dropped, and with them the senders that replies wait for.
                return;
            }
            match job {
                Job::Segment { source, base, reply } => {
                    let done = runtime.block_on(self.segment(&source, base));
                    let _ = reply.send(done);
                }
                Job::CatchUp { source, reply } => {
                    let _ = reply.send(runtime.block_on(self.catch_up(&source)));
                }
            }
        }
    }

    async fn segment(&mut self, source: &Source, base: u64) -> Result<()> {
        if !self.has_caught_up {
            let before = source.files()?.into_iter().filter(|(first, _)| *first < base).collect();
            self.ship_all(source, before, 1).await?;
            self.has_caught_up = true;
        }
        lock(&self.stats).waiting = 1;
        let shipped = self.ship(source, base).await;
        lock(&self.stats).waiting = 0;
        shipped.map(|shipped| self.count(&shipped))
    }

    async fn catch_up(&mut self, source: &Source) -> Result<CaughtUp> {
        self.ship_all(source, source.sealed()?, 0).await
    }

    /// Ships those of the segments that the store does not have. `behind`: how many wait after
    /// them.
    async fn ship_all(
        &mut self,
        source: &Source,
        segments: Vec<(u64, u64)>,
        behind: u64,
    ) -> Result<CaughtUp> {
        lock(&self.stats).waiting = segments.len() as u64 + behind;
        let done = self.ship_each(source, segments).await;
        lock(&self.stats).waiting = 0;
        done
    }

    async fn ship_each(&mut self, source: &Source, segments: Vec<(u64, u64)>) -> Result<CaughtUp> {
        let mut done = CaughtUp::default();
        let (floor, present) = self.present(source, &segments).await?;
        let mut is_compared = false;
        match (present.last(), segments.first()) {
            (Some(newest), _) => is_compared = self.compare(source, *newest).await?,
            (None, Some((base, _))) if *base < floor => {
                let archive = &self.settings.archive;
                self.retried(|| has_common_history(archive, source)).await?;
            }
            (None, _) => {}
        }
        done.missing = self.missing(source, &segments, floor, &present).await?;
        lock(&self.stats).missing += done.missing;
        for (base, size) in segments {
            let end = Lsn::new(base + size);
            let shipped = match present.binary_search(&base) {
                Ok(_) => Ok(Shipped { bytes: 0, end }),
                Err(_) if base < floor => Ok(Shipped { bytes: 0, end }),
                Err(_) => self.ship(source, base).await,
            };
            lock(&self.stats).waiting -= 1;
            match shipped {
                Ok(shipped) => {
                    done.pruned += u64::from(base < floor);
                    if base >= floor {
                        self.confirmed.insert(base);
                        if shipped.bytes > 0 {
                            self.compared = Some(base);
                        }
                        if shipped.bytes > 0 || is_compared {
                            self.linked_to = Some(end.as_u64());
                        }
                        self.count(&shipped);
                        done.shipped += u64::from(shipped.bytes > 0);
                        done.present += u64::from(shipped.bytes == 0);
                        done.shipped_bytes += shipped.bytes;
                    }
                    done.archived_to = shipped.end;
                }
                Err(Error::Overtaken { .. }) => done.overtaken += 1,
                Err(e) => return Err(e),
            }
            self.seen_to = self.seen_to.max(Some(end.as_u64()));
        }
        if done.archived_to == Lsn::ZERO {
            // Nothing that is sealed is left: what was archived before counts.
            done.archived_to = match self.archived_to {
                Some(end) => end,
                None => {
                    let archive = &self.settings.archive;
                    Lsn::new(self.retried(|| archive.end(floor)).await?.unwrap_or(0))
                }
            };
            let mut stats = lock(&self.stats);
            stats.archived_to = stats.archived_to.max(done.archived_to);
        }
        self.archived_to = self.archived_to.max(Some(done.archived_to));
        Ok(done)
    }

    /// Bytes that were removed between what is archived and the oldest of these segments.
    async fn missing(
        &mut self,
        source: &Source,
        segments: &[(u64, u64)],
        floor: u64,
        present: &[u64],
    ) -> Result<u64> {
        // Without a sealed segment, the log begins with the one that it writes.
        let oldest = match segments.first() {
            Some(oldest) => Some(*oldest),
            None => source.files()?.into_iter().next(),
        };
        let Some((oldest, _)) = oldest else { return Ok(0) };
        let seen_to = match self.seen_to {
            Some(end) => Some(end),
            // What is archived reaches into what the log still has.
            None if !present.is_empty() => None,
            None => {
                let archive = &self.settings.archive;
                self.retried(|| archive.end(floor)).await?
            }
        };
        if seen_to.is_some_and(|end| end < oldest) {
            self.seen_to = Some(oldest);
        }
        Ok(seen_to.map_or(0, |end| oldest.saturating_sub(end)))
    }

    fn count(&self, shipped: &Shipped) {
        let mut stats = lock(&self.stats);
        stats.shipped += u64::from(shipped.bytes > 0);
        stats.present += u64::from(shipped.bytes == 0);
        stats.shipped_bytes += shipped.bytes;
        stats.archived_to = stats.archived_to.max(shipped.end);
        stats.last_error = None;
    }

    /// The first position that belongs to the archive, and the segments, ascending, of which the
    /// store has a manifest and the object. They are not read.
    async fn present(
        &mut self,
        source: &Source,
        segments: &[(u64, u64)],
    ) -> Result<(u64, Vec<u64>)> {
        // Also without a sealed segment: a place that is another log's is refused at once.
        let Some((log_id, _)) = Directory::open(&source.dir, &source.prefix)?.identity()? else {
            return Ok((0, Vec::new()));
        };
        let of = Some((source.clone(), log_id));
        if self.of != of {
            self.of = of;
            (self.confirmed, self.compared) = (BTreeSet::new(), None);
            (self.archived_to, self.linked_to, self.seen_to) = (None, None, None);
        }
        let archive = &self.settings.archive;
        let floor = self.retried(|| archive.claim(&log_id, self.is_known)).await?;
        self.is_known = true;
        let look = |base| async move {
            let Found::Archived(manifest) = archive.manifest(base).await? else {
                return Ok(false);
            };
            Ok(archive.size(&manifest.object).await? == Some(manifest.bytes))
        };
        let mut present = Vec::new();
        for (base, _) in segments.iter().filter(|(base, _)| *base >= floor) {
            if self.confirmed.contains(base) || self.retried(|| look(*base)).await? {
                present.push(*base);
            }
        }
        Ok((floor, present))
    }

    /// Refuses an archive of another history. `newest` is the newest segment that both have: its
    /// hash covers all before it, so the older ones need not be read. False: it cannot be compared.
    async fn compare(&mut self, source: &Source, newest: u64) -> Result<bool> {
        if self.compared == Some(newest) {
            return Ok(true);
        }
        let archive = &self.settings.archive;
        match self.retried(|| compare(archive, source, newest)).await {
            Ok(()) => self.compared = Some(newest),
            // Retention was faster, or it is damaged in the log: the archive has it all the same.
            Err(Error::Overtaken { .. } | Error::Log(ringwal::Error::Corruption { .. })) => {}
            Err(e) => return Err(e),
        }
        Ok(self.compared == Some(newest))
    }

    async fn ship(&mut self, source: &Source, base: u64) -> Result<Shipped> {
        let archive = self.settings.archive.clone();
        let (part, is_known) = (self.settings.part_bytes, self.is_known);
        let is_linked = self.linked_to == Some(base);
        let shipped = self
            .retried(|| async {
                match ship(&archive, source, base, part, is_known, is_linked).await {
                    Err(e) if !matches!(e, Error::Stopped) && source.is_gone(base) => {
                        tracing::debug!(error = %e, base, "the segment was removed");
                        Err(Error::Overtaken { base: Lsn::new(base) })
                    }
                    shipped => shipped,
                }
            })
            .await;
        self.is_known |= shipped.is_ok();
        if let Ok(shipped) = &shipped {
            self.linked_to = Some(shipped.end.as_u64());
        }
        if matches!(shipped, Err(Error::Overtaken { .. })) {
            lock(&self.stats).overtaken += 1;
        }
        shipped
    }

    /// Repeats what fails until it succeeds, or a person must do something, or it is stopped.
    async fn retried<T, F: Future<Output = Result<T>>>(
        &self,
        mut run: impl FnMut() -> F,
    ) -> Result<T> {
        let mut stopped = self.stopped.clone();
        let mut pause = self.settings.first_pause;
        for attempt in 1_u32.. {
            let done = tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return Err(Error::Stopped),
                done = run() => done,
            };
            let error = match done {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            lock(&self.stats).last_error = Some(error.to_string());
            tracing::warn!(%error, attempt, "a segment is not archived yet");
            if let Some(report) = &self.settings.on_error {
                report(&error);
            }
            let is_last = self.settings.attempts.is_some_and(|most| attempt >= most);
            if !error.is_retried() || is_last {
                return Err(error);
            }
            lock(&self.stats).retries += 1;
            let shortened = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return Err(Error::Stopped),
                () = tokio::time::sleep(shortened) => {}
            }
            pause = (pause * 2).min(self.settings.longest_pause);
        }
        Err(Error::Stopped)
    }
}
