//! Changes to a process, its rights or its directory after the open, and files that root creates
//! for another user.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use nix::unistd::{Gid, Uid};
use ringwal::inspect::{Directory, Keep};
use ringwal::{BackendChoice, Lsn, ReadOnlyWal, Wal};

use crate::child::{CASE, become_nobody, case_and_directory, in_a_process};
use crate::skip;
use crate::support::{Temp, backends, eventually, read_all, segments, small};

const NOBODY: u32 = 65534;
const RECORD: [u8; 1000] = [7; 1000];
/// Number of records that fill several segments, spares included.
const SEVERAL_SEGMENTS: usize = 500;

fn is_root() -> bool {
    let root = Uid::effective().is_root();
    if !root {
        skip("needs root");
    }
    root
}

fn append(wal: &Wal, records: usize) {
    for _ in 0..records {
        wal.append(&RECORD).unwrap();
    }
    wal.sync().unwrap();
}

/// Does everything that a service does with an open log.
fn go_on(wal: &Wal) {
    append(wal, SEVERAL_SEGMENTS);
    let mut consumer = wal.consumer("later").unwrap();
    let first = consumer.records().unwrap().next_ref().unwrap().unwrap().lsn;
    consumer.commit(first).unwrap();
    drop(consumer);
    wal.remove_consumer("later").unwrap();
    wal.truncate_before(wal.durable_end()).unwrap();
    append(wal, SEVERAL_SEGMENTS);
    assert!(!read_all(wal).is_empty());
    wal.health().unwrap();
    wal.close().unwrap();
}

fn files(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn assert_belong(dir: &Path, owner: u32) {
    for path in files(dir).iter().chain([&dir.to_path_buf()]) {
        let meta = std::fs::symlink_metadata(path).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (owner, owner), "{}", path.display());
    }
}

/// Creates a directory of that user, in a directory that every user may enter.
fn users_directory(temp: &Temp) -> PathBuf {
    let dir = temp.path().join("theirs");
    std::fs::create_dir(&dir).unwrap();
    chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
    dir
}

fn backend(case: &str) -> BackendChoice {
    if case.ends_with("std") { BackendChoice::Std } else { BackendChoice::IoUring }
}

/// The child of [`in_a_process`].
#[test]
fn case() {
    let Some((case, dir)) = case_and_directory() else { return };
    match case.as_str() {
        "chroot io_uring" | "chroot std" => {
            let wal = small(&dir).backend(backend(&case)).open().unwrap();
            append(&wal, 10);
            let root = dir.with_file_name("root");
            nix::unistd::chroot(&root).unwrap();
            nix::unistd::chdir("/").unwrap();
            go_on(&wal);
        }
        "setuid io_uring" | "setuid std" => {
            let wal = small(&dir).backend(backend(&case)).open().unwrap();
            append(&wal, 10);
            become_nobody();
            go_on(&wal);
        }
        "nobody reopens" => {
            become_nobody();
            let wal = small(&dir).open().unwrap();
            assert!(!read_all(&wal).is_empty());
            drop(wal.consumer("kept").unwrap());
            go_on(&wal);
        }
        "refused directory" => refused_directory(&dir),
        "sidecar" => {
            nix::unistd::setgid(Gid::from_raw(NOBODY)).unwrap();
            nix::unistd::setuid(Uid::from_raw(NOBODY - 1)).unwrap();
            let log = ReadOnlyWal::open(&dir).unwrap();
            assert_eq!(log.reader(Lsn::ZERO).unwrap().count(), SEVERAL_SEGMENTS + 10);
            assert!(small(&dir).open().is_err(), "it reads, and may not write");
        }
        _ => panic!("{case}"),
    }
}

fn case_of(name: &str, dir: &Path) {
    assert!(!CASE.is_empty());
    in_a_process(name, dir);
}

#[test]
fn log_continues_after_chroot_and_setuid() {
    if !is_root() {
        return;
    }
    for backend in backends() {
        let name = if backend == BackendChoice::Std { "std" } else { "io_uring" };
        let temp = Temp::new();
        std::fs::create_dir(temp.path().join("root")).unwrap();
        case_of(&format!("chroot {name}"), &temp.log());
        assert!(small(&temp.log()).open().unwrap().recovery().clean);

        let temp = Temp::new();
        let dir = users_directory(&temp);
        case_of(&format!("setuid {name}"), &dir);
        assert!(small(&dir).open().unwrap().recovery().clean);
    }
}

