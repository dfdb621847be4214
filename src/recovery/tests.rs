//! Recovery when reads fail, when recovery itself is interrupted, and when retention runs
//! meanwhile.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use fastrand::Rng;

use super::{FoundEnd, Walker, find_end, scan};
use crate::engine::recover::recover;
use crate::error::{Error, Result};
use crate::format::{GroupHeader, SegmentHeader};
use crate::io::fs::hooked::{Call, HookedDir, TempPath};
use crate::io::fs::sim::SimDisk;
use crate::io::fs::{Access, Dir, Entry, File, OsDir};
use crate::options::{BackendChoice, Options};
use crate::segment::{Haste, Names, Preparation, zeroes};
use crate::sys::clock::SystemClock;
use crate::wal::Wal;

/// A closed log of three epochs in several segments.
fn closed_log(path: &TempPath) {
    for epoch in 0..3_u8 {
        let builder = Wal::builder(&**path).segment_size(32 << 10).backend(BackendChoice::Std);
        let wal = builder.open().unwrap();
        for n in 0..30 {
            wal.append(&[epoch ^ n; 900]).unwrap();
        }
        wal.close().unwrap();
    }
}

fn judge_through(
    path: &TempPath,
    hook: impl Fn(Call, &str) -> io::Result<()> + Send + Sync + 'static,
) -> Result<FoundEnd> {
    let dir = HookedDir::new(Arc::new(OsDir::open_or_create(path).unwrap()), hook);
    let names = Names::new("wal");
    let found = scan(&dir, &names, &[])?;
    find_end(&dir, &names, &found.segments)
}

fn put(mut file: &std::fs::File, bytes: &[u8], at: u64) {
    use std::io::{Seek, SeekFrom, Write};
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn read_error_during_find_end_is_returned_and_never_taken_for_the_end() {
    let path = TempPath::new();
    closed_log(&path);
    let reads = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&reads);
    let whole = judge_through(&path, move |call, _| {
        count.fetch_add(u32::from(call == Call::Read), Ordering::Relaxed);
        Ok(())
    });
    let whole = whole.unwrap();
    assert!(whole.clean);
    let reads = reads.load(Ordering::Relaxed);
    assert!(reads > 5);
    let end = whole.end;
    for failing in 0..reads {
        let failing_once_or_for_ever = |for_ever: bool| {
            let count = AtomicU32::new(0);
            judge_through(&path, move |call, _| {
                let n = if call == Call::Read { count.fetch_add(1, Ordering::Relaxed) } else { 0 };
                if call == Call::Read && (n == failing || for_ever && n > failing) {
                    return Err(io::Error::from_raw_os_error(crate::sys::os_error::DEVICE_FAILED));
                }
                Ok(())
            })
        };
        let judged = failing_once_or_for_ever(true);
        assert!(matches!(judged, Err(Error::Io { .. })), "read {failing} of {reads}: {judged:?}");
        // A larger read that fails is made again for what is needed.
        match failing_once_or_for_ever(false) {
            Ok(judged) => assert_eq!(judged.end, end, "read {failing} of {reads}"),
            Err(e) => assert!(matches!(e, Error::Io { .. }), "read {failing} of {reads}: {e:?}"),
        }
    }
}

