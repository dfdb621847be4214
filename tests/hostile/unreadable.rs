//! A disk with unreadable sectors: lost records are named, intact ones are found, and a repair
//! removes no readable record.
//!
//! The disk is a loop device whose file was truncated while in use: reads above the new end are I/O
//! errors.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stderr, reason = "tests say what they skip")]

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::mounted::Mounted;
use crate::support::{Temp, read_all, segments, small};
use ringwal::inspect::{Directory, Keep, Survey};
use ringwal::{Error, Lsn, ReadOnlyWal, Wal};

struct Scratched {
    disk: Mounted,
    /// First byte of the disk that will be unreadable.
    from: u64,
    _place: Temp,
}

/// Number of disks created at most, until no other data follows the victim.
const DISKS: u32 = 50;
const BLOCK: usize = 4096;

impl Scratched {
    /// Copies the log to a disk of its own. From the block of `victim` that contains `needle`, only
    /// blocks of `victim` follow on that disk. `None`: the test lacks root, loop devices, or the
    /// programs.
    fn with_copy(log: &Path, victim: &Path, needle: &[u8]) -> Option<Self> {
        for _ in 0..DISKS {
            let place = Temp::new();
            // Without a journal, only file content is written after the first megabytes.
            let options = ["-b", "4096", "-O", "^has_journal"];
            let Some(disk) = Mounted::ext4(&place, 16 << 20, &options) else {
                eprintln!("skipped: a filesystem on a loop device can only be mounted by root");
                return None;
            };
            let mut scratched = Scratched { disk, from: 0, _place: place };
            if let Some(from) = scratched.fill(log, victim, needle) {
                scratched.from = from;
                return Some(scratched);
            }
        }
        panic!("on none of {DISKS} disks does the victim lie behind the others");
    }

    /// Offset on the disk of the victim's block. `None`: other data follows it.
    fn fill(&self, log: &Path, victim: &Path, needle: &[u8]) -> Option<u64> {
        let to = self.log();
        std::fs::create_dir(&to).unwrap();
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()).collect();
        // The file written last lies last, except in areas that ext4 reserves for small files of
        // other processors.
        files.sort_by_key(|path| path == victim);
        for from in &files {
            let to = to.join(from.file_name().unwrap());
            std::fs::copy(from, &to).unwrap();
            std::fs::File::open(&to).unwrap().sync_all().unwrap();
        }
        let content = std::fs::read(&self.disk.image).unwrap();
        let last = content.windows(needle.len()).rposition(|bytes| bytes == needle);
        let from = last.expect("it was written") / BLOCK * BLOCK;
        let mut behind: HashSet<&[u8]> = content[from..].chunks(BLOCK).collect();
        // Ignore the equal content of unused blocks.
        let its_own = std::fs::read(victim).unwrap();
        behind.retain(|block| {
            *block != [0; BLOCK] && !its_own.chunks(BLOCK).any(|own| own == *block)
        });
        let lies_behind = |path: &PathBuf| {
            let content = std::fs::read(path).unwrap();
            content.chunks(BLOCK).any(|block| behind.contains(block))
        };
        let mut others = files.iter().filter(|path| *path != victim);
        (!others.any(lies_behind)).then_some(from as u64)
    }

    fn scratch(&self) {
        let image = std::fs::File::options().write(true).open(&self.disk.image).unwrap();
        image.set_len(self.from).unwrap();
        std::fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
    }

    fn log(&self) -> PathBuf {
        self.disk.path.join("log")
    }
}

fn payload(n: u32) -> Vec<u8> {
    [&n.to_le_bytes()[..], b"needle", &[n as u8; 990]].concat()
}

fn needle(n: u32) -> Vec<u8> {
    payload(n)[..10].to_vec()
}

/// Appends numbered records. Returns their positions.
fn filled(temp: &Temp, count: u32) -> Vec<Lsn> {
    let wal = small(&temp.log()).open().unwrap();
    let lsns = (0..count).map(|n| wal.append_durable(&payload(n)).unwrap()).collect();
    wal.close().unwrap();
    lsns
}

