//! `export` and `import`.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringwal::{Lsn, ReadOnlyWal, Wal};

use crate::support::{Temp, command, contents, damage, json, log, payloads, ringwal, said};

#[test]
fn import_of_an_export_restores_every_record() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    for format in ["jsonl", "length-prefixed"] {
        let (file, copy) = (temp.file(format), temp.file(&format!("copy-{format}")));
        let out = ringwal(&["export", "--format", format, "--output", &file, &dir]);
        assert!(out.status.success());
        let text = said(&["import", "--format", format, &copy, &file], 0);
        assert!(text.starts_with("600 records are durable, up to "), "{text}");
        let found = ReadOnlyWal::open(&copy).unwrap();
        let found: Vec<_> = found.reader(Lsn::ZERO).unwrap().map(|r| r.unwrap().payload).collect();
        assert!(found.iter().eq(records.iter().map(|(_, payload)| payload)));
    }
    // Into a log that is there, from standard input; its segments stay as small as they are.
    let mut child = command()
        .args(["import", &dir])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"{\"text\":\"one\"}\n{\"text\":\"two\"}\n{\"oops\n").unwrap();
    drop(input);
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(3));
    assert!(String::from_utf8(out.stdout).unwrap().starts_with("2 records are durable"));
    assert!(String::from_utf8(out.stderr).unwrap().contains("standard input, line 3: "));
    assert_eq!(said(&["tail", "-n", "1", "--format", "raw", &dir], 0), "two");
    let info = json(&["info", "--json", &dir], 0);
    assert_eq!(info["segment_bytes"], 64 << 10);
}

#[test]
fn interrupted_import_reports_the_durable_records_and_resumes() {
    let temp = Temp::new();
    let dir = temp.log();
    let mut child = command()
        .args(["import", &dir])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    for n in 0..100 {
        writeln!(input, "{{\"text\":\"{n}\"}}").unwrap();
    }
    let end = std::time::Instant::now() + Duration::from_secs(300);
    while ReadOnlyWal::open(&dir).and_then(|log| Ok(log.reader(Lsn::ZERO)?.count())).unwrap_or(0)
        < 100
    {
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    // It is waiting for a line, which does not come.
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(130), "{out:?}");
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.starts_with("100 records are durable"), "{text}");
    assert!(String::from_utf8(out.stderr).unwrap().contains("--skip 100 resumes"));
    drop(input);
    let all: Vec<_> = (0..250).map(|n| format!("{{\"text\":\"{n}\"}}\n")).collect();
    let file = temp.file("all");
    std::fs::write(&file, all.concat()).unwrap();
    assert!(said(&["import", "--skip", "100", &dir, &file], 0).starts_with("150 records"));
    let wanted: Vec<_> = (0..250).map(|n| n.to_string().into_bytes()).collect();
    assert_eq!(payloads(&dir), wanted);
}

#[test]
fn import_accepts_large_records_and_an_application_version() {
    let temp = Temp::new();
    let (dir, copy, file) = (temp.log(), temp.file("copy"), temp.file("all"));
    let wal = Wal::builder(&dir).max_record_size(3 << 20).application_version(7).open().unwrap();
    for len in [10, 3 << 20, 5] {
        wal.append(&vec![0xfe; len]).unwrap();
    }
    wal.close().unwrap();
    let out = ringwal(&["export", "--format", "length-prefixed", "--output", &file, &dir]);
    assert!(out.status.success());
    let import =
        ["import", "--format", "length-prefixed", "--application-version", "7", &copy, &file];
    assert!(said(&import, 0).starts_with("3 records are durable"));
    let found = ReadOnlyWal::open(&copy).unwrap();
    let lengths: Vec<_> =
        found.reader(Lsn::ZERO).unwrap().map(|r| r.unwrap().payload.len()).collect();
    assert_eq!(lengths, [10, 3 << 20, 5]);
    drop(found);
    Wal::builder(&copy).application_version(7).open().unwrap().close().unwrap();
    let other = said(&["import", "--application-version", "8", &copy, "/dev/null"], 3);
    assert!(other.contains("leave --application-version out"), "{other}");
}

/// Empty, without records, or wrong at any place: in a new directory, a nested one and an empty
/// one.
#[test]
fn import_that_fails_leaves_nothing_that_was_not_there() {
    let good = "{\"text\":\"one\"}\n";
    let bad: [(&str, &[u8], i32); 7] = [
        ("empty", b"", 0),
        ("blank", b"\n\n \n", 0),
        ("first", b"{\"text\":\"one\"", 3),
        ("garbage", b"\xff\xfe\x00", 3),
        ("wrong", b"{\"lsn\":1}\n", 3),
        ("later", b"", 3),
        ("skipped", b"{\"text\":\"one\"}\n", 2),
    ];
    for (name, input, status) in bad {
        let temp = Temp::new();
        let file = temp.file(name);
        let input = if name == "later" {
            // More than is read ahead: the log is there when the mistake is met.
            [good.repeat(100_000).as_bytes(), b"oops\n"].concat()
        } else {
            input.to_vec()
        };
        std::fs::write(&file, input).unwrap();
        let (new, nested) = (temp.file("new"), temp.file("a/b/c"));
        let (empty, full) = (temp.file("empty-dir"), temp.file("full"));
        std::fs::create_dir(&empty).unwrap();
        std::fs::create_dir(&full).unwrap();
        std::fs::write(Path::new(&full).join("wal.notes"), "mine").unwrap();
        for dir in [&new, &nested, &empty, &full] {
            let skip = if name == "skipped" { "2" } else { "0" };
            said(&["import", "--skip", skip, dir, &file], status);
        }
        said(&["import", &new, &temp.file("missing")], 3);
        assert!(!Path::new(&new).exists() && !Path::new(&temp.file("a")).exists(), "{name}");
        assert!(contents(&empty).is_empty(), "{name}: {:?}", contents(&empty).keys());
        assert_eq!(contents(&full).into_keys().collect::<Vec<_>>(), ["wal.notes"], "{name}");
    }
}

