//! Values instead of bytes, and the version that an application gives its log.

use crate::support::{Temp, segments, small};
use ringwal::testing::SimulatedDisk;
use ringwal::{Error, Lsn, ReplayError, TypedError, TypedWal, Wal};
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
fn values_come_back_in_every_way_of_reading() {
    let temp = Temp::new();
    let open = || TypedWal::<Event>::new(small(&temp.log()).open().unwrap());
    let log = open();
    let mut lsns = Vec::new();
    for n in 0..300 {
        lsns.push(match n % 4 {
            0 => log.append(&event(n)).unwrap(),
            1 => loop {
                match log.try_append(&event(n)) {
                    // The next segment is not prepared yet.
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
fn what_is_no_value_is_an_error_that_names_the_record() {
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

/// A value that cannot be encoded: a sequence whose length is not known beforehand.
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
fn what_cannot_be_encoded_is_not_appended() {
    let temp = Temp::new();
    let log = TypedWal::<Endless>::new(small(&temp.log()).open().unwrap());
    assert!(matches!(log.append(&Endless), Err(TypedError::Encode(_))));
    assert!(matches!(log.append_batch(&[Endless]), Err(TypedError::Encode(_))));
    log.wal().sync().unwrap();
    assert_eq!(log.wal().reader(Lsn::ZERO).count(), 0);
}

#[test]
fn a_log_of_another_version_is_refused_and_left_as_it_is() {
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
    // Who does not ask sees what it is; and what is made meanwhile has it too.
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

/// A typed batch is a batch: after a crash all of its values are there, or none.
#[test]
fn a_batch_of_values_survives_whole_or_not_at_all() {
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
