//! Side files are advice: a missing, stale, foreign, unreadable or unwritable one changes speed,
//! never results.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use ringwal::inspect::{Directory, Keep};
use ringwal::{Durability, Error, Lsn, ReadOnlyWal, Wal};

use crate::child::{self, case_and_directory, in_a_process};
use crate::skip;
use crate::support::{Temp, eventually, segments, small};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

fn payload(n: u32) -> Vec<u8> {
    n.to_le_bytes().repeat(100)
}

fn fill(wal: &Wal, from: u32, to: u32) {
    for n in from..to {
        wal.append(&payload(n)).unwrap();
    }
    wal.sync().unwrap();
}

fn count(dir: &Path) -> usize {
    let log = ReadOnlyWal::open(dir).unwrap();
    log.reader(Lsn::ZERO).unwrap().inspect(|record| assert!(record.is_ok(), "{record:?}")).count()
}

/// Creates a directory with hard links to the same files.
fn link_all(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::hard_link(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// CRC-32 of docs/format.md.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc: u32, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 }
        })
    })
}

/// Changes numbers in the end file, in place and with a valid checksum.
fn forge(dir: &Path, fields: &[(usize, u64)]) {
    let path = dir.join("wal.end");
    let mut bytes = std::fs::read(&path).unwrap();
    for &(at, value) in fields {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    let sum = crc(&bytes[8..]);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&bytes, 0).unwrap();
}

fn said_end(dir: &Path) -> u64 {
    u64::from_le_bytes(*std::fs::read(dir.join("wal.end")).unwrap()[40..].first_chunk().unwrap())
}

/// The file with the last group, and the group's offset in it.
fn last_group(dir: &Path) -> (std::path::PathBuf, u64) {
    let mut last = None;
    for path in segments(dir) {
        let bytes = std::fs::read(&path).unwrap();
        for at in (4096..bytes.len()).step_by(4096) {
            if bytes[at..].starts_with(b"RWGp") {
                last = Some((path.clone(), at as u64));
            }
        }
    }
    last.unwrap()
}

fn zero_last_group(dir: &Path) {
    let (path, at) = last_group(dir);
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0; 4096], at).unwrap();
}

/// Replaces the kernel's boot id for this process. False: this needs root.
fn other_boot(dir: &Path, id: &str) -> bool {
    let with = dir.parent().unwrap().join("boot_id");
    std::fs::write(&with, id).unwrap();
    let none = None::<&str>;
    let done = unshare(CloneFlags::CLONE_NEWNS).and_then(|()| {
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some(&with), BOOT_ID, none, MsFlags::MS_BIND, none)
    });
    if let Err(e) = done {
        skip(&format!("another boot id needs root and mounts: {e}"));
    }
    done.is_ok()
}

fn unsynced(dir: &Path) -> Wal {
    // One segment, so no rotation syncs it. A small ring, so groups are written when it is full.
    let manual = Wal::builder(dir).segment_size(8 << 20).durability(Durability::Manual);
    manual
        .ring_capacity(64 << 10)
        .max_record_size(1000)
        .idle_seal(Duration::from_secs(3600))
        .open()
        .unwrap()
}

/// Checks that an outside reader finds no record, beside a writer with 1000 records that are
/// written and not durable.
fn nothing_is_durable(dir: &Path) {
    let log = ReadOnlyWal::open(dir).unwrap();
    let mut follow = log.follow(Lsn::ZERO).unwrap();
    assert!(follow.next_timeout(Duration::from_millis(50)).unwrap().is_none());
    assert_eq!(count(dir), 0);
}

