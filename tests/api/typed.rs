//! Typed logs, and the version that an application gives its log.

use crate::support::{Temp, segments, small};
use ringwal::testing::SimulatedDisk;
use ringwal::{
    Error, Json, Lsn, ReplayError, RoundTrip, TypedError, TypedReadOnlyWal, TypedWal, Wal,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Event {
    Made { id: u64, name: String },
    Moved(Vec<i32>),
    Gone,
}

fn event(n: u64) -> Event {
    match n % 3 {
        0 => Event::Made { id: n, name: "x".repeat(n as usize % 300) },
        1 => Event::Moved((0..n as i32 % 50).collect()),
        _ => Event::Gone,
    }
}

#[test]
fn values_are_returned_by_every_way_of_reading() {
    let temp = Temp::new();
    let open = || TypedWal::<Event>::new(small(&temp.log()).open().unwrap());
    let log = open();
    let mut lsns = Vec::new();
    for n in 0..300 {
        lsns.push(match n % 4 {
            0 => log.append(&event(n)).unwrap(),
            1 => loop {
                match log.try_append(&event(n)) {
                    // The next segment is not prepared.
                    Err(TypedError::Log(Error::RingFull)) => std::thread::yield_now(),
                    appended => break appended.unwrap(),
                }
            },
            2 => log.append_batch(&[event(n)]).unwrap(),
            _ => log.append_durable(&event(n)).unwrap(),
        });
    }
    log.wal().sync().unwrap();
    let expected: Vec<_> = (0..300).map(event).collect();
    for log in [log.clone(), {
        log.wal().close().unwrap();
        open()
    }] {
        let values: Vec<_> = log.reader(Lsn::ZERO).map(|r| r.unwrap()).collect();
        assert!(values.iter().map(|(lsn, _)| lsn).eq(&lsns));
        assert!(values.iter().map(|(_, value)| value).eq(&expected));
        assert_eq!(log.read(lsns[7]).unwrap(), event(7));
        let mut replayed = Vec::new();
        let replay = log.replay(|_, value| {
            replayed.push(value);
            Ok::<(), TypedError>(())
        });
        assert_eq!(replay.unwrap(), 300);
        assert!(replayed == expected);
        let followed = log.follow(lsns[250]).unwrap().take(50);
        assert!(followed.map(|r| r.unwrap().1).eq((250..300).map(event)));
        let mut follow = log.follow(lsns[299]).unwrap();
        let last = smol::block_on(follow.next_value()).unwrap().unwrap();
        assert_eq!(last, (lsns[299], event(299)));
    }
}

#[test]
fn record_that_does_not_decode_is_an_error_with_its_position() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let log = TypedWal::<Event>::new(wal.clone());
    log.append(&Event::Gone).unwrap();
    let strange = wal.append(&[200, 1, 2]).unwrap();
    log.append_durable(&Event::Gone).unwrap();
    let mut reader = log.reader(Lsn::ZERO);
    assert_eq!(reader.next().unwrap().unwrap().1, Event::Gone);
    match reader.next() {
        Some(Err(TypedError::Decode { lsn, .. })) => assert_eq!(lsn, strange),
        other => panic!("{other:?}"),
    }
    assert_eq!(reader.next().unwrap().unwrap().1, Event::Gone, "reading goes on");
    assert!(matches!(log.read(strange), Err(TypedError::Decode { .. })));
    match log.replay(|_, _| Ok::<(), TypedError>(())) {
        Err(ReplayError::Apply { lsn, error: TypedError::Decode { .. } }) => {
            assert_eq!(lsn, strange)
        }
        other => panic!("{other:?}"),
    }
    let beyond = log.read(Lsn::new(1 << 40));
    assert!(matches!(beyond, Err(TypedError::Log(Error::NotAppended { .. }))));
}

/// A value that Postcard cannot encode: a sequence without a known length.
struct Endless;

impl Serialize for Endless {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde::ser::SerializeSeq::end(serializer.serialize_seq(None)?)
    }
}

impl<'de> Deserialize<'de> for Endless {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Endless)
    }
}

#[test]
fn value_that_cannot_be_encoded_is_not_appended() {
    let temp = Temp::new();
    let log = TypedWal::<Endless>::new(small(&temp.log()).open().unwrap());
    assert!(matches!(log.append(&Endless), Err(TypedError::Encode(_))));
    assert!(matches!(log.append_batch(&[Endless]), Err(TypedError::Encode(_))));
    log.wal().sync().unwrap();
    assert_eq!(log.wal().reader(Lsn::ZERO).count(), 0);
}