#[test]
fn log_in_a_moved_directory_leaves_the_files_at_the_old_path_alone() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    append(&wal, 10);
    let moved = temp.path().join("moved");
    std::fs::rename(temp.log(), &moved).unwrap();
    std::fs::create_dir(temp.log()).unwrap();
    go_on(&wal);
    assert!(files(&temp.log()).is_empty());
    assert!(small(&moved).open().unwrap().recovery().clean);
}

#[test]
fn files_that_root_creates_belong_to_the_owner_of_the_directory() {
    if !is_root() {
        return;
    }
    let temp = Temp::new();
    let dir = users_directory(&temp);
    let wal = small(&dir).open().unwrap();
    append(&wal, SEVERAL_SEGMENTS);
    drop(wal.consumer("kept").unwrap());
    assert_belong(&dir, NOBODY);
    wal.close().unwrap();
    case_of("nobody reopens", &dir);
    assert_belong(&dir, NOBODY);

    // A new directory, its parents, and the files of a repair.
    let deep = dir.join("new/log");
    let wal = small(&deep).open().unwrap();
    append(&wal, SEVERAL_SEGMENTS);
    wal.close().unwrap();
    assert_belong(&deep, NOBODY);
    assert_belong(deep.parent().unwrap(), NOBODY);
    let damaged = segments(&deep)[2].clone();
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[20_000..24_000].fill(0xff);
    std::fs::write(&damaged, bytes).unwrap();
    let log = Directory::open(&deep, "wal").unwrap();
    let survey = log.survey(&mut |_| {}).unwrap();
    let plan = log.plan_repair(&survey, Keep::Before).unwrap().unwrap();
    plan.apply().unwrap();
    assert_belong(&deep, NOBODY);
    assert_belong(&plan.quarantine, NOBODY);
    case_of("nobody reopens", &deep);
}

#[test]
fn group_member_reads_a_log_with_mode_0640() {
    if !is_root() {
        return;
    }
    let temp = Temp::new();
    std::fs::set_permissions(temp.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let dir = temp.path().join("deep/log");
    append(&small(&dir).open().unwrap(), 10);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(&dir), mode(dir.parent().unwrap())), (0o700, 0o700));
    assert!(files(&dir).iter().all(|path| mode(path) == 0o600));
    // Existing and new files get the mode, whatever the umask is.
    let wal = small(&dir).file_mode(0o640).open().unwrap();
    append(&wal, SEVERAL_SEGMENTS);
    drop(wal.consumer("kept").unwrap());
    wal.close().unwrap();
    for path in files(&dir) {
        assert_eq!(mode(&path), 0o640, "{}", path.display());
        chown(&path, None, Some(NOBODY)).unwrap();
    }
    for path in [&*dir, dir.parent().unwrap()] {
        chown(path, None, Some(NOBODY)).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o750)).unwrap();
    }
    case_of("sidecar", &dir);

    let dir = temp.path().join("new/log");
    let wal = small(&dir).file_mode(0o666).open().unwrap();
    append(&wal, SEVERAL_SEGMENTS);
    assert!(files(&dir).iter().all(|path| mode(path) == 0o666));
    assert_eq!((mode(&dir), mode(dir.parent().unwrap())), (0o777, 0o777));
    wal.close().unwrap();
}

/// Root changes the mode of files that the log created, never of a file that a link leads to.
#[test]
fn file_mode_is_not_applied_through_links() {
    let temp = Temp::new();
    append(&small(&temp.log()).open().unwrap(), 10);
    let precious = temp.path().join("precious");
    std::fs::write(&precious, b"precious").unwrap();
    std::fs::set_permissions(&precious, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::hard_link(&precious, temp.log().join("wal.commit")).unwrap();
    symlink(&precious, temp.log().join("wal.sealed")).unwrap();
    // The open refuses the link in place of a position, after it has set the modes.
    let _ = small(&temp.log()).file_mode(0o666).open();
    assert_eq!(std::fs::metadata(&precious).unwrap().mode() & 0o777, 0o600);
}

/// io_uring obeys O_NONBLOCK, and fails where a device cannot avoid blocking.
#[test]
fn descriptors_of_a_log_never_have_o_nonblock() {
    const O_NONBLOCK: u32 = 0o4000;
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    append(&wal, SEVERAL_SEGMENTS);
    let consumer = wal.consumer("kept").unwrap();
    let reader = wal.reader(Lsn::ZERO);
    let dir = temp.log().canonicalize().unwrap();
    let mut seen = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        if target.parent() != Some(&dir) {
            continue;
        }
        let info = PathBuf::from("/proc/self/fdinfo").join(entry.file_name());
        let Ok(info) = std::fs::read_to_string(info) else { continue };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        assert_eq!(flags & O_NONBLOCK, 0, "{}: {flags:o}", target.display());
        seen.push(target);
    }
    for ending in ["lock", "end", "kept", "wal"] {
        let is_seen = |path: &PathBuf| path.extension().is_some_and(|is| is == ending);
        assert!(seen.iter().any(is_seen), "{ending} among {seen:?}");
    }
    drop((consumer, reader));
}

