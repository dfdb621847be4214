//! Killed writers, and the witness of their acknowledgements.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::place::Place;

#[test]
fn killed_writers_lose_no_acknowledged_record() {
    let place = Place::new("crash");
    let output = place.run("crash --rounds 6 --threads 3 --json --quiet");
    assert!(output.status.success(), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["rounds"], &json["lost"]), (&6.into(), &0.into()));
    assert!(json["found"].as_u64() >= json["acknowledged"].as_u64());
    assert!(json["acknowledged"].as_u64() > Some(0), "{json:#}");
    assert_eq!(place.entries(), [""; 0], "nothing is left");
}

#[test]
fn witness_finds_a_missing_acknowledged_record() {
    let place = Place::new("witness");
    let mut witness = place
        .command("witness --listen 127.0.0.1:0 --acks acks")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(witness.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
    let acks = |place: &Place| std::fs::metadata(place.path("acks")).map_or(0, |meta| meta.len());
    let mut writer = place.command(&format!("crash --dir d --witness {address}")).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(300);
    while acks(&place) < 24 * 51 {
        assert!(Instant::now() < until, "nothing was acknowledged");
        std::thread::sleep(Duration::from_millis(5));
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let check = format!("crash --dir d --witness {address} --check");
    let output = place.run(&check);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("all "));
    // The check reports a log that is gone, and does not create another.
    std::fs::remove_dir_all(place.path("d")).unwrap();
    std::fs::create_dir(place.path("d")).unwrap();
    let output = place.run(&check);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("there is no log in") && stderr.contains("acknowledged"), "{stderr}");
    assert_eq!(std::fs::read_dir(place.path("d")).unwrap().count(), 0);
    witness.kill().unwrap();
    witness.wait().unwrap();
}