/// A position from a file may be any number. Positions 4 GiB apart stay distinct where a pointer
/// has 32 bits.
#[test]
fn group_at_any_lsn_is_found_only_at_its_own_lsn() {
    const FAR: u64 = 1 << 32;
    let path = TempPath::new();
    let header = SegmentHeader {
        log_id: [7; 16],
        block: 4096,
        size: 3 * FAR,
        base: 3 * FAR,
        max_group: 4096,
        created_at: 0,
        app_version: 0,
    };
    let dir = OsDir::open_or_create(&path).unwrap();
    let file = std::fs::File::create(path.join("segment")).unwrap();
    if file.set_len(header.size).is_err() {
        return; // No sparse files of this length here.
    }
    let places = [header.first_group(), header.first_group() + FAR];
    for lsn in places {
        let mut bytes = [0; 128];
        GroupHeader { log_id: [7; 16], ..GroupHeader::nothing(lsn) }.encode(&mut bytes);
        put(&file, &bytes, lsn - header.base);
    }
    let mut walker = Walker::new(dir.open("segment", Access::Read).unwrap(), header);
    for lsn in places {
        assert_eq!(walker.group(lsn).unwrap().unwrap().lsn, lsn);
        assert!(walker.group(lsn + 2 * FAR).unwrap().is_err());
    }
    let ends = [0, 1, header.base - 1, header.base, header.end() - 128, header.end() - 127];
    let last = [header.end(), 1 << 63, u64::MAX - 128, u64::MAX - 127, u64::MAX - 1, u64::MAX];
    for lsn in ends.into_iter().chain(last) {
        assert!(walker.group(lsn).unwrap().is_err(), "{lsn}");
    }
}

#[test]
fn find_end_reads_past_the_page_cache() {
    let path = TempPath::new();
    closed_log(&path);
    let opened = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&opened);
    let dir = OsDir::open_or_create(&path).unwrap();
    let names = Names::new("wal");
    let found = scan(&dir, &names, &[]).unwrap();
    let dir = HookedDir::new(Arc::new(dir), move |call, _| {
        if let Call::Open(access) = call {
            list.lock().unwrap().push(access);
        }
        Ok(())
    });
    find_end(&dir, &names, &found.segments).unwrap();
    let opened = opened.lock().unwrap();
    assert!(!opened.is_empty() && opened.iter().all(|a| *a == Access::ReadDevice), "{opened:?}");
}

/// The segment has a valid header and nothing else, not even stamps: nothing states where its
/// groups end.
#[test]
#[cfg(target_os = "linux")]
#[allow(clippy::print_stderr, reason = "tests say what they skip")]
fn find_end_in_a_sparse_tebibyte_takes_few_reads() {
    let path = TempPath::new();
    let reads = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = Arc::clone(&reads);
    let dir = HookedDir::new(Arc::new(OsDir::open_or_create(&path).unwrap()), move |call, _| {
        count.fetch_add(u64::from(call == Call::Read), Ordering::Relaxed);
        Ok(())
    });
    let names = Names::new("wal");
    let mut header = SegmentHeader {
        log_id: [7; 16],
        block: 4096,
        size: 1 << 40,
        base: 0,
        max_group: 4096,
        created_at: 0,
        app_version: 0,
    };
    let write = |header: &SegmentHeader, group: Option<u64>| {
        let mut bytes = [0; 128];
        header.encode(&mut bytes);
        let file = std::fs::File::create(path.join(names.segment(header.base))).unwrap();
        put(&file, &bytes, 0);
        if let Some(at) = group {
            let mark = GroupHeader { log_id: [7; 16], durable_end: at, ..GroupHeader::nothing(at) };
            mark.encode(&mut bytes);
            put(&file, &bytes, at);
        }
        file.set_len(header.size)
    };
    if write(&header, None).is_err() {
        // This filesystem has no files of this length.
        return;
    }
    let judged = |header: &SegmentHeader| find_end(&dir, &names, &[*header]);
    assert_eq!(judged(&header).unwrap().end, 4096);
    // A group far inside is found.
    write(&header, Some(header.size - 8192)).unwrap();
    assert!(matches!(judged(&header), Err(Error::Corruption { .. })));
    let reads = reads.load(Ordering::Relaxed);
    assert!(reads < 100, "{reads} reads");
    header.size *= 2;
    write(&header, None).unwrap();
    assert!(matches!(scan(&dir, &names, &[]), Err(Error::Corruption { .. })), "too long a segment");
}

