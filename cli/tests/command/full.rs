//! Output and copies that have no room.

use std::process::{Command, Output};

use crate::support::{Temp, command, log, said};

/// Runs the command with files of at most so many blocks of 512 bytes.
fn with_small_files(blocks: u32, arguments: &[&str]) -> Output {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let program = command().get_program().to_owned();
    Command::new("sh").args(["-c", &script]).arg(program).args(arguments).output().unwrap()
}

fn names(dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn output_to_a_full_device_is_no_success() {
    let temp = Temp::new();
    let dir = temp.log();
    log(&dir);
    let calls: [&[&str]; 5] =
        [&["--help"], &["dump", "--help"], &["-V"], &["info", &dir], &["man"]];
    for arguments in calls {
        let full = std::fs::File::create("/dev/full").unwrap();
        let out = command().args(arguments).stdout(full).output().unwrap();
        let text = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(3), "{arguments:?}: {text}");
        assert!(text.contains("cannot write the output"), "{text}");
    }
}

#[test]
#[cfg(unix)]
fn files_that_cannot_be_written_whole_are_removed() {
    let temp = Temp::new();
    let (dir, copy, file) = (temp.log(), temp.file("copy"), temp.file("records"));
    log(&dir);
    let out = with_small_files(16, &["export", "-o", &file, &dir]);
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(3) && text.contains("cannot write"), "{text}");
    assert!(!std::path::Path::new(&file).exists());
    let out = with_small_files(16, &["backup", &dir, &copy]);
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(3) && text.contains("cannot"), "{text}");
    assert_eq!(names(&copy), Vec::<String>::new());
    // Nothing blocks the next attempt.
    for arguments in [&["export", "-o", &file, &dir][..], &["backup", &dir, &copy]] {
        assert!(command().args(arguments).output().unwrap().status.success());
    }
}

#[test]
fn log_is_not_archived_into_its_own_directory() {
    let temp = Temp::new();
    let dir = temp.log();
    log(&dir);
    let mut before = names(&dir);
    before.sort();
    for to in [dir.clone(), format!("{dir}/."), format!("file://{dir}")] {
        let text = said(&["archive", "--to", &to, &dir], 2);
        assert!(text.contains("own directory"), "{text}");
    }
    let mut after = names(&dir);
    after.sort();
    assert_eq!(after, before);
}