/// The child of [`in_a_process`].
#[test]
fn case() {
    let Some((case, dir)) = case_and_directory() else { return };
    match case.as_str() {
        "a writer without a boot id" => {
            if other_boot(&dir, "") {
                let wal = small(&dir).open().unwrap();
                fill(&wal, 2, 1000);
                assert_eq!(count(&dir), 1000);
                wal.close().unwrap();
                assert_eq!(count(&dir), 1000);
            }
        }
        "a reader of another boot" => {
            if other_boot(&dir, "01234567-89ab-cdef-0123-456789abcdef\n") {
                nothing_is_durable(&dir);
            }
        }
        "killed" => {
            let wal = small(&dir).open().unwrap();
            fill(&wal, 0, 500);
            // SAFETY: ends the process at once, as a kill does.
            unsafe { libc::_exit(0) };
        }
        "a word of another user" => {
            if !child::become_nobody() {
                skip("a file of another user needs root");
                return;
            }
            let wal = small(&dir).open().unwrap();
            fill(&wal, 2, 1000);
            // The idle seal's mark proves the last group's records durable.
            eventually("everything is seen", || count(&dir) == 1000);
            wal.close().unwrap();
            assert_eq!(count(&dir), 1000);
        }
        "no inotify instance is left" => {
            use nix::sys::inotify::{InitFlags, Inotify};
            let taken: Vec<_> = std::iter::from_fn(|| Inotify::init(InitFlags::empty()).ok())
                .take(100_000)
                .collect();
            assert!(!taken.is_empty() && Inotify::init(InitFlags::empty()).is_err());
            let wal = small(&dir).open().unwrap();
            fill(&wal, 0, 2);
            let log = ReadOnlyWal::open(&dir).unwrap();
            let mut follow = log.follow(wal.durable_end()).unwrap();
            let switches =
                || getrusage(UsageWho::RUSAGE_THREAD).unwrap().voluntary_context_switches();
            let before = switches();
            assert!(follow.next_timeout(Duration::from_secs(3)).unwrap().is_none());
            let woken = switches() - before;
            assert!(woken < 300, "it woke {woken} times in three seconds");
            std::thread::scope(|scope| {
                scope.spawn(|| fill(&wal, 2, 10));
                for n in 2..10 {
                    let record = follow.next_timeout(Duration::from_secs(60)).unwrap();
                    assert_eq!(record.expect("durable").payload, payload(n));
                }
            });
        }
        _ => panic!("{case}"),
    }
}

#[test]
fn end_file_with_two_links_is_replaced_before_the_next_append() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    fill(&wal, 0, 2);
    wal.close().unwrap();
    link_all(&temp.log(), &temp.path().join("backup"));
    let old = ReadOnlyWal::open(temp.log()).unwrap();
    // The test reads the log's end twice, so no idle seal may come between.
    let wal = small(&temp.log()).idle_seal(Duration::MAX).open().unwrap();
    fill(&wal, 2, 1002);
    assert_eq!(count(&temp.log()), 1002);
    assert_eq!(old.durable_end().unwrap(), wal.durable_end());
    wal.close().unwrap();
    assert_eq!(count(&temp.log()), 1002);
    let survey = Directory::open(temp.log(), "wal").unwrap().survey(&mut |_| {}).unwrap();
    assert!(survey.damage.is_empty() && survey.records == 1002);
}

/// A directory of hard links to a log that continues. Its end file belongs to another directory,
/// and proves nothing.
#[test]
fn end_file_of_another_directory_is_ignored() {
    let temp = Temp::new();
    let (backup, copy) = (temp.path().join("backup"), temp.path().join("copy"));
    let wal = small(&temp.log()).open().unwrap();
    fill(&wal, 0, 20);
    link_all(&temp.log(), &backup);
    fill(&wal, 20, 1000);
    assert!(count(&backup) >= 20);
    wal.close().unwrap();
    drop(small(&temp.log()).open().unwrap());
    assert!((20..1000).contains(&count(&backup)));
    // A copy without the last segment.
    crate::support::copy_dir(&temp.log(), &copy);
    let last = segments(&copy).into_iter().rev();
    for path in last {
        let held = std::fs::read(&path).unwrap()[4096..].starts_with(b"RWGp");
        std::fs::remove_file(path).unwrap();
        if held {
            break;
        }
    }
    assert!(count(&copy) > 20);
    drop(small(&copy).open().unwrap());
}