#[test]
fn log_of_another_application_version_is_refused_and_unchanged() {
    let temp = Temp::new();
    let open = |version| small(&temp.log()).application_version(version).open();
    let wal = open(3).unwrap();
    assert_eq!(wal.recovery().application_version, 3);
    for n in 0..100 {
        wal.append(&vec![n; 2000]).unwrap();
    }
    wal.close().unwrap();
    let files = || {
        let read = |p: &std::path::PathBuf| std::fs::read(p).unwrap();
        segments(&temp.log()).iter().map(read).collect::<Vec<_>>()
    };
    let before = files();
    match open(4) {
        Err(Error::ApplicationVersion { found, expected }) => assert_eq!((found, expected), (3, 4)),
        other => panic!("{other:?}"),
    }
    assert!(files() == before);
    // An open without an expected version reports the log's version. New segments keep it.
    let wal: Wal = small(&temp.log()).open().unwrap();
    assert_eq!(wal.recovery().application_version, 3);
    for n in 0..100 {
        wal.append(&vec![n; 2000]).unwrap();
    }
    wal.truncate_before(wal.sync().unwrap()).unwrap();
    wal.close().unwrap();
    assert_eq!(open(3).unwrap().recovery().application_version, 3);
    let none = Temp::new();
    small(&none.log()).open().unwrap().append_durable(b"x").unwrap();
    let asked = small(&none.log()).application_version(1).open();
    assert!(matches!(asked, Err(Error::ApplicationVersion { found: 0, expected: 1 })));
}

/// After a crash the log has all values of a typed batch, or none.
#[test]
fn batch_of_values_survives_whole_or_not_at_all() {
    let settings = Wal::builder("typed").segment_size(64 << 10).ring_capacity(32 << 10);
    let (mut whole, mut lost) = (0, 0);
    for seed in 0..300 {
        let disk = SimulatedDisk::new(seed);
        disk.power_off_after(10 + seed % 60);
        if let Ok(wal) = disk.open(&settings) {
            let log = TypedWal::new(wal);
            let batch: Vec<Event> = (0..5).map(event).collect();
            while log.append_batch(&batch).is_ok() && log.wal().sync().is_ok() {}
        }
        disk.crash();
        let log = TypedWal::<Event>::new(disk.open(&settings).unwrap());
        let found = log.reader(Lsn::ZERO).count();
        assert_eq!(found % 5, 0, "seed {seed}: {found} values");
        whole += usize::from(found > 0);
        lost += usize::from(found == 0);
    }
    assert!(whole > 50 && lost > 0, "{whole}, {lost}");
}