fn surveyed(dir: &Path) -> (Directory, Survey) {
    let log = Directory::open(dir, "wal").unwrap();
    let survey = log.survey(&mut |_| {}).unwrap();
    (log, survey)
}

fn intact(log: &Directory, survey: &Survey) -> Vec<u32> {
    let mut found = Vec::new();
    let all = log.intact_records(survey, &mut |_, bytes| {
        found.push(u32::from_le_bytes(bytes[..4].try_into().unwrap()));
        assert_eq!(bytes, payload(*found.last().unwrap()));
        true
    });
    assert_eq!(all.unwrap().records, found.len() as u64);
    found
}

/// Index of the segment that contains this position.
fn segment_of(files: &[PathBuf], lsn: Lsn) -> usize {
    let base =
        |path: &PathBuf| path.file_name().unwrap().to_str().unwrap()[4..24].parse::<u64>().unwrap();
    files.iter().rposition(|path| base(path) <= lsn.as_u64()).unwrap()
}

fn cannot_be_read(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.raw_os_error() == Some(5))
}

#[test]
fn records_around_an_unreadable_place_are_found_and_those_before_it_kept() {
    let temp = Temp::new();
    let lsns = filled(&temp, 60);
    let files = segments(&temp.log());
    let lost = 30;
    let at = segment_of(&files, lsns[lost]);
    let in_it = |n: &usize| segment_of(&files, lsns[*n]) == at;
    let left = (lost..60).find(|n| !in_it(n)).expect("others follow");
    let Some(disk) = Scratched::with_copy(&temp.log(), &files[at], &needle(lost as u32)) else {
        return;
    };
    disk.scratch();
    let reader = ReadOnlyWal::open(disk.log()).unwrap().reader(Lsn::ZERO).unwrap();
    let refused = reader.map(Result::err).find_map(|e| e).expect("some of it");
    assert!(cannot_be_read(&refused), "it is not damage and not the end: {refused}");

    let (log, survey) = surveyed(&disk.log());
    let [place] = &survey.damage[..] else { panic!("{:?}", survey.damage) };
    assert_eq!(place.found, "the disk cannot read it");
    assert_eq!(Some(place.segment.as_ref()), files[at].file_name().unwrap().to_str());
    assert_eq!((place.records_before, place.records_after), (lost as u64, 60 - left as u64));
    assert_eq!(place.records_lost, Some((left - lost) as u64));
    let expected: Vec<u32> = (0..lost as u32).chain(left as u32..60).collect();
    assert_eq!(intact(&log, &survey), expected);

    let repair = log.plan_repair(&survey, Keep::Before).unwrap().expect("it is damaged");
    assert_eq!(repair.records, lost as u64);
    let kept = repair.apply().unwrap().quarantined;
    assert!(kept.iter().all(|path| path.exists()) && kept.len() > 1, "{kept:?}");
    let wal = small(&disk.log()).open().unwrap();
    let found: Vec<Vec<u8>> = read_all(&wal).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(found, (0..lost as u32).map(payload).collect::<Vec<_>>());
    wal.append_durable(b"and it goes on").unwrap();
}

/// If the last group ends before the unreadable place, the log may have continued there.
#[test]
fn unreadable_place_after_the_last_group_is_reported() {
    let temp = Temp::new();
    let open = |dir: &Path| Wal::builder(dir).segment_size(256 << 10).open().unwrap();
    let wal = open(&temp.log());
    for n in 0..10 {
        wal.append_durable(&payload(n)).unwrap();
    }
    wal.close().unwrap();
    let file = &segments(&temp.log())[0];
    let Some(disk) = Scratched::with_copy(&temp.log(), file, &needle(7)) else { return };
    disk.scratch();
    let refused = ReadOnlyWal::open(disk.log()).map(drop).unwrap_err();
    assert!(cannot_be_read(&refused), "the log may go on there: {refused}");
    let (log, survey) = surveyed(&disk.log());
    let [place] = &survey.damage[..] else { panic!("{:?}", survey.damage) };
    assert_eq!((place.found, place.records_before), ("the disk cannot read it", 7));
    assert_eq!((place.records_lost, place.records_after), (None, 0));
    assert_eq!(intact(&log, &survey), (0..7).collect::<Vec<_>>());
    log.plan_repair(&survey, Keep::Before).unwrap().unwrap().apply().unwrap();
    assert_eq!(read_all(&open(&disk.log())).len(), 7);
}

