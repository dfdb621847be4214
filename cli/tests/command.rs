//! The command as an operator has it: what it prints, what it exits with, and what it leaves alone.

#![allow(missing_docs, reason = "a test")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringwal::{Lsn, ReadOnlyWal, Wal};
use serde_json::Value;

struct Temp(PathBuf);

impl Temp {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringwal-cli-{}-{n}", std::process::id()));
        // Left by a process that was killed, whose number this one has now.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Temp(path)
    }

    fn log(&self) -> String {
        self.0.join("log").to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whatever the environment of the tests says of terminals.
fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringwal"));
    command.env_remove("COLUMNS").env_remove("CLICOLOR_FORCE");
    command
}

fn ringwal(arguments: &[&str]) -> Output {
    command().args(arguments).output().unwrap()
}

/// What it printed; it must have ended with this status, and not with a panic.
fn said(arguments: &[&str], status: i32) -> String {
    let out = ringwal(arguments);
    let (stdout, stderr) =
        (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    assert_eq!(out.status.code(), Some(status), "{arguments:?}: {stdout}{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert!(!stdout.contains('\x1b') && !stderr.contains('\x1b'), "no colours in a pipe");
    assert_eq!(stderr.is_empty(), status == 0, "{stderr}");
    stdout + &stderr
}

fn json(arguments: &[&str], status: i32) -> Value {
    let out = ringwal(arguments);
    assert_eq!(out.status.code(), Some(status), "{out:?}");
    serde_json::from_slice(&out.stdout).unwrap()
}

/// A closed log of small segments.
fn log(dir: &str) -> Vec<(Lsn, Vec<u8>)> {
    let wal = Wal::builder(dir).segment_size(64 << 10).application_version(3).open().unwrap();
    let records = (0..600_u32).map(|n| {
        let payload = format!("record {n} ").repeat(1 + n as usize % 60).into_bytes();
        (wal.append(&payload).unwrap(), payload)
    });
    let records: Vec<_> = records.collect();
    wal.sync().unwrap();
    wal.consumer("mailer").unwrap().commit(records[9].0).unwrap();
    wal.close().unwrap();
    records
}

fn contents(dir: &str) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    files
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
        .collect()
}

fn damage(dir: &str, segment: u64, offset: usize, len: usize) {
    let path = Path::new(dir).join(format!("wal.{:020}.wal", segment * (64 << 10)));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[offset..offset + len].iter_mut().for_each(|b| *b ^= 0x55);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_sound_log_is_described_and_left_alone() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    let before = contents(&dir);
    let info = json(&["info", "--json", &dir], 0);
    assert_eq!(info["application_version"], 3);
    assert_eq!(info["oldest_lsn"], 0);
    assert_eq!(info["newest_record"], records.last().unwrap().0.as_u64());
    assert_eq!(info["writer_pid"], Value::Null);
    assert_eq!(info["consumers"][0]["name"], "mailer");
    let end = info["durable_end"].as_u64().unwrap();
    let text = said(&["info", &dir], 0);
    let position = info["consumers"][0]["position"].as_u64().unwrap();
    assert!(position > records[9].0.as_u64() && position <= records[10].0.as_u64());
    let consumer = format!("consumer     mailer, at {position}, ");
    for part in ["segments ", "64.00 KiB each", "writer       none", consumer.as_str()] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Those that are prepared and hold nothing yet are not counted.
    let segments = json(&["verify", "--json", &dir], 0)["segments"].as_u64().unwrap();
    assert!(segments <= info["segments"].as_u64().unwrap());
    let verified = said(&["verify", &dir], 0);
    assert_eq!(verified, format!("sound    600 records in {segments} segments, up to {end}\n"));
    let verified = json(&["verify", "--json", &dir], 0);
    assert_eq!((&verified["sound"], &verified["records"]), (&true.into(), &600.into()));
    let stats = json(&["stats", "--json", &dir], 0);
    let all = stats["segments"].as_array().unwrap();
    assert_eq!(all.iter().map(|s| s["records"].as_u64().unwrap()).sum::<u64>(), 600);
    let table = said(&["stats", &dir], 0);
    assert_eq!(table.lines().count() as u64, segments + 2, "{table}");
    assert_eq!(said(&["repair", &dir], 0), "sound: there is nothing to repair\n");
    assert!(contents(&dir) == before);
}

#[test]
fn records_are_shown_in_every_form() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    let lines = said(&["dump", &dir], 0);
    assert_eq!(lines.lines().count(), 600);
    let (lsn, payload) = &records[7];
    let text = String::from_utf8(payload.clone()).unwrap();
    let at = lsn.to_string();
    assert_eq!(said(&["dump", "--from", &at, "--limit", "1", &dir], 0), format!("{at}\t{text}\n"));
    let one = said(&["dump", "--format", "json", "--from", &at, "--limit", "1", &dir], 0);
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!((&one["lsn"], &one["text"]), (&lsn.as_u64().into(), &text.as_str().into()));
    assert_eq!(said(&["dump", "--format", "raw", "--from", &at, "--limit", "1", &dir], 0), text);
    let to = records[9].0.to_string();
    assert_eq!(said(&["dump", "--from", &at, "--to", &to, &dir], 0).lines().count(), 2);
    let newest = said(&["tail", "-n", "3", &dir], 0);
    let last = lines.lines().rev().take(3).collect::<Vec<_>>();
    assert_eq!(newest.lines().rev().collect::<Vec<_>>(), last);
    assert!(said(&["dump", "--format", "hex", "--limit", "1", &dir], 0).contains("|record 0 |"));
}

