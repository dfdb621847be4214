//! Files that root creates in a log belong to the owner of its other files.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use ringwal::inspect::{Directory, Keep};

use crate::support::{Temp, small};

const NOBODY: u32 = 65_534;

fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "wal")).collect();
    all.sort();
    all
}

/// Root owns the directory, as after a package's installation. The service's group may write in it.
#[test]
fn files_that_root_creates_belong_to_the_owner_of_the_segments_beside() {
    if !nix::unistd::Uid::effective().is_root() {
        crate::skip("only root can create files for others");
        return;
    }
    let temp = Temp::new();
    let dir = temp.path().join("log");
    let fill = |records: u32| {
        let wal = small(&dir).open().unwrap();
        for n in 0..records {
            wal.append(&[n as u8; 3000]).unwrap();
        }
        wal.close().unwrap();
    };
    fill(60);
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o770)).unwrap();
    chown(&dir, Some(0), Some(NOBODY)).unwrap();
    for entry in std::fs::read_dir(&dir).unwrap() {
        chown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let all_belong = || {
        for entry in std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap()) {
            let meta = entry.metadata().unwrap();
            if meta.is_file() {
                assert_eq!((meta.uid(), meta.gid()), (NOBODY, NOBODY), "{:?}", entry.path());
            }
        }
    };
    let before = segments(&dir).len();
    fill(60);
    assert!(segments(&dir).len() > before);
    all_belong();

    let damaged = segments(&dir)[1].clone();
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[20_000..24_000].fill(0xff);
    std::fs::write(&damaged, bytes).unwrap();
    let log = Directory::open(&dir, "wal").unwrap();
    let survey = log.survey(&mut |_| {}).unwrap();
    let plan = log.plan_repair(&survey, Keep::Before).unwrap().unwrap();
    plan.apply().unwrap();
    all_belong();
}
