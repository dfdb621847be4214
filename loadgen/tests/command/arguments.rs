//! Random arguments: each gets an answer, a documented exit status, no panic, and nothing left
//! behind.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::place::Place;

/// Options that keep the run short.
const SHORT: &str = "--duration 20ms --baseline 0 --max-disk 12m --segment-size 1m";

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

const VALUES: [&str; 40] = [
    "0",
    "1",
    "-1",
    "2",
    "7",
    "64",
    "4096",
    "4097",
    "100000",
    "1000000",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e9",
    "nan",
    "inf",
    "",
    " ",
    "ä",
    "0x10",
    "1k",
    "64k",
    "1m",
    "1g",
    "16g",
    "1-2",
    "2-1",
    "1:2,3:4",
    "20ms",
    "1us",
    "1h",
    "99999h",
    "poisson",
    "constant",
    "burst:1000000",
    "burst:0",
    "-",
    "/dev/full",
];

const OPTIONS: [&str; 27] = [
    "--threads",
    "--tasks",
    "--size",
    "--sample",
    "--warm-up",
    "--records",
    "--rate",
    "--arrivals",
    "--mode",
    "--durability",
    "--backend",
    "--commit-method",
    "--depth",
    "--commit-delay",
    "--dir",
    "--input",
    "--json",
    "--hgrm",
    "--html",
    "--hlog",
    "--ring",
    "--max-record",
    "--raw",
    "--baseline",
    "--seed",
    "--require",
    "--durability",
];

fn answered(place: &Place, line: &[&str]) {
    let mut command = place.command("");
    command.args(line).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(1);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            // Some arguments ask for hours. A signal must end those cleanly.
            let pid = nix::unistd::Pid::from_raw(child.id() as i32);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    assert!(matches!(code, Some(0..=2 | 99 | 130)), "{line:?}: {}: {stderr}", output.status);
    assert!(!stderr.contains("panicked"), "{line:?}: {stderr}");
    if output.status.code() != Some(0) {
        assert!(!stderr.trim().is_empty(), "{line:?} failed without a word");
    }
    assert!(!place.entries().iter().any(|name| name.starts_with("ringwal")), "{line:?}");
}

#[test]
fn random_arguments_of_a_run_are_answered() {
    let place = Place::new("random");
    let mut random = Random(0x5eed_1234_9876_abcd);
    for _ in 0..60 {
        let mut line: Vec<&str> = SHORT.split_whitespace().collect();
        for _ in 0..=random.below(3) {
            let option = random.of(&OPTIONS);
            // An option may occur twice, and override one of the short ones.
            line.push(option);
            line.push(random.of(&VALUES));
        }
        answered(&place, &line);
    }
}

#[test]
fn random_arguments_of_commands_are_answered() {
    let place = Place::new("commands");
    let mut random = Random(0x0bad_cafe_0bad_cafe);
    let commands: [(&[&str], &[&str]); 5] = [
        (&["device", "--time", "20ms"], &["--json", "--time", "--size", "--for", "--require"]),
        (
            &[
                "sweep",
                "--step-time",
                "100ms",
                "--bound",
                "1us",
                "--max-disk",
                "12m",
                "--segment-size",
                "1m",
            ],
            &[
                "--json",
                "--html",
                "--size",
                "--sample",
                "--dir",
                "--precision",
                "--step-limit",
                "--threads",
                "--require",
            ],
        ),
        (
            &["bench", "--rounds", "1", "--cell-time", "1ms", "--only", "W9"],
            &["--json", "--markdown", "--only", "--rounds"],
        ),
        (&["crash", "--rounds", "1"], &["--threads", "--size", "--dir", "--witness", "--check"]),
        (&["compare"], &["a", "b", "--tolerance", "--json", "--common"]),
    ];
    // Omits arguments that take long.
    let values =
        ["0", "-1", "3", "nan", "", "ä", "18446744073709551616", "-", "/dev/full", "/", "W5"];
    for _ in 0..30 {
        let (command, options) = commands[random.below(commands.len())];
        let mut line = command.to_vec();
        line.push(random.of(options));
        line.push(random.of(&values));
        answered(&place, &line);
    }
}

#[test]
fn argument_that_is_not_utf8_is_answered() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new("no-text");
    let bad = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    for option in [
        "--size",
        "--threads",
        "--rate",
        "--durability",
        "--sample",
        "--input",
        "device",
        "compare",
        "x",
    ] {
        let output = place.command(SHORT).arg(option).arg(bad).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{option}: {output:?}");
    }
    for option in ["--json", "--html", "--hgrm", "--hlog"] {
        let output = place.command(SHORT).arg(option).arg(bad).output().unwrap();
        assert!(output.status.success(), "{option}: {output:?}");
        std::fs::remove_file(place.path("").join(bad)).unwrap();
    }
}
