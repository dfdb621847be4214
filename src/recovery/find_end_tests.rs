//! `find_end` on logs written group by group: each case of docs/recovery.md from `@B` on, at its
//! bounds.

use super::find_end::EndFinder;
use super::{FoundEnd, RecoveryCase, find_end, scan};
use crate::error::{Error, Result};
use crate::format::{
    EpochId, Flags, GROUP_HEADER, GroupHeader, KIND_DATA, Link, RECORD_HEADER, SEGMENT_HEADER,
    Seed, SegmentHeader, stamp, stored_size,
};
use crate::io::fs::sim::SimDisk;
use crate::io::fs::{Access, write_full};
use crate::segment::Names;

const BLOCK: u64 = 4096;
const SIZE: u64 = 64 << 10;
const ID: [u8; 16] = [5; 16];
const FIRST: EpochId = EpochId { counter: 1, nonce: 11 };
const SECOND: EpochId = EpochId { counter: 2, nonce: 22 };

/// A log on a simulated disk, and the last group of its chain.
struct Made {
    disk: SimDisk,
    names: Names,
    link: Link,
    epoch: EpochId,
}

impl Made {
    /// Creates segments `from..to`, without a group.
    fn new(from: u64, to: u64) -> Self {
        let made = Made {
            disk: SimDisk::new(),
            names: Names::new("wal"),
            link: Link::START,
            epoch: FIRST,
        };
        for n in from..to {
            let header = SegmentHeader {
                log_id: ID,
                block: BLOCK as u32,
                size: SIZE,
                base: n * SIZE,
                max_group: 2 * BLOCK as u32,
                created_at: 0,
                app_version: 0,
            };
            let mut bytes = vec![0; SIZE as usize];
            header.encode(bytes.first_chunk_mut::<SEGMENT_HEADER>().unwrap());
            let file = made.disk.dir().open(&made.names.segment(header.base), Access::Create);
            write_full(&*file.unwrap(), &bytes, 0).unwrap();
        }
        made
    }

    /// Writes a group with one record of `len` bytes, or a control group if `len` is 0. Unless
    /// `change` alters it, the group follows the last one and marks everything before it as
    /// durable.
    fn put(&mut self, lsn: u64, len: usize, change: impl FnOnce(&mut GroupHeader)) -> GroupHeader {
        let mut header = GroupHeader {
            log_id: ID,
            epoch: self.epoch,
            durable_end: lsn,
            prev: self.link.lsn,
            prev_hash: self.link.hash,
            first_ordinal: self.link.next_ordinal,
            ..GroupHeader::nothing(lsn)
        };
        if len > 0 {
            header.records = 1;
            header.used += stored_size(len) as u32;
        }
        change(&mut header);
        let mut bytes = vec![0; header.used as usize];
        header.encode(bytes.first_chunk_mut().unwrap());
        if header.used > GROUP_HEADER {
            let record = &mut bytes[GROUP_HEADER as usize..];
            let payload = record.len() - RECORD_HEADER;
            let payload = payload - (payload - len) % 8;
            record[RECORD_HEADER..RECORD_HEADER + payload].fill(7);
            let sum = Seed::new(&ID).sum(&record[RECORD_HEADER..RECORD_HEADER + payload]);
            sum.write_header(record, lsn + 128, KIND_DATA, header.epoch.tag());
        }
        self.write(lsn, &bytes);
        self.link = header.link();
        header
    }

    fn begin(&mut self) {
        self.put(BLOCK, 0, |h| h.flags = Flags::EPOCH);
    }

    fn write(&self, lsn: u64, bytes: &[u8]) {
        let name = self.names.segment(lsn / SIZE * SIZE);
        let file = self.disk.dir().open(&name, Access::Write).unwrap();
        write_full(&*file, bytes, lsn % SIZE).unwrap();
    }

    fn find_end(&self) -> Result<FoundEnd> {
        let dir = self.disk.dir();
        let found = scan(&*dir, &self.names, &[])?;
        find_end(&*dir, &self.names, &found.segments)
    }

    fn end(&self) -> (RecoveryCase, u64) {
        let judged = self.find_end().unwrap();
        (judged.case, judged.end)
    }

