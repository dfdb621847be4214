//! Following a log that another process writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Inner;
use crate::error::Result;
use crate::read::{Reader, Record, RecordRef, Records};
use crate::sys::reentrancy;

/// Looks at the end anew after this time, though nothing was heard of it.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// Where nothing can be watched: pauses from the first to the longest, doubled while nothing comes.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Reads durable records and then waits for more, from
/// [`ReadOnlyWal::follow`](super::ReadOnlyWal::follow).
///
/// The kernel wakes it when the writer says that more is durable, or when anything in the directory changes if no
/// writer says so. Beside that it looks twice a second, and ten times where the kernel watches nothing: no inotify
/// instance is left, or the system is not Linux. The writer does not wait for it, and retention does not either:
/// `Pruned` says that it was overtaken. After an error it has ended.
#[derive(Debug)]
pub struct ReadOnlyFollow {
    inner: Arc<Inner>,
    reader: Reader,
    bell: Option<Bell>,
    /// Before the next look where nothing can be watched.
    pause: Duration,
    over: bool,
}

impl ReadOnlyFollow {
    pub(super) fn new(inner: Arc<Inner>, from: u64, end: u64) -> Result<Self> {
        let reader = Reader::live(Arc::clone(&inner.view), from, end)?;
        let bell = Bell::new(&inner);
        Ok(ReadOnlyFollow { inner, reader, bell, pause: FIRST_PAUSE, over: false })
    }

    /// The next record if one is durable already, in place. Does not wait, but reads from the device.
    ///
    /// # Errors
    ///
    /// `Pruned` if retention has removed what would come next, `Truncated` if records that were
    /// delivered were cut since, `Corruption`, `Io`.
    pub fn try_next(&mut self) -> Result<Option<RecordRef<'_>>> {
        if self.peek()? { self.peeked() } else { Ok(None) }
    }

    /// The next record, in place, waiting until there is one. `None` only after an error.
    ///
    /// # Errors
    ///
    /// As [`ReadOnlyFollow::try_next`]; `WouldDeadlock` on a thread of a log in this process and `Reentrant`
    /// inside [`Wal::append_with`](crate::Wal::append_with): that log may be the one that is followed.
    pub fn next_ref(&mut self) -> Result<Option<RecordRef<'_>>> {
        if self.wait(None)? { self.peeked() } else { Ok(None) }
    }

    /// The same, for a limited time: `None` also when no record became durable in it.
    ///
    /// # Errors
    ///
    /// As [`ReadOnlyFollow::next_ref`].
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<RecordRef<'_>>> {
        let until = Instant::now().checked_add(timeout);
        if self.wait(until)? { self.peeked() } else { Ok(None) }
    }

    /// The next records that lie in memory together, at least one, waiting until there is one: see
    /// [`Follow::next_records`](crate::Follow::next_records). How far the log is durable is looked up once for all of
    /// them. `None` only after an error.
    ///
    /// # Errors
    ///
    /// As [`ReadOnlyFollow::next_ref`].
    pub fn next_records(&mut self) -> Result<Option<Records<'_>>> {
        if !self.wait(None)? {
            return Ok(None);
        }
        let run = self.reader.next_run(0);
        self.over = run.is_err();
        run
    }

    /// Bytes of the log from the record that was delivered last, or else from where it began, to the durable end as
    /// it was seen last.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.reader.end().saturating_sub(self.reader.reached())
    }

    /// What was found.
    fn peeked(&mut self) -> Result<Option<RecordRef<'_>>> {
        let next = self.reader.next_below(0);
        self.over = next.is_err();
        next
    }

    fn peek(&mut self) -> Result<bool> {
        if self.over {
            return Ok(false);
        }
        let peeked = self.inner.refresh().and_then(|end| self.reader.peek_below(end));
        self.over = peeked.is_err();
        peeked
    }

    /// Whether there is a record: not if it is over, or the time is up.
    fn wait(&mut self, until: Option<Instant>) -> Result<bool> {
        reentrancy::check_may_wait()?;
        loop {
            if self.over {
                return Ok(false);
            }
            if self.peek()? {
                self.pause = FIRST_PAUSE;
                return Ok(true);
            }
            // Silenced first, looked second: what is told from here on rings again.
            if let Some(bell) = &self.bell {
                bell.arm(&self.inner);
                bell.silence();
                if self.peek()? {
                    return Ok(true);
                }
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
            let left = left.unwrap_or(LONGEST_WAIT);
            match &self.bell {
                Some(bell) => bell.wait(left.min(LONGEST_WAIT)),
                None => {
                    std::thread::sleep(left.min(self.pause));
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                    if self.pause == LONGEST_PAUSE {
                        self.bell = Bell::new(&self.inner);
                    }
                }
            }
        }
    }
}

impl Iterator for ReadOnlyFollow {
    type Item = Result<Record>;

    /// Waits for the next record, as [`ReadOnlyFollow::next_ref`].
    fn next(&mut self) -> Option<Self::Item> {
        match self.next_ref() {
            Ok(Some(record)) => Some(Ok(record.to_record())),
            Ok(None) => None,
            Err(e) => Some(Err(e)),
        }
    }
}

/// Rings when the writer has said something; while no writer says anything, when anything changes.
#[cfg(linux_calls)]
#[derive(Debug)]
struct Bell {
    inotify: nix::sys::inotify::Inotify,
}

#[cfg(linux_calls)]
impl Bell {
    /// `None`: there is no way to watch.
    fn new(inner: &Inner) -> Option<Self> {
        use nix::sys::inotify::{InitFlags, Inotify};
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let bell = Bell { inotify: Inotify::init(flags).ok()? };
        bell.arm(inner).then_some(bell)
    }

    /// Watches what changes next as the directory is now. False: that cannot be watched.
    fn arm(&self, inner: &Inner) -> bool {
        use nix::sys::inotify::AddWatchFlags as Watch;
        // A link that is removed is a change of the file: another has come in its place.
        let file = inner.dir.reach_of(&inner.view.names.end());
        let told = inner.is_told()
            && self.inotify.add_watch(&file, Watch::IN_MODIFY | Watch::IN_ATTRIB).is_ok();
        // While a writer tells, what it writes beside is no news.
        let written = if told { Watch::empty() } else { Watch::IN_MODIFY };
        let watched = Watch::IN_CREATE | Watch::IN_MOVED_TO | written;
        self.inotify.add_watch(&inner.dir.reach_of("."), watched).is_ok()
    }

    fn silence(&self) {
        while self.inotify.read_events().is_ok() {}
    }

    /// Until it rings, or for the time.
    fn wait(&self, longest: Duration) {
        use std::os::fd::AsFd;

        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut told = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        // Rounded up: a wait for less than a millisecond must not become none.
        let millis = longest.as_millis() + 1;
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        // An interruption is as good as news: the caller looks.
        let _ = poll(&mut told, timeout);
    }
}

#[cfg(not(linux_calls))]
#[derive(Debug)]
struct Bell;

#[cfg(not(linux_calls))]
#[allow(clippy::unused_self)]
impl Bell {
    fn new(_: &Inner) -> Option<Self> {
        None
    }

    fn arm(&self, _: &Inner) -> bool {
        false
    }

    fn silence(&self) {}

    fn wait(&self, _: Duration) {}
}
