//! Images: the content that a power failure could leave on a traced disk.

use std::fmt;

use fastrand::Rng;

use crate::disk::{Pages, SECTOR, Trace, Write};

/// Which of the writes that were not durable survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// None of them.
    Nothing,
    /// All of them, in the order of their completion or issue.
    Everything,
    /// Only the last one.
    Newest,
    /// All except the first.
    AllButOldest,
    /// Any subset.
    Subset,
    /// Any subset of their sectors, in any order.
    Torn,
}

impl Class {
    pub(crate) const ALL: [Class; 6] = [
        Class::Nothing,
        Class::Everything,
        Class::Newest,
        Class::AllButOldest,
        Class::Subset,
        Class::Torn,
    ];
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Nothing => "nothing of the rest",
            Class::Everything => "everything",
            Class::Newest => "the newest only",
            Class::AllButOldest => "all but the oldest",
            Class::Subset => "some writes",
            Class::Torn => "some sectors",
        })
    }
}

/// Replays a trace, and keeps the durable content at each moment.
#[derive(Debug)]
pub(crate) struct Cutter<'t> {
    trace: &'t Trace,
    durable: Pages,
    /// Indices of the issued writes that are not durable.
    loose: Vec<usize>,
    next_write: usize,
    next_flush: usize,
}

impl<'t> Cutter<'t> {
    pub(crate) fn new(trace: &'t Trace) -> Self {
        let durable = trace.start.clone();
        Cutter { trace, durable, loose: Vec::new(), next_write: 0, next_flush: 0 }
    }

    /// Advances to moment `t`, which never decreases. Returns the number of writes that are not
    /// durable then.
    pub(crate) fn advance(&mut self, t: u64) -> usize {
        let trace = self.trace;
        while trace.writes.get(self.next_write).is_some_and(|w| w.issued <= t) {
            self.loose.push(self.next_write);
            self.next_write += 1;
        }
        // Flushes are listed in the order of their completion.
        let mut issued = None;
        while let Some(flush) = trace.flushes.get(self.next_flush).filter(|f| f.completed <= t) {
            issued = issued.max(Some(flush.issued));
            self.next_flush += 1;
        }
        if let Some(issued) = issued {
            let covered = |at: &usize| trace.writes[*at].completed < issued;
            let mut durable: Vec<usize> = self.loose.iter().copied().filter(covered).collect();
            durable.sort_unstable_by_key(|&at| trace.writes[at].completed);
            for at in durable {
                let write = &trace.writes[at];
                self.durable.write(write.offset, &write.bytes);
            }
            self.loose.retain(|at| !covered(at));
        }
        self.loose.len()
    }

    /// Returns an image of the current moment.
    pub(crate) fn image(&self, class: Class, rng: &mut Rng) -> Pages {
        let mut pages = self.durable.clone();
        let mut loose: Vec<&Write> = self.loose.iter().map(|&at| &self.trace.writes[at]).collect();
        loose.sort_unstable_by_key(|w| (w.completed, w.issued));
        let last = loose.len().saturating_sub(1);
        if matches!(class, Class::Subset | Class::Torn) {
            // Writes that overlap and were in flight together may land in any order.
            rng.shuffle(&mut loose);
        }
        for (n, write) in loose.into_iter().enumerate() {
            let whole = match class {
                Class::Nothing => false,
                Class::Everything => true,
                Class::Newest => n == last,
                Class::AllButOldest => n != 0,
                Class::Subset => rng.bool(),
                Class::Torn => {
                    for (i, sector) in write.bytes.chunks(SECTOR).enumerate() {
                        if rng.bool() {
                            pages.write(write.offset + (i * SECTOR) as u64, sector);
                        }
                    }
                    false
                }
            };
            if whole {
                pages.write(write.offset, &write.bytes);
            }
        }
        pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;

    fn at(pages: &Pages, offset: u64) -> u8 {
        let mut byte = [0];
        pages.read(offset, &mut byte);
        byte[0]
    }

    #[test]
    fn only_what_completed_before_a_flush_was_issued_is_durable() {
        let mut disk = Disk::default();
        let first = disk.issue_write(0, &[1; 512]);
        let second = disk.issue_write(4096, &[2; 512]);
        disk.complete_write(first);
        let flush = disk.issue_flush();
        disk.complete_write(second);
        let before = disk.trace.end - 1;
        disk.complete_flush(flush);
        let trace = disk.trace.clone();
        let mut rng = Rng::with_seed(1);
        let mut cutter = Cutter::new(&trace);
        assert_eq!(cutter.advance(before), 2);
        assert_eq!(at(&cutter.image(Class::Nothing, &mut rng), 0), 0);
        assert_eq!(at(&cutter.image(Class::Everything, &mut rng), 0), 1);
        assert_eq!(cutter.advance(trace.end), 1);
        let image = cutter.image(Class::Nothing, &mut rng);
        assert_eq!((at(&image, 0), at(&image, 4096)), (1, 0));
        let image = cutter.image(Class::Newest, &mut rng);
        assert_eq!((at(&image, 0), at(&image, 4096)), (1, 2));
    }

    #[test]
    fn torn_images_differ_by_sectors() {
        let mut disk = Disk::default();
        let write = disk.issue_write(0, &[7; 8 * SECTOR]);
        disk.complete_write(write);
        let trace = disk.trace.clone();
        let mut cutter = Cutter::new(&trace);
        cutter.advance(trace.end);
        let mut rng = Rng::with_seed(3);
        let torn = (0..100).any(|_| {
            let image = cutter.image(Class::Torn, &mut rng);
            let sectors: Vec<u8> = (0..8).map(|n| at(&image, n * SECTOR as u64)).collect();
            sectors.contains(&0) && sectors.contains(&7)
        });
        assert!(torn);
    }
}
