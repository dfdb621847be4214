//! A progress bar on a terminal, for what takes longer than a second.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub(crate) struct Bar {
    begun: Instant,
    quiet: bool,
    bar: Option<ProgressBar>,
}

impl Bar {
    pub(crate) fn new(quiet: bool) -> Self {
        Bar { begun: Instant::now(), quiet, bar: None }
    }

    /// Bytes done, and their total; a total of 0 is unknown.
    pub(crate) fn set(&mut self, done: u64, total: u64) {
        if self.quiet || (self.bar.is_none() && self.begun.elapsed() < Duration::from_secs(1)) {
            return;
        }
        let begun = self.begun;
        let bar = self.bar.get_or_insert_with(|| {
            // Drawn on stderr, and not at all where that is no terminal.
            let target = ProgressDrawTarget::stderr();
            let length = (total > 0).then_some(total);
            let form = match length {
                Some(_) => "{bar:30} {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left",
                None => "{bytes}, {binary_bytes_per_sec}",
            };
            let bar = ProgressBar::with_draw_target(length, target).with_elapsed(begun.elapsed());
            if let Ok(style) = ProgressStyle::with_template(form) {
                bar.set_style(style);
            }
            bar
        });
        bar.set_position(done);
    }

    /// Writes something to the screen that the bar is on.
    pub(crate) fn beside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Takes it off the screen.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}
