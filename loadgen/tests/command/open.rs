//! Open loops: threads and tasks, rates and replayed arrivals.

use crate::place::{Place, SMALL};
use serde_json::Value;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn tasks_take_the_arrivals_of_an_open_loop() {
    let place = Place::new("open-tasks");
    for (line, meaning) in [
        ("--tasks 40", "arrival_to_durable"),
        ("--tasks 40 --threads 2 --arrivals burst:10", "arrival_to_durable"),
        ("--tasks 4 --mode pipelined", "arrival_to_durable_sampled"),
        ("--tasks 4 --durability interval:20ms", "arrival_to_durable_sampled_polled"),
        ("--threads 2 --durability interval:20ms", "arrival_to_durable_sampled_polled"),
    ] {
        let line = format!("{line} --rate 2k --records 600 --verify --baseline 0 {SMALL}");
        let json = place.json(&line);
        assert_eq!((&json["mode"], &json["records"]), (&"open".into(), &600.into()), "{line}");
        assert_eq!((&json["verified"], &json["overdue"]), (&true.into(), &0.into()), "{line}");
        let latency = &json["latency_us"];
        assert_eq!(latency["meaning"], meaning, "{line}");
        assert_eq!(latency["count"], 600, "{line}: {latency}");
        // No machine appends 600 arrivals of 2000 per second much earlier than in 0.3 seconds.
        assert!(number(&json["seconds"]) > 0.2, "{line}: {}", json["seconds"]);
        if line.contains("interval") {
            let most = number(&json["seconds"]) / 0.02 + 20.0;
            assert!(number(&json["fsyncs"]) < most, "{line}: {} syncs", json["fsyncs"]);
        }
        assert_eq!(place.entries(), [""; 0]);
    }
}

#[test]
fn tasks_that_all_wait_leave_arrivals_overdue() {
    let place = Place::new("open-tasks-late");
    let line = format!("--tasks 2 --rate 500k --duration 300ms --baseline 0 {SMALL}");
    let output = place.run(&format!("{line} --json j"));
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("TOO FAST") && table.contains("2 tasks on 1 thread"), "{table}");
    let json: Value = serde_json::from_slice(&std::fs::read(place.path("j")).unwrap()).unwrap();
    let (records, overdue) = (number(&json["records"]), number(&json["overdue"]));
    let arrived = 500_000.0 * number(&json["seconds"]);
    assert!(overdue > records && records + overdue < 1.2 * arrived, "{records} and {overdue}");
    // Latencies count from the arrival: the last records waited for nearly the whole run.
    assert!(number(&json["latency_us"]["max"]) > 100_000.0, "{}", json["latency_us"]);
    let output = place.run("--rate 100 --mode blocking");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("give --tasks"));
}

#[test]
fn replay_has_the_times_and_sizes_of_its_file() {
    let place = Place::new("replay");
    // 300 records in 0.6 s of recorded time, in an uneven pattern, with wall clock times.
    let mut file = String::from("# recorded by hand\n");
    let (mut bytes, mut at) = (0, 1_798_761_599_000_u64);
    for n in 0..300_u64 {
        at += if n % 3 == 0 { 6 } else { 0 };
        bytes += n % 500;
        file += &format!("{}.{:03} {}\n", at / 1000, at % 1000, n % 500);
    }
    std::fs::write(place.path("trace"), file).unwrap();
    for producers in ["--threads 1", "--threads 7", "--tasks 5", "--tasks 3 --mode pipelined"] {
        let line = format!("--replay trace {producers} --verify --baseline 0 {SMALL}");
        let json = place.json(&line);
        assert_eq!((&json["records"], &json["bytes"]), (&300.into(), &bytes.into()), "{line}");
        assert_eq!((&json["verified"], &json["mode"]), (&true.into(), &"open".into()), "{line}");
        assert_eq!((&json["replay"], &json["size"]), (&"trace".into(), &Value::Null), "{line}");
        assert!(number(&json["seconds"]) > 0.55, "{line}: {}", json["seconds"]);
        let meaning = json["latency_us"]["meaning"].as_str().unwrap();
        assert!(meaning.starts_with("arrival_to_durable"), "{meaning}");
    }
    let some = format!("--replay trace --records 100 --warm-up 50ms --baseline 0 {SMALL}");
    let json = place.json(&some);
    let expected: u64 = (0..100).sum();
    assert_eq!((&json["records"], &json["bytes"]), (&100.into(), &expected.into()));
    let some = format!("--replay trace --duration 200ms --baseline 0 {SMALL}");
    let records = number(&place.json(&some)["records"]);
    assert!(records > 0.0 && records < 300.0, "{records}");
    let table = String::from_utf8(place.run(&some).stdout).unwrap();
    assert!(table.contains("arrivals and sizes of trace"), "{table}");
}

#[test]
fn bad_replay_file_is_rejected_with_the_line() {
    let place = Place::new("replay-bad");
    for (text, part) in [
        ("0 1\n1 x\n", "line 2"),
        ("0 1\n\n# 2\n5\n", "line 4"),
        ("3 1\n2 1\n", "line 2: it is earlier"),
        ("", "no record"),
        ("0 3m\n", "--max-record"),
    ] {
        std::fs::write(place.path("trace"), text).unwrap();
        let output = place.run(&format!("--replay trace {SMALL} --max-record 4k"));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text:?}: {stderr}");
        assert!(stderr.contains(part), "{text:?}: {stderr}");
        assert_eq!(place.entries(), ["trace"]);
    }
    for (line, part) in [
        ("--replay none", "--replay none"),
        ("--replay .", "directory"),
        ("--replay trace --rate 5", "--rate"),
        ("--replay trace --mode blocking", "--mode blocking"),
        ("--replay trace --json trace --force", "--replay"),
    ] {
        let output = place.run(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(String::from_utf8(output.stderr).unwrap().contains(part), "{line}");
    }
}
