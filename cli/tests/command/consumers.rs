//! `consumers` and `remove-consumer`, and consumers in `info`.

use std::path::Path;

use ringwal::Wal;
use serde_json::Value;

use crate::support::{Temp, contents, json, log, said};

#[test]
fn consumers_are_listed_with_their_lag_and_what_they_alone_hold() {
    let temp = Temp::new();
    let dir = temp.log();
    let records = log(&dir);
    let wal = Wal::builder(&dir).segment_size(64 << 10).open().unwrap();
    wal.consumer("late").unwrap().commit(records[500].0).unwrap();
    wal.close().unwrap();
    let before = contents(&dir);
    let all = json(&["consumers", "--json", &dir], 0);
    let end = json(&["info", "--json", &dir], 0)["durable_end"].as_u64().unwrap();
    let names: Vec<_> = all.as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, ["late", "mailer"]);
    let [late, mailer] = [&all[0], &all[1]];
    for one in [late, mailer] {
        let (position, lag) = (one["position"].as_u64().unwrap(), one["lag_bytes"].as_u64());
        assert_eq!(lag, Some(end - position));
    }
    assert_eq!(late["holds_alone_segments"], 0);
    let held = late["position"].as_u64().unwrap() / (64 << 10);
    assert_eq!(mailer["holds_alone_segments"], held);
    assert_eq!(mailer["holds_alone_bytes"], held * (64 << 10));
    let text = said(&["consumers", &dir], 0);
    assert!(text.contains("mailer  at ") && text.contains("alone holds "), "{text}");
    assert!(contents(&dir) == before);
}

/// Truncated, overwritten and empty files: no position is invented.
#[test]
fn damaged_consumer_has_no_position_and_can_be_removed() {
    for bytes in [vec![], vec![0; 64], vec![0xff; 8192], vec![7; 4096]] {
        let temp = Temp::new();
        let dir = temp.log();
        log(&dir);
        std::fs::write(Path::new(&dir).join("wal.consumer.mailer"), bytes).unwrap();
        let info = json(&["info", "--json", &dir], 0);
        let listed = json(&["consumers", "--json", &dir], 0);
        for one in [&info["consumers"][0], &listed[0]] {
            assert_eq!((&one["name"], &one["position"]), (&"mailer".into(), &Value::Null));
            assert_eq!((&one["lag_bytes"], &one["damaged"]), (&Value::Null, &true.into()));
        }
        for command in ["info", "consumers"] {
            let text = said(&[command, &dir], 0);
            assert!(text.contains("its position is damaged"), "{text}");
        }
        let removed = said(&["remove-consumer", &dir, "mailer"], 0);
        assert!(removed.contains("its position was damaged"), "{removed}");
        said(&["verify", &dir], 0);
    }
}

#[test]
fn removed_consumer_no_longer_holds_the_log() {
    let temp = Temp::new();
    let dir = temp.log();
    log(&dir);
    let before = contents(&dir);
    let told = said(&["remove-consumer", "--dry-run", &dir, "mailer"], 0);
    assert!(told.contains("would remove mailer; it was at "), "{told}");
    assert!(told.contains("it alone held 4 segments"), "{told}");
    assert!(contents(&dir) == before);
    for dry in [&["--dry-run"][..], &[]] {
        let unknown = [&["remove-consumer", &dir, "nobody"], dry].concat();
        assert!(said(&unknown, 3).contains("`ringwal consumers` lists"));
    }
    assert!(contents(&dir) == before);

    let wal = Wal::builder(&dir).segment_size(64 << 10).open().unwrap();
    let refused = said(&["remove-consumer", &dir, "mailer"], 3);
    assert!(refused.contains("stop the writer first"), "{refused}");
    wal.close().unwrap();
    said(&["remove-consumer", &dir, "mailer"], 0);
    assert_eq!(said(&["consumers", &dir], 0), "there is no consumer\n");
    assert!(said(&["truncate-before", &dir, "200000"], 0).contains("removed 3 segments"));
    let wal = Wal::builder(&dir).segment_size(64 << 10).open().unwrap();
    assert!(wal.consumers().is_empty());
    wal.close().unwrap();
}

#[test]
fn consumer_commands_create_nothing_where_no_log_is() {
    let temp = Temp::new();
    let none = temp.file("none");
    said(&["consumers", &none], 3);
    said(&["remove-consumer", &none, "mailer"], 3);
    assert!(!Path::new(&none).exists());
    std::fs::create_dir(&none).unwrap();
    said(&["consumers", &none], 3);
    said(&["remove-consumer", &none, "mailer"], 3);
    assert!(contents(&none).is_empty());
}
