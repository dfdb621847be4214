//! Opens and reads a log in a directory with arbitrary content.
//!
//! 1. Opening and reading return records or a typed error. They never panic or loop for ever, and
//!    never allocate more than one read or the largest group that a file can hold.
//! 2. Every record is in the files, with a right checksum, below the durable end, in order. `read`
//!    returns the same records and no others.
//! 3. Opening twice gives the same result, whether or not the first open wrote anything.
//! 4. If a log opens and is read to its end, it accepts records. After appending, closing and
//!    opening again, the log has the same records and the new ones after them.
//! 5. If a log has damage below its marks and is not read to its end, no other record is ever
//!    returned. A later open may refuse the log, because it starts its search elsewhere.
//! 6. A survey and a repair agree with all of this (`judged`).

use std::sync::Arc;

use super::base::base;
use super::edit::Image;
use super::input::{edits, head};
use super::judged;
use super::life::{Life, options};
use super::look::{Seen, at_the_end, look};
use super::memory::{Files, Memory};
use super::witness::Witness;
use crate::error::Error;
use crate::options::Options;
use crate::recovery::RecoveryReport;

/// Bytes of a read or a preparation at most, unless a group is larger.
const CHUNK: usize = 1 << 20;
const BLOCK: usize = 64 << 10;

/// Returns the files that an input describes, and the options to open them with.
fn scene(input: &[u8]) -> (Files, Options) {
    let ([choice, flags], rest) = head(input);
    let base = base(choice);
    let mut image = Image::new(base);
    for edit in edits(rest) {
        image.apply(&edit);
    }
    if flags & 1 != 0 {
        image.seal(flags & 2 != 0);
    }
    let size = if flags & 4 != 0 { base.segment_size * 2 } else { base.segment_size };
    let mut options = options(size);
    if flags & 8 != 0 {
        options.max_age = Some(std::time::Duration::MAX);
    }
    if flags & 16 != 0 {
        options.max_record_size = Some(10_000);
    }
    (image.files(), options)
}

pub(super) fn run(input: &[u8], largest: impl Fn() -> usize) {
    let (files, options) = scene(input);
    let allowed = CHUNK.max(largest_group(&files)) + BLOCK;
    largest();
    let memory = Memory::new(&files);
    let seen = look(&memory, &options);
    let taken = largest();
    assert!(taken <= allowed, "{taken} bytes allocated at once, {allowed} allowed");

    let again = look(&Memory::new(&files), &options);
    match (&seen, &again) {
        (Ok(a), Ok(b)) => {
            assert_eq!(format!("{:?}", a.report), format!("{:?}", b.report), "opened twice");
            assert!(a.records == b.records && same_error(&a.error, &b.error), "read twice");
        }
        (Err(a), Err(b)) => assert_eq!(a.to_string(), b.to_string(), "opened twice"),
        _ => panic!("opens once"),
    }
    judged::check(&files, &options, &seen);
    let Ok(seen) = seen else { return };
    let witness = Witness::new(&files);
    witness.check_segments();
    if let Some(Error::Corruption { lsn, .. }) = &seen.error {
        let mark = witness.newest_mark();
        assert!(lsn.as_u64() < mark, "damage at {lsn}, above every mark ({mark}), is not cut");
    }
    for (lsn, payload) in &seen.records {
        witness.check(*lsn, payload);
    }
    // The first open stopped before its epoch, so the second must find the same.
    match look(&memory, &options) {
        Ok(second) if seen.error.is_some() => assert!(one_begins_the_other(&second, &seen)),
        Ok(second) => {
            assert_eq!(place(&second.report), place(&seen.report), "opened after one that stopped");
            assert!(second.records == seen.records && second.error.is_none(), "other records");
        }
        Err(Error::NoSpace) => {}
        Err(e) => assert!(seen.error.is_some(), "opened once, and then: {e}"),
    }
    go_on(&Memory::new(&files), &options, &seen);
}

/// Whether one result is a prefix of the other. If headers contradict each other, a later open may
/// find another end.
fn one_begins_the_other(a: &Seen, b: &Seen) -> bool {
    a.records.starts_with(&b.records) || b.records.starts_with(&a.records)
}

/// The bytes of the largest group that a header states and the file can hold.
fn largest_group(files: &Files) -> usize {
    let of = |content: &super::memory::Content| {
        let stated = super::repair::u32_at(&content.read(0, 128), 64) as usize;
        stated.min(content.len as usize)
    };
    files.values().map(of).max().unwrap_or(0)
}

fn place(report: &RecoveryReport) -> (u64, u64, u64) {
    (report.oldest.as_u64(), report.durable_end.as_u64(), report.next_ordinal)
}

fn same_error(a: &Option<Error>, b: &Option<Error>) -> bool {
    a.as_ref().map(Error::to_string) == b.as_ref().map(Error::to_string)
}

/// Appends records, closes the log, and opens it again.
fn go_on(memory: &Arc<Memory>, options: &Options, seen: &Seen) {
    let at_the_end = at_the_end(&memory.files());
    let mut life = match Life::open(memory, options, 8) {
        Ok(life) => life,
        Err(Error::NoSpace) if at_the_end => return,
        Err(e) => panic!("it was opened and does not start: {e}"),
    };
    let mut expected = seen.records.clone();
    let longest = vec![5; life.max_record];
    for records in [vec![b"one".to_vec()], vec![vec![1; 40], vec![2; 400]], vec![longest]] {
        let mut lsn = match life.append(&records) {
            Ok(lsn) => lsn,
            Err(Error::NoSpace) if at_the_end => break,
            Err(e) => panic!("an open log refuses records: {e}"),
        };
        for record in records {
            let behind = lsn + crate::format::item_size(record.len());
            expected.push((lsn, record));
            lsn = behind;
        }
    }
    life.make_durable().expect("nothing fails in memory");
    life.close().expect("nothing fails in memory");
    match (look(memory, options), &seen.error) {
        (Ok(after), None) => {
            assert!(after.report.clean || at_the_end, "it was closed");
            assert!(after.error.is_none(), "reading on says: {:?}", after.error);
            assert!(after.records == expected, "other records than before, and the new ones");
        }
        (Ok(after), Some(_)) => {
            let old =
                after.records.iter().filter(|(lsn, _)| *lsn < seen.report.durable_end.as_u64());
            let old: Vec<_> = old.collect();
            assert!(old.into_iter().zip(&seen.records).all(|(a, b)| a == b), "other records");
        }
        (Err(Error::NoSpace), None) if at_the_end => {}
        (Err(e), None) => panic!("a closed log does not open: {e}"),
        (Err(_), Some(_)) => {}
    }
}
