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

/// What the user may not read is not damaged: a repair would move sound files away.
#[test]
fn side_files_of_another_user_are_no_damage() {
    use std::os::unix::process::CommandExt;

    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let temp = Temp::new();
    // Another user may have no way to the directory of the build.
    let program = temp.file("ringwal-for-all");
    std::fs::copy(crate::support::command().get_program(), &program).unwrap();
    std::fs::set_permissions(&temp.0, std::fs::Permissions::from_mode(0o755)).unwrap();
    let dir = temp.log();
    log(&dir);
    let wal = ringwal::Wal::builder(&dir).open().unwrap();
    wal.cell("vote").store(b"term 7").unwrap();
    wal.close().unwrap();
    for name in ["wal.cells", "wal.consumer.mailer"] {
        give(&dir);
        let file = Path::new(&dir).join(name);
        let sound = std::fs::read(&file).unwrap();
        chown(&file, Some(0), Some(0)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        for arguments in [&["verify"][..], &["repair", "--apply"], &["stats"]] {
            let mut command = std::process::Command::new(&program);
            let command = command.args(arguments).arg(&dir).uid(NOBODY).gid(NOBODY);
            let out = command.output().unwrap();
            let text = String::from_utf8(out.stderr).unwrap();
            assert_eq!(out.status.code(), Some(3), "{name} {arguments:?}: {text}");
            assert!(text.contains(name) && text.contains("ermission denied"), "{text}");
        }
        assert_eq!(std::fs::read(&file).unwrap(), sound);
        assert_eq!(json(&["verify", "--json", &dir], 0)["sound"], true);
    }
}

/// A service's limit of processes counts threads.
#[test]
fn command_that_gets_no_thread_says_so() {
    use std::os::unix::process::CommandExt;

    let has_prlimit = std::process::Command::new("prlimit").arg("-V").output().is_ok();
    if !nix::unistd::Uid::effective().is_root() || !has_prlimit {
        return;
    }
    let temp = Temp::new();
    let program = temp.file("ringwal-for-all");
    std::fs::copy(crate::support::command().get_program(), &program).unwrap();
    let (dir, store, input) = (temp.log(), temp.file("store"), temp.file("in"));
    log(&dir);
    said(&["archive", "--to", &store, &dir], 0);
    std::fs::write(&input, "{\"text\":\"x\"}\n").unwrap();
    chown(&temp.0, Some(NOBODY), Some(NOBODY)).unwrap();
    let (new, copy) = (temp.file("new"), temp.file("copy"));
    let calls: [&[&str]; 3] = [
        &["import", &new, &input],
        &["list", "--from", &store],
        &["restore", "--from", &store, &copy],
    ];
    for arguments in calls {
        let mut command = std::process::Command::new("prlimit");
        command.args(["--nproc=1", &program]).args(arguments).uid(NOBODY).gid(NOBODY);
        let out = command.output().unwrap();
        let text = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(3), "{arguments:?}: {text}");
        assert!(text.contains("cannot start a thread"), "{text}");
    }
}