#[test]
fn stale_end_file_never_shortens_a_log() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    fill(&wal, 0, 2);
    let stale = wal.durable_end().as_u64();
    fill(&wal, 2, 500);
    wal.close().unwrap();
    forge(&temp.log(), &[(40, stale)]);
    assert_eq!(count(&temp.log()), 500);
    // Damage above the stale end must not pass for the log's end.
    let (path, at) = last_group(&temp.log());
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xaa; 64], at - 4096).unwrap();
    let log = Directory::open(temp.log(), "wal").unwrap();
    let survey = log.survey(&mut |_| {}).unwrap();
    assert!(survey.records > 400, "{} records", survey.records);
    if let Some(plan) = log.plan_repair(&survey, Keep::Before).unwrap() {
        assert!(plan.records > 400, "{} records are kept", plan.records);
        plan.apply().unwrap();
    }
    assert!(count(&temp.log()) > 400);
}

#[test]
fn log_of_a_writer_without_a_boot_id_is_read_to_its_end() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    fill(&wal, 0, 2);
    wal.close().unwrap();
    in_a_process("a writer without a boot id", &temp.log());
}

#[test]
fn end_file_of_another_user_never_shortens_a_log() {
    for sticky in [false, true] {
        let temp = Temp::new();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let wal = small(&temp.log()).open().unwrap();
        fill(&wal, 0, 2);
        wal.close().unwrap();
        if !nix::unistd::geteuid().is_root() {
            return skip("a file of another user needs root");
        }
        mode(temp.path(), 0o755);
        for entry in std::fs::read_dir(temp.log()).unwrap() {
            let path = entry.unwrap().path();
            if !path.ends_with("wal.end") {
                chown(&path, Some(65534), Some(65534)).unwrap();
            }
        }
        if !sticky {
            chown(temp.log(), Some(65534), Some(65534)).unwrap();
        }
        mode(&temp.log(), if sticky { 0o1777 } else { 0o755 });
        in_a_process("a word of another user", &temp.log());
        assert_eq!(count(&temp.log()), 1000);
    }
}

#[test]
fn log_without_an_end_file_is_read_up_to_its_proven_end() {
    let temp = Temp::new();
    let wal = unsynced(&temp.log());
    for n in 0..1000 {
        wal.append(&payload(n)).unwrap();
    }
    eventually("much of it is written", || last_group(&temp.log()).1 > 100_000);
    nothing_is_durable(&temp.log());
    in_a_process("a reader of another boot", &temp.log());
    std::fs::remove_file(temp.log().join("wal.end")).unwrap();
    nothing_is_durable(&temp.log());
    std::fs::remove_file(temp.log().join("wal.commit")).unwrap_or_default();
    let log = ReadOnlyWal::open(temp.log()).unwrap();
    let mut follow = log.follow(Lsn::ZERO).unwrap();
    assert!(follow.try_next().unwrap().is_none());
    // Records below a later group's mark are durable, and are read.
    wal.sync().unwrap();
    wal.append(b"says so").unwrap();
    wal.sync().unwrap();
    for n in 0..1000 {
        let record = follow.next_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(record.expect("durable").payload, payload(n));
    }
    wal.close().unwrap();
    let last = follow.next_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(last.expect("durable").payload, b"says so");
}

fn is_early(e: &Error) -> bool {
    matches!(e, Error::Corruption { reason, .. } if reason.contains("this boot"))
}