#[test]
fn crash_while_unusable_spares_are_removed_leaves_a_log_that_opens() {
    let names = Names::new("wal");
    let clock = SystemClock::new();
    let opened_with = |disk: &SimDisk, segment_size: u64| {
        let options = Options { segment_size, ..Options::default() };
        recover(&disk.dir(), &names, &options, &clock, [7; 24])
    };
    let with_spares = || {
        let disk = SimDisk::new();
        let dir = disk.dir();
        for base in [0, 1, 2, 3].map(|n| n * (16 << 10)) {
            let header = SegmentHeader {
                log_id: [7; 16],
                block: 4096,
                size: 16 << 10,
                base,
                max_group: 4096,
                created_at: 0,
                app_version: 0,
            };
            let mut preparation = Preparation::new(&names, header, None);
            while preparation.step(&*dir, &names, &zeroes(16 << 10), Haste::Full).unwrap().is_none()
            {
            }
        }
        disk
    };
    let operations = {
        let disk = with_spares();
        let before = disk.operations();
        opened_with(&disk, 32 << 10).unwrap();
        assert!(disk.names().len() < 4, "the spares are of another size");
        disk.operations() - before
    };
    assert!(operations > 6);
    for at in 0..operations {
        for seed in 0..8 {
            let disk = with_spares();
            disk.crash_at(disk.operations() + at);
            assert!(opened_with(&disk, 32 << 10).is_err());
            disk.crash(&mut Rng::with_seed(seed));
            let dir: Arc<dyn Dir> = disk.dir();
            let again = scan(&*dir, &names, &[]);
            assert!(again.is_ok(), "operation {at} of {operations}, seed {seed}: {again:?}");
        }
    }
}

/// A directory with a stale listing: it lacks segments that a writer renamed meanwhile.
#[derive(Debug)]
struct Listed {
    inner: Arc<dyn Dir>,
    entries: Vec<Entry>,
}

impl Dir for Listed {
    fn list(&self) -> io::Result<Vec<Entry>> {
        Ok(self.entries.clone())
    }
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        self.inner.open(name, access)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }
    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }
    fn block_size(&self) -> u32 {
        self.inner.block_size()
    }
    fn path_of(&self, name: &str) -> std::path::PathBuf {
        self.inner.path_of(name)
    }
}

#[test]
fn scan_with_a_stale_listing_finds_every_kept_segment() {
    let path = TempPath::new();
    closed_log(&path);
    let inner: Arc<dyn Dir> = Arc::new(OsDir::open_or_create(&path).unwrap());
    let names = Names::new("wal");
    let entries = inner.list().unwrap();
    let all = scan(&*inner, &names, &[]).unwrap().segments;
    assert!(all.len() > 4, "{}", all.len());
    let scanned = |entries: Vec<Entry>| {
        scan(&Listed { inner: Arc::clone(&inner), entries }, &names, &[]).map(|s| s.segments)
    };
    // A segment that the listing lacks is found by its name, unless it is the newest.
    for header in &all[1..all.len() - 1] {
        let mut entries = entries.clone();
        entries.retain(|entry| entry.name != names.segment(header.base));
        assert_eq!(scanned(entries).unwrap(), all);
    }
    // Retention removed the oldest segments after the listing. It may also lack the segment that is
    // the oldest now.
    for gone in 1..3 {
        inner.remove(&names.segment(all[gone - 1].base)).unwrap();
        assert_eq!(scanned(entries.clone()).unwrap(), all[gone..]);
    }
    let mut lacking = entries.clone();
    lacking.retain(|entry| entry.name != names.segment(all[1].base));
    assert_eq!(scanned(lacking).unwrap(), all[2..]);
    // A lost segment is reported.
    inner.remove(&names.segment(all[3].base)).unwrap();
    let mut lacking = inner.list().unwrap();
    lacking.sort_by(|a, b| a.name.cmp(&b.name));
    match scanned(lacking) {
        Err(Error::Corruption { lsn, reason, .. }) => {
            assert_eq!((lsn.as_u64(), reason), (all[3].base, "the segment is missing"));
        }
        other => panic!("{other:?}"),
    }
}
