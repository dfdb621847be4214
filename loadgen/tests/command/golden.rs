//! The exact output. `GOLDEN=write cargo test -p loadgen golden` rewrites the files, for review.

use std::path::PathBuf;

use crate::place::{Place, SMALL};

fn same(name: &str, text: &str) {
    let path =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/command/golden")).join(name);
    if std::env::var_os("GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{} is another; see the head of this file", path.display());
}

/// Replaces figures and everything that depends on the machine by one `#` each. Keeps one row of a
/// histogram.
fn without_figures(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let cut = [
            "backend ",
            "commit method ",
            "device ",
            "log ",
            "fsyncs ",
            "cpu ",
            "environment ",
            "direct I/O",
            "buffered I/O",
        ];
        let line = match cut.iter().find(|name| line.trim_start().starts_with(**name)) {
            Some(name) => format!("  {} #", name.replace("buffered", "direct")),
            None => line.to_owned(),
        };
        let mut shown = String::new();
        for word in line.split_whitespace() {
            let word = word.trim_matches(['(', ')']);
            let number = word.starts_with(|c: char| c.is_ascii_digit());
            let unit = matches!(
                word.trim_end_matches([',', ':', ';']),
                "/s" | "k/s"
                    | "M/s"
                    | "us"
                    | "ms"
                    | "s"
                    | "ns"
                    | "k"
                    | "M"
                    | "B"
                    | "KiB"
                    | "MiB"
                    | "GiB"
                    | "kB/s"
                    | "MB/s"
                    | "GB/s"
                    | "B/s"
            );
            let first = shown.is_empty();
            if (number || unit) && !first {
                if !shown.ends_with('#') {
                    shown.push_str(" #");
                }
                continue;
            }
            if !first {
                shown.push(' ');
            }
            shown.push_str(if number { "#" } else { word });
        }
        out.push_str(&shown);
        out.push('\n');
    }
    out
}

fn printed(place: &Place, line: &str) -> String {
    let output = place.run(line);
    let (stdout, stderr) = (output.stdout, output.stderr);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&stderr));
    assert!(stderr.is_empty(), "{line}: progress, though this is no terminal");
    String::from_utf8(stdout).unwrap()
}

#[test]
fn help_matches_its_golden_file() {
    let place = Place::new("help");
    for command in ["", "device", "compare", "ab", "crash", "witness", "sweep", "bench"] {
        let name = if command.is_empty() { "run" } else { command };
        let help = printed(&place, &format!("{command} --help"));
        assert!(help.contains("Examples:") && help.contains("Exit status: 0"), "{name}");
        assert!(!help.contains('\x1b'), "{name}: colours, though this is no terminal");
        same(&format!("help-{name}.txt"), &help);
    }
}

#[test]
fn run_output_matches_its_golden_file() {
    let place = Place::new("lines");
    for (name, line) in [
        ("blocking", "--mode blocking --records 50 --verify"),
        ("open", "--rate 2k --arrivals constant --records 100 --size 100:9,1k:1"),
        ("discard", "--backend discard --records 5000"),
    ] {
        let text = printed(&place, &format!("{line} --baseline 0 {SMALL}"));
        let (table, histogram) = text.split_once("\nlatency: ").unwrap();
        assert!(histogram.contains('█') && histogram.contains("p99.9"), "{histogram}");
        // Steadiness depends on the load of the machine.
        let kept = without_figures(table);
        let kept: Vec<_> = kept
            .lines()
            // So does the number of dropped samples.
            .map(|l| if l.starts_with("# latencies") { "# latencies" } else { l })
            .filter(|l| !["steady", "not steady", "TOO FAST"].iter().any(|w| l.starts_with(w)))
            .collect();
        same(&format!("{name}.txt"), &(kept.join("\n") + "\n"));
    }
}

#[test]
fn comparison_output_matches_its_golden_file() {
    let place = Place::new("golden-compare");
    let suite = |by: f64, more: &str| {
        let samples: Vec<_> = [9.9, 10.0, 10.1, 10.0, 10.2]
            .map(|value| serde_json::json!({ "value": value * by }))
            .into();
        let row = |name: &str, unit: &str| serde_json::json!({ "workload": "W1", "name": name, "unit": unit, "samples": samples });
        let rows = [row("commits", "per_second"), row("p50", "ns"), row(more, "ns")];
        let schema = "ringwal-loadgen/bench/1";
        serde_json::json!({ "schema": schema, "rows": rows, "processors": by }).to_string()
    };
    std::fs::write(place.path("a"), suite(1.0, "old")).unwrap();
    std::fs::write(place.path("b"), suite(1.5, "new")).unwrap();
    let output = place.run("compare a b");
    let text = [output.stdout, output.stderr].concat();
    same("compare.txt", &String::from_utf8(text).unwrap());
}

#[test]
fn errors_print_this() {
    let place = Place::new("golden-errors");
    std::fs::write(place.path("file"), "x").unwrap();
    let mut all = String::new();
    for line in [
        "--threads 0",
        "--size 9-1",
        "--size 100:0",
        "--duration soon",
        "--rate fast",
        "--rate 1k --arrivals never",
        "--dir file",
        "--input missing",
        "--sample missing",
        "--json no/such/dir",
        "--html -",
        "--backend discard --verify",
        "compare file file",
        "compare file",
        "crash --rounds 0",
        "crash --check",
        "crash --witness nowhere --dir d",
        "crash --witness 127.0.0.1:1 --dir missing --check",
        "sweep --step-time 1us",
        "bench --only W10",
        "--ring 0",
        "--segment-size 1000g",
        "--require p99",
        "--require speed<1",
        "--require-abort",
        "device --for floppy",
        "ab a b",
        "ab --pairs 3 -a -b",
        "compare file file --tolerance 101",
        "crash --size 1q",
    ] {
        let output = place.run(line);
        let code = output.status.code().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        let first = text.lines().next().unwrap_or_default();
        all += &format!("$ loadgen {line}\n{first}\n{code}\n");
    }
    same("errors.txt", &all);
}
