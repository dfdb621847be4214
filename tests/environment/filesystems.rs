//! Unusual filesystems: case-insensitive names, large blocks, no direct I/O.

use std::path::{Path, PathBuf};
use std::process::Command;

use ringwal::{Error, Lsn, Wal};

use crate::mounted::run;
use crate::skip;
use crate::support::{Temp, backends, read_all, segments, small};

/// A filesystem in a file. Its drop unmounts it.
struct Filesystem {
    path: PathBuf,
    _temp: Temp,
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        run("umount", &[], &self.path);
    }
}

/// Creates and mounts a filesystem. `None`: the machine lacks the filesystem, the program, or the
/// right to mount.
fn mounted(make: &[&str], mount: &[&str], sector: &str) -> Option<Filesystem> {
    let temp = Temp::new();
    let (image, path) = (temp.path().join("image"), temp.path().join("mount"));
    std::fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
    std::fs::create_dir(&path).unwrap();
    let mut attach = Command::new("losetup");
    attach.args(["--find", "--show", "-b", sector]).arg(&image);
    let output = attach.output().ok().filter(|out| out.status.success())?;
    let device = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let made = run(make[0], &make[1..], &device);
    let done = made && run(mount[0], &[&mount[1..], &[device.to_str().unwrap()]].concat(), &path);
    // Detaches the loop device, once the filesystem is unmounted.
    run("losetup", &["-d"], &device);
    done.then_some(Filesystem { path, _temp: temp })
}

/// Directories in which two names that differ only in case are the same file.
fn folding() -> Vec<(&'static str, Filesystem, PathBuf)> {
    let mut found = Vec::new();
    let ext4 = ["mkfs.ext4", "-q", "-O", "casefold", "-E", "encoding=utf8"];
    let ways: [(&str, &[&str], &[&str]); 5] = [
        ("ext4", &ext4, &["mount"]),
        ("xfs", &["mkfs.xfs", "-q", "-n", "version=ci"], &["mount"]),
        ("vfat", &["mkfs.vfat"], &["mount"]),
        ("exfat", &["mkfs.exfat"], &["mount"]),
        ("ntfs", &["mkfs.ntfs", "-q", "-F", "-f"], &["lowntfs-3g", "-o", "ignore_case"]),
    ];
    for (name, make, options) in ways {
        let Some(filesystem) = mounted(make, options, "512") else { continue };
        let dir = filesystem.path.join("log");
        std::fs::create_dir(&dir).unwrap();
        if name == "ext4" {
            run("chattr", &["+F"], &dir);
        }
        std::fs::write(dir.join("probe"), b"").unwrap();
        if dir.join("PROBE").exists() {
            std::fs::remove_file(dir.join("probe")).unwrap();
            found.push((name, filesystem, dir));
        }
    }
    if found.is_empty() {
        skip("no filesystem without case can be made and mounted here");
    }
    found
}

fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    all.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn prefix_that_differs_only_in_case_never_reaches_another_logs_files() {
    for (name, _filesystem, dir) in folding() {
        let wal = small(&dir).open().unwrap();
        for n in 0..10_u8 {
            wal.append_durable(&[n]).unwrap();
        }
        wal.close().unwrap();
        let before = contents(&dir);
        let refused = |what: &str| {
            for prefix in ["WAL", "Wal", "waL"] {
                match small(&dir).prefix(prefix).open() {
                    Err(Error::NameTaken { path }) => {
                        assert!(path.to_str().unwrap().contains(prefix), "{path:?}");
                    }
                    other => panic!("{name}, {what}: {other:?}"),
                }
            }
        };
        refused("the whole log");
        assert_eq!(contents(&dir), before, "{name}: nothing was changed");
        // A backup may hold only the segments.
        for (path, _) in &before {
            if path.extension().is_some_and(|ending| ending != "wal") {
                std::fs::remove_file(path).unwrap();
            }
        }
        refused("segments alone");
        let wal = small(&dir).open().unwrap();
        assert_eq!(read_all(&wal).len(), 10);
        // The same holds for consumers' files.
        let mut mailer = wal.consumer("mailer").unwrap();
        let first = mailer.records().unwrap().next_ref().unwrap().unwrap().lsn;
        mailer.commit(first).unwrap();
        let position = mailer.position();
        drop(mailer);
        assert!(matches!(wal.consumer("Mailer"), Err(Error::NameTaken { .. })), "{name}");
        assert_eq!(wal.consumer("mailer").unwrap().position(), position);
        assert_eq!(wal.consumers().len(), 1);
        wal.close().unwrap();
        // A log whose prefix differs in more than case opens beside it.
        small(&dir).prefix("WAL2").open().unwrap().append_durable(b"beside").unwrap();
        assert_eq!(read_all(&small(&dir).open().unwrap()).len(), 10);
    }
}