#[test]
fn bad_json_is_reported_as_such_with_its_line() {
    let good = "{\"text\":\"one\"}\n";
    for (bad, why) in [
        ("{\"text\":\"a\"", "bad JSON at column"),
        ("{\"text\":\"a\"}}", "bad JSON at column"),
        ("{text:1}", "bad JSON at column"),
        ("oops", "bad JSON at column"),
        ("{\"text\":1}", "\"text\" or \"base64\""),
        ("[\"text\"]", "\"text\" or \"base64\""),
        ("7", "\"text\" or \"base64\""),
        ("{\"text\":\"a\",\"base64\":\"YQ==\"}", "\"text\" or \"base64\""),
        ("{\"base64\":\"***\"}", "base64: "),
    ] {
        let temp = Temp::new();
        let (dir, file) = (temp.log(), temp.file("in"));
        log(&dir);
        std::fs::write(&file, format!("{good}\n{good}{bad}\n{good}")).unwrap();
        let text = said(&["import", &dir, &file], 3);
        assert!(text.contains(", line 4: ") && text.contains(why), "{bad}: {text}");
        assert!(text.contains("2 records are durable"), "{text}");
        assert!(text.contains("--skip 2 resumes"), "{text}");
        // The rest follows once the line is corrected.
        std::fs::write(&file, format!("{good}\n{good}{good}\n{good}")).unwrap();
        said(&["import", "--skip", "2", &dir, &file], 0);
        assert_eq!(payloads(&dir).len(), 604, "{bad}");
    }
}

#[test]
fn import_into_a_damaged_log_is_refused_and_changes_nothing() {
    for (segment, offset, len) in [(0, 8192, 1), (1, 0, 64), (2, 4096, 8), (3, 8192 + 200, 1)] {
        let temp = Temp::new();
        let (dir, file) = (temp.log(), temp.file("in"));
        log(&dir);
        damage(&dir, segment, offset, len);
        std::fs::write(&file, "{\"text\":\"a\"}\n").unwrap();
        let before = contents(&dir);
        let refused = said(&["import", &dir, &file], 1);
        assert!(refused.contains("`ringwal repair` says"), "{refused}");
        assert!(contents(&dir) == before);
    }
}

/// Every part of the log by when it was written, in every command that writes records out.
#[test]
fn since_and_until_select_records_by_the_time_they_were_written() {
    let temp = Temp::new();
    let dir = temp.log();
    let wal = Wal::builder(&dir).segment_size(64 << 10).open().unwrap();
    let mut times = vec![];
    for batch in 0..4 {
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        times.push(format!("{}.{:09}", now / 1_000_000_000, now % 1_000_000_000));
        std::thread::sleep(Duration::from_millis(20));
        for n in 0..50 {
            wal.append(format!("{batch}-{n}-{}", "x".repeat(1000)).as_bytes()).unwrap();
        }
        wal.sync().unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    wal.close().unwrap();
    let count = |arguments: &[&str]| {
        let out = ringwal(arguments);
        assert_eq!(out.status.code(), Some(0), "{out:?}");
        let text = String::from_utf8(out.stdout).unwrap();
        let batches = text.lines().map(|line| {
            let at = line.find('-').unwrap();
            line[..at].chars().next_back().unwrap()
        });
        batches.fold([0; 4], |mut all, batch| {
            all[batch.to_digit(10).unwrap() as usize] += 1;
            all
        })
    };
    for command in ["dump", "tail", "export"] {
        for since in 0..4 {
            let mut wanted = [0; 4];
            wanted[since..].fill(50);
            assert_eq!(count(&[command, "--since", &times[since], &dir]), wanted, "{command}");
            for until in since..4 {
                let mut wanted = [0; 4];
                wanted[since..until].fill(50);
                let (since, until) = (&times[since], &times[until]);
                let window = [command, "--since", since, "--until", until, &dir];
                assert_eq!(count(&window), wanted, "{command} {since} to {until}");
            }
        }
        assert_eq!(count(&[command, "--since", "1h", &dir]), [50; 4], "{command}");
        assert_eq!(count(&[command, "--until", "1h", &dir]), [0; 4], "{command}");
        assert_eq!(count(&[command, "--since", "1971-01-01", &dir]), [50; 4], "{command}");
    }
    assert_eq!(count(&["tail", "-n", "60", "--until", &times[2], &dir]), [10, 50, 0, 0]);
    assert_eq!(count(&["export", "--damaged", "--since", &times[3], &dir]), [0, 0, 0, 50]);
    assert_eq!(count(&["dump", "--follow", "--until", &times[1], &dir]), [50, 0, 0, 0]);

    let info = json(&["info", "--json", &dir], 0);
    let at = |text: &serde_json::Value| {
        let time = humantime::parse_rfc3339(text.as_str().unwrap()).unwrap();
        time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
    };
    let times: Vec<f64> = times.iter().map(|time| time.parse().unwrap()).collect();
    let (oldest, newest) = (at(&info["oldest_written"]), at(&info["newest_written"]));
    assert!(times[0] < oldest && oldest < times[1] && times[3] < newest, "{info}");
    assert!(info["free_bytes"].as_u64().unwrap() > 0);
    assert!(said(&["info", &dir], 0).contains("oldest       written 2"));
}
