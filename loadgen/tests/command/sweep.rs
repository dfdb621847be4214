//! The search for the highest rate that keeps a bound.

use serde_json::Value;

use crate::place::Place;
use crate::shared;

#[test]
fn sweep_with_a_bound_below_the_device_blames_the_device() {
    let measured = shared::sweep_without_a_knee();
    assert_eq!(measured.code, Some(99), "{}", measured.table);
    let json = &measured.json;
    assert_eq!(json["knee"], Value::Null);
    assert!(!json["steps"].as_array().unwrap().is_empty());
    // The device is too slow, not the log.
    assert!(json["raw"]["p99_9_ns"].as_u64().unwrap() > 1000 && json["raw"]["samples"].is_u64());
    assert!(json["undecided"].as_str().unwrap().contains("raw device"), "{json:#}");
}

#[test]
fn sweep_with_a_wide_bound_has_ten_latencies_beyond_the_percentile_at_every_rate() {
    let measured = shared::sweep_with_a_knee();
    assert_eq!(measured.code, Some(0), "{}", measured.table);
    let json = &measured.json;
    assert_eq!((&json["asked"]["threads"], &json["seed"]), (&2.into(), &3.into()));
    assert_eq!(json["asked"]["arrivals"], "constant");
    let steps = json["steps"].as_array().unwrap();
    let held: Vec<_> = steps.iter().filter(|step| step["holds"] == true).collect();
    assert!(!held.is_empty() && held.iter().all(|step| step["samples"].as_u64() >= Some(10_000)));
}

#[test]
fn sweep_whose_step_limit_is_too_short_decides_nothing() {
    let place = Place::new("sweep");
    let output =
        place.run("sweep --bound 1ms --step-time 100ms --step-limit 200ms --json - --quiet");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["knee"], Value::Null);
    assert!(json["undecided"].as_str().is_some(), "{json:#}");
}
