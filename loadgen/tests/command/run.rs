//! A single run as a user starts it: arguments in; files, figures and an exit status out.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::place::{Place, SMALL, until_it_measures};
use crate::shared;
use ringwal::{Lsn, Wal};
use serde_json::Value;

fn records_in(dir: &Path) -> Vec<Vec<u8>> {
    let wal = Wal::builder(dir).segment_size(1 << 20).open().unwrap();
    let records = wal.reader(Lsn::ZERO).map(|r| r.unwrap().payload).collect();
    wal.close().unwrap();
    records
}

#[test]
fn run_reports_every_figure_and_verifies_on_both_backends() {
    for backend in ["auto", "std"] {
        let place = Place::new(&format!("figures-{backend}"));
        let line = format!(
            "--warm-up 300ms --duration 300ms --verify --baseline 50ms --backend {backend} {SMALL}"
        );
        let json = place.json(&line);
        for key in ["records", "records_per_s", "bytes_per_s", "groups", "fsyncs"] {
            assert!(json[key].as_f64().unwrap() > 0.0, "{key} in {json:#}");
        }
        let quantiles = ["p50", "p90", "p99", "p99_9", "p99_99", "max"];
        let values = quantiles.map(|key| json["latency_us"][key].as_f64().unwrap());
        assert!(values[0] > 0.0 && values.is_sorted(), "{values:?}");
        assert_eq!(json["verified"], true);
        let known = match json["backend"].as_str().unwrap() {
            "io_uring" => ["linked-fsync", "dsync"].as_slice(),
            "std" => ["write-fsync"].as_slice(),
            other => panic!("{other}"),
        };
        assert!(known.contains(&json["commit_method"].as_str().unwrap()), "{json:#}");
        if backend == "std" {
            assert_eq!(json["backend"], "std");
        }
        assert!(json["eta"].as_f64().unwrap() > 0.0);
        assert!(json["baseline"]["bytes_per_s"].as_f64().unwrap() > 0.0);
        let of = |key: &str| json["verification"][key].as_u64().unwrap();
        // The records of the warm-up are verified, but not counted.
        let verified = of("compared") + of("removed") + of("uncompared");
        assert!(verified > json["records"].as_u64().unwrap(), "{json:#}");
        assert_eq!(json["retained_only"], of("removed") > 0);
        assert!(place.entries().is_empty(), "{:?} left", place.entries());
    }
}

#[test]
fn threads_and_tasks_append_the_requested_records() {
    let place = Place::new("producers");
    for producers in [
        "--threads 3 --mode blocking",
        "--threads 2 --mode pipelined",
        "--tasks 20",
        "--tasks 20 --threads 2",
        "--tasks 5 --mode pipelined",
        "--mode pipelined --durability interval:5ms",
        "--mode pipelined --durability manual",
        "--mode blocking --durability manual",
    ] {
        let line = format!("{producers} --records 301 --size 0-700 --verify --baseline 0 {SMALL}");
        let json = place.json(&line);
        assert_eq!(json["records"], 301, "{producers}");
        assert_eq!(json["verified"], true, "{producers}");
        assert_eq!(json["verification"]["compared"], 301, "{producers}");
        assert_eq!(json["eta"], Value::Null);
        assert!(json["latency_us"]["count"].as_u64().unwrap() > 0, "{producers}");
    }
}

#[test]
fn single_blocking_producer_has_one_group_per_record() {
    let place = Place::new("lone");
    for producer in ["--threads 1", "--tasks 1"] {
        let line = format!("{producer} --mode blocking --records 60 --baseline 0 {SMALL}");
        let syncs = || {
            let json = place.json(&line);
            assert_eq!(json["groups"], 60, "{producer}");
            json["fsyncs"].as_u64().unwrap()
        };
        // On a busy machine, the log may be idle between two records and seal itself, which is one
        // more sync.
        let least = (0..10).map(|_| syncs()).find(|syncs| *syncs <= 60);
        assert_eq!(least, Some(60), "{producer}");
    }
}

#[test]
fn run_without_recycling_ends_within_the_disk_budget() {
    let place = Place::new("budget");
    let line = "--no-recycle --max-disk 64m --segment-size 1m --size 4k --duration 10m";
    let json = place.json(&format!("{line} --verify --baseline 0"));
    assert_eq!(json["ended_by"], "its disk budget");
    assert_eq!((&json["verified"], &json["retained_only"]), (&true.into(), &false.into()));
    assert_eq!(json["segments"]["recycled"], 0);
}