/// This holds on the boot that wrote the end file.
#[test]
fn lost_durable_groups_are_corruption_on_the_boot_that_wrote_them() {
    let temp = Temp::new();
    for closed in [false, true] {
        let dir = temp.path().join(if closed { "closed" } else { "killed" });
        if closed {
            let wal = small(&dir).open().unwrap();
            fill(&wal, 0, 500);
            wal.close().unwrap();
            zero_last_group(&dir);
        } else {
            in_a_process("killed", &dir);
        }
        let all = 500;
        zero_last_group(&dir);
        let read = ReadOnlyWal::open(&dir).unwrap_err();
        assert!(is_early(&read), "{read}");
        let opened = small(&dir).open().unwrap_err();
        assert!(is_early(&opened), "{opened}");
        let log = Directory::open(&dir, "wal").unwrap();
        let survey = log.survey(&mut |_| {}).unwrap();
        assert_eq!(survey.damage.len(), 1, "{:?}", survey.damage);
        assert!(survey.records < all, "{}", survey.records);
        let plan = log.plan_repair(&survey, Keep::Before).unwrap().unwrap();
        let kept = plan.records as usize;
        plan.apply().unwrap();
        assert_eq!(count(&dir), kept);
        drop(small(&dir).open().unwrap());
        assert_eq!(count(&dir), kept);
    }
}

#[test]
fn lost_newest_segment_is_corruption_on_the_boot_that_wrote_it() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    fill(&wal, 0, 500);
    wal.close().unwrap();
    let (newest, _) = last_group(&temp.log());
    for path in segments(&temp.log()) {
        if path >= newest {
            std::fs::remove_file(path).unwrap();
        }
    }
    assert!(is_early(&ReadOnlyWal::open(temp.log()).unwrap_err()));
    assert!(is_early(&small(&temp.log()).open().unwrap_err()));
    let log = Directory::open(temp.log(), "wal").unwrap();
    assert_eq!(log.survey(&mut |_| {}).unwrap().damage.len(), 1);
}

/// Retention never removes the active segment.
#[test]
fn active_segment_removed_beside_a_reader_is_corruption_and_not_pruned() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    fill(&wal, 0, 2);
    let log = ReadOnlyWal::open(temp.log()).unwrap();
    let lsn = log.reader(Lsn::ZERO).unwrap().next().unwrap().unwrap().lsn;
    eventually("another is prepared", || segments(&temp.log()).len() > 1);
    std::fs::remove_file(&segments(&temp.log())[0]).unwrap();
    let missing = |e: Error| match e {
        Error::Corruption { lsn: Lsn::ZERO, reason, .. } => assert!(reason.contains("missing")),
        e => panic!("{e:?}"),
    };
    missing(log.reader(Lsn::ZERO).map(|_| ()).unwrap_err());
    missing(log.reader(lsn).map(|_| ()).unwrap_err());
    missing(log.read(lsn).map(|_| ()).unwrap_err());
    let opened = ReadOnlyWal::open(temp.log()).map(|_| ()).unwrap_err();
    assert!(matches!(opened, Error::Corruption { .. }), "{opened:?}");
}

/// Values with a valid checksum that no writer states.
#[test]
fn forged_end_file_changes_no_result() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    fill(&wal, 0, 300);
    let from = wal.append_durable(b"void").unwrap();
    wal.truncate_from(from).unwrap();
    fill(&wal, 300, 400);
    wal.close().unwrap();
    let end = said_end(&temp.log());
    let hostile = [0, 1, 127, 128, 4095, 4096, 8192, end - 1, end, end + 1, 1 << 40, 1 << 62];
    let near = [u64::MAX, u64::MAX - 127, u64::MAX - 128, u64::MAX - 4096, 1 << 63];
    for cut in hostile.into_iter().chain(near) {
        forge(&temp.log(), &[(40, end), (48, cut)]);
        assert_eq!(count(&temp.log()), 400, "a cut at {cut}");
        let log = Directory::open(temp.log(), "wal").unwrap();
        let survey = log.survey(&mut |_| {}).unwrap();
        assert!(survey.damage.is_empty(), "a cut at {cut}: {:?}", survey.damage);
    }
    for said in hostile.into_iter().chain(near).filter(|&said| said <= end || said > 1 << 62) {
        for keeper in [None, Some(0), Some(1), Some(u64::MAX)] {
            let keeper = keeper.map(|keeper| (56, keeper));
            let fields: Vec<_> = [(40, said), (48, 0)].into_iter().chain(keeper).collect();
            forge(&temp.log(), &fields);
            assert_eq!(count(&temp.log()), 400, "an end at {said}");
        }
    }
    drop(small(&temp.log()).open().unwrap());
    assert_eq!(count(&temp.log()), 400);
}

