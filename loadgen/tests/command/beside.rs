//! Readers and writers beside the run, and the surroundings of a run.

use crate::place::{Place, SMALL};
use serde_json::Value;

#[test]
fn readers_beside_the_writers_receive_every_record() {
    let place = Place::new("readers");
    for mode in
        ["--mode blocking --threads 2 --records 1k", "--records 10k", "--tasks 4 --records 1k"]
    {
        let line = format!(
            "{mode} --followers 2 --consumers 1 --verify --baseline 0 --max-disk 64m --segment-size 1m"
        );
        let json = place.json(&line);
        let readers = &json["readers"];
        assert_eq!((&readers["followers"], &readers["consumers"]), (&2.into(), &1.into()));
        let records = json["records"].as_u64().unwrap();
        assert_eq!(readers["records"], 3 * records, "{mode}: {readers:#}");
        assert!(readers["catch_up_s"].as_f64().is_some(), "{mode}: {readers:#}");
        assert!(readers["latency_us"]["count"].as_u64() > Some(records / 100), "{readers:#}");
        assert_eq!(json["verified"], true);
        assert_eq!(place.entries(), [""; 0]);
    }
}

#[test]
fn background_writers_leave_nothing() {
    let place = Place::new("background");
    std::fs::create_dir(place.path("mine")).unwrap();
    std::fs::write(place.path("mine/second-writer"), "precious").unwrap();
    let line = format!(
        "--dir mine --keep --background-writers 2 --records 500 --mode blocking --baseline 0 {SMALL}"
    );
    let json = place.json(&line);
    assert_eq!((&json["background_writers"], &json["readers"]), (&2.into(), &Value::Null));
    assert_eq!(std::fs::read_to_string(place.path("mine/second-writer")).unwrap(), "precious");
    let names = std::fs::read_dir(place.path("mine")).unwrap();
    let left =
        names.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("loadgen"));
    assert_eq!(left.count(), 0);
}

#[test]
fn status_lines_appear_and_warm_up_ends_when_steady() {
    let place = Place::new("status");
    let line = format!(
        "--until-steady --warm-up 3s --duration 600ms --status-interval 250ms --baseline 0 {SMALL}"
    );
    let output = place.run(&line);
    assert!(output.status.success(), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let lines = stderr.lines().filter(|line| line.contains("records/s; p50")).count();
    assert!(lines >= 2, "{stderr}");
    for (line, part) in [
        ("--followers 1000", "--followers"),
        ("--backend discard --consumers 1", "--backend discard"),
        ("--status-interval 0", "longer than zero"),
    ] {
        let output = place.run(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(String::from_utf8(output.stderr).unwrap().contains(part), "{line}");
    }
}

#[test]
fn completions_and_manual_pages_describe_every_command() {
    let place = Place::new("generate");
    for shell in ["bash", "zsh", "fish"] {
        let output = place.run(&format!("completions {shell}"));
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("require-abort") && script.contains("witness"), "{shell}");
    }
    let output = place.run("man");
    assert!(String::from_utf8(output.stdout).unwrap().contains(".TH loadgen"));
    for _ in 0..2 {
        assert!(place.run("man pages").status.success());
    }
    for name in ["loadgen.1", "loadgen-sweep.1", "loadgen-ab.1", "loadgen-device.1"] {
        assert!(place.path("pages").join(name).exists(), "{name}");
    }
    // A manual page of another program is not replaced.
    std::fs::write(place.path("pages/loadgen-sweep.1"), "precious").unwrap();
    assert_eq!(place.run("man pages").status.code(), Some(2));
    let kept = std::fs::read_to_string(place.path("pages/loadgen-sweep.1")).unwrap();
    assert_eq!(kept, "precious");
}
