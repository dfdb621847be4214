//! `info`, `verify`, `stats`, `dump` and `tail`: what they print, and that they change nothing.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use ringwal::Wal;
use serde_json::Value;

use crate::support::{Temp, command, contents, json, log, said};

#[test]
fn sound_log_is_described_and_left_unchanged() {
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
fn dump_and_tail_print_records_in_every_format() {
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
fn log_with_a_writer_is_read_and_followed_but_not_changed() {
    let temp = Temp::new();
    let dir = temp.log();
    let wal = Wal::builder(&dir).segment_size(64 << 10).open().unwrap();
    wal.consumer("mailer").unwrap();
    let first = wal.append_durable(b"first").unwrap();
    let info = json(&["info", "--json", &dir], 0);
    if cfg!(target_os = "linux") {
        assert_eq!(info["writer_pid"], std::process::id());
    }
    said(&["verify", &dir], 0);
    for change in [
        ["truncate-before", &dir, "0"],
        ["import", &dir, "/dev/null"],
        ["remove-consumer", &dir, "mailer"],
    ] {
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
fn closed_output_pipe_is_no_error() {
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
fn bounded_follow_ends_at_its_bound() {
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
        assert!(text.contains("Not a directory"), "{text}");
    }
}

/// The command waits for records that do not arrive, so no write notices the closed pipe.
#[test]
fn follow_ends_when_its_reader_closes_the_pipe() {
    let temp = Temp::new();
    let dir = temp.log();
    log(&dir);
    for arguments in [
        ["tail", "-n", "1", "--follow", &dir],
        ["dump", "--from", "0", "--follow", &dir],
        ["tail", "-n", "0", "--follow", &dir],
    ] {
        let mut child = command()
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        if arguments[2] != "0" || arguments[0] == "dump" {
            lines.next().unwrap().unwrap();
        }
        drop(lines);
        let out = child.wait_with_output().unwrap();
        assert_eq!((out.status.code(), out.stderr), (Some(0), vec![]), "{arguments:?}");
    }
}

#[test]
fn dump_from_an_ordinal_begins_at_that_record_and_refuses_one_that_is_not_there() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    for ordinal in [0, 1, 9, 300, 599] {
        let lsn = records[ordinal].0.to_string();
        let from = said(&["dump", "--format", "json", "--from", &lsn, &dir], 0);
        let ordinal = ordinal.to_string();
        let dumped = said(&["dump", "--format", "json", "--from-ordinal", &ordinal, &dir], 0);
        assert_eq!(dumped, from, "{ordinal}");
        assert!(dumped.contains(&lsn));
    }
    let refused = |ordinal: &str| said(&["dump", "--from-ordinal", ordinal, &dir], 2);
    assert!(refused("600").contains("--from-ordinal 600: the log has no such record yet"));
    said(&["remove-consumer", &dir, "mailer"], 0);
    said(&["truncate-before", &dir, "128k"], 0);
    assert!(refused("0").contains("--from-ordinal 0: that record was removed by retention"));
}
