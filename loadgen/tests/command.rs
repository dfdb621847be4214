//! The command as its users meet it: arguments in; files, figures and an exit status out.

mod place;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use place::{Place, SMALL};
use ringwal::{Lsn, Wal};
use serde_json::Value;

fn records_in(dir: &Path) -> Vec<Vec<u8>> {
    let wal = Wal::builder(dir).segment_size(1 << 20).open().unwrap();
    let records = wal.reader(Lsn::ZERO).map(|r| r.unwrap().payload).collect();
    wal.close().unwrap();
    records
}

#[test]
fn a_run_reports_every_figure_and_verifies_on_both_backends() {
    for backend in ["auto", "std"] {
        let place = Place::new(&format!("figures-{backend}"));
        let line = format!(
            "--warm-up 1s --duration 500ms --verify --baseline 50ms --backend {backend} {SMALL}"
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
        // The records of the warm-up are verified too, but are no figure.
        let verified = of("compared") + of("removed") + of("uncompared");
        assert!(verified > json["records"].as_u64().unwrap(), "{json:#}");
        assert_eq!(json["retained_only"], of("removed") > 0);
        assert!(place.entries().is_empty(), "{:?} left", place.entries());
    }
}

#[test]
fn threads_and_tasks_reach_the_number_asked_for() {
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
fn a_lone_blocking_producer_waits_for_a_group_of_each_records_own() {
    let place = Place::new("lone");
    for producer in ["--threads 1", "--tasks 1"] {
        let line = format!("{producer} --mode blocking --records 60 --baseline 0 {SMALL}");
        let syncs = || {
            let json = place.json(&line);
            assert_eq!(json["groups"], 60, "{producer}");
            json["fsyncs"].as_u64().unwrap()
        };
        // On a busy machine the log may have been idle between two, and seal itself: that is one sync more.
        let least = (0..10).map(|_| syncs()).find(|syncs| *syncs <= 60);
        assert_eq!(least, Some(60), "{producer}");
    }
}

#[test]
fn without_recycling_the_run_ends_before_the_disk_is_used_up() {
    let place = Place::new("budget");
    let line = "--no-recycle --max-disk 64m --segment-size 1m --size 4k --duration 10m";
    let json = place.json(&format!("{line} --verify --baseline 0"));
    assert_eq!(json["ended_by"], "its disk budget");
    assert_eq!((&json["verified"], &json["retained_only"]), (&true.into(), &false.into()));
    assert_eq!(json["segments"]["recycled"], 0);
}

#[test]
fn blocking_is_compared_with_one_raw_block() {
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
fn every_line_of_a_real_file_comes_back_in_order() {
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
fn a_log_that_was_there_before_loses_nothing() {
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
fn a_directory_is_removed_only_if_it_was_created() {
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
fn bad_arguments_and_files_end_with_status_two_and_one_clear_line() {
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
        ("--depth 0", "depth"),
        ("--ring 1", "ring_capacity"),
        ("--segment-size 5000", "segment_size"),
        ("--max-disk 12m --segment-size 12m", "max_total_bytes"),
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
    ] {
        let output = place.run(line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        assert!(stderr.contains(says), "{line}: {stderr}");
        assert!(!stderr.contains("panicked"), "{line}: {stderr}");
        let mut left = place.entries();
        left.sort();
        assert_eq!(left, ["empty", "long"], "{line}");
    }
}

#[test]
fn a_log_that_is_in_use_ends_with_status_one() {
    let place = Place::new("locked");
    let wal = Wal::builder(place.path("log")).segment_size(1 << 20).open().unwrap();
    let output = place.run("--dir log --records 10 --segment-size 1m");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains(&std::process::id().to_string()), "{stderr}");
    wal.close().unwrap();
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
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
fn a_signal_ends_the_run_with_its_table_and_leaves_nothing() {
    use nix::sys::signal::{Signal, kill};
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let place = Place::new(&format!("signal-{signal}"));
        let mut command = place.command(&format!("--duration 60s --verify {SMALL}"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        place.until_more_than(0);
        std::thread::sleep(Duration::from_millis(300));
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
fn the_table_names_every_figure() {
    let place = Place::new("table");
    let output = place.run(&format!("--duration 200ms --baseline 50ms {SMALL}"));
    assert!(output.status.success());
    let table = String::from_utf8(output.stdout).unwrap();
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
fn an_open_loop_keeps_its_rate_and_counts_from_the_arrival() {
    let place = Place::new("rate");
    let line = format!("{SMALL} --rate 20k --duration 500ms --baseline 50ms --verify");
    // A machine that stands still at the beginning or the end of a run makes that one shorter or longer.
    let mut runs = (0..5).map(|_| place.json(&line));
    let kept = |run: &Value| (8_000..12_000).contains(&run["records"].as_u64().unwrap());
    let run = runs.find(kept).expect("one of five runs has its rate");
    assert_eq!(run["mode"], "open");
    assert_eq!(run["latency_us"]["meaning"], "arrival_to_durable_sampled");
    assert_eq!(run["verified"], true);
    assert!(run["p99_9_ratio"].as_f64().unwrap() > 0.0);
    assert!(run["eta"].is_null(), "no bandwidth was asked for");
    // One that is beyond every disk is said to be.
    let output = place.run(&format!("{SMALL} --rate 900m --size 4k --duration 300ms --baseline 0"));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && table.contains("TOO FAST"), "{table}");
}

#[test]
fn sizes_are_mixed_and_records_sampled_from_a_file() {
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
fn nothing_is_written_by_the_discarding_backend() {
    let place = Place::new("discard");
    let run = place.json(&format!("{SMALL} --backend discard --duration 200ms --baseline 0"));
    assert_eq!(run["backend"], "discard");
    assert_eq!(run["commit_method"], "none");
    assert!(run["records"].as_u64().unwrap() > 1000);
}

#[test]
fn the_suite_runs_and_reports_in_every_form() {
    let place = Place::new("bench");
    let line = "bench --rounds 2 --cell-time 40ms --only W1,W5,W9 --json - --markdown suite.md";
    let output = place.run(line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let suite: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(suite["rounds"], 2);
    let rows = suite["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 5);
    for row in rows {
        assert_eq!(row["samples"].as_array().unwrap().len(), 2, "{row}");
        assert!(row["median"].as_f64().unwrap() > 0.0 && row["ratio"].as_f64().unwrap() > 0.0);
    }
    let markdown = std::fs::read_to_string(place.path("suite.md")).unwrap();
    assert!(markdown.contains("| W9 | open + replay, 1 KiB |"), "{markdown}");
    assert!(stderr.contains("open + replay"));
    assert_eq!(place.entries(), ["suite.md"], "its directory is gone");
}

#[test]
fn the_suite_refuses_what_it_does_not_know() {
    let place = Place::new("bench-refused");
    for line in [
        "bench --only W10",
        "bench --rounds 0",
        "bench --cell-time 0",
        "bench --json x --markdown x",
    ] {
        let output = place.run(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
    }
    assert!(place.entries().is_empty());
}

#[test]
fn writers_are_killed_and_nothing_acknowledged_is_lost() {
    let place = Place::new("crash");
    let output = place.run("crash --rounds 6 --threads 3 --json --quiet");
    assert!(output.status.success(), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["rounds"], &json["lost"]), (&6.into(), &0.into()));
    assert!(json["found"].as_u64() >= json["acknowledged"].as_u64());
    assert_eq!(place.entries(), [""; 0], "nothing is left");
}

#[test]
fn a_witness_remembers_what_the_writer_does_not() {
    let place = Place::new("witness");
    let mut witness = place
        .command("witness --listen 127.0.0.1:0 --acks acks")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(witness.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
    let acks = |place: &Place| std::fs::metadata(place.path("acks")).map_or(0, |meta| meta.len());
    let mut writer = place.command(&format!("crash --dir d --witness {address}")).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(300);
    while acks(&place) < 24 * 51 {
        assert!(Instant::now() < until, "nothing was acknowledged");
        std::thread::sleep(Duration::from_millis(5));
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let check = format!("crash --dir d --witness {address} --check");
    let output = place.run(&check);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("all "));
    // A log that has lost its end is found out.
    std::fs::remove_dir_all(place.path("d")).unwrap();
    std::fs::create_dir(place.path("d")).unwrap();
    let output = place.run(&check);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("was acknowledged"));
    witness.kill().unwrap();
    witness.wait().unwrap();
}

#[test]
fn a_device_is_measured_and_explained() {
    let place = Place::new("device");
    let output = place.run("device --time 400ms --json - --quiet");
    assert!(output.status.success(), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["cells"].as_array().unwrap().len() >= 3);
    assert!(json["findings"].as_array().unwrap().len() >= 6, "{json:#}");
    assert_eq!(place.entries(), [""; 0]);
}

#[test]
fn two_measurements_are_compared_with_an_exit_status() {
    let place = Place::new("compare");
    let suite = |by: f64| {
        let samples: Vec<_> = [9.9, 10.0, 10.1, 10.0, 10.2]
            .map(|value| serde_json::json!({ "value": value * by }))
            .into();
        let row = |unit| serde_json::json!({ "workload": "W1", "name": unit, "unit": unit, "samples": samples });
        serde_json::json!({ "rows": [row("per_second"), row("ns")] }).to_string()
    };
    std::fs::write(place.path("a"), suite(1.0)).unwrap();
    std::fs::write(place.path("b"), suite(1.5)).unwrap();
    assert!(place.run("compare a a").status.success());
    let output = place.run("compare a b --json");
    assert_eq!(output.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["rows"][0]["verdict"], "better");
    assert_eq!(json["rows"][1]["verdict"], "worse");
    assert!(place.run("compare a b --tolerance 60").status.success());
    // What the second lacks is no success, unless that is what was asked for.
    let first = suite(1.0).replacen("W1", "W2", 1);
    std::fs::write(place.path("more"), first).unwrap();
    let output = place.run("compare more a");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("only in the first"));
    assert!(place.run("compare more a --common").status.success());
    // Nor is it one if nothing can be decided, and what differs in the settings is said.
    let few = |mode: &str| {
        let points = [1.0, 2.0].map(|n| serde_json::json!({ "records_per_s": n }));
        serde_json::json!({ "mode": mode, "series": points }).to_string()
    };
    std::fs::write(place.path("d"), few("blocking")).unwrap();
    std::fs::write(place.path("e"), few("open")).unwrap();
    let output = place.run("compare d e");
    assert_eq!(output.status.code(), Some(2));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("mode: blocking and open"), "{table}");
    std::fs::write(place.path("s"), r#"{"steps": []}"#).unwrap();
    std::fs::write(place.path("binary"), [0xff; 100]).unwrap();
    std::fs::write(place.path("c"), "{}").unwrap();
    for (line, part) in [
        ("compare a c", "no measured values"),
        ("compare a none", "cannot compare none"),
        ("compare s a", "of a sweep"),
        ("compare a binary", "cannot compare binary"),
        ("compare a .", "cannot compare ."),
        ("compare a /dev/zero", "too large"),
    ] {
        let output = place.run(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(String::from_utf8(output.stderr).unwrap().contains(part), "{line}");
    }
}

#[test]
fn a_sweep_finds_a_knee_and_pages_need_no_network() {
    let place = Place::new("sweep");
    // A bound that nothing reaches in time: the first rate is the last.
    let output = place.run(
        "sweep --bound 1us --step-time 100ms --precision 0 --html s.html --json s.json --quiet",
    );
    assert!(output.status.success(), "{output:?}");
    let json: Value =
        serde_json::from_slice(&std::fs::read(place.path("s.json")).unwrap()).unwrap();
    assert_eq!(json["knee"], Value::Null);
    assert!(!json["steps"].as_array().unwrap().is_empty());
    let run = place.run(&format!("--duration 1s --baseline 100ms --html r.html --quiet {SMALL}"));
    assert!(run.status.success(), "{run:?}");
    for page in ["s.html", "r.html"] {
        let page = std::fs::read_to_string(place.path(page)).unwrap();
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        assert!(page.contains("<svg ") && page.contains("prefers-color-scheme:dark"));
        for outside in ["http:", "https:", "<script", "<link", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(!page.contains("NaN") && !page.contains(">inf"));
    }
}
