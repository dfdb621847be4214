//! A watch on a log's directory: the kernel reports when its writer may have made more durable.

use std::time::Duration;

use super::LogDirectory;

/// Reports changes of the end file. While no writer updates that, it reports any change.
#[derive(Debug)]
pub(super) struct DirectoryWatch {
    #[cfg(linux_calls)]
    inotify: nix::sys::inotify::Inotify,
}

#[cfg(linux_calls)]
impl DirectoryWatch {
    /// `None`: the system cannot watch the directory.
    pub(super) fn new(log: &LogDirectory) -> Option<Self> {
        use nix::sys::inotify::{InitFlags, Inotify};
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let watch = DirectoryWatch { inotify: Inotify::init(flags).ok()? };
        watch.arm(log).then_some(watch)
    }

    /// Watches the files that the directory has now. False: the system cannot watch them.
    pub(super) fn arm(&self, log: &LogDirectory) -> bool {
        use nix::sys::inotify::AddWatchFlags as Watch;
        // A new writer replaces the file: the removed link is a change of the old one.
        let file = log.dir.reach_of(&log.view.names.end());
        let reports = log.has_reporting_writer()
            && self.inotify.add_watch(&file, Watch::IN_MODIFY | Watch::IN_ATTRIB).is_ok();
        // While a writer reports its durable end, other writes in the directory need no wake-up.
        let written = if reports { Watch::empty() } else { Watch::IN_MODIFY };
        let watched = Watch::IN_CREATE | Watch::IN_MOVED_TO | written;
        self.inotify.add_watch(&log.dir.reach_of("."), watched).is_ok()
    }

    /// Drops the reports so far.
    pub(super) fn clear(&self) {
        while self.inotify.read_events().is_ok() {}
    }

    /// Waits for a report, for `longest` at most.
    pub(super) fn wait(&self, longest: Duration) {
        use std::os::fd::AsFd;

        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut reports = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        // Rounded up: a wait of less than a millisecond must not become none.
        let millis = longest.as_millis() + 1;
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        // After an interruption the caller reads the directory too.
        let _ = poll(&mut reports, timeout);
    }
}

#[cfg(not(linux_calls))]
#[allow(clippy::unused_self)]
impl DirectoryWatch {
    pub(super) fn new(_: &LogDirectory) -> Option<Self> {
        None
    }

    pub(super) fn arm(&self, _: &LogDirectory) -> bool {
        false
    }

    pub(super) fn clear(&self) {}

    pub(super) fn wait(&self, _: Duration) {}
}
