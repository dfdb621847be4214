use super::*;

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("loadgen-out-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Dir(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const RESULT: &str = r#"{"schema": "ringwal-loadgen/run/1"}"#;

fn opened(path: &Path, force: bool) -> Result<OutputFile, Error> {
    Outputs::new(&Arc::default(), force).open_path("--json", Kind::Json, path)
}

#[test]
fn existing_file_is_replaced_by_rename_after_the_write() {
    let dir = Dir::new("replace");
    let path = dir.at("x");
    drop(opened(&path, false).unwrap());
    assert_eq!(dir.names(), [""; 0]);
    opened(&path, false).unwrap().write(RESULT).unwrap();
    let before = Identity::of(&path).unwrap();
    drop(opened(&path, false).unwrap());
    assert_eq!(Identity::of(&path).unwrap(), before);
    opened(&path, false).unwrap().write("new").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
    assert_ne!(Identity::of(&path).unwrap(), before);
    assert_eq!(dir.names(), ["x"]);
}

#[test]
fn foreign_file_needs_force_and_log_is_never_replaced() {
    let dir = Dir::new("foreign");
    for (name, content, with_force) in [
        ("text", &b"precious"[..], true),
        ("other", b"{\"schema\": \"other/1\"}", true),
        ("segment", b"ringwal\x1a and more", false),
        ("position", b"RWCp", false),
        ("end", b"RWEn", false),
        ("acks", b"loadgen acknowledgements", false),
    ] {
        let path = dir.at(name);
        std::fs::write(&path, content).unwrap();
        assert_eq!(opened(&path, false).unwrap_err().exit_status(), 2, "{name}");
        assert_eq!(opened(&path, true).is_ok(), with_force, "{name}");
        assert_eq!(std::fs::read(&path).unwrap(), content, "{name}");
    }
    std::fs::write(dir.at("empty"), b"").unwrap();
    assert!(opened(&dir.at("empty"), false).is_ok(), "there is nothing to lose");
}

#[test]
fn name_of_a_log_file_is_rejected() {
    let dir = Dir::new("names");
    assert!(opened(&dir.at("wal.00000000000000004096.wal"), true).is_err());
    assert!(opened(&dir.at("wal.end"), true).is_ok(), "there is no log here");
    std::fs::write(dir.at("a.b.00000000000000000000.wal"), b"").unwrap();
    for name in ["a.b.end", "a.b.lock", "a.b.commit", "a.b.consumer.x", "a.b.consumer.x.new"] {
        assert!(opened(&dir.at(name), true).is_err(), "{name}");
    }
    assert!(opened(&dir.at("c.end"), true).is_ok(), "of another prefix");
}

#[cfg(unix)]
#[test]
fn file_under_two_names_is_one_file() {
    use std::os::unix::fs::symlink;
    let dir = Dir::new("names-of-one");
    std::fs::create_dir(dir.at("d")).unwrap();
    symlink(dir.at("d"), dir.at("e")).unwrap();
    std::fs::write(dir.at("x"), RESULT).unwrap();
    std::fs::hard_link(dir.at("x"), dir.at("hard")).unwrap();
    symlink(dir.at("x"), dir.at("soft")).unwrap();
    symlink("new", dir.at("dangling")).unwrap();
    let both = |first: &str, second: &str| {
        let mut outputs = Outputs::new(&Arc::default(), true);
        let first = outputs.open_path("--json", Kind::Json, &dir.at(first)).unwrap();
        let second = outputs.open_path("--html", Kind::Html, &dir.at(second));
        drop(first);
        second.map(drop)
    };
    for (first, second) in [
        ("x", "hard"),
        ("x", "soft"),
        ("x", "./x"),
        ("x", "d/../x"),
        ("d/new", "e/new"),
        ("new", "dangling"),
        ("dangling", "dangling"),
    ] {
        let e = both(first, second).unwrap_err();
        assert!(e.to_string().contains("name the same file"), "{first} {second}: {e}");
    }
    both("x", "y").unwrap();
    let mut outputs = Outputs::new(&Arc::default(), true);
    outputs.reads("--input", Some(&dir.at("x")));
    for name in ["x", "hard", "soft"] {
        let e = outputs.open_path("--json", Kind::Json, &dir.at(name)).unwrap_err();
        assert!(e.to_string().contains("--input"), "{name}: {e}");
    }
    // A symbolic link stays a link.
    opened(&dir.at("dangling"), false).unwrap().write("new").unwrap();
    assert_eq!(std::fs::read_to_string(dir.at("new")).unwrap(), "new");
    assert!(dir.at("dangling").is_symlink());
}

#[test]
fn file_created_during_the_run_is_kept() {
    let dir = Dir::new("appears");
    let waiting = opened(&dir.at("x"), false).unwrap();
    std::fs::write(dir.at("x"), "theirs").unwrap();
    assert!(matches!(waiting.write("mine"), Err(Error::Output { .. })));
    std::fs::write(dir.at("y"), RESULT).unwrap();
    let waiting = opened(&dir.at("y"), false).unwrap();
    std::fs::write(dir.at("z"), "theirs").unwrap();
    std::fs::rename(dir.at("z"), dir.at("y")).unwrap();
    assert!(matches!(waiting.write("mine"), Err(Error::Output { .. })));
    for name in dir.names() {
        assert_eq!(std::fs::read_to_string(dir.at(&name)).unwrap(), "theirs");
    }
}

#[cfg(unix)]
#[test]
fn new_file_has_the_mode_of_the_old_one() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new("mode");
    std::fs::write(dir.at("x"), RESULT).unwrap();
    std::fs::set_permissions(dir.at("x"), PermissionsExt::from_mode(0o640)).unwrap();
    opened(&dir.at("x"), false).unwrap().write("new").unwrap();
    let mode = std::fs::metadata(dir.at("x")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn second_signal_removes_only_unwritten_outputs() {
    let dir = Dir::new("signal");
    std::fs::write(dir.at("theirs"), RESULT).unwrap();
    let stop = Arc::new(Stop::default());
    let mut outputs = Outputs::new(&stop, false);
    let mut open = |name: &str| outputs.open_path("--json", Kind::Json, &dir.at(name)).unwrap();
    let (written, _waiting, _theirs) = (open("written"), open("waiting"), open("theirs"));
    written.write("whole").unwrap();
    assert!(stop.signal().is_none());
    assert_eq!(dir.names().len(), 4, "{:?}", dir.names());
    assert!(stop.signal().is_some());
    assert_eq!(dir.names(), ["theirs", "written"]);
    assert_eq!(std::fs::read_to_string(dir.at("written")).unwrap(), "whole");
    assert_eq!(std::fs::read_to_string(dir.at("theirs")).unwrap(), RESULT);
}

#[test]
fn partial_report_is_removed_and_the_old_file_kept() {
    let dir = Dir::new("half");
    std::fs::write(dir.at("x"), RESULT).unwrap();
    let mut output = opened(&dir.at("x"), false).unwrap();
    if let Some(To::Renamed { file, temporary, .. }) = &mut output.to {
        // The device rejects the write, as a full disk does.
        *file = File::open(temporary).unwrap();
    }
    assert!(matches!(output.write("whole"), Err(Error::Output { .. })));
    assert_eq!(dir.names(), ["x"]);
    assert_eq!(std::fs::read_to_string(dir.at("x")).unwrap(), RESULT);
}

#[test]
fn unwritable_path_is_reported_with_its_option() {
    for path in ["/no/such/dir/x", "/", ""] {
        let mut outputs = Outputs::new(&Arc::default(), false);
        let e = outputs.open_path("--hgrm", Kind::Hgrm, Path::new(path)).unwrap_err();
        assert!(e.to_string().contains(&format!("--hgrm {path}")), "{e}");
        assert_eq!(e.exit_status(), 2);
    }
    let mut outputs = Outputs::new(&Arc::default(), false);
    let e = outputs.open_path("--html", Kind::Html, Path::new("-")).unwrap_err();
    assert!(e.to_string().contains("--html goes to a file"), "{e}");
}

#[test]
fn kind_recognizes_only_its_own_results() {
    let dir = Dir::new("kinds");
    let latencies = crate::Latencies::new();
    let now = std::time::SystemTime::now();
    let hlog = crate::report::hgrm::log([(0.0, 1.0, latencies.clone())].into_iter(), now).unwrap();
    let results = [
        (Kind::Json, RESULT.to_owned()),
        (Kind::Hgrm, crate::report::hgrm::render(&latencies)),
        (Kind::Hlog, hlog),
    ];
    for (written, content) in &results {
        std::fs::write(dir.at("x"), content).unwrap();
        for (kind, _) in &results {
            let found = foreign::look(&dir.at("x"), *kind).unwrap();
            assert_eq!(found == foreign::Found::Own, kind == written, "{kind:?} of {written:?}");
        }
    }
}