/// The text of all events.
static TOLD: Mutex<String> = Mutex::new(String::new());

struct Listener;

impl tracing::Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Said(String);
        impl tracing::field::Visit for Said {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{}={value:?} ", field.name());
            }
        }
        let mut said = Said(String::new());
        event.record(&mut said);
        *TOLD.lock().unwrap() += &(said.0 + "\n");
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// The directory's owner revokes its own right to create files, and restores it.
fn refused_directory(dir: &Path) {
    tracing::subscriber::set_global_default(Listener).unwrap();
    become_nobody();
    let wal = small(dir).open().unwrap();
    append(&wal, 10);
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o500)).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut appended = 0;
            while appended < SEVERAL_SEGMENTS {
                match wal.append(&RECORD) {
                    Ok(_) => appended += 1,
                    // The error is transient, as on a full disk.
                    Err(e) if e.is_transient() => std::thread::sleep(Duration::from_millis(1)),
                    Err(e) => panic!("{e}"),
                }
            }
        });
        eventually("an event about the refusal", || {
            TOLD.lock().unwrap().contains("Permission denied")
        });
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o700)).unwrap();
        writer.join().unwrap();
    });
    let told = TOLD.lock().unwrap().clone();
    let path = dir.canonicalize().unwrap().join("wal.0");
    assert!(told.contains(path.to_str().unwrap()), "{told}");
    wal.sync().unwrap();
    assert_eq!(read_all(&wal).len(), SEVERAL_SEGMENTS + 10);
    wal.close().unwrap();
}

#[test]
fn refused_preparation_is_reported_and_retried() {
    if !is_root() {
        return;
    }
    let temp = Temp::new();
    case_of("refused directory", &users_directory(&temp));
}

/// The name of the next segment is taken: by a directory, a link, or another log's segment.
#[test]
fn file_in_place_of_the_next_segment_is_not_replaced_and_waited_for() {
    type Put = fn(&Path);
    let ways: [(&str, &str, Put); 4] = [
        ("directory", "tmp", |path| std::fs::create_dir(path).unwrap()),
        ("file", "wal", |path| std::fs::write(path, b"precious").unwrap()),
        ("link", "wal", |path| symlink("nowhere", path).unwrap()),
        ("directory", "wal", |path| std::fs::create_dir(path).unwrap()),
    ];
    for (what, ending, put) in ways {
        let temp = Temp::new();
        let wal = small(&temp.log()).open().unwrap();
        append(&wal, 10);
        let ready = || segments(&temp.log()).len() >= 2;
        eventually("a segment ahead", ready);
        let mut in_the_way = Vec::new();
        for n in 3..6 {
            let path = temp.log().join(format!("wal.{:020}.{ending}", n * (64 << 10)));
            put(&path);
            in_the_way.push(path);
        }
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut appended = 0;
                while appended < SEVERAL_SEGMENTS {
                    match wal.append(&RECORD) {
                        Ok(_) => appended += 1,
                        Err(e) if e.is_transient() => std::thread::sleep(Duration::from_millis(1)),
                        Err(e) => panic!("{what}: {e}"),
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(300));
            assert!(!writer.is_finished());
            for path in &in_the_way {
                assert!(std::fs::symlink_metadata(path).is_ok(), "{what} was replaced");
                if path.is_dir() {
                    std::fs::remove_dir(path).unwrap();
                } else {
                    std::fs::remove_file(path).unwrap();
                }
            }
            writer.join().unwrap();
        });
        wal.sync().unwrap();
        assert_eq!(read_all(&wal).len(), SEVERAL_SEGMENTS + 10);
        wal.close().unwrap();
    }
}
