//! `archive`, `restore` and `list`.

use std::path::Path;

use serde_json::json as value;

use crate::support::{Temp, contents, json, log, payloads, said};

const SEGMENT: u64 = 64 << 10;

#[test]
fn log_is_archived_listed_and_restored() {
    let temp = Temp::new();
    let (dir, store, copy) = (temp.log(), temp.file("store"), temp.file("copy"));
    let records = log(&dir);
    let before = contents(&dir);
    let report = json(&["archive", "--json", "--to", &store, &dir], 0);
    assert!(contents(&dir) == before);
    let sealed = report["shipped_segments"].as_u64().unwrap();
    assert!(sealed > 2 && report["present_segments"] == 0);
    assert_eq!(report["archived_to"], sealed * SEGMENT);
    let again = said(&["archive", "--once", &dir, "--to", &store], 0);
    assert!(again.contains(&format!("0 segments, 0 B; {sealed} were in the archive")), "{again}");
    let listing = json(&["list", "--json", "--from", &store], 0);
    assert_eq!(listing["segments"].as_array().unwrap().len() as u64, sealed);
    assert_eq!(listing["log_id"], json(&["info", "--json", &dir], 0)["log_id"]);
    assert_eq!(listing["gaps"].as_array().unwrap().len(), 0);
    let restored = json(&["restore", "--json", "--from", &store, &copy], 0);
    let last = &listing["segments"][sealed as usize - 1];
    assert_eq!(restored["end"], last["groups_end"]);
    let count = restored["records"].as_u64().unwrap() as usize;
    assert_eq!(payloads(&copy), payloads(&dir)[..count]);
    assert_eq!(json(&["verify", "--json", &copy], 0)["sound"], true);
    // To a position, and to a time.
    let to = records[50].0.to_string();
    let part = temp.file("part");
    said(&["restore", "--from", &format!("file://{store}"), "--to-lsn", &to, &part], 0);
    assert_eq!(payloads(&part), payloads(&dir)[..50]);
    let early = said(&["restore", "--from", &store, "--to-time", "9999d", &temp.file("x")], 2);
    assert!(early.contains("begins at"), "{early}");
    said(&["restore", "--from", &store, "--to-time", "now", &temp.file("y")], 0);
}

