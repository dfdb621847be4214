//! Commands that root runs leave files that the log's service can use.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use crate::support::{Temp, damage, json, log, said};

const NOBODY: u32 = 65_534;
const MODE: u32 = 0o640;

fn give(dir: &str) {
    chown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
    for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        chown(&entry, Some(NOBODY), Some(NOBODY)).unwrap();
        std::fs::set_permissions(&entry, std::fs::Permissions::from_mode(MODE)).unwrap();
    }
}

/// Everything in the directory belongs to the service, and its segments have their mode.
fn check(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        assert_eq!((meta.uid(), meta.gid()), (NOBODY, NOBODY), "{}", path.display());
        if meta.is_dir() {
            check(&path);
        } else if path.extension().is_some_and(|e| e == "wal") {
            assert_eq!(meta.mode() & 0o777, MODE, "{}", path.display());
        }
    }
}

#[test]
fn files_of_root_get_the_owner_and_mode_of_their_neighbours() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let temp = Temp::new();
    let (dir, input) = (temp.log(), temp.file("in"));
    std::fs::write(&input, format!("{{\"text\":\"{}\"}}\n", "x".repeat(500)).repeat(400)).unwrap();
    log(&dir);
    give(&dir);
    let segments = json(&["info", "--json", &dir], 0)["segments"].as_u64().unwrap();
    said(&["import", &dir, &input], 0);
    assert!(json(&["info", "--json", &dir], 0)["segments"].as_u64().unwrap() > segments);
    check(Path::new(&dir));
    let copy = temp.file("copy");
    said(&["backup", &dir, &copy], 0);
    check(Path::new(&copy));
    assert_eq!(std::fs::metadata(&copy).unwrap().uid(), NOBODY);

    damage(&dir, 1, 8192, 1);
    said(&["repair", "--apply", &dir], 0);
    check(Path::new(&dir));
    let other = temp.file("other");
    said(&["salvage", &dir, &other], 0);
    check(Path::new(&other));
    assert_eq!(std::fs::metadata(&other).unwrap().uid(), NOBODY);
    said(&["repair", "--apply", "--keep", "before", &dir], 0);
    check(Path::new(&dir));

    // A new log in a directory of the service.
    let new = temp.file("new");
    std::fs::create_dir(&new).unwrap();
    chown(&new, Some(NOBODY), Some(NOBODY)).unwrap();
    said(&["import", "--mode", "0640", &new, &input], 0);
    check(Path::new(&new));
    said(&["remove-consumer", &copy, "mailer"], 0);
    check(Path::new(&copy));
}
