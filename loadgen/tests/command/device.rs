//! The raw device and its verdicts.

use crate::place::Place;
use crate::shared;

#[test]
fn device_is_measured_and_explained() {
    let measured = shared::device();
    assert_eq!(measured.code, Some(0), "{}", measured.table);
    let json = &measured.json;
    assert!(json["cells"].as_array().unwrap().len() >= 3);
    assert!(json["findings"].as_array().unwrap().len() >= 6, "{json:#}");
}

#[test]
fn device_is_judged_by_the_published_rule_of_each_system() {
    let measured = shared::rules();
    let verdicts = measured.json["verdicts"].as_array().unwrap();
    assert_eq!(verdicts.len(), 2);
    assert_eq!((&verdicts[0]["system"], &verdicts[0]["bytes"]), (&"etcd".into(), &16384.into()));
    assert_eq!(
        (&verdicts[0]["bound_ns"], &verdicts[1]["bound_ns"]),
        (&10_000_000.into(), &20_000_000.into())
    );
    for verdict in verdicts {
        let p99 = verdict["p99_ns"].as_f64().unwrap();
        assert!(verdict["writes"].as_u64().unwrap() >= 1000, "{verdict}");
        assert_eq!(verdict["passes"], p99 < verdict["bound_ns"].as_f64().unwrap(), "{verdict}");
    }
    let all = verdicts.iter().all(|verdict| verdict["passes"] == true);
    assert_eq!(measured.code, Some(if all { 0 } else { 99 }));
    let place = Place::new("rules");
    assert_eq!(place.run("device --for floppy").status.code(), Some(2));
}
