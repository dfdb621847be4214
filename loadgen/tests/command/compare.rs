//! Comparisons as a gate uses them: files in, verdicts and an exit status out.

use crate::place::{Place, SMALL};
use serde_json::{Value, json};

fn suite(by: f64) -> Value {
    let samples: Vec<_> =
        [9.9, 10.0, 10.1, 10.0, 10.2].map(|value| json!({ "value": value * by })).into();
    let row = |unit| json!({ "workload": "W1", "name": unit, "unit": unit, "samples": samples });
    json!({ "schema": "ringwal-loadgen/bench/1", "rows": [row("per_second"), row("ns")] })
}

fn put(place: &Place, name: &str, value: &Value) {
    std::fs::write(place.path(name), value.to_string()).unwrap();
}

#[test]
fn compared_suites_decide_the_exit_status() {
    let place = Place::new("compare");
    put(&place, "a", &suite(1.0));
    put(&place, "b", &suite(1.5));
    assert!(place.run("compare a a").status.success());
    let output = place.run("compare a b --json");
    assert_eq!(output.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["rows"][0]["verdict"], "better");
    assert_eq!(json["rows"][1]["verdict"], "worse");
    assert!(place.run("compare a b --tolerance 60%").status.success());
    // A row that the second file lacks is a failure, except with --common.
    let first = suite(1.0).to_string().replacen("W1", "W2", 1);
    std::fs::write(place.path("more"), first).unwrap();
    let output = place.run("compare more a");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("only in the first"));
    assert!(place.run("compare more a --common").status.success());
    // An undecided comparison is a failure, too. Different settings are listed.
    let few = |mode: &str| {
        let points = [1.0, 2.0].map(|n| json!({ "records_per_s": n }));
        json!({ "schema": "ringwal-loadgen/run/1", "mode": mode, "series": points })
    };
    put(&place, "d", &few("blocking"));
    put(&place, "e", &few("open"));
    let output = place.run("compare d e");
    assert_eq!(output.status.code(), Some(2));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("mode: blocking and open"), "{table}");
}

#[test]
fn latencies_of_a_suite_are_rows() {
    let place = Place::new("compare-latencies");
    let suite = |tail: f64| {
        let sample = |value: f64| json!({ "value": value, "p50_ns": 100.0 * value, "p99_ns": 300.0 * value, "p99_9_ns": tail * value });
        let samples: Vec<_> = [9.9, 10.0, 10.1, 10.0, 10.2].map(sample).into();
        json!({
            "schema": "ringwal-loadgen/bench/1",
            "commit_method": format!("dsync (measured, {tail} us)"),
            "rows": [{ "workload": "W2", "name": "x", "unit": "per_second", "samples": samples }],
        })
    };
    put(&place, "a", &suite(900.0));
    put(&place, "b", &suite(1800.0));
    let output = place.run("compare a b");
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{table}");
    assert!(table.contains("W2  x, p99.9") && table.matches("WORSE").count() == 1, "{table}");
    // A commit method chosen by a different measurement is not a difference.
    assert!(!table.contains("Not the same"), "{table}");
}

/// A run whose intervals vary by a few percent.
fn run(rate: f64, latency: f64) -> Value {
    let wave = |n: u32| 1.0 + 0.03 * (f64::from(n * n * 7 % 31) / 31.0 - 0.5);
    let point = |n: u32| {
        let ns = latency * 1000.0 * wave(n);
        json!({
            "records_per_s": rate * wave(n + 5), "latency_p50_ns": ns, "latency_p99_ns": 3.0 * ns,
            "latency_p99_9_ns": 5.0 * ns, "latency_max_ns": 8.0 * ns,
        })
    };
    json!({
        "schema": "ringwal-loadgen/run/1", "verified": null, "ended_by": null, "records_per_s": rate,
        "latency_us": { "p50": latency, "p99": 3.0 * latency, "p99_9": 5.0 * latency, "max": 8.1 * latency },
        "series": (0..40).map(point).collect::<Vec<_>>(),
    })
}

fn verdicts(place: &Place, line: &str) -> (Option<i32>, Vec<String>) {
    let output = place.run(&format!("compare {line} --json"));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let rows = json["rows"].as_array().cloned().unwrap_or_default();
    let verdict = |row: &Value| row["verdict"].as_str().unwrap().to_owned();
    (output.status.code(), rows.iter().map(verdict).collect())
}