    /// The LSN of the reported damage.
    fn damaged_at(&self) -> u64 {
        match self.find_end() {
            Err(Error::Corruption { segment, offset, lsn, .. }) => {
                assert_eq!(segment, self.names.segment(lsn.as_u64() - offset));
                lsn.as_u64()
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn segments_without_a_group_are_an_empty_log_unless_a_mark_proves_otherwise() {
    let mut made = Made::new(0, 2);
    let judged = made.find_end().unwrap();
    assert_eq!((judged.case, judged.end, judged.active), (RecoveryCase::Unwritten, BLOCK, 0));
    assert_eq!((judged.link, judged.proven, judged.discarded), (Link::START, 0, 0));
    assert_eq!((judged.highest_epoch, judged.clean), (0, false));
    // A group after the first block, whose mark proves nothing.
    made.put(3 * BLOCK, 9, |h| h.durable_end = BLOCK);
    let judged = made.find_end().unwrap();
    assert_eq!((judged.case, judged.end), (RecoveryCase::Unwritten, BLOCK));
    assert_eq!((judged.highest_epoch, judged.discarded), (1, 3 * BLOCK));
    // A group whose mark proves that something was durable.
    made.link = Link::START;
    made.put(3 * BLOCK, 9, |h| h.durable_end = BLOCK + 1);
    assert_eq!(made.damaged_at(), BLOCK);
}

/// Retention removes a segment only after a group in a later one is durable, and a log begins at 0.
#[test]
fn spares_without_the_first_segment_are_corruption() {
    let mut made = Made::new(1, 3);
    assert_eq!(made.damaged_at(), SIZE + BLOCK);
    // The same holds with a group whose mark proves nothing.
    made.put(SIZE + 3 * BLOCK, 9, |h| h.durable_end = BLOCK);
    assert_eq!(made.damaged_at(), SIZE + BLOCK);
}

#[test]
fn chain_end_is_reported_as_whole_marked_or_clean() {
    let mut made = Made::new(0, 2);
    made.begin();
    let last = made.put(2 * BLOCK, 5000, |_| ());
    let judged = made.find_end().unwrap();
    assert_eq!((judged.case, judged.end, judged.active), (RecoveryCase::Whole, 4 * BLOCK, 0));
    assert_eq!((judged.link, judged.proven), (last.link(), 2 * BLOCK));
    assert_eq!((judged.discarded, judged.highest_epoch, judged.clean), (0, 1, false));
    assert_eq!(judged.link.next_ordinal, 1);
    made.put(4 * BLOCK, 0, |h| h.flags = Flags::RETENTION);
    assert_eq!(made.end(), (RecoveryCase::Whole, 5 * BLOCK));
    made.put(5 * BLOCK, 0, |h| h.flags = Flags::IDLE_SEAL);
    assert_eq!(made.end(), (RecoveryCase::Marked, 6 * BLOCK));
    assert!(!made.find_end().unwrap().clean);
    made.put(6 * BLOCK, 0, |h| h.flags = Flags::CLEAN_CLOSE);
    assert_eq!(made.end(), (RecoveryCase::Marked, 7 * BLOCK));
    assert!(made.find_end().unwrap().clean);
}

#[test]
fn mark_after_a_break_decides_between_torn_and_damaged() {
    for (mark, damaged) in [(3 * BLOCK, false), (3 * BLOCK + 1, true), (4 * BLOCK, true)] {
        let mut made = Made::new(0, 2);
        made.begin();
        made.put(2 * BLOCK, 9, |_| ());
        made.put(3 * BLOCK, 9, |h| h.durable_end = 2 * BLOCK);
        made.put(4 * BLOCK, 9, |h| h.durable_end = mark);
        assert_eq!(made.end(), (RecoveryCase::Whole, 5 * BLOCK));
        made.write(3 * BLOCK, &[0; 512]);
        if damaged {
            assert_eq!(made.damaged_at(), 3 * BLOCK);
        } else {
            let judged = made.find_end().unwrap();
            assert_eq!((judged.case, judged.end), (RecoveryCase::Torn, 3 * BLOCK));
            assert_eq!((judged.discarded, judged.proven, judged.clean), (2 * BLOCK, mark, false));
        }
    }
}

#[test]
fn records_from_the_mark_on_are_checked_and_those_below_are_not() {
    for (mark, end) in [(3 * BLOCK, 3 * BLOCK), (4 * BLOCK, 5 * BLOCK)] {
        let mut made = Made::new(0, 1);
        made.begin();
        made.put(2 * BLOCK, 9, |_| ());
        made.put(3 * BLOCK, 9, |h| h.durable_end = 2 * BLOCK);
        made.put(4 * BLOCK, 9, |h| h.durable_end = mark);
        made.write(3 * BLOCK + 140, &[8]);
        let torn = end == 3 * BLOCK;
        let judged = made.find_end().unwrap();
        assert_eq!(judged.end, end);
        assert_eq!(judged.case == RecoveryCase::Torn, torn);
        assert_eq!(judged.discarded, if torn { 2 * BLOCK } else { 0 });
    }
    // The first group cannot be discarded: its predecessor was durable and is gone.
    let mut made = Made::new(1, 2);
    made.link = Link { lsn: BLOCK, hash: 3, epoch: FIRST, next_ordinal: 5, last_cut: 0 };
    made.put(SIZE + BLOCK, 9, |h| (h.durable_end, h.oldest) = (SIZE, SIZE));
    made.write(SIZE + BLOCK + 140, &[8]);
    assert_eq!(made.damaged_at(), SIZE + BLOCK);
}

#[test]
fn mark_of_an_older_epoch_after_a_break_is_ignored() {
    // Epoch of the group after the break, and whether its mark is evidence.
    let another = EpochId { nonce: 99, ..SECOND };
    for (epoch, counts) in
        [(FIRST, false), (SECOND, true), (another, false), (EpochId { counter: 3, nonce: 1 }, true)]
    {
        let mut made = Made::new(0, 1);
        made.begin();
        made.epoch = SECOND;
        made.put(2 * BLOCK, 0, |h| h.flags = Flags::EPOCH);
        made.put(4 * BLOCK, 9, |h| h.epoch = epoch);
        if counts {
            assert_eq!(made.damaged_at(), 3 * BLOCK, "{epoch:?}");
        } else {
            assert_eq!(made.find_end().unwrap().end, 3 * BLOCK, "{epoch:?}");
        }
    }
}

/// The first group of the next segment was torn, and the next epoch found room before it. The torn
/// group still repeats the hash of the last group before the end.
#[test]
fn damaged_epoch_group_is_not_bypassed_by_way_of_the_next_segment() {
    let mut made = Made::new(0, 2);
    made.begin();
    let last = made.put(2 * BLOCK, 9, |_| ());
    let torn = made.put(SIZE + BLOCK, 9, |h| h.durable_end = 3 * BLOCK);
    made.write(torn.lsn + 140, &[8]);
    assert_eq!(made.end(), (RecoveryCase::Torn, 3 * BLOCK));
    made.link = last.link();
    made.epoch = SECOND;
    made.put(3 * BLOCK, 0, |h| h.flags = Flags::EPOCH);
    made.put(4 * BLOCK, 9, |_| ());
    made.put(5 * BLOCK, 9, |_| ());
    assert_eq!(made.end(), (RecoveryCase::Whole, 6 * BLOCK));
    made.write(3 * BLOCK, &[0; 512]);
    assert_eq!(made.damaged_at(), 3 * BLOCK);
    // Marks of the epoch left there, and marks up to the end, prove no damage.
    let mut made = Made::new(0, 2);
    made.begin();
    let last = made.put(2 * BLOCK, 9, |_| ());
    made.put(4 * BLOCK, 9, |h| h.durable_end = 3 * BLOCK);
    made.link = last.link();
    made.epoch = SECOND;
    made.put(SIZE + BLOCK, 0, |h| (h.durable_end, h.flags) = (3 * BLOCK, Flags::EPOCH));
    made.put(SIZE + 2 * BLOCK, 9, |_| ());
    assert_eq!(made.end(), (RecoveryCase::Whole, SIZE + 3 * BLOCK));
}

/// The error names the damaged place, whether or not the segment before it was full.
#[test]
fn damaged_first_group_of_a_segment_is_reported_in_that_segment() {
    for full in [true, false] {
        let mut made = Made::new(0, 3);
        made.begin();
        for lsn in (2..SIZE / BLOCK - u64::from(!full)).map(|n| n * BLOCK) {
            made.put(lsn, 9, |_| ());
        }
        let last = made.link.lsn;
        for lsn in [1, 2, 3].map(|n| SIZE + n * BLOCK) {
            made.put(lsn, 9, |h| {
                h.durable_end = if lsn == SIZE + BLOCK { last + BLOCK } else { lsn }
            });
        }
        made.write(SIZE + BLOCK, &[0; 512]);
        assert_eq!(made.damaged_at(), SIZE + BLOCK, "full: {full}");
        // If a header was begun in the segment before, that group is the damaged one.
        let mut made = Made::new(0, 3);
        made.begin();
        made.put(2 * BLOCK, 9, |_| ());
        made.put(SIZE + BLOCK, 9, |h| h.durable_end = 3 * BLOCK);
        made.put(SIZE + 2 * BLOCK, 9, |_| ());
        made.write(2 * BLOCK + 8, &[1]);
        assert_eq!(made.damaged_at(), 2 * BLOCK);
    }
}

#[test]
fn next_epoch_exceeds_the_epochs_of_discarded_groups() {
    let mut made = Made::new(0, 2);
    made.begin();
    made.put(4 * BLOCK, 9, |h| (h.epoch.counter, h.durable_end) = (9, BLOCK));
    made.put(SIZE + BLOCK, 9, |h| (h.epoch.counter, h.durable_end) = (7, BLOCK));
    let judged = made.find_end().unwrap();
    assert_eq!((judged.end, judged.highest_epoch), (2 * BLOCK, 9));
    let options = crate::options::Options { segment_size: SIZE, ..Default::default() };
    let clock = crate::sys::clock::SystemClock::new();
    let dir = made.disk.dir();
    let recovered =
        crate::engine::recover::recover(&dir, &made.names, &options, &clock, [1; 24]).unwrap();
    assert_eq!(recovered.report.epoch, 10);
}

#[test]
fn discarded_group_of_an_old_epoch_does_not_hide_groups_inside_it() {
    let mut made = Made::new(0, 1);
    made.begin();
    made.epoch = SECOND;
    made.put(2 * BLOCK, 0, |h| h.flags = Flags::EPOCH);
    // A group of an old epoch over two blocks, and a newer group over the second of them.
    made.put(4 * BLOCK, 5000, |h| (h.epoch, h.durable_end) = (FIRST, BLOCK));
    made.put(5 * BLOCK, 9, |_| ());
    assert_eq!(made.damaged_at(), 3 * BLOCK);
}

#[test]
fn later_segments_are_searched_in_every_block_that_no_stamp_excludes() {
    let judged = |stamped: Option<u64>, lsn: u64| {
        let mut made = Made::new(0, 2);
        made.begin();
        for n in stamped.into_iter().flat_map(|first| first..SIZE / BLOCK) {
            let at = SIZE + n * BLOCK;
            made.write(at, &stamp(at, &ID));
        }
        made.put(lsn, 9, |h| h.prev_hash ^= 1);
        made.find_end().is_err()
    };
    // The walk would begin at a first group that marks everything before it as durable. So start at
    // 2.
    for n in 2..SIZE / BLOCK {
        assert!(judged(None, SIZE + n * BLOCK), "{n}");
    }
    for first in 1..SIZE / BLOCK - 1 {
        for n in first + 1..SIZE / BLOCK {
            // The group replaced its own stamp, so the stamps before it prove nothing.
            assert!(judged(Some(first), SIZE + n * BLOCK), "{first} {n}");
        }
    }
    let lost = 3;
    // After the first intact stamp, the search covers the largest group and one stride.
    let mut made = Made::new(0, 2);
    made.begin();
    for n in 2..SIZE / BLOCK {
        let at = SIZE + n * BLOCK;
        made.write(at, &stamp(at, &ID));
    }
    made.put(SIZE + BLOCK, 9, |_| ());
    let untouched = Made::new(0, 2);
    let end = |made: &Made| {
        let dir = made.disk.dir();
        let found = scan(&*dir, &made.names, &[]).unwrap();
        EndFinder { dir: &*dir, names: &made.names, segments: &found.segments }
            .written_end(1, SIZE + BLOCK)
            .unwrap()
    };
    assert_eq!(end(&untouched), 2 * SIZE);
    assert_eq!(end(&made), SIZE + (2 + lost) * BLOCK);
    // A stamp of another place or log proves nothing.
    made.write(2 * SIZE - BLOCK, &stamp(SIZE, &ID));
    assert_eq!(end(&made), 2 * SIZE);
    made.write(2 * SIZE - BLOCK, &stamp(2 * SIZE - BLOCK, &[6; 16]));
    assert_eq!(end(&made), 2 * SIZE);
}

#[test]
fn walk_starts_at_the_newest_mark() {
    let chain = |mark: u64| {
        let mut made = Made::new(0, 3);
        made.begin();
        made.put(2 * BLOCK, 9, |_| ());
        made.put(SIZE + BLOCK, 9, |h| h.durable_end = mark);
        made.put(SIZE + 2 * BLOCK, 9, |h| h.durable_end = mark);
        made
    };
    assert_eq!(chain(3 * BLOCK).end(), (RecoveryCase::Whole, SIZE + 3 * BLOCK));
    // Damage to the first segment's first group matters only if the last durable byte lies in that
    // segment.
    for (mark, needed) in [(3 * BLOCK, true), (SIZE, true), (SIZE + 1, false)] {
        let made = chain(mark);
        made.write(BLOCK, &[0; 512]);
        if needed {
            assert_eq!(made.damaged_at(), BLOCK);
        } else {
            assert_eq!(made.find_end().unwrap().active, 1);
        }
    }
}

#[test]
fn missing_first_segment_is_corruption_unless_a_group_states_its_removal() {
    for (oldest, damaged) in [(SIZE, false), (0, true)] {
        let mut made = Made::new(1, 2);
        made.link = Link { lsn: BLOCK, hash: 3, epoch: FIRST, next_ordinal: 5, last_cut: 0 };
        let lsn = SIZE + BLOCK;
        made.put(lsn, 9, |h| (h.durable_end, h.oldest) = (lsn, oldest));
        made.put(lsn + BLOCK, 9, |h| h.oldest = oldest);
        if damaged {
            assert_eq!(made.damaged_at(), 0);
        } else {
            let judged = made.find_end().unwrap();
            assert_eq!((judged.end, judged.stated_oldest), (lsn + 2 * BLOCK, SIZE));
        }
    }
}
