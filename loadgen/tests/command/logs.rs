//! Several logs in one process.

use std::collections::HashMap;

use crate::place::{Place, SMALL};
use ringwal::{Lsn, Wal};

#[test]
fn records_are_spread_over_the_logs_and_figures_are_of_all() {
    let place = Place::new("logs");
    for (n, line) in [
        "--threads 3 --mode blocking",
        "--tasks 7 --threads 2",
        "--rate 4k --tasks 20",
        "--followers 1 --consumers 1",
    ]
    .iter()
    .enumerate()
    {
        let dir = format!("dir{n}");
        let line = format!(
            "{line} --logs 3 --records 600 --verify --baseline 0 --dir {dir} --keep \
             --segment-size 1m --max-disk 64m"
        );
        let json = place.json(&line);
        assert_eq!((&json["records"], &json["logs"]), (&600.into(), &3.into()), "{line}");
        assert_eq!(json["verification"]["compared"], 600, "{line}");
        assert!(json["groups"].as_u64() >= Some(3), "{line}");
        let mut counts = HashMap::new();
        for log in ["log0", "log1", "log2"] {
            let path = place.path(&dir);
            let wal = Wal::builder(path).prefix(log).segment_size(1 << 20).open().unwrap();
            counts.insert(log, wal.reader(Lsn::ZERO).count());
            assert!(wal.consumers().is_empty());
            wal.close().unwrap();
        }
        assert_eq!(counts.values().sum::<usize>(), 600, "{line}: {counts:?}");
        assert!(counts.values().all(|count| *count > 100), "{line}: {counts:?}");
        if line.contains("--followers") {
            assert_eq!(json["readers"]["records"], 1200, "{line}: each log has its readers");
            assert!(json["readers"]["catch_up_s"].as_f64().is_some(), "{line}");
        }
        std::fs::remove_dir_all(place.path(&dir)).unwrap();
    }
}

#[test]
fn logs_share_the_disk_and_the_baseline_has_their_depth() {
    let place = Place::new("logs-disk");
    let line = format!("--logs 2 --size 4k --duration 400ms --baseline 20ms --raw 0 {SMALL}");
    let output = place.run(&format!("{line} --json j"));
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains(", 2 logs, ") && table.contains("of each log"), "{table}");
    let text = std::fs::read_to_string(place.path("j")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["segments"]["max_total_bytes"], 6 << 20);
    let (depth, mean) = (&json["baseline"]["depth"], json["mean_depth"].as_f64().unwrap());
    assert_eq!(depth.as_f64(), Some((2.0 * mean).round()), "{mean} in each log");
    for (line, part) in [
        ("--logs 0", "--logs is 0"),
        ("--logs 257", "--logs is 257"),
        ("--logs 8 --segment-size 1m --max-disk 12m", "for each log"),
    ] {
        let output = place.run(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(String::from_utf8(output.stderr).unwrap().contains(part), "{line}");
    }
    assert_eq!(place.entries(), ["j"]);
}
