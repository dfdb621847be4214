//! `examples/tables_by_tag.rs`: a store with one log per table by tags, over restarts and kills.

use std::collections::BTreeMap;
use std::path::Path;

use crate::examples::run;
use crate::support::{Temp, copy_dir, segments};

fn list(dir: &str, table: u64) -> BTreeMap<String, String> {
    let text = run("tables_by_tag", &[dir, "list", &table.to_string()]);
    let row = |line: &str| line.split_once(' ').map(|(k, v)| (k.to_owned(), v.to_owned()));
    text.lines().filter_map(row).collect()
}

#[test]
fn store_with_a_log_per_table_by_tags_keeps_every_table_over_checkpoints_of_others() {
    let temp = Temp::new();
    let dir = temp.path().join("store");
    let dir = dir.to_str().unwrap();
    let value = "v".repeat(6000);
    let (mut orders, mut users) = (BTreeMap::new(), BTreeMap::new());
    for n in 0..60 {
        let (key, value) = (format!("k{n}"), format!("{value}{n}"));
        // One atomic write to two tables.
        run("tables_by_tag", &[dir, "put", "1", &key, &value, "2", &key, "small"]);
        orders.insert(key.clone(), value);
        users.insert(key, "small".to_owned());
        if n == 40 {
            // The log keeps what table 2 needs.
            run("tables_by_tag", &[dir, "checkpoint", "1"]);
        }
    }
    assert_eq!((list(dir, 1), list(dir, 2)), (orders.clone(), users.clone()));
    assert!(run("tables_by_tag", &[dir, "tables"]).contains("2 holds the log"));
    // A copy is what a kill leaves.
    let killed = temp.path().join("killed");
    std::fs::create_dir(&killed).unwrap();
    std::fs::copy(Path::new(dir).join("table-1"), killed.join("table-1")).unwrap();
    copy_dir(&Path::new(dir).join("log"), &killed.join("log"));
    let killed = killed.to_str().unwrap();
    assert_eq!((list(killed, 1), list(killed, 2)), (orders.clone(), users.clone()));

    let before = segments(&Path::new(dir).join("log")).len();
    run("tables_by_tag", &[dir, "checkpoint", "1"]);
    run("tables_by_tag", &[dir, "checkpoint", "2"]);
    run("tables_by_tag", &[dir, "put", "3", "a", "b"]);
    assert!(segments(&Path::new(dir).join("log")).len() < before, "the log is short again");
    assert_eq!((list(dir, 1), list(dir, 2)), (orders, users.clone()));
    run("tables_by_tag", &[dir, "drop", "1"]);
    assert_eq!((list(dir, 1).len(), list(dir, 2)), (0, users));
    run("tables_by_tag", &[dir, "put", "1", "again", "1"]);
    assert_eq!(list(dir, 1), [("again".to_owned(), "1".to_owned())].into());
}
