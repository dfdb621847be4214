//! Interrupted commands: the files that they leave, and those that they must not touch.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::place::{Place, SMALL, until_it_measures};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SHORT: [&str; 4] = [
    "device mine --time 20ms --size 4k",
    "sweep --dir mine --bound 1us --step-time 100ms --precision 0 --max-disk 12m --segment-size 1m",
    "bench --dir mine --rounds 1 --cell-time 1ms --only W9",
    "crash --dir mine --rounds 2",
];

#[test]
fn files_in_a_given_directory_are_kept_under_any_name() {
    let place = Place::new("theirs");
    let names = ["probe", "log", "replay", "second-writer"];
    for name in names {
        std::fs::create_dir_all(place.path("mine").join(name)).unwrap();
        std::fs::write(place.path("mine").join(name).join("kept"), "precious").unwrap();
    }
    std::fs::write(place.path("mine/file"), "precious").unwrap();
    for line in SHORT {
        let output = place.run(line);
        assert!(output.status.success(), "{line}: {output:?}");
        for name in names {
            let kept = place.path("mine").join(name).join("kept");
            assert_eq!(std::fs::read_to_string(&kept).unwrap(), "precious", "{line}: {kept:?}");
            assert_eq!(std::fs::read_dir(kept.parent().unwrap()).unwrap().count(), 1, "{line}");
        }
        assert_eq!(std::fs::read_dir(place.path("mine")).unwrap().count(), 5, "{line}");
    }
}

#[test]
fn missing_directory_with_any_bytes_is_removed_with_its_parents() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new("parents");
    // A path need not be UTF-8.
    let name = if cfg!(target_os = "linux") { &b"new/not\xfftext/mine"[..] } else { b"new/mine" };
    let run = format!("--dir mine --records 9 --baseline 50ms {SMALL}");
    for line in SHORT.into_iter().chain([&run[..]]) {
        let words = line.split_whitespace().map(|word| match word {
            "mine" => std::ffi::OsStr::from_bytes(name),
            _ => word.as_ref(),
        });
        let output = place.command("").args(words).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        assert_eq!(place.entries(), [""; 0], "{line}");
    }
}

/// Sends signals as soon as the directory has an entry.
fn interrupted(
    place: &Place,
    line: &str,
    signals: &[Signal],
    pause: Duration,
) -> std::process::Output {
    let before = place.entries().len();
    let mut command: Command = place.command(line);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    place.until_more_than(before);
    for signal in signals {
        std::thread::sleep(pause);
        kill(Pid::from_raw(child.id() as i32), *signal).unwrap();
    }
    child.wait_with_output().unwrap()
}

/// Checks that a report written before the second signal stays, and is complete.
fn whole(place: &Place, name: &str) -> bool {
    let text = std::fs::read_to_string(place.path(name)).unwrap();
    match name {
        "j" => serde_json::from_str::<serde_json::Value>(&text).is_ok(),
        "h" => text.ends_with("</html>\n"),
        "m" | "p" | "l" => text.ends_with('\n'),
        _ => false,
    }
}

#[test]
fn second_signal_leaves_no_partial_file() {
    for (n, line) in [
        "--duration 60s --json j --html h --hgrm p --hlog l",
        "sweep --step-time 60s --json j --html h",
        "bench --cell-time 60s --json j --markdown m",
        "device --time 200s --json j",
        "crash --rounds 100000",
    ]
    .iter()
    .enumerate()
    {
        let place = Place::new(&format!("second-{n}"));
        let both = [Signal::SIGINT, Signal::SIGTERM];
        // The second signal arrives during the handling of the first, or after it. Both endings are
        // clean.
        let output = interrupted(&place, line, &both, Duration::from_millis(150));
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 130)), "{line}: {output:?}");
        assert!(line.starts_with("--duration") || code == Some(130), "{line}: {output:?}");
        for name in place.entries() {
            assert!(whole(&place, &name), "{line}: {name} is left, {code:?}");
        }
    }
}

#[test]
fn interrupted_measurement_reports_it_and_concludes_nothing() {
    for (n, (line, says, empty)) in [
        ("sweep --step-time 60s", "interrupted by a signal: no knee", &["/knee", "/undecided"][..]),
        ("bench --cell-time 60s --only W1", "INTERRUPTED", &["/rows/0/median", "/rows/0/ratio"]),
        ("device --time 500s", "INTERRUPTED", &["/cells/0", "/required/0"]),
        ("device --time 500s --require p99<1h", "INTERRUPTED", &["/required/0"]),
        ("device --for kafka --size 1", "INTERRUPTED", &["/verdicts/0"]),
        ("crash --rounds 100000", "interrupted by a signal after", &["/lost"]),
        ("--warm-up 1h", "ended by a signal", &["/required/0"]),
        ("--duration 1h --require rate>1", "ended by a signal", &["/required/0"]),
    ]
    .iter()
    .enumerate()
    {
        let place = Place::new(&format!("at-once-{n}"));
        let begun = Instant::now();
        let output = interrupted(&place, line, &[Signal::SIGTERM], Duration::from_millis(300));
        assert!(begun.elapsed() < Duration::from_secs(300), "{line}: {:?}", begun.elapsed());
        assert_eq!(output.status.code(), Some(130), "{line}: {output:?}");
        let table = String::from_utf8_lossy(&output.stdout);
        assert!(table.contains(says), "{line}: {table}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"), "{line}");
        assert!(!table.contains("PASS") && !table.contains("What to change"), "{line}: {table}");
        assert_eq!(place.entries(), [""; 0], "{line}");
        let json = if line.starts_with("crash") { "--json" } else { "--json -" };
        let line = format!("{line} --quiet {json}");
        let output = interrupted(&place, &line, &[Signal::SIGINT], Duration::from_millis(100));
        assert_eq!(output.status.code(), Some(130), "{line}: {output:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["ended_by"], "a signal", "{line}");
        for key in *empty {
            assert!(json.pointer(key).is_none_or(|v| v.is_null()), "{line}: {key}: {json:#}");
        }
    }
}

#[test]
fn interrupted_run_reports_its_figures() {
    let place = Place::new("run-at-once");
    let line = format!("--duration 400ms --status-interval 100ms --baseline 1h {SMALL}");
    let mut command: Command = place.command(&line);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until_it_measures(&mut child);
    // The run probably measures the raw device by now. It must report in either case.
    std::thread::sleep(Duration::from_millis(300));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("records/s"));
}

#[test]
fn ctrl_c_on_a_terminal_is_not_a_failure_of_the_writer() {
    use std::os::unix::process::CommandExt;
    let place = Place::new("group");
    let mut command = place.command("crash --rounds 100000");
    // A terminal sends the signal to all processes of the group.
    command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    place.until_more_than(0);
    std::thread::sleep(Duration::from_millis(500));
    nix::sys::signal::killpg(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(place.entries(), [""; 0]);
}

#[test]
fn table_is_shown_if_a_file_cannot_be_written() {
    let place = Place::new("full");
    let line = format!("--records 100 --baseline 0 --json /dev/full --html h.html {SMALL}");
    let output = place.run(&line);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("--json /dev/full"));
    assert!(String::from_utf8_lossy(&output.stdout).contains("records/s"));
    assert!(place.path("h.html").exists());
}