#[test]
fn every_headline_figure_of_a_run_is_compared() {
    let place = Place::new("compare-runs");
    put(&place, "a", &run(10_000.0, 100.0));
    put(&place, "slow", &run(10_000.0, 10_000.0));
    let (code, found) = verdicts(&place, "a slow");
    assert_eq!(code, Some(1));
    assert_eq!(found[1..], ["worse"; 4], "{found:?}");
    assert_eq!(verdicts(&place, "slow a").1[1..], ["better"; 4]);
    put(&place, "fewer", &run(4000.0, 100.0));
    assert_eq!(
        (verdicts(&place, "a fewer").0, &verdicts(&place, "a fewer").1[0][..]),
        (Some(1), "worse")
    );
    // A single worse figure decides, in spite of equal intervals.
    for key in ["p50", "p99", "p99_9", "max"] {
        let mut other = run(10_000.0, 100.0);
        let figure = other["latency_us"][key].as_f64().unwrap() * 100.0;
        other["latency_us"][key] = json!(figure);
        put(&place, "other", &other);
        assert_eq!(verdicts(&place, "a other").0, Some(1), "{key}");
    }
    put(&place, "equal", &run(10_010.0, 100.1));
    let (code, found) = verdicts(&place, "a equal --tolerance 50");
    assert_eq!(code, Some(0));
    assert_eq!((&found[0][..], &found[1][..]), ("same", "same"));
    let (_, found) = verdicts(&place, "a equal --tolerance 0");
    assert!(found.iter().all(|verdict| verdict == "undecided"), "{found:?}");
}

#[test]
fn incomplete_or_invalid_measurement_is_rejected() {
    let place = Place::new("compare-refused");
    put(&place, "a", &run(10_000.0, 100.0));
    put(&place, "suite", &suite(1.0));
    let with = |key: &str, value: Value| {
        let mut run = run(10_000.0, 100.0);
        run[key] = value;
        run
    };
    put(&place, "unverified", &with("verified", json!(false)));
    put(&place, "verified", &with("verified", json!(true)));
    put(&place, "interrupted", &with("ended_by", json!("a signal")));
    put(&place, "full", &with("ended_by", json!("a full disk")));
    put(&place, "newer", &with("schema", json!("ringwal-loadgen/run/2")));
    put(&place, "other", &with("schema", json!("other/run/1")));
    put(&place, "without", &with("schema", Value::Null));
    put(&place, "empty", &json!({ "schema": "ringwal-loadgen/run/1" }));
    std::fs::write(place.path("s"), r#"{"steps": []}"#).unwrap();
    std::fs::write(place.path("binary"), [0xff; 100]).unwrap();
    std::fs::write(place.path("c"), "{}").unwrap();
    for (name, part) in [
        ("unverified", "verification"),
        ("interrupted", "a signal ended it"),
        ("full", "a full disk ended it"),
        ("newer", "ringwal-loadgen/run/2"),
        ("other", "other/run/1"),
        ("without", "no schema"),
        ("empty", "no measured values"),
        ("suite", "another command"),
        ("c", "no measured values"),
        ("none", "cannot compare none"),
        ("s", "of a sweep"),
        ("binary", "cannot compare binary"),
        (".", "cannot compare ."),
        ("/dev/zero", "too large"),
    ] {
        let mut lines = vec![format!("compare a {name}")];
        if name != "suite" {
            lines.push(format!("compare {name} a"));
        }
        for line in lines {
            let output = place.run(&line);
            assert_eq!(output.status.code(), Some(2), "{line}");
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(stderr.contains(part), "{line}: {stderr}");
        }
    }
    assert_eq!(verdicts(&place, "a verified --tolerance 60").0, Some(0));
}

#[test]
fn two_sets_of_options_are_compared_pair_by_pair() {
    let place = Place::new("ab");
    let common = format!("-- --mode blocking --backend discard {SMALL}");
    let mut command = place.command("ab --pairs 4 --time 80ms --json - --quiet");
    command.args(["--size 100", "--size 100 --threads 2"]).args(common.split_whitespace());
    let output = command.output().unwrap();
    assert!(matches!(output.status.code(), Some(0..=2)), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["pairs"], &json["asked_pairs"]), (&4.into(), &4.into()));
    let rows = json["rows"].as_array().unwrap();
    assert!(rows.len() >= 5, "{json:#}");
    assert!(rows.iter().all(|row| row["first"].as_f64() > Some(0.0)), "{json:#}");
    assert!(json["commands"][1].as_str().unwrap().contains("--threads 2"), "{json:#}");
    assert_eq!(place.entries(), [""; 0]);
}

#[test]
fn much_slower_program_is_worse() {
    let place = Place::new("ab-programs");
    let program = env!("CARGO_BIN_EXE_loadgen");
    let slow = format!("{program} --rate 100");
    let mut command = place.command("ab --pairs 4 --time 200ms --json ab.json");
    command.args([&format!("{program} --rate 5k"), &slow]);
    command.args(["--", "--backend", "discard", "--max-disk", "12m", "--segment-size", "1m"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("records a second") && table.contains("WORSE"), "{table}");
}

#[test]
fn ab_with_invalid_arguments_is_rejected() {
    let place = Place::new("ab-arguments");
    for (line, part) in [
        ("ab a b", "is no program"),
        ("ab --depth --depth --pairs 3", "--pairs"),
        ("ab --depth", "required"),
    ] {
        let output = place.run(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(String::from_utf8(output.stderr).unwrap().contains(part), "{line}");
    }
    let mut command = place.command("ab --pairs 4");
    let output = command.args(["--threads 0", "--threads 1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--threads is 0"));
    let output = place.command("ab").args(["--json x", "--threads 1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
