//! `truncate-before`.

use std::path::Path;

use crate::support::{Temp, contents, json, log, said};

#[test]
fn truncate_before_counts_the_removed_records() {
    let temp = Temp::new();
    let dir = temp.log();
    log(&dir);
    std::fs::remove_file(Path::new(&dir).join("wal.consumer.mailer")).unwrap();
    let text = said(&["truncate-before", &dir, "200000"], 0);
    let gone = 600 - json(&["verify", "--json", &dir], 0)["records"].as_u64().unwrap();
    let removed = format!("removed 3 segments with {gone} records, 192.00 KiB\n");
    assert_eq!(text, format!("the oldest position was 0, and is 196608\n{removed}"));
    assert_eq!(json(&["info", "--json", &dir], 0)["oldest_lsn"], 196_608);
    said(&["verify", &dir], 0);
}

#[test]
fn truncate_before_dry_run_foretells_what_is_removed() {
    for lsn in ["0", "64k", "128KiB", "200000", "262144"] {
        let temp = Temp::new();
        let dir = temp.log();
        log(&dir);
        std::fs::remove_file(Path::new(&dir).join("wal.consumer.mailer")).unwrap();
        let before = contents(&dir);
        let told = said(&["truncate-before", "--dry-run", &dir, lsn], 0);
        assert!(contents(&dir) == before);
        assert!(told.ends_with("nothing was changed\n"), "{told}");
        let records = || json(&["verify", "--json", &dir], 0)["records"].as_u64().unwrap();
        let all = records();
        let done = said(&["truncate-before", &dir, lsn], 0);
        let left = records();
        let counted = format!("with {} records", all - left);
        let nothing = all == left;
        assert_eq!(told.contains(&counted), !nothing, "{told}");
        assert_eq!(done.contains(&counted), !nothing, "{done}");
        assert_eq!(told.contains("would remove nothing"), nothing, "{told}");
        assert_eq!(done.contains("nothing was removed"), nothing, "{done}");
    }
}

#[test]
fn truncate_before_names_the_consumer_that_holds_the_log() {
    let temp = Temp::new();
    let dir = temp.log();
    log(&dir);
    let told = said(&["truncate-before", "--dry-run", &dir, "200000"], 0);
    assert!(told.contains("would remove nothing"), "{told}");
    assert!(told.contains("the consumer mailer is at "), "{told}");
    let done = said(&["truncate-before", &dir, "200000"], 0);
    assert!(done.contains("nothing was removed"), "{done}");
    assert_eq!(json(&["info", "--json", &dir], 0)["oldest_lsn"], 0);
}

#[test]
fn truncate_before_a_position_beyond_the_end_is_refused() {
    let temp = Temp::new();
    let dir = temp.log();
    log(&dir);
    let before = contents(&dir);
    let end = json(&["info", "--json", &dir], 0)["durable_end"].as_u64().unwrap();
    for lsn in [end + 1, end + (1 << 20), u64::MAX] {
        for dry in [&["--dry-run"][..], &[]] {
            let lsn = lsn.to_string();
            let arguments = [&["truncate-before", &dir, &lsn], dry].concat();
            assert!(said(&arguments, 2).contains("lies beyond the end of the log"));
        }
    }
    assert!(contents(&dir) == before);
}