#[test]
fn damage_is_told_saved_and_repaired() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    damage(&dir, 2, 4096, 8);
    let before = contents(&dir);
    let text = said(&["verify", &dir], 1);
    for part in [
        "damaged  wal.00000000000000131072.wal, byte 4096, LSN 135168: no group header\n",
        " lost; ",
        " after are intact\n",
        "is damaged in one place",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let report = json(&["verify", "--json", &dir], 1);
    let place = &report["damage"][0];
    let (lost, kept) = (report["records_lost"].as_u64().unwrap(), report["records"].as_u64());
    assert_eq!(kept.unwrap() + lost, 600);
    let (earlier, later) = (&place["records_before"], &place["records_after"]);
    assert_eq!(earlier.as_u64().unwrap() + later.as_u64().unwrap(), kept.unwrap());
    // Reading ends there, and says what to do.
    let dumped = said(&["dump", &dir], 1);
    assert!(dumped.contains("ringwal repair"), "{dumped}");

    let saved = temp.file("saved.jsonl");
    let exported = ringwal(&["export", "--damaged", "--output", &saved, &dir]);
    assert!(exported.status.success());
    assert_eq!(std::fs::read_to_string(&saved).unwrap().lines().count() as u64, kept.unwrap());
    assert!(said(&["export", "--output", &saved, &dir], 3).contains("exists"), "not overwritten");

    let plan = said(&["repair", &dir], 1);
    let says =
        ["cuts ", "moves wal.00000000000000131072.wal away", " away, wal.00000000000000131072.wal"];
    assert!(says.iter().any(|part| plan.contains(part)), "{plan}");
    assert!(plan.contains("nothing was changed; --apply does it"), "{plan}");
    assert!(contents(&dir) == before);
    let done = json(&["repair", "--apply", "--json", &dir], 0);
    assert_eq!(done["plan"]["applied"], true);
    assert_eq!(done["after"]["sound"], true);
    let quarantine = contents(done["plan"]["quarantine"].as_str().unwrap());
    let here = contents(&dir);
    for (name, bytes) in before.iter().filter(|(name, _)| *name != "wal.lock") {
        let somewhere = here.get(name) == Some(bytes) || quarantine.get(name) == Some(bytes);
        assert!(somewhere, "{name} is neither here nor there");
    }
    let found = ReadOnlyWal::open(&dir).unwrap();
    let found: Vec<_> = found.reader(Lsn::ZERO).unwrap().map(|r| r.unwrap().payload).collect();
    assert_eq!(found.len() as u64, earlier.as_u64().unwrap());
    assert!(found.iter().zip(&records).all(|(found, (_, payload))| found == payload));
    said(&["verify", &dir], 0);
}

