//! docs/loadgen-json.md has every JSON key in the section of its command, and no other key.

use std::collections::BTreeSet;

use crate::place::{Place, SMALL};
use crate::shared;
use serde_json::Value;

/// Returns the keys of a section: those in the first column of its table, and those in backticks.
fn documented(title: &str) -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/loadgen-json.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once(&format!("\n## {title}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let mut keys = BTreeSet::new();
    for row in section.lines().filter_map(|line| line.strip_prefix("| `")) {
        let mut parent = String::new();
        for key in format!("`{}", row.split(" | ").next().unwrap()).split(", ") {
            let key = key.trim_matches('`');
            let whole = match key.strip_prefix('.') {
                Some(rest) => format!("{parent}.{rest}"),
                None => key.to_owned(),
            };
            if let Some((before, _)) = whole.rsplit_once('.') {
                parent = before.to_owned();
            }
            keys.insert(whole);
        }
    }
    keys
}

fn written(value: &Value, at: &str, keys: &mut BTreeSet<String>) {
    let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    match value {
        Value::Object(all) => all.iter().for_each(|(key, v)| written(v, &below(key), keys)),
        Value::Array(all) if all.iter().any(Value::is_object) => {
            all.iter().for_each(|v| written(v, &format!("{at}[]"), keys));
        }
        _ => {
            keys.insert(at.to_owned());
        }
    }
}

fn agrees(title: &str, values: &[Value]) {
    let (mut keys, documented) = (BTreeSet::new(), documented(title));
    for value in values {
        let mut value = value.clone();
        // This key has its own section.
        if let Some(environment) = value.get_mut("environment") {
            agrees("The environment", &[environment.take()]);
        }
        written(&value, "", &mut keys);
    }
    // A value that is null in one report may have parts in another.
    let has_parts = |key: &String| {
        keys.iter().any(|part| {
            part.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with(['.', '[']))
        })
    };
    let keys: BTreeSet<String> = keys.iter().filter(|key| !has_parts(key)).cloned().collect();
    let undocumented: Vec<_> = keys.difference(&documented).collect();
    assert!(undocumented.is_empty(), "{title}: not in docs/loadgen-json.md: {undocumented:?}");
    let missing: Vec<_> = documented.difference(&keys).collect();
    assert!(missing.is_empty(), "{title}: not written: {missing:?}");
}

#[test]
fn json_keys_match_the_documentation() {
    let place = Place::new("schema");
    let mut run = shared::open_run().json.clone();
    let mut closed = shared::closed_run().json.clone();
    let _ = closed.as_object_mut().unwrap().remove("raw_cells");
    // Keys of runs with another end.
    let cells = std::mem::take(&mut run["raw_cells"]);
    assert!(cells[0]["bytes_per_s"].as_f64().unwrap() > 0.0, "{cells}");
    run["raw_cells"] = serde_json::json!([]);
    let other = serde_json::json!({ "verification": { "error": "" } });
    let run_keys = [run.clone(), other, closed];
    let mut renamed = run_keys.to_vec();
    // The array of the cells of a device has its own section.
    renamed[0].as_object_mut().unwrap().remove("raw_cells");
    renamed[0]["raw_cells[]"] = Value::Null;
    agrees("A run", &renamed);
    let mut device = shared::device().json.clone();
    let rules = &shared::rules().json;
    device.as_object_mut().unwrap().remove("verdicts");
    let verdicts = serde_json::json!({ "verdicts": rules["verdicts"] });
    agrees("device", &[device, verdicts]);
    let two = "bench --rounds 1 --cell-time 20ms --only W1 --dir a --dir b --json - --quiet";
    let several = serde_json::from_slice(&place.run(two).stdout).unwrap();
    agrees("bench", &[shared::suite().json.clone(), several]);
    agrees("sweep", &[shared::sweep_without_a_knee().json.clone()]);
    let output = place.run("crash --rounds 2 --json --quiet");
    agrees("crash", &[serde_json::from_slice(&output.stdout).unwrap()]);
    std::fs::write(place.path("a"), run.to_string()).unwrap();
    let output = place.run("compare a a --json");
    assert!(output.status.success(), "{output:?}");
    agrees("compare", &[serde_json::from_slice(&output.stdout).unwrap()]);
    // Two equal sides with twenty pairs, which also give the false alarms.
    let mut command = place.command("ab --pairs 20 --json - --quiet");
    command.args(["--threads 1", "--threads 1", "--", "--warm-up", "0", "--backend", "discard"]);
    command.args(["--records", "500", "--mode", "blocking"]);
    command.args(SMALL.split_whitespace());
    agrees("ab", &[serde_json::from_slice(&command.output().unwrap().stdout).unwrap()]);
}