#[test]
fn damaged_manifests_at_the_ends_of_an_archive_are_no_success() {
    let temp = Temp::new();
    let (dir, store) = (temp.log(), temp.file("store"));
    log(&dir);
    said(&["archive", "--to", &store, &dir], 0);
    let mut manifests: Vec<_> = std::fs::read_dir(format!("{store}/manifests"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    manifests.sort();
    let newest = manifests.last().unwrap();
    let sound = std::fs::read(newest).unwrap();
    std::fs::write(newest, "{}").unwrap();
    let part = temp.file("part");
    let text = said(&["restore", "--from", &store, &part], 1);
    assert!(text.contains("was not restored") && text.contains("--to-lsn"), "{text}");
    let end = json(&["info", "--json", &part], 0)["durable_end"].clone();
    let left_out = json(&["restore", "--json", "--from", &store, &temp.file("json")], 1);
    assert_eq!(left_out["left_out"].as_array().unwrap().len(), 1);
    said(&["restore", "--from", &store, "--to-lsn", &end.to_string(), &temp.file("told")], 0);
    let text = said(&["list", "--verify", "--from", &store], 1);
    assert!(text.contains("1 object is missing or damaged"), "{text}");
    assert!(!text.contains("all of it can be restored"), "{text}");
    std::fs::write(newest, sound).unwrap();
    std::fs::remove_file(&manifests[0]).unwrap();
    let text = said(&["restore", "--from", &store, &temp.file("none")], 1);
    assert!(text.contains("is missing"), "{text}");
    assert!(said(&["list", "--from", &store], 1).contains("1 object is missing or damaged"));
}

#[test]
fn what_retention_removed_before_the_archive_is_no_success() {
    let temp = Temp::new();
    let (dir, store) = (temp.log(), temp.file("store"));
    log(&dir);
    let first = json(&["archive", "--json", "--to", &store, &dir], 0);
    let archived_to = first["archived_to"].as_u64().unwrap();
    let wal = ringwal::Wal::builder(&dir).segment_size(SEGMENT).open().unwrap();
    while wal.end().as_u64() < archived_to + 4 * SEGMENT {
        wal.append(&[7; 2000]).unwrap();
    }
    wal.sync().unwrap();
    wal.remove_consumer("mailer").unwrap();
    wal.truncate_before(ringwal::Lsn::new(archived_to + 2 * SEGMENT + 8192)).unwrap();
    wal.close().unwrap();
    let text = said(&["archive", "--to", &store, &dir], 1);
    assert!(text.contains("128.00 KiB of older segments: removed by retention"), "{text}");
    assert_eq!(json(&["list", "--json", "--from", &store], 1)["gaps"][0]["from"], archived_to);
    let again = json(&["archive", "--json", "--to", &store, &dir], 0);
    assert_eq!((&again["missing_bytes"], &again["overtaken_segments"]), (&value!(0), &value!(0)));
    // A log without a sealed segment is of another archive too.
    let other = temp.file("other");
    ringwal::Wal::open(&other).unwrap().append_durable(b"x").unwrap();
    let refused = said(&["archive", "--to", &store, &other], 2);
    assert!(refused.contains("another log"), "{refused}");
    // Beyond what is archived, or backwards.
    for (range, expected) in [
        (["--from-lsn", "1g", "--to-lsn", "2g"], "the archive ends at"),
        (["--from-lsn", "1g", "--to-lsn", "1"], "the archive ends at"),
        (["--from-lsn", "70k", "--to-lsn", "10k"], "ends before it begins"),
    ] {
        let args = ["restore", "--from", &store, range[0], range[1], range[2], range[3]];
        let text = said(&[&args[..], &[&temp.file("none")]].concat(), 2);
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn what_is_missing_is_named_with_its_exit_status() {
    let temp = Temp::new();
    let (dir, store, copy) = (temp.log(), temp.file("store"), temp.file("copy"));
    log(&dir);
    said(&["archive", "--to", &store, &dir], 0);
    let manifest = format!("manifests/{:020}.manifest", SEGMENT);
    std::fs::remove_file(Path::new(&store).join(&manifest)).unwrap();
    let text = said(&["restore", "--from", &store, &copy], 1);
    assert!(text.contains(&manifest) && text.contains("put the object back"), "{text}");
    assert!(!Path::new(&copy).exists());
    let text = said(&["list", "--from", &store], 1);
    assert!(text.contains("missing") && text.contains(&manifest), "{text}");
    said(&["restore", "--from", &store, "--from-lsn", "128k", &copy], 0);
    let full = said(&["restore", "--from", &store, &copy], 2);
    assert!(full.contains("is not empty"), "{full}");
    // It is shipped again while the log has it.
    said(&["archive", "--to", &store, &dir], 0);
    said(&["list", "--from", &store], 0);
}

#[test]
fn archive_is_pruned_and_what_is_kept_is_restored() {
    let temp = Temp::new();
    let (dir, store, copy) = (temp.log(), temp.file("store"), temp.file("copy"));
    let records = log(&dir);
    let sealed = json(&["archive", "--json", "--to", &store, &dir], 0)["shipped_segments"].clone();
    let sealed = sealed.as_u64().unwrap();
    let prune = ["archive", "prune", "--json", "--from", &store];
    let pruned = |more: &[&str]| json(&[&prune[..], more].concat(), 0);
    // By age and by date nothing is old enough.
    for keep in [["--older-than", "1h"], ["--keep-from", "2020-01-01"], ["--keep-from", "0"]] {
        let kept = pruned(&keep);
        assert_eq!(
            (&kept["removed_segments"], &kept["kept_segments"]),
            (&0.into(), &sealed.into())
        );
    }
    let at = (SEGMENT + 1000).to_string();
    let planned = pruned(&["--keep-from", &at, "--dry-run"]);
    assert_eq!(json(&["list", "--json", "--from", &store], 0)["floor"], 0);
    let done = pruned(&["--keep-from", &at]);
    assert_eq!((&planned["dry_run"], &done["dry_run"]), (&true.into(), &false.into()));
    for key in ["removed_segments", "removed_objects", "removed_bytes", "kept_from"] {
        assert_eq!(planned[key], done[key], "{key}");
    }
    assert_eq!((&done["removed_segments"], &done["kept_from"]), (&1.into(), &SEGMENT.into()));
    let listing = said(&["list", "--verify", "--from", &store], 0);
    assert!(listing.contains(&format!("pruned   up to {SEGMENT}")), "{listing}");
    assert!(listing.contains("all of it can be restored"), "{listing}");
    let again = said(&["archive", "--to", &store, &dir], 0);
    assert!(again.contains("1 segment that the log still has was pruned"), "{again}");
    said(&["restore", "--from", &store, &copy], 0);
    let kept =
        records.iter().filter(|(lsn, _)| lsn.as_u64() >= SEGMENT).map(|(_, payload)| payload);
    let found = payloads(&copy);
    assert!(kept.take(found.len()).eq(&found));
    let text = said(&["archive", "prune", "--from", &store, "--keep-from", "2100-01-01"], 0);
    assert!(text.contains("kept 1 segment"), "{text}");
}

#[test]
fn whole_archive_is_verified() {
    let temp = Temp::new();
    let (dir, store) = (temp.log(), temp.file("store"));
    log(&dir);
    said(&["archive", "--to", &store, &dir], 0);
    let sound = json(&["list", "--verify", "--json", "--from", &store], 0);
    assert!(sound["verified"]["bytes"].as_u64() > Some(SEGMENT));
    assert_eq!(json(&["list", "--json", "--from", &store], 0)["verified"], serde_json::Value::Null);
    let mut objects = std::fs::read_dir(Path::new(&store).join("segments")).unwrap();
    let object = objects.next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&object).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&object, bytes).unwrap();
    said(&["list", "--from", &store], 0);
    let text = said(&["list", "--verify", "--from", &store], 1);
    let name = object.file_name().unwrap().to_str().unwrap();
    assert!(text.contains(name) && text.contains("1 segment is damaged"), "{text}");
    let found = json(&["list", "--verify", "--json", "--from", &store], 1);
    assert_eq!(found["verified"]["findings"].as_array().unwrap().len(), 1);
}

#[test]
fn bad_places_are_refused_and_not_created() {
    let temp = Temp::new();
    let (dir, none) = (temp.log(), temp.file("none"));
    log(&dir);
    for (arguments, status, part) in [
        (vec!["archive", "--to", "s3://bucket/orders", &dir], 2, "--features s3"),
        (vec!["archive", "--to", "ftp://x", &dir], 2, "names no store"),
        (vec!["archive", "--to", &none, &none], 3, "is it the right directory"),
        (vec!["archive", "--to", &none, "--prefix", "other", &dir], 3, "--prefix"),
        (vec!["archive", &dir], 2, "--to"),
        (vec!["archive", "--to", &none, "--once", "--follow", &dir], 2, "cannot be used with"),
        (vec!["list", "--from", &none], 3, "holds no archive"),
        (vec!["restore", "--from", &none, &none], 3, "holds no archive"),
        (vec!["restore", "--from", &dir, &none], 3, "holds no archive"),
        (vec!["restore", "--from", &dir, "--to-lsn", "x", &none], 2, "is not a position"),
        (vec!["archive", "prune", "--from", &none, "--keep-from", "0"], 3, "holds no archive"),
        (vec!["archive", "prune", "--from", &dir, "--keep-from", "0"], 3, "holds no archive"),
        (vec!["archive", "prune", "--from", &dir], 2, "--keep-from"),
        (vec!["archive", "prune", "--from", &dir, "--keep-from", "30d"], 2, "--older-than"),
        (vec!["archive", "prune", "--from", &dir, "--older-than", "30"], 2, "is not an age"),
        (vec!["archive", "prune", "--keep-from", "0", "--older-than", "1d"], 2, "cannot be used"),
    ] {
        if cfg!(feature = "s3") && part.contains("s3") {
            continue;
        }
        let text = said(&arguments, status);
        assert!(text.contains(part), "{arguments:?}: {text}");
        assert!(!Path::new(&none).exists(), "{arguments:?}");
    }
}

#[test]
#[cfg(unix)]
fn followed_log_is_archived_as_it_grows_until_a_signal() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::process::Stdio;

    let temp = Temp::new();
    let (dir, store) = (temp.log(), temp.file("store"));
    let wal = ringwal::Wal::builder(&dir).segment_size(SEGMENT).open().unwrap();
    wal.append_durable(&[1; 1000]).unwrap();
    let mut follow = crate::support::command();
    let follow = follow.args(["archive", "--follow", "--json", "--to", &store, &dir]);
    let running = follow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut segments = 0;
    while segments < 3 {
        for _ in 0..30 {
            wal.append(&[2; 1000]).unwrap();
        }
        wal.sync().unwrap();
        let listed = crate::support::ringwal(&["list", "--json", "--from", &store]);
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
        segments = listed["segments"].as_array().map_or(0, Vec::len);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    kill(Pid::from_raw(running.id().cast_signed()), Signal::SIGTERM).unwrap();
    let out = running.wait_with_output().unwrap();
    assert!(matches!(out.status.code(), Some(0 | 130)), "{:?}", out.status);
    let lines = String::from_utf8(out.stdout).unwrap();
    let line: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert!(line["shipped_segments"].as_u64().unwrap() > 0);
    wal.close().unwrap();
    said(&["list", "--from", &store], 0);
}