#[test]
fn what_is_exported_is_imported() {
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
fn a_log_that_is_being_written_is_looked_at_and_followed_but_not_changed() {
    let temp = Temp::new();
    let dir = temp.log();
    let wal = Wal::builder(&dir).segment_size(64 << 10).open().unwrap();
    let first = wal.append_durable(b"first").unwrap();
    let info = json(&["info", "--json", &dir], 0);
    if cfg!(target_os = "linux") {
        assert_eq!(info["writer_pid"], std::process::id());
    }
    said(&["verify", &dir], 0);
    for change in [["truncate-before", &dir, "0"], ["import", &dir, "/dev/null"]] {
        let refused = said(&change, 3);
        assert!(refused.contains("stop the writer first"), "{refused}");
    }
    let mut child = command()
        .args(["tail", "-n", "1", "--follow", &dir])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), format!("{first}\tfirst"));
    for n in 0..50 {
        let lsn = wal.append_durable(format!("{n}").as_bytes()).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), format!("{lsn}\t{n}"));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn truncation_says_what_is_left() {
    let temp = Temp::new();
    let dir = temp.log();
    log(&dir);
    std::fs::remove_file(Path::new(&dir).join("wal.consumer.mailer")).unwrap();
    let text = said(&["truncate-before", &dir, "200000"], 0);
    assert_eq!(text, "the oldest position was 0, and is 196608\n");
    assert_eq!(json(&["info", "--json", &dir], 0)["oldest_lsn"], 196_608);
    said(&["verify", &dir], 0);
}

#[test]
fn bad_arguments_are_refused_with_what_to_do() {
    let temp = Temp::new();
    let (none, dir) = (temp.file("none"), temp.log());
    log(&dir);
    let before = contents(&dir);
    for (arguments, status, part) in [
        (vec!["verify", &none], 3, "is it the right directory"),
        (vec!["truncate-before", &none, "5"], 3, "No such file"),
        (vec!["--prefix", "../x", "info", &dir], 2, "prefix"),
        (vec!["--prefix", "other", "verify", &dir], 3, "--prefix"),
        (vec!["dump", "--from", "9", "--to", "3", &dir], 2, "exchange them"),
        (vec!["dump", "--from", "minus", &dir], 2, "invalid value"),
        (vec!["dump", "--format", "xml", &dir], 2, "possible values"),
        (vec!["dump", "--from", "99999999999", "--follow", &dir], 3, "durable"),
        (vec!["import", "--format", "length-prefixed", &dir, &none], 3, "cannot open"),
        (vec!["frobnicate"], 2, "unrecognized subcommand"),
        (vec![], 2, "Usage"),
    ] {
        let text = said(&arguments, status);
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
    assert!(contents(&dir) == before);
    assert!(!Path::new(&none).exists(), "nothing was made");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let temp = Temp::new();
    let dir = temp.log();
    log(&dir);
    let mut child = command()
        .args(["dump", &dir])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut some = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), out.stderr), (Some(0), vec![]));
}

