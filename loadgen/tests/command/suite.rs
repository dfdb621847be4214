//! The benchmark suite.

use crate::place::Place;
use crate::shared;

#[test]
fn suite_is_reported_as_table_json_and_markdown() {
    let measured = shared::suite();
    assert_eq!(measured.code, Some(0), "{}", measured.table);
    let suite = &measured.json;
    assert_eq!(suite["rounds"], 2);
    let rows = suite["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 5);
    for row in rows {
        assert_eq!(row["samples"].as_array().unwrap().len(), 2, "{row}");
        assert!(row["median"].as_f64().unwrap() > 0.0 && row["ratio"].as_f64().unwrap() > 0.0);
    }
    let markdown = measured.markdown.as_ref().unwrap();
    assert!(markdown.contains("| W9 | open + replay, 1 KiB |"), "{markdown}");
    assert!(measured.table.contains("open + replay"), "{}", measured.table);
}

#[test]
fn suite_with_bad_arguments_is_rejected_and_leaves_nothing() {
    let place = Place::new("bench-refused");
    for line in [
        "bench --only W10",
        "bench --rounds 0",
        "bench --cell-time 0",
        "bench --json x --markdown x",
    ] {
        let output = place.run(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
    }
    assert!(place.entries().is_empty());
}