#[test]
fn blocking_run_is_compared_with_one_raw_block() {
    let place = Place::new("blocking");
    let line = "--mode blocking --size 128 --duration 200ms --baseline 50ms --hgrm latency.hgrm";
    let json = place.json(&format!("{line} {SMALL}"));
    assert_eq!(json["baseline"]["depth"], 1);
    let number = |value: &Value| value.as_f64().unwrap();
    let median = number(&json["latency_us"]["p50"]);
    let raw = number(&json["baseline"]["latency_us_p50"]);
    assert!((number(&json["p50_ratio"]) * raw / median - 1.0).abs() < 0.01, "{json:#}");
    let hgrm = std::fs::read_to_string(place.path("latency.hgrm")).unwrap();
    assert!(hgrm.contains("1/(1-Percentile)"));
    let count = format!("Total count    = {:12}]", json["records"].as_u64().unwrap());
    assert!(hgrm.contains(&count), "{hgrm}");
}

#[test]
fn input_lines_are_replayed_in_order() {
    let text: Vec<u8> = (0..2000u32)
        .flat_map(|i| match i % 4 {
            0 => b"\n".to_vec(),
            1 => [&[0xff, 0xfe, b'\r', 0, (i >> 8) as u8 | 0x80][..], b"\n"].concat(),
            2 => format!("line {i}\n").into_bytes(),
            _ => [vec![b'x'; i as usize], b"\n".to_vec()].concat(),
        })
        .chain(*b"without a newline")
        .collect();
    let lines: Vec<&[u8]> = text.split(|&b| b == b'\n').collect();
    for backend in ["auto", "std"] {
        for mode in ["pipelined", "blocking --records 300"] {
            let place = Place::new(&format!("input-{backend}-{}", &mode[..5]));
            std::fs::write(place.path("lines"), &text).unwrap();
            let json = place.json(&format!(
                "--input lines --dir log --keep --verify --baseline 0 --segment-size 1m \
                 --backend {backend} --mode {mode}"
            ));
            let expected = &lines[..if mode == "pipelined" { lines.len() } else { 300 }];
            assert_eq!(json["records"], expected.len());
            assert_eq!(json["verified"], true);
            assert!(records_in(&place.path("log")) == expected, "{backend} {mode}");
        }
    }
}

#[test]
fn existing_log_loses_no_record() {
    let place = Place::new("existing");
    let log = place.path("log");
    std::fs::create_dir(&log).unwrap();
    let wal = Wal::builder(&log).segment_size(1 << 20).open().unwrap();
    for i in 0..50u8 {
        wal.append_durable(&[i; 9]).unwrap();
    }
    wal.close().unwrap();
    let refused = place.run(&format!("--dir log --records 10 {SMALL}"));
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("would delete"));
    let json =
        place.json("--dir log --records 5000 --size 1k --verify --baseline 0 --segment-size 1m");
    assert_eq!((&json["verified"], &json["retained_only"]), (&true.into(), &false.into()));
    let records = records_in(&log);
    assert_eq!(records.len(), 5050);
    assert!(records[..50].iter().zip(0u8..).all(|(r, i)| *r == [i; 9]));
}

#[test]
fn directory_is_removed_only_if_created() {
    let place = Place::new("dirs");
    place.json(&format!("--dir new/below --records 10 --baseline 0 {SMALL}"));
    assert!(!place.path("new/below").exists());
    place.json(&format!("--dir kept --keep --records 10 --baseline 0 {SMALL}"));
    assert_eq!(records_in(&place.path("kept")).len(), 10);
    std::fs::create_dir(place.path("mine")).unwrap();
    place.json(&format!("--dir mine --records 10 --baseline 0 {SMALL}"));
    assert_eq!(records_in(&place.path("mine")).len(), 10);
}