/// Number of bytes that this thread has read.
fn bytes_read() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
fn follower_of_a_log_without_an_end_file_reads_it_once() {
    let temp = Temp::new();
    let wal = Wal::builder(temp.log()).segment_size(8 << 20).open().unwrap();
    for n in 0..2000 {
        wal.append(&payload(n)).unwrap();
        if n % 20 == 0 {
            wal.sync().unwrap();
        }
    }
    wal.close().unwrap();
    std::fs::remove_file(temp.log().join("wal.end")).unwrap();
    let log = ReadOnlyWal::open(temp.log()).unwrap();
    let mut follow = log.follow(Lsn::ZERO).unwrap();
    let before = bytes_read();
    for n in 0..2000 {
        assert_eq!(follow.next_ref().unwrap().unwrap().payload, payload(n));
    }
    // Each check reads a block of the last group, the block after it, and the header of the next
    // segment.
    let read = bytes_read() - before;
    assert!(read < 2000 * (64 << 10), "{read} bytes");
    let before = bytes_read();
    assert!(follow.next_timeout(Duration::from_secs(2)).unwrap().is_none());
    let read = bytes_read() - before;
    assert!(read < 1 << 20, "{read} bytes while nothing came");
}

#[test]
fn follower_without_inotify_backs_off() {
    let temp = Temp::new();
    in_a_process("no inotify instance is left", &temp.log());
}

#[test]
fn outside_reader_finds_the_hundredth_cut_at_the_cost_of_the_first() {
    let temp = Temp::new();
    let wal = small(&temp.log()).idle_seal(Duration::MAX).open().unwrap();
    fill(&wal, 0, 1);
    let log = ReadOnlyWal::open(temp.log()).unwrap();
    let mut costs = Vec::new();
    for _ in 0..10 {
        let before = bytes_read();
        for _ in 0..20 {
            wal.append(b"kept").unwrap();
            let from = wal.append_durable(b"void").unwrap();
            wal.truncate_from(from).unwrap();
            assert!(matches!(log.read(from), Err(Error::Truncated { .. })));
        }
        costs.push(bytes_read() - before);
    }
    let (first, last) = (costs[0], costs[9]);
    assert!(last < 4 * first + (1 << 20), "{costs:?}");
}

/// Each side file, replaced by garbage, missing, or a directory.
#[test]
fn garbage_missing_or_non_regular_side_files_are_ignored() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    fill(&wal, 0, 100);
    wal.close().unwrap();
    for name in ["wal.end", "wal.commit", "wal.lock"] {
        let path = temp.log().join(name);
        for garbage in [&b""[..], b"x", &[0xff; 64], &[0; 4096], &[b'9'; 100_000]] {
            std::fs::write(&path, garbage).unwrap();
            assert_eq!(count(&temp.log()), 100, "{name}");
            let wal = small(&temp.log()).open().unwrap();
            assert_eq!(count(&temp.log()), 100, "{name}");
            wal.close().unwrap();
        }
        let _ = std::fs::remove_file(&path);
        assert_eq!(count(&temp.log()), 100, "{name}");
        if name != "wal.lock" {
            std::fs::create_dir(&path).unwrap();
            assert_eq!(count(&temp.log()), 100, "{name}");
            let wal = small(&temp.log()).open().unwrap();
            wal.sync().unwrap();
            wal.close().unwrap();
            assert_eq!(count(&temp.log()), 100, "{name}");
            std::fs::remove_dir(&path).unwrap();
        }
    }
}