/// The segment's header is unreadable too.
#[test]
fn unreadable_segment_loses_only_its_own_records() {
    let temp = Temp::new();
    let lsns = filled(&temp, 60);
    let files = segments(&temp.log());
    let at = segment_of(&files, lsns[30]);
    let in_it = |n: &usize| segment_of(&files, lsns[*n]) == at;
    let (first, left) = ((0..60).find(in_it).unwrap(), (30..60).find(|n| !in_it(n)).unwrap());
    let header = std::fs::read(&files[at]).unwrap()[..BLOCK].to_vec();
    let Some(disk) = Scratched::with_copy(&temp.log(), &files[at], &header) else { return };
    disk.scratch();
    assert!(cannot_be_read(&small(&disk.log()).open().map(drop).unwrap_err()));
    let (log, survey) = surveyed(&disk.log());
    let [place] = &survey.damage[..] else { panic!("{:?}", survey.damage) };
    assert_eq!(Some(place.segment.as_ref()), files[at].file_name().unwrap().to_str());
    assert_eq!((place.records_before, place.records_after), (first as u64, 60 - left as u64));
    assert_eq!(place.records_lost, Some((left - first) as u64));
    log.plan_repair(&survey, Keep::Before).unwrap().unwrap().apply().unwrap();
    assert_eq!(read_all(&small(&disk.log()).open().unwrap()).len(), first);
}

/// A plan made when more was readable is refused and loses nothing. A new plan works.
#[test]
fn repair_on_a_disk_that_degrades_is_refused_and_can_be_repeated() {
    let temp = Temp::new();
    let lsns = filled(&temp, 60);
    let files = segments(&temp.log());
    let at = segment_of(&files, lsns[30]);
    let inside: Vec<usize> = (0..60).filter(|n| segment_of(&files, lsns[*n]) == at).collect();
    let [_, worse, .., damaged, _] = inside[..] else { panic!("{inside:?}") };
    let mut bytes = std::fs::read(&files[at]).unwrap();
    let base = lsns[inside[0]].as_u64() / (64 << 10) * (64 << 10);
    bytes[(lsns[damaged].as_u64() - base) as usize + 20] ^= 1;
    std::fs::write(&files[at], bytes).unwrap();
    let needle = needle(worse as u32);
    let Some(disk) = Scratched::with_copy(&temp.log(), &files[at], &needle) else { return };
    let (log, survey) = surveyed(&disk.log());
    assert_eq!(survey.damage[0].records_before, damaged as u64);
    let plan = log.plan_repair(&survey, Keep::Before).unwrap().unwrap();
    let names = || {
        let entries = std::fs::read_dir(disk.log()).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<HashSet<_>>()
    };
    let before = names();
    disk.scratch();
    let refused = plan.apply().map(drop).unwrap_err();
    assert!(refused.to_string().contains("cannot read any more what is to be kept"), "{refused}");
    assert_eq!(names(), before, "nothing was moved");
    let (log, survey) = surveyed(&disk.log());
    assert_eq!(survey.damage[0].records_before, worse as u64);
    log.plan_repair(&survey, Keep::Before).unwrap().unwrap().apply().unwrap();
    let found = read_all(&small(&disk.log()).open().unwrap());
    assert_eq!(found.len(), worse);
}