#[test]
fn bad_argument_or_file_ends_with_status_two_and_one_line() {
    let place = Place::new("bad");
    std::fs::write(place.path("empty"), b"").unwrap();
    std::fs::write(place.path("long"), vec![b'x'; 5000]).unwrap();
    for (line, says) in [
        ("--threads 0", "--threads"),
        ("--tasks 0", "--tasks"),
        ("--duration 0", "longer than zero"),
        ("--durability interval:0", "longer than zero"),
        ("--size 9-1", "reversed"),
        ("--size 4g", "more than any log takes"),
        ("--size 2m --segment-size 1m --max-disk 12m", "must fit in one segment"),
        ("--records 0", "--records"),
        ("--depth 0", "--depth is 0"),
        ("--ring 1", "--ring is 1"),
        ("--segment-size 5000", "--segment-size is 5000"),
        ("--max-disk 12m --segment-size 12m", "--max-disk"),
        ("--input missing", "missing"),
        ("--input .", "directory"),
        ("--input empty", "no records"),
        ("--input long --max-record 4k", "line 1"),
        ("--input empty --size 4", "--size"),
        ("--json no/such/dir", "--json"),
        ("--hgrm .", "--hgrm"),
        ("--hgrm -", "--hgrm"),
        ("--input long --warm-up 1s", "--warm-up"),
        ("--dir empty", "it is a file"),
        ("--dir empty/below", "empty/below"),
        ("--backend tape", "tape"),
        ("--segment-size 1000g", "--segment-size"),
        ("--ring 0", "--ring"),
        ("--threads ten", "write 1000"),
        ("--records 1e3", "write 1000"),
        ("bench --rounds x", "write 1000"),
        ("crash --size 1z", "is not a size"),
        ("compare a b --tolerance many", "percentage"),
        ("--seed -1", "'-1' for '--seed': it must not be negative"),
        ("sweep --bound -5ms", "'-5ms' for '--bound'"),
        ("device --size -4k", "'-4k' for '--size'"),
    ] {
        let output = place.run(line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        assert!(stderr.contains(says), "{line}: {stderr}");
        assert!(!stderr.contains("panicked"), "{line}: {stderr}");
        // Messages name the options of the command, not those of the library.
        assert!(!stderr.contains("_capacity") && !stderr.contains("max_"), "{line}: {stderr}");
        assert!(!stderr.contains("segment_size") && !stderr.contains("invalid digit"), "{line}");
        let mut left = place.entries();
        left.sort();
        assert_eq!(left, ["empty", "long"], "{line}");
    }
}

#[test]
fn log_in_use_ends_with_status_one() {
    let place = Place::new("locked");
    let wal = Wal::builder(place.path("log")).segment_size(1 << 20).open().unwrap();
    let output = place.run("--dir log --records 10 --segment-size 1m");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains(&std::process::id().to_string()), "{stderr}");
    wal.close().unwrap();
}

