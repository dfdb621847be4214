//! `verify`, `repair` and `salvage` of damaged logs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringwal::{Lsn, ReadOnlyWal, Wal};
use serde_json::Value;

use crate::support::{Temp, command, contents, damage, json, log, payloads, ringwal, said};

#[test]
fn damaged_log_is_reported_exported_and_repaired_in_place() {
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

    let plan = said(&["repair", "--keep", "before", &dir], 1);
    assert!(plan.contains(" service; `ringwal salvage` and `ringwal export --damaged`"), "{plan}");
    let says =
        ["cuts ", "moves wal.00000000000000131072.wal away", " away, wal.00000000000000131072.wal"];
    assert!(says.iter().any(|part| plan.contains(part)), "{plan}");
    assert!(plan.contains("nothing was changed; --apply does it"), "{plan}");
    assert!(contents(&dir) == before);
    let done = json(&["repair", "--apply", "--keep", "before", "--json", &dir], 0);
    assert_eq!(done["plan"]["applied"], true);
    assert_eq!(done["plan"]["leaves_out_records"], *later);
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
fn every_command_reports_a_damaged_log_and_exits_with_1() {
    let temp = Temp::new();
    let dir = temp.log();
    log(&dir);
    damage(&dir, 1, 0, 8192);
    let info = said(&["info", &dir], 1);
    for part in ["log          ", "segments     ", "writer       none seen\n", "no segment header"]
    {
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
    assert!(nothing.contains("`ringwal export --damaged` writes all that is intact"), "{nothing}");
}

/// A repair is killed at any moment and repeated: it keeps what was planned, and no byte is lost.
#[test]
fn killed_repair_is_repeated_without_loss() {
    let temp = Temp::new();
    let master = temp.log();
    log(&master);
    damage(&master, 1, 0, 100);
    damage(&master, 3, 2 * 4096 + 200, 3);
    let before = contents(&master);
    let planned =
        json(&["repair", "--keep", "before", "--json", &master], 1)["plan"]["keeps_records"]
            .clone();
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
                    .args(["repair", "--apply", "--keep", "before", &dir])
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
                    said(&["repair", "--apply", "--keep", "before", &dir], 0);
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

/// Checks that the salvage holds the intact records in order, and maps each position.
fn check_salvage(old: &[(Lsn, Vec<u8>)], intact: u64, dest: &str) {
    let map = std::fs::read_to_string(Path::new(dest).join("wal.positions.tsv")).unwrap();
    let map: Vec<(Lsn, Lsn)> = map
        .lines()
        .map(|line| {
            let (old, new) = line.split_once('\t').unwrap();
            (Lsn::new(old.parse().unwrap()), Lsn::new(new.parse().unwrap()))
        })
        .collect();
    assert!(map.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "in order");
    assert_eq!(map.len() as u64, intact);
    let old: BTreeMap<_, _> = old.iter().cloned().collect();
    let new = ReadOnlyWal::open(dest).unwrap();
    let found: Vec<_> = new.reader(Lsn::ZERO).unwrap().map(|r| r.unwrap()).collect();
    assert_eq!(found.len(), map.len());
    for (record, (from, to)) in found.iter().zip(&map) {
        assert_eq!((record.lsn, &record.payload), (*to, &old[from]));
    }
}

/// One bit in the first group, in the middle, in a segment's header and at several places.
#[test]
fn repair_by_default_keeps_every_intact_record_in_a_new_log() {
    for places in [
        vec![(0, 8192, 1)],
        vec![(2, 4096, 8)],
        vec![(1, 0, 8192), (3, 8192 + 20, 1)],
        vec![(0, 8192, 1), (1, 8192, 1), (2, 8192, 1), (3, 8192, 1)],
    ] {
        let temp = Temp::new();
        let dir = temp.log();
        let records = log(&dir);
        for &(segment, offset, len) in &places {
            damage(&dir, segment, offset, len);
        }
        let before = contents(&dir);
        let intact = json(&["verify", "--json", &dir], 1)["records"].as_u64().unwrap();
        let plan = said(&["repair", &dir], 1);
        assert!(plan.contains(&format!("salvages all {intact} intact records into a new log")));
        assert!(plan.contains("`ringwal export --damaged` writes all"), "{plan}");
        let plan = json(&["repair", "--json", &dir], 1);
        assert_eq!(plan["plan"]["keeps_records"], intact);
        for part in plan["in_place"].as_object().unwrap().values() {
            let (kept, left) = (&part["keeps_records"], &part["leaves_out_records"]);
            assert_eq!(kept.as_u64().unwrap() + left.as_u64().unwrap(), intact, "{part}");
        }
        assert!(contents(&dir) == before);

        let done = json(&["repair", "--apply", "--json", &dir], 0);
        assert_eq!(done["after"]["sound"], true);
        assert!(contents(&dir) == before, "the damaged log is only read");
        let dest = done["plan"]["salvage"]["into"].as_str().unwrap();
        check_salvage(&records, intact, dest);
        assert_eq!(json(&["info", "--json", dest], 0)["application_version"], 3);
        // Another repair makes another log.
        let other = json(&["repair", "--apply", "--json", &dir], 0);
        assert_ne!(other["plan"]["salvage"]["into"], dest);
    }
}

#[test]
fn repair_in_place_needs_no_keep_if_every_intact_record_stays() {
    let temp = Temp::new();
    let dir = temp.log();
    log(&dir);
    // A segment that is too long says nothing false of its records.
    let path = Path::new(&dir).join(format!("wal.{:020}.wal", 64 << 10));
    std::fs::File::options().write(true).open(path).unwrap().set_len(80 << 10).unwrap();
    let plan = json(&["repair", "--json", &dir], 1);
    assert_eq!(plan["plan"]["leaves_out_records"], 0);
    assert_eq!(plan["plan"]["rebuilds"][0], format!("wal.{:020}.wal", 64 << 10));
    assert_eq!(json(&["repair", "--apply", "--json", &dir], 0)["after"]["records"], 600);
    assert_eq!(payloads(&dir).len(), 600);
}

#[test]
fn salvage_continues_consumers_and_creates_nothing_when_refused() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    let wal = Wal::builder(&dir).segment_size(64 << 10).open().unwrap();
    wal.consumer("late").unwrap().commit(records[500].0).unwrap();
    wal.consumer("new").unwrap();
    wal.close().unwrap();
    damage(&dir, 0, 8192 + 100, 1);
    damage(&dir, 2, 4096, 8);
    std::fs::write(Path::new(&dir).join("wal.consumer.broken"), [7; 64]).unwrap();
    let before = contents(&dir);
    let (dest, full) = (temp.file("dest"), temp.file("full"));
    std::fs::create_dir(&full).unwrap();
    std::fs::write(Path::new(&full).join("a"), "b").unwrap();
    assert!(said(&["salvage", &dir, &full], 2).contains("is not empty"));
    assert_eq!(contents(&full).len(), 1);
    let none = temp.file("none");
    said(&["salvage", &none, &dest], 3);
    assert!(!Path::new(&dest).exists() && !Path::new(&none).exists());

    let done = json(&["salvage", "--json", &dir, &dest], 0);
    assert!(contents(&dir) == before);
    let intact = done["salvage"]["records"].as_u64().unwrap();
    check_salvage(&records, intact, &dest);
    assert_eq!(done["salvage"]["consumers_left"], serde_json::json!(["broken"]));
    // Each continues with the first record that it had not done with, of those that are left.
    let wal = Wal::builder(&dest).segment_size(64 << 10).open().unwrap();
    let salvaged = payloads(&dest);
    for (name, done) in [("mailer", Some(9)), ("late", Some(500)), ("new", None)] {
        let rest = done.map_or(&records[..], |done: usize| &records[done + 1..]);
        let left = rest.iter().map(|(_, payload)| payload);
        let wanted = left.filter(|payload| salvaged.contains(payload)).count();
        let position = wal.consumers().into_iter().find(|c| c.name == name).unwrap().position;
        let found = ReadOnlyWal::open(&dest).unwrap();
        assert_eq!(found.reader(position).unwrap().count(), wanted, "{name}");
    }
    wal.close().unwrap();
    // Of a sound log it is a copy.
    let copy = temp.file("copy");
    assert!(said(&["salvage", &dest, &copy], 0).starts_with("salvaged "));
    assert_eq!(payloads(&copy), salvaged);
}

/// A log that takes some time to read, with damage in its first segment.
fn long_log(dir: &str) -> u64 {
    let wal = Wal::builder(dir).segment_size(1 << 20).open().unwrap();
    let payload = [b'x'; 200];
    for _ in 0..200_000 {
        wal.append(&payload).unwrap();
    }
    wal.close().unwrap();
    let path = Path::new(dir).join(format!("wal.{:020}.wal", 0));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8192] ^= 1;
    std::fs::write(path, bytes).unwrap();
    200_000
}

#[test]
fn interrupted_verify_reports_the_damage_found_so_far() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = long_log(&dir);
    let end = |child: &std::process::Child| {
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    };
    let start = |arguments: &[&str]| {
        let mut command = command();
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    // Damage is printed before the rest is read, and the rest is not read after a signal.
    let interrupted = (0..20).any(|_| {
        let mut child = start(&["verify", &dir]);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        assert!(first.starts_with("damaged  wal.00000000000000000000.wal, byte 8192"), "{first}");
        end(&child);
        lines.for_each(drop);
        let out = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(out.stderr).unwrap();
        out.status.code() == Some(130) && stderr.contains("interrupted: ")
    });
    assert!(interrupted);
    // The report in JSON has it as well. A signal before there is a handler ends the process.
    let seen = (0..60_u64).any(|attempt| {
        let child = start(&["verify", "--json", &dir]);
        std::thread::sleep(Duration::from_millis(5 * attempt));
        end(&child);
        let Output { status, stdout, .. } = child.wait_with_output().unwrap();
        let Ok(report) = serde_json::from_slice::<Value>(&stdout) else { return false };
        if status.code() != Some(130) || report["damage"].as_array().unwrap().is_empty() {
            return false;
        }
        assert_eq!((&report["interrupted"], &report["sound"]), (&true.into(), &false.into()));
        assert!(report["records"].as_u64().unwrap() < records);
        true
    });
    assert!(seen);
}
