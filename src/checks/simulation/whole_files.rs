//! Whole files that are removed, truncated, extended, emptied, renamed, swapped, or as they were at
//! an earlier time: one file, or all up to one, or all from one on.
//!
//! The rule is that of `damage`. Besides, a log whose first segments are missing is never empty:
//! retention removes them only after a later one holds a durable group. Each log is opened with its
//! own settings, and with larger groups and segments.

use super::damage::{Contents, Reference, Seen};
use super::long;
use crate::options::Options;
use crate::segment::Names;

const BLOCK: usize = 4096;

impl Reference {
    fn names(&self) -> Vec<String> {
        self.segments.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Changes the directory's segments, checks the log, and restores them.
    pub(super) fn change(&mut self, what: &str, change: impl FnOnce(&mut Contents)) {
        let sound: Contents = self.segments.iter().cloned().collect();
        let mut changed = sound.clone();
        change(&mut changed);
        if changed == sound {
            return;
        }
        self.put(&sound, &changed);
        let options = self.options.clone();
        let larger = Options {
            segment_size: 2 * options.segment_size,
            ring_capacity: Some(4 * options.segment_size as usize),
            ..options.clone()
        };
        for options in [larger, options] {
            self.options = options;
            self.check(what);
        }
        self.put(&changed, &sound);
    }

    fn put(&self, from: &Contents, to: &Contents) {
        for name in from.keys().filter(|name| !to.contains_key(*name)) {
            self.disk.put(name, None);
        }
        for (name, bytes) in to.iter().filter(|(name, bytes)| from.get(*name) != Some(*bytes)) {
            self.disk.put(name, Some(bytes));
        }
    }

    fn check(&mut self, what: &str) {
        match self.look() {
            Seen::Refused => self.refused += 1,
            Seen::Records { found, .. } if found == self.records => {}
            Seen::Records { found, oldest, end } => {
                let mark = self.newest_mark();
                // If a cut is lost with the end, the records that it made void return.
                let uncut = self.newest_cut() >= mark.max(1);
                let prefix = self.is_prefix(&found, oldest, end);
                assert!(prefix || uncut, "{what}: not a prefix");
                assert!(end >= mark, "{what}: ends at {end}, below the mark {mark}");
                let (base, start) = self.front();
                let empty = base > 0 && end <= start;
                assert!(!empty, "{what}: empty, though its first segments are gone");
                self.cut += 1;
            }
        }
    }

    /// Removes every set of segments.
    fn every_loss(&mut self) {
        let names = self.names();
        for set in 1..(1_u32 << names.len()) {
            let lost = names.iter().enumerate().filter(|(n, _)| set >> n & 1 == 1);
            let lost: Vec<_> = lost.map(|(_, name)| name).collect();
            self.change(&format!("{lost:?} missing"), |files| {
                files.retain(|name, _| !lost.contains(&name));
            });
        }
    }

    fn every_length(&mut self) {
        for (name, sound) in self.segments.clone() {
            let len = sound.len();
            let blocks = (0..=len / BLOCK + 1).map(|n| n * BLOCK);
            let odd =
                [1, 127, 128, 511, 512, 4095, len - 512, len - 1, len + 1, len + 512, 2 * len];
            for to in blocks.chain(odd) {
                self.change(&format!("{name} {to} bytes long"), |files| {
                    files.get_mut(&name).unwrap().resize(to, 0);
                });
            }
            for byte in [0, 0xFF] {
                self.change(&format!("{name} all {byte}"), |files| {
                    files.get_mut(&name).unwrap().fill(byte);
                });
            }
            self.change(&format!("{name} twice"), |files| {
                files.get_mut(&name).unwrap().extend_from_slice(&sound);
            });
        }
    }

    /// Copies and moves every segment to every other's name, and to names before, between and after
    /// them. Swaps every two segments.
    fn every_name(&mut self) {
        let names = self.names();
        let log = Names::new(&self.options.prefix);
        let size = self.options.segment_size;
        let base = |name: &str| name[4..24].parse::<u64>().unwrap();
        let (first, last) = (base(&names[0]), base(&names[names.len() - 1]));
        let foreign =
            [0, first.saturating_sub(size), first + size / 2, last + size, last + 2 * size];
        let places: Vec<_> = names.iter().cloned().chain(foreign.map(|b| log.segment(b))).collect();
        for (from, (old, sound)) in self.segments.clone().into_iter().enumerate() {
            for to in &places {
                self.change(&format!("{old} copied to {to}"), |files| {
                    files.insert(to.clone(), sound.clone());
                });
                self.change(&format!("{old} moved to {to}"), |files| {
                    files.remove(&old);
                    files.insert(to.clone(), sound.clone());
                });
            }
            for (other, content) in self.segments.clone().into_iter().skip(from + 1) {
                self.change(&format!("{old} and {other} swapped"), |files| {
                    files.insert(other, sound.clone());
                    files.insert(old.clone(), content);
                });
            }
        }
    }

    /// Restores segments of every earlier time: one, all up to one, all from one on.
    fn every_earlier_time(&mut self) {
        let names = self.names();
        let step = if long() { 1 } else { self.earlier.len() / 24 + 1 };
        for (time, then) in self.earlier.clone().into_iter().enumerate().rev().step_by(step) {
            for at in 0..names.len() {
                for these in [at..at + 1, 0..at + 1, at..names.len()] {
                    self.change(&format!("segments {these:?} of time {time}"), |files| {
                        for name in &names[these] {
                            if let Some(old) = then.get(name) {
                                files.insert(name.clone(), old.clone());
                            }
                        }
                    });
                }
            }
        }
    }

    /// A file under a temporary name changes no result.
    fn every_temporary(&mut self) {
        let log = Names::new(&self.options.prefix);
        for (name, content) in self.segments.clone() {
            let temporary = log.temporary(name[4..24].parse().unwrap());
            for len in [0, 1, content.len() / 2, content.len()] {
                self.disk.put(&temporary, Some(&content[..len]));
                let Seen::Records { found, .. } = self.look() else {
                    panic!("refused for {temporary}")
                };
                assert!(found == self.records, "{temporary}");
                self.disk.put(&temporary, None);
            }
        }
    }
}

#[test]
fn missing_or_foreign_files_never_shorten_a_log_below_a_mark() {
    for seed in if long() { 20..60 } else { 20..22 } {
        for close in [true, false] {
            let mut reference = Reference::new(seed, close, 16 << 10);
            reference.every_loss();
            reference.every_length();
            reference.every_name();
            reference.every_earlier_time();
            reference.every_temporary();
            let Reference { looks, refused, cut, .. } = reference;
            assert!(refused > looks / 4 && cut > 0, "{refused} of {looks} refused, {cut} cut");
            println!("whole files, closed {close}: {looks} looks, {refused} refused, {cut} cut");
        }
    }
}