#[test]
fn closed_stdout_pipe_is_not_an_error() {
    let place = Place::new("pipe");
    let line = format!("--records 10 --baseline 0 {SMALL}");
    let mut child =
        place.command(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[cfg(unix)]
#[test]
fn signal_ends_the_run_with_its_table_and_leaves_nothing() {
    use nix::sys::signal::{Signal, kill};
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let place = Place::new(&format!("signal-{signal}"));
        let mut command =
            place.command(&format!("--duration 60s --verify --status-interval 50ms {SMALL}"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A run without a measured record reports an interruption, and no result.
        until_it_measures(&mut child);
        kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        let table = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert!(table.contains("ended by a signal"), "{table}");
        assert!(table.contains("records in order, count and content"), "{table}");
        assert!(place.entries().is_empty(), "{:?} left", place.entries());
    }
}

#[test]
fn table_names_every_figure() {
    let place = Place::new("table");
    // JSON on stdout moves the table to stderr.
    let line = format!("--duration 200ms --baseline 50ms --json - {SMALL}");
    let output = place.run(&line);
    assert!(output.status.success());
    assert!(serde_json::from_slice::<Value>(&output.stdout).is_ok(), "{output:?}");
    let table = String::from_utf8(output.stderr).unwrap();
    for name in [
        "records/s",
        "MB/s",
        "groups/s",
        "per group",
        "fsyncs",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "max",
        "commit method",
        "backend",
        "device",
        "raw device",
        "eta",
        "█",
    ] {
        assert!(table.contains(name), "{name} is not in\n{table}");
    }
}

#[test]
fn open_loop_keeps_its_rate_and_counts_from_the_arrival() {
    let place = Place::new("rate");
    let line = format!("{SMALL} --rate 20k --duration 500ms --baseline 50ms --verify");
    // A machine that stalls at the start or end of a run makes the run shorter or longer.
    let mut runs = (0..5).map(|_| place.json(&line));
    let kept = |run: &Value| (8_000..12_000).contains(&run["records"].as_u64().unwrap());
    let run = runs.find(kept).expect("one of five runs has its rate");
    assert_eq!(run["mode"], "open");
    assert_eq!(run["latency_us"]["meaning"], "arrival_to_durable_sampled");
    assert_eq!(run["verified"], true);
    assert!(run["p99_9_ratio"].as_f64().unwrap() > 0.0);
    assert!(run["eta"].is_null(), "no bandwidth was asked for");
    // The table warns if a rate exceeds the disk.
    let overloaded = shared::overloaded_run();
    assert_eq!(overloaded.code, Some(0), "{}", overloaded.table);
    assert!(overloaded.table.contains("TOO FAST"), "{}", overloaded.table);
}

#[test]
fn numbers_of_all_options_have_one_grammar() {
    let place = Place::new("numbers");
    let line = format!("--records 1k --threads 0.002k --size 1KiB --baseline 0 {SMALL} --seed 4Ki");
    let json = place.json(&line);
    assert_eq!((&json["records"], &json["threads"]), (&1000.into(), &2.into()));
    assert_eq!((&json["size"]["max"], &json["seed"]), (&1024.into(), &4096.into()));
    let output = place.run("crash --rounds 0.001k --size 1KiB --threads 1 --quiet --json");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["asked_rounds"], 1, "{output:?}");
}

#[test]
fn same_seed_repeats_the_run_and_no_seed_differs() {
    let place = Place::new("seed");
    let line = format!("--rate 300 --duration 1s --backend discard {SMALL}");
    let bytes = |more: &str| {
        let json = place.json(&format!("{line} --records 50 --size 1-1000 {more}"));
        (json["seed"].as_u64().unwrap(), json["bytes"].as_u64().unwrap())
    };
    assert_eq!(bytes("--seed 7"), bytes("--seed 7"));
    assert_ne!(bytes("--seed 7").1, bytes("--seed 8").1);
    assert_ne!(bytes("").0, bytes("").0);
    // Without a seed, the number of arrivals per second differs, too.
    let line = line.replace("1s", "300ms");
    let records = |_| place.json(&line)["records"].as_u64().unwrap();
    let counts: std::collections::BTreeSet<u64> = (0..4).map(records).collect();
    assert!(counts.len() > 1, "{counts:?}");
}

#[test]
fn requirement_decides_the_exit_status() {
    let place = Place::new("require");
    let line = format!("--records 500 --mode blocking --backend discard {SMALL} --json out.json");
    for (required, code) in [
        ("rate>1,p99<1h,max<=1h,mean<1h,cpu<1h,memory>1k,p99.9<1h", 0),
        ("rate>1g", 99),
        ("p50<1ns", 99),
        ("rate>1,p99<1ns", 99),
        // A missing figure is not met.
        ("eta>0.1", 99),
        ("knee>1", 99),
        ("speed>1", 2),
        ("p99<10q", 2),
    ] {
        let output = place.run(&format!("{line} --require {required}"));
        assert_eq!(output.status.code(), Some(code), "{required}: {output:?}");
        if code == 2 {
            continue;
        }
        let text = std::fs::read(place.path("out.json")).unwrap();
        let json: Value = serde_json::from_slice(&text).unwrap();
        let met = json["required"].as_array().unwrap().iter().all(|c| c["met"] == true);
        assert_eq!(met, code == 0, "{required}");
        let table = String::from_utf8(output.stdout).unwrap();
        assert!(table.contains(if met { "PASS" } else { "FAIL" }), "{table}");
    }
    // The run ends at once when the required latency is out of reach.
    let begun = Instant::now();
    let line = format!("--duration 1h --mode blocking --baseline 0 {SMALL} --json -");
    let output = place.run(&format!("{line} --require p50<1ns --require-abort"));
    assert_eq!(output.status.code(), Some(99), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["ended_by"], "latencies beyond what is required");
    assert!(begun.elapsed() < Duration::from_secs(600));
    assert_eq!(shared::device().code, Some(0), "rate>1,p99<1h");
    let output = place.run("device --time 20ms --size 2300 --quiet --require p99<1ns");
    assert_eq!(output.status.code(), Some(99), "{output:?}");
    assert_eq!(shared::sweep_without_a_knee().code, Some(99), "knee>1");
}

#[test]
fn latencies_are_reported_over_time() {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    let place = Place::new("over-time");
    for mode in ["--mode blocking", "--rate 2k", "--mode pipelined", "--tasks 4"] {
        let line = format!("{mode} --duration 600ms --baseline 0 --hlog l {SMALL}");
        let json = place.json(&line);
        let series = json["series"].as_array().unwrap();
        let counted: u64 = series.iter().map(|p| p["latencies"].as_u64().unwrap()).sum();
        assert_eq!(counted, json["latency_us"]["count"].as_u64().unwrap(), "{mode}");
        let most = series.iter().map(|p| p["latency_max_ns"].as_u64().unwrap()).max().unwrap();
        let max = json["latency_us"]["max"].as_f64().unwrap();
        assert!((most as f64 / 1000.0 / max - 1.0).abs() < 0.01, "{mode}: {most} {max}");
        for point in series.iter().filter(|point| point["latencies"].as_u64() > Some(0)) {
            let keys = ["latency_p50_ns", "latency_p99_ns", "latency_p99_9_ns", "latency_max_ns"];
            assert!(keys.map(|key| point[key].as_u64().unwrap()).is_sorted(), "{point}");
        }
        let log = std::fs::read(place.path("l")).unwrap();
        let entries = IntervalLogIterator::new(&log).map(Result::unwrap);
        let lines = entries.filter(|entry| matches!(entry, LogEntry::Interval(_))).count();
        assert_eq!(lines, series.len(), "{mode}: one line an interval");
        assert!(lines >= 2, "{mode}");
    }
}

#[test]
fn json_has_environment_and_processor_time() {
    let place = Place::new("environment");
    let run = place.json(&format!("--records 300 --mode blocking --baseline 0 {SMALL}"));
    let cpu = &run["cpu"];
    let threads = cpu["threads"].as_array().unwrap();
    assert!(threads.iter().any(|thread| thread["name"] == "producers"), "{cpu:#}");
    assert!(threads.len() >= 2, "the log has threads of its own: {cpu:#}");
    assert!(cpu["voluntary_switches"].as_u64().unwrap() > 0, "{cpu:#}");
    let used = cpu["user_s"].as_f64().unwrap() + cpu["system_s"].as_f64().unwrap();
    assert!((cpu["us_per_record"].as_f64().unwrap() * 300.0 / 1e6 / used - 1.0).abs() < 0.01);
    let (device, sweep) = (&shared::device().json, &shared::sweep_without_a_knee().json);
    for json in [&run, device, sweep, &shared::suite().json] {
        let environment = &json["environment"];
        for key in ["date", "loadgen_version", "command_line", "host", "kernel", "memory_bytes"] {
            assert!(!environment[key].is_null(), "{key}: {environment:#}");
        }
        let line = environment["command_line"].as_str().unwrap();
        assert!(line.contains("loadgen") && line.contains("--json "), "{line}");
    }
    // The discarding backend has no sync and no device to compare with.
    let run = place.json(&format!("{SMALL} --backend discard --records 1000"));
    assert_eq!((&run["eta"], &run["fsyncs"]), (&Value::Null, &Value::Null));
    assert_eq!(run["baseline"], Value::Null);
}

#[test]
fn sizes_are_mixed_and_lines_are_sampled() {
    let place = Place::new("sizes");
    let line = format!("--records 3000 --threads 2 --verify --baseline 0 {SMALL}");
    let run = place.json(&format!("{line} --size 10:1,1000:1"));
    let mean = run["bytes"].as_f64().unwrap() / 3000.0;
    assert!((450.0..560.0).contains(&mean), "{mean}");
    assert_eq!((&run["verified"], &run["size"]["mix"]), (&true.into(), &"10:1,1000:1".into()));
    std::fs::write(place.path("real"), format!("ab\n{}\n", "x".repeat(5000))).unwrap();
    for open in ["", "--rate 20k"] {
        let run = place.json(&format!("{line} --sample real --warm-up 50ms {open}"));
        let mean = run["bytes"].as_f64().unwrap() / 3000.0;
        assert!((2300.0..2700.0).contains(&mean), "{mean}");
        assert_eq!((&run["verified"], &run["size"]), (&true.into(), &Value::Null));
    }
    for (line, says) in [
        ("--sample missing", "--sample missing"),
        ("--sample .", "--sample ."),
        ("--sample real --size 4", "--size"),
        ("--size 100:0", "no weight"),
    ] {
        let output = place.run(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(String::from_utf8(output.stderr).unwrap().contains(says), "{line}");
    }
}

#[test]
fn discarding_backend_writes_nothing() {
    let place = Place::new("discard");
    let run = place.json(&format!("{SMALL} --backend discard --duration 200ms --baseline 0"));
    assert_eq!(run["backend"], "discard");
    assert_eq!(run["commit_method"], "none");
    assert!(run["records"].as_u64().unwrap() > 1000);
}
