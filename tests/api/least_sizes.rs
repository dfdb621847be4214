//! Small programs with the smallest segments and the smallest ring that a log takes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;

use ringwal::{Durability, Error, Lsn, OptionsError, Wal, WalBuilder};
use serde_json::{Value, json};

use crate::support::{Temp, backends, read_all};

/// The least sizes on a device with blocks of 4096 bytes, as the guide states them.
const SEGMENT: u64 = 16 << 10;
const RING: usize = 8 << 10;
const RECORD: usize = 3944;

fn least(dir: &Path) -> WalBuilder {
    Wal::builder(dir).segment_size(SEGMENT).ring_capacity(RING)
}

#[test]
fn eleven_strings_are_read_back_at_the_least_sizes() {
    for backend in backends() {
        for durability in [Durability::EveryGroup, Durability::Manual] {
            let temp = Temp::new();
            let open = || least(&temp.log()).backend(backend).durability(durability).open();
            let wal = open().unwrap();
            let lines: Vec<String> = (0..11).map(|n| format!("line {n}").repeat(n * 7)).collect();
            for line in &lines {
                wal.append(line.as_bytes()).unwrap();
            }
            wal.sync().unwrap();
            wal.close().unwrap();
            let found = read_all(&open().unwrap());
            let found = found.iter().map(|(_, payload)| std::str::from_utf8(payload).unwrap());
            assert!(found.eq(lines.iter().map(String::as_str)));
        }
    }
}

#[test]
fn operations_as_json_rebuild_the_map_at_the_least_sizes() {
    for backend in backends() {
        let temp = Temp::new();
        let open = || least(&temp.log()).backend(backend).open().unwrap();
        let apply = |users: &mut BTreeMap<String, Value>, operation: &Value| {
            let id = operation["id"].as_str().unwrap().to_owned();
            match operation["op"].as_str().unwrap() {
                "delete" => drop(users.remove(&id)),
                _ => drop(users.insert(id, operation["user"].clone())),
            }
        };
        let mut live = BTreeMap::new();
        let wal = open();
        for n in 0..300 {
            let op = ["create", "update", "delete"][n % 3];
            let id = format!("user {}", n * 5 % 17);
            let operation = json!({ "op": op, "id": id, "user": { "visits": n } });
            wal.append(&serde_json::to_vec(&operation).unwrap()).unwrap();
            apply(&mut live, &operation);
        }
        wal.sync().unwrap();
        drop(wal);
        let mut rebuilt = BTreeMap::new();
        let replayed = open().replay(|_, payload| {
            apply(&mut rebuilt, &serde_json::from_slice(payload).unwrap());
            Ok::<(), Infallible>(())
        });
        assert_eq!(replayed.unwrap(), 300);
        assert_eq!(rebuilt, live);
        assert!(!live.is_empty());
    }
}

#[test]
fn sizes_below_the_least_are_refused_with_the_least() {
    let temp = Temp::new();
    let ranges = |builder: WalBuilder| match builder.open() {
        Err(Error::Options(e @ OptionsError::Range { .. })) => e.to_string(),
        other => panic!("{other:?}"),
    };
    let small = ranges(Wal::builder(temp.log()).segment_size(SEGMENT - 4096));
    assert!(small.contains(&SEGMENT.to_string()), "{small}");
    let small = ranges(least(&temp.log()).ring_capacity(RING - 1));
    assert!(small.contains(&RING.to_string()), "{small}");
    let wal = least(&temp.log()).open().unwrap();
    wal.append_durable(&[7; RECORD]).unwrap();
    let large = wal.append(&[7; RECORD + 1]);
    assert!(matches!(large, Err(Error::RecordTooLarge { max, .. }) if max == RECORD), "{large:?}");
    assert_eq!(wal.reader(Lsn::ZERO).count(), 1);
}
