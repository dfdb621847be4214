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
fn suite_of_two_directories_has_a_column_for_each() {
    let place = Place::new("bench-two");
    std::fs::create_dir(place.path("kept")).unwrap();
    let output = place
        .run("bench --rounds 1 --cell-time 20ms --only W1 --dir kept --dir new --json both.json");
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{table}");
    assert!(table.contains("\nA: kept: ") && table.contains("\nB: new: "), "{table}");
    assert!(table.contains("A by limit") && table.contains("B by limit"), "{table}");
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(place.path("both.json")).unwrap()).unwrap();
    let rows = json["rows"].as_array().unwrap();
    let labels: Vec<_> = rows.iter().map(|row| row["directory"].as_str().unwrap()).collect();
    assert_eq!(labels, ["A", "B"]);
    assert!(rows.iter().all(|row| row["median"].as_f64().unwrap() > 0.0));
    assert_eq!(json["directories"][1]["directory"], "new");
    assert!(!place.path("new").exists(), "what the suite created is removed");
    let compared = place.run("compare both.json both.json");
    let text = String::from_utf8(compared.stdout).unwrap();
    assert!(text.contains("128 B in A") && text.contains("128 B in B"), "{text}");
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