#[test]
fn consumers_work_on_a_device_whose_blocks_are_larger_than_a_slot() {
    let make = ["mkfs.xfs", "-q", "-b", "size=16384", "-s", "size=16384"];
    let Some(filesystem) = mounted(&make, &["mount"], "16384") else {
        return skip("no filesystem with blocks of 16 KiB can be made and mounted here");
    };
    for backend in backends() {
        let dir = filesystem.path.join(format!("{backend:?}"));
        let open = || Wal::builder(&dir).segment_size(256 << 10).backend(backend).open().unwrap();
        let wal = open();
        assert_eq!(wal.backend().block_size, 16_384, "{}", wal.backend());
        for _ in 0..1000 {
            wal.append(&[7; 1000]).unwrap();
        }
        wal.sync().unwrap();
        let mut consumer = wal.consumer("mailer").unwrap();
        for _ in 0..3 {
            let lsn = consumer.records().unwrap().next_ref().unwrap().unwrap().lsn;
            consumer.commit(lsn).unwrap();
        }
        let position = consumer.position();
        drop(consumer);
        wal.close().unwrap();
        let wal = open();
        assert_eq!(wal.consumer("mailer").unwrap().position(), position);
        assert_eq!(wal.reader(Lsn::ZERO).count(), 1000);
    }
}

#[test]
fn direct_io_is_claimed_only_where_nothing_goes_through_the_page_cache() {
    let claims = |dir: &Path| {
        let wal = small(&dir.join("log")).open().unwrap();
        for n in 0..200_u8 {
            wal.append_durable(&[n; 500]).unwrap();
        }
        assert_eq!(read_all(&wal).len(), 200);
        wal.backend().direct_io
    };
    let ways: [(&str, &[&str], &str, bool); 5] = [
        ("ext4", &["mkfs.ext4", "-q"], "rw", true),
        ("ext4 that journals data", &["mkfs.ext4", "-q"], "data=journal", false),
        ("xfs", &["mkfs.xfs", "-q"], "rw", true),
        ("btrfs", &["mkfs.btrfs", "-q"], "rw", false),
        ("btrfs without sums", &["mkfs.btrfs", "-q"], "nodatasum", true),
    ];
    for (name, make, options, expected) in ways {
        match mounted(make, &["mount", "-o", options], "512") {
            Some(filesystem) => assert_eq!(claims(&filesystem.path), expected, "{name}"),
            None => skip(&format!("{name} cannot be made and mounted here")),
        }
    }
    let temp = Temp::new();
    if run("mount", &["-t", "tmpfs", "tmpfs"], temp.path()) {
        let claimed = claims(temp.path());
        run("umount", &[], temp.path());
        assert!(!claimed, "tmpfs");
    } else {
        skip("needs the right to mount");
    }
}

#[test]
fn segment_of_another_log_in_place_of_the_first_is_refused() {
    let temp = Temp::new();
    let other = temp.path().join("other");
    small(&other).open().unwrap().append_durable(b"theirs").unwrap();
    let wal = small(&temp.log()).open().unwrap();
    for _ in 0..200 {
        wal.append_durable(&[7; 1000]).unwrap();
    }
    wal.close().unwrap();
    let (theirs, place) = (segments(&other).remove(0), segments(&temp.log()).remove(0));
    std::fs::copy(&theirs, &place).unwrap();
    let refused = small(&temp.log()).open();
    assert!(matches!(refused, Err(Error::ForeignSegment { .. })), "{refused:?}");
    assert_eq!(std::fs::read(&place).unwrap(), std::fs::read(&theirs).unwrap());
}