#[test]
fn help_shows_examples_and_the_generated_files_are_whole() {
    for command in ["dump", "repair"] {
        assert!(said(&[command, "--help"], 0).contains("Examples:"));
    }
    let help = said(&["--help"], 0);
    assert!(help.contains("Exit status: 0 done") && help.contains("Examples:"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(said(&["completions", shell], 0).contains("truncate-before"));
    }
    assert!(said(&["man"], 0).contains(".TH ringwal 1"));
    let temp = Temp::new();
    let pages = temp.file("man");
    said(&["man", &pages], 0);
    for page in ["ringwal.1", "ringwal-verify.1", "ringwal-repair.1"] {
        let page = std::fs::read_to_string(Path::new(&pages).join(page)).unwrap();
        assert!(page.contains(".SH SYNOPSIS"));
    }
}

#[test]
fn an_import_that_is_interrupted_says_what_is_durable() {
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
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(said.starts_with("100 records are durable"), "{said}");
    drop(input);
}

#[test]
fn records_larger_than_a_new_log_takes_and_the_applications_version_are_imported() {
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

#[test]
fn every_command_says_what_it_can_of_a_damaged_log_and_exits_with_1() {
    let temp = Temp::new();
    let dir = temp.log();
    log(&dir);
    damage(&dir, 1, 0, 8192);
    let info = said(&["info", &dir], 1);
    for part in ["log          ", "segments     ", "writer       none\n", "no segment header"] {
        assert!(info.contains(part), "{part}: {info}");
    }
    let info = json(&["info", "--json", &dir], 1);
    assert_eq!(info["segment_bytes"], 64 << 10);
    assert_eq!(info["durable_end"], Value::Null);
    let stats = said(&["stats", &dir], 1);
    assert!(stats.contains("damaged  wal.00000000000000065536.wal, byte 0, LSN 65536: no segment"));
    assert_eq!(json(&["stats", "--json", &dir], 1)["survey"]["sound"], false);
    let saved = temp.file("saved");
    let out = ringwal(&["export", "--damaged", "--output", &saved, &dir]);
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(0));
    assert!(text.contains("the log is damaged in 1 place; "), "{text}");
    let plan = json(&["repair", "--json", &dir], 1);
    let kept = plan["plan"]["keeps_records"].as_u64().unwrap();
    let done = json(&["repair", "--json", "--apply", &dir], 0);
    assert_eq!(done["after"]["records"], kept);
    // Damage in front of everything: one part or the other can be kept, or neither.
    damage(&dir, 0, 0, 8192);
    let nothing = said(&["repair", &dir], 1);
    assert!(nothing.contains("`ringwal export --damaged` saves what is intact"), "{nothing}");
}

#[test]
fn what_has_an_end_ends() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    let (from, to) = (records[3].0.to_string(), records[6].0.to_string());
    let follow = ["dump", "--follow", "--from", &from, "--to", &to, &dir];
    assert_eq!(said(&follow, 0).lines().count(), 3);
    assert_eq!(said(&["dump", "--follow", "--limit", "2", &dir], 0).lines().count(), 2);
    assert_eq!(said(&["dump", "--follow", "--limit", "0", &dir], 0), "");
    let all = u64::MAX.to_string();
    assert_eq!(said(&["tail", "-n", &all, &dir], 0), said(&["dump", &dir], 0));
    assert_eq!(said(&["tail", "-n", "0", &dir], 0), "");
    let pipe = temp.file("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for command in ["info", "verify", "stats", "dump", "tail", "repair", "export"] {
        let text = said(&[command, &pipe], 3);
        assert!(text.contains("not a directory"), "{text}");
    }
}

/// A repair is killed at any moment, and made again: what is kept is what was planned, and no byte is lost.
#[test]
fn a_repair_that_is_killed_is_made_again() {
    let temp = Temp::new();
    let master = temp.log();
    log(&master);
    damage(&master, 1, 0, 100);
    damage(&master, 3, 2 * 4096 + 200, 3);
    let before = contents(&master);
    let planned = json(&["repair", "--json", &master], 1)["plan"]["keeps_records"].clone();
    std::thread::scope(|scope| {
        for n in 0..8_u64 {
            let (temp, before, planned) = (&temp, &before, &planned);
            scope.spawn(move || {
                let dir = temp.file(&format!("copy{n}"));
                std::fs::create_dir(&dir).unwrap();
                for (name, bytes) in before {
                    std::fs::write(Path::new(&dir).join(name), bytes).unwrap();
                }
                let quarantines = || {
                    let all = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
                    all.filter(|path| path.is_dir()).collect::<Vec<_>>()
                };
                let mut child = command()
                    .args(["repair", "--apply", &dir])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                while quarantines().is_empty() && child.try_wait().unwrap().is_none() {
                    std::thread::sleep(Duration::from_micros(100));
                }
                std::thread::sleep(Duration::from_micros(n * 1500));
                child.kill().unwrap();
                child.wait().unwrap();
                if ringwal(&["verify", &dir]).status.code() == Some(1) {
                    said(&["repair", "--apply", &dir], 0);
                }
                assert_eq!(json(&["verify", "--json", &dir], 0)["records"], *planned);
                let mut places: Vec<_> =
                    quarantines().iter().map(|path| contents(path.to_str().unwrap())).collect();
                places.push(contents(&dir));
                for (name, bytes) in before.iter().filter(|(name, _)| *name != "wal.lock") {
                    let kept = places.iter().any(|place| place.get(name) == Some(bytes));
                    assert!(kept, "{name} is nowhere");
                }
                Wal::builder(&dir).segment_size(64 << 10).open().unwrap().close().unwrap();
            });
        }
    });
}
