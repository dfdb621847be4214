//! No output of any command destroys an input, another output, a log, or a file of another program.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use crate::place::{Place, SMALL};
use ringwal::Wal;

/// Every output option of every command, with a short command line.
fn outputs() -> Vec<(String, &'static str)> {
    let run = format!("--records 10 --baseline 0 --quiet {SMALL}");
    let mut all: Vec<(String, &str)> =
        ["--json", "--html", "--hgrm", "--hlog"].map(|option| (run.clone(), option)).into();
    for option in ["--json", "--html"] {
        all.push(("device --time 20ms --size 4k --quiet".into(), option));
    }
    for option in ["--json", "--html"] {
        let line = format!("sweep --bound 1us --step-time 100ms --precision 0 --quiet {SMALL}");
        all.push((line, option));
    }
    for option in ["--json", "--markdown", "--html"] {
        all.push(("bench --rounds 1 --cell-time 1ms --only W9 --quiet".into(), option));
    }
    all
}

fn refused(place: &Place, line: &str, says: &str) {
    let output = place.run(line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
    assert!(stderr.contains(says), "{line}: {stderr}");
}

#[test]
fn foreign_output_needs_force_and_log_is_never_replaced() {
    let place = Place::new("foreign");
    let wal = Wal::builder(place.path("log")).segment_size(1 << 20).open().unwrap();
    wal.append_durable(b"precious").unwrap();
    wal.close().unwrap();
    drop(wal);
    let files: Vec<_> = std::fs::read_dir(place.path("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
        .collect();
    assert!(files.len() >= 2, "{files:?}");
    let segment = files.iter().find(|(path, _)| path.extension().is_some_and(|e| e == "wal"));
    let segment = segment.unwrap().0.clone();
    std::fs::hard_link(&segment, place.path("hard")).unwrap();
    symlink(&segment, place.path("soft")).unwrap();
    for (line, option) in outputs() {
        std::fs::write(place.path("theirs"), "precious").unwrap();
        refused(&place, &format!("{line} {option} theirs"), "--force");
        assert_eq!(std::fs::read(place.path("theirs")).unwrap(), b"precious");
        for name in ["hard", "soft", "log/wal.00000000000000000000.wal", "log/wal.lock"] {
            refused(&place, &format!("{line} --force {option} {name}"), option);
        }
        refused(&place, &format!("{line} {option} log/wal.00000000000009999999.wal"), option);
    }
    for (path, content) in files {
        assert_eq!(std::fs::read(&path).unwrap(), content, "{}", path.display());
    }
    // With --force, then without: the file is an earlier result by then.
    for more in ["--force", ""] {
        let line = format!("--records 10 --baseline 0 --quiet {SMALL} --html theirs {more}");
        assert!(place.run(&line).status.success(), "{line}");
    }
}

#[test]
fn output_that_is_an_input_or_another_output_is_rejected() {
    let place = Place::new("same");
    std::fs::write(place.path("a"), "one\ntwo\n").unwrap();
    std::fs::hard_link(place.path("a"), place.path("hard")).unwrap();
    symlink("a", place.path("soft")).unwrap();
    std::fs::create_dir(place.path("d")).unwrap();
    symlink("d", place.path("e")).unwrap();
    for input in ["--input", "--sample"] {
        for option in ["--json", "--html", "--hgrm", "--hlog"] {
            for name in ["a", "./a", "hard", "soft"] {
                let line = format!("--records 2 --force {SMALL} {input} a {option} {name}");
                refused(&place, &line, input);
            }
        }
    }
    let sweep = "sweep --bound 1us --step-time 100ms --sample a --force --json";
    refused(&place, &format!("{sweep} hard"), "--sample");
    let run = format!("--records 2 --force {SMALL}");
    for (first, second) in
        [("--json x", "--html ./x"), ("--hgrm x", "--hlog x"), ("--json d/x", "--html e/x")]
    {
        refused(&place, &format!("{run} {first} {second}"), "name the same file");
    }
    refused(&place, "bench --json x --markdown ./x", "name the same file");
    refused(&place, "sweep --json x --html d/../x", "name the same file");
    assert_eq!(std::fs::read_to_string(place.path("a")).unwrap(), "one\ntwo\n");
    // Redirects stdin from a file that is also an output.
    let mut command = place.command(&format!("{run} --input /dev/stdin --json a"));
    command.stdin(std::fs::File::open(place.path("a")).unwrap());
    assert_eq!(command.output().unwrap().status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(place.path("a")).unwrap(), "one\ntwo\n");
    assert_eq!(place.entries().len(), 5, "{:?}", place.entries());
}

#[test]
fn output_replaces_its_earlier_result_without_temporary_files() {
    let place = Place::new("own");
    let mut options: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    // Omits the sweep, which takes longest and writes its outputs as the device does.
    for (line, option) in outputs().into_iter().filter(|(line, _)| !line.starts_with("sweep")) {
        options.entry(line).or_default().push(option);
    }
    // One command writes all of its outputs.
    for (line, options) in options {
        let all: Vec<String> =
            options.iter().map(|o| format!("{o} {}", o.trim_matches('-'))).collect();
        for _ in 0..2 {
            let output = place.run(&format!("{line} {}", all.join(" ")));
            assert!(output.status.success(), "{line} {all:?}: {output:?}");
        }
        let mut expected: Vec<&str> = options.iter().map(|o| o.trim_matches('-')).collect();
        let mut left = place.entries();
        expected.sort_unstable();
        left.sort();
        assert_eq!(left, expected, "{line}");
        for name in left {
            std::fs::remove_file(place.path(&name)).unwrap();
        }
    }
    // Outputs may share a device, and an append-only stream is not truncated.
    let line = format!("--records 10 --baseline 0 {SMALL} --json /dev/null --hgrm /dev/null");
    assert!(place.run(&line).status.success());
    let out = std::fs::File::create(place.path("out")).unwrap();
    let line = format!("--records 10 --baseline 0 {SMALL} --json /dev/stdout");
    assert!(place.command(&line).stdout(out).status().unwrap().success());
    let text = std::fs::read_to_string(place.path("out")).unwrap();
    assert!(text.contains("records/s") && text.contains("ringwal-loadgen/run/1"), "{text}");
}