/// Serde needs a self-describing format for these types. Postcard is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Paid { cents: u64 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
    Text(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sparse {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    note: Option<String>,
    cents: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Flat {
    id: u64,
    #[serde(flatten)]
    rest: std::collections::BTreeMap<String, u64>,
}

/// Checks that Postcard refuses the value before the append, and that JSON returns it from the log.
fn postcard_refuses_and_json_keeps<T>(value: T)
where
    T: Serialize + serde::de::DeserializeOwned + Clone + PartialEq + std::fmt::Debug,
{
    for check in [RoundTrip::Every, RoundTrip::First] {
        let temp = Temp::new();
        let log = TypedWal::<T>::new(small(&temp.log()).open().unwrap()).round_trip(check);
        for refused in [
            log.append(&value).map(drop),
            log.try_append(&value).map(drop),
            log.append_durable(&value).map(drop),
            log.append_batch(std::slice::from_ref(&value)).map(drop),
            smol::block_on(log.append_async(&value)).map(drop),
        ] {
            let refused = refused.unwrap_err();
            let kind = matches!(refused, TypedError::RoundTrip(_) | TypedError::Encode(_));
            assert!(kind, "{value:?}: {refused}");
        }
        log.wal().sync().unwrap();
        assert_eq!(log.wal().reader(Lsn::ZERO).count(), 0, "{value:?} was appended");
    }
    let temp = Temp::new();
    let log = TypedWal::<T, Json>::with_codec(small(&temp.log()).open().unwrap());
    let lsn = log.append_durable(&value).unwrap();
    assert_eq!(log.read(lsn).unwrap(), value);
}

#[test]
fn value_that_would_not_decode_is_refused_before_it_is_appended() {
    postcard_refuses_and_json_keeps(Tagged::Paid { cents: 5 });
    postcard_refuses_and_json_keeps(Untagged::Text("five".into()));
    postcard_refuses_and_json_keeps(Untagged::Number(5));
    postcard_refuses_and_json_keeps(Sparse { note: None, cents: 0 });
    postcard_refuses_and_json_keeps(Sparse { note: None, cents: 500 });
    postcard_refuses_and_json_keeps(Flat { id: 1, rest: [("a".into(), 2)].into() });
    postcard_refuses_and_json_keeps(serde_json::json!({ "cents": 5 }));
}

#[test]
fn sparse_value_is_refused_where_an_earlier_one_was_complete() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let log = TypedWal::<Sparse>::new(wal).round_trip(RoundTrip::Every);
    log.append(&Sparse { note: Some("complete".into()), cents: 1 }).unwrap();
    let refused = log.append(&Sparse { note: None, cents: 1 });
    assert!(matches!(refused, Err(TypedError::RoundTrip(_))), "{refused:?}");
}

#[test]
fn map_without_an_order_is_accepted() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    type Map = std::collections::HashMap<u32, String>;
    let log = TypedWal::<Map>::new(wal).round_trip(RoundTrip::Every);
    for n in 0..50 {
        let map: Map = (0..n).map(|key| (key, format!("value {key}"))).collect();
        let lsn = log.append_durable(&map).unwrap();
        assert_eq!(log.read(lsn).unwrap(), map);
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct First {
    id: u32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Second {
    id: u32,
    name: String,
}

#[test]
fn record_with_bytes_left_over_does_not_decode() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let lsn = TypedWal::<Second>::new(wal.clone())
        .append_durable(&Second { id: 1, name: "n".into() })
        .unwrap();
    let earlier = TypedWal::<First>::new(wal.clone());
    let is_decode = |e| matches!(e, Err(TypedError::Decode { lsn: at, .. }) if at == lsn);
    assert!(is_decode(earlier.read(lsn).map(drop)));
    assert!(is_decode(earlier.reader(Lsn::ZERO).next().unwrap().map(drop)));
    assert!(is_decode(earlier.follow(lsn).unwrap().next().unwrap().map(drop)));
    let replayed = earlier.replay(|_, _| Ok::<(), TypedError>(()));
    assert!(matches!(replayed, Err(ReplayError::Apply { error: TypedError::Decode { .. }, .. })));
    let json = TypedWal::<First, Json>::with_codec(wal.clone());
    let two = wal.append_durable(b"{\"id\":1}{\"id\":2}").unwrap();
    assert!(matches!(json.read(two), Err(TypedError::Decode { .. })));
}

#[test]
fn consumers_and_other_processes_read_values() {
    let temp = Temp::new();
    let log = TypedWal::<Event>::new(small(&temp.log()).open().unwrap());
    let lsns: Vec<Lsn> = (0..20).map(|n| log.append(&event(n)).unwrap()).collect();
    let strange = log.wal().append_durable(&[200, 1, 2]).unwrap();

    let mut consumer = log.consumer("reader").unwrap();
    let (lsn, value) = consumer.values().unwrap().next().unwrap().unwrap();
    assert_eq!((lsn, value), (lsns[0], event(0)));
    let (lsn, value) = smol::block_on(consumer.values().unwrap().next_value()).unwrap().unwrap();
    assert_eq!((lsn, value), (lsns[1], event(1)));
    consumer.commit(lsn).unwrap();
    drop(consumer);
    let mut consumer = log.consumer("reader").unwrap();
    assert_eq!(consumer.values().unwrap().next().unwrap().unwrap(), (lsns[2], event(2)));
    consumer.consumer_mut().seek(strange).unwrap();
    let found = consumer.values().unwrap().next().unwrap();
    assert!(matches!(found, Err(TypedError::Decode { lsn, .. }) if lsn == strange));
    assert_eq!(consumer.consumer().name(), "reader");

    let other = TypedReadOnlyWal::<Event>::open(temp.log()).unwrap();
    let values = other.reader(Lsn::ZERO).unwrap().take(20).map(|r| r.unwrap().1);
    assert!(values.eq((0..20).map(event)));
    assert_eq!(other.read(lsns[5]).unwrap(), event(5));
    assert_eq!(other.follow(lsns[19]).unwrap().next().unwrap().unwrap(), (lsns[19], event(19)));
    assert!(matches!(other.read(strange), Err(TypedError::Decode { .. })));
    let mut seen = 0;
    let replayed = other.replay(|_, _| {
        seen += 1;
        Ok::<(), TypedError>(())
    });
    assert!(matches!(replayed, Err(ReplayError::Apply { lsn, .. }) if lsn == strange));
    assert_eq!(seen, 20);
}
