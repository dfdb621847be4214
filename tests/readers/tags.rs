//! Tags: every reader returns them, and a filter skips the records of others without their
//! payloads.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use crate::support::{Temp, backends, copy_dir, segments, small};
use ringwal::{Error, Lsn, ReadOnlyWal, Record, Wal};

type Content = Vec<(Lsn, Option<u64>, Vec<u8>)>;

fn content(records: impl Iterator<Item = ringwal::Result<Record>>) -> Content {
    records.map(Result::unwrap).map(|r| (r.lsn(), r.tag(), r.payload)).collect()
}

fn only(all: &Content, tags: &[u64]) -> Content {
    let wanted = |tag: Option<u64>| tag.is_some_and(|tag| tags.contains(&tag));
    all.iter().filter(|(_, tag, _)| wanted(*tag)).cloned().collect()
}

/// Appends records in every form, with and without tags, and returns them.
fn fill(wal: &Wal, rounds: usize) -> Content {
    let mut all = Content::new();
    for n in 0..rounds {
        let tag = [0, 3, u64::MAX, 1 << 40][n % 4];
        let payload = vec![n as u8; (n * 131) % 900];
        let tagged = wal.tagged(tag);
        let one = |lsn| vec![(lsn, Some(tag), payload.clone())];
        all.extend(match n % 9 {
            0 => vec![(wal.append(&payload).unwrap(), None, payload.clone())],
            1 => one(wal.append_tagged(tag, &payload).unwrap()),
            2 => one(loop {
                match tagged.try_append(&payload) {
                    Err(Error::RingFull) => _ = wal.sync().unwrap(),
                    lsn => break lsn.unwrap(),
                }
            }),
            3 => one(smol::block_on(tagged.append_async(&payload)).unwrap()),
            4 => one(tagged.append_with(payload.len(), |to| to.copy_from_slice(&payload)).unwrap()),
            5 => {
                let batch: Vec<_> =
                    (0..n % 5 + 1).map(|i| (tag ^ i as u64, vec![7; i * 13])).collect();
                let lsns = wal.append_batch_tagged(&batch).unwrap();
                assert_eq!(lsns.len(), batch.len());
                lsns.zip(&batch).map(|(lsn, (tag, p))| (lsn, Some(*tag), p.clone())).collect()
            }
            6 => {
                let batch = [payload.clone(), Vec::new(), vec![1]];
                let lsns = tagged.append_batch_lsns(&batch).unwrap();
                lsns.zip(&batch).map(|(lsn, p)| (lsn, Some(tag), p.clone())).collect()
            }
            7 => {
                let batch = [(5, &b"five"[..]), (3, b"three")];
                let lsns = smol::block_on(wal.append_batch_tagged_async(&batch)).unwrap();
                lsns.zip(&batch).map(|(lsn, (tag, p))| (lsn, Some(*tag), p.to_vec())).collect()
            }
            _ => one(tagged.append_durable(&payload).unwrap()),
        });
    }
    wal.sync().unwrap();
    all
}

#[test]
fn tags_of_every_form_of_append_survive_a_close_and_a_crash() {
    for backend in backends() {
        let temp = Temp::new();
        let open = |dir: &Path| small(dir).backend(backend).open().unwrap();
        let wal = open(&temp.log());
        let all = fill(&wal, 300);
        assert_eq!(content(wal.reader(Lsn::ZERO)), all);
        for (lsn, tag, payload) in &all {
            let record = wal.read(*lsn).unwrap();
            assert_eq!((record.tag(), &record.payload), (*tag, payload));
        }
        // A copy of an open log is what a killed process leaves.
        let killed = temp.path().join("killed");
        copy_dir(&temp.log(), &killed);
        assert_eq!(content(open(&killed).reader(Lsn::ZERO)), all);
        wal.close().unwrap();
        let wal = open(&temp.log());
        assert_eq!(content(wal.reader(Lsn::ZERO)), all);
        assert_eq!(wal.read_ordinal(1).unwrap().tag(), all[1].1);
    }
}

#[test]
fn filter_returns_the_same_records_in_every_kind_of_reader() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).open().unwrap();
        // From memory too, as it is written.
        let mut beside = wal.follow(Lsn::ZERO).unwrap().only_tag(3);
        let all = fill(&wal, 400);
        let from = all[all.len() / 3].0;
        let log = ReadOnlyWal::open(temp.log()).unwrap();
        for tags in [&[3][..], &[0, u64::MAX], &[5, 3, 3], &[1234], &[]] {
            let some = || tags.iter().copied();
            let expected = only(&all, tags);
            assert_eq!(content(wal.reader(Lsn::ZERO).only_tags(some())), expected);
            assert_eq!(content(log.reader(Lsn::ZERO).unwrap().only_tags(some())), expected);
            let late: Content = expected.iter().filter(|r| r.0 >= from).cloned().collect();
            assert_eq!(content(wal.reader(from).only_tags(some())), late);
            let early: Content = expected.iter().filter(|r| r.0 < from).rev().cloned().collect();
            assert_eq!(content(wal.reader_back(from).only_tags(some())), early);
            assert_eq!(content(log.reader_back(from).unwrap().only_tags(some())), early);
            let mut found = Content::new();
            let mut follower = wal.follow(Lsn::ZERO).unwrap().only_tags(some());
            while let Some(record) = follower.try_next().unwrap() {
                found.push((record.lsn(), record.tag(), record.payload().to_vec()));
            }
            assert_eq!(found, expected);
            assert_eq!(follower.lag(), 0);
            let mut outside = log.follow(Lsn::ZERO).unwrap().only_tags(some());
            let mut found = Content::new();
            while let Some(record) = outside.next_timeout(Duration::ZERO).unwrap() {
                found.push((record.lsn(), record.tag(), record.payload().to_vec()));
            }
            assert_eq!(found, expected);
            let (mut reader, mut found) = (wal.reader(Lsn::ZERO).only_tags(some()), Content::new());
            while let Some(records) = reader.next_records().unwrap() {
                found.extend(records.map(|r| (r.lsn(), r.tag(), r.payload().to_vec())));
            }
            assert_eq!(found, expected);
        }
        let mut found = Content::new();
        while let Some(record) = beside.try_next().unwrap() {
            found.push((record.lsn(), record.tag(), record.payload().to_vec()));
        }
        assert_eq!(found, only(&all, &[3]));
        assert_eq!(content(wal.tagged(3).reader(Lsn::ZERO)), only(&all, &[3]));
    }
}

#[test]
fn second_filter_narrows_the_first_and_drops_what_it_had_found() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    wal.append_batch_tagged(&[(1, "a"), (2, "b"), (1, "c"), (3, "d")]).unwrap();
    wal.sync().unwrap();
    let mut reader = wal.reader(Lsn::ZERO).only_tags([1, 2]);
    assert_eq!(reader.next_ref().unwrap().unwrap().payload(), b"a");
    let rest = content(reader.only_tag(1));
    assert_eq!(rest.iter().map(|r| &r.2[..]).collect::<Vec<_>>(), [b"c"]);
    assert_eq!(content(wal.reader(Lsn::ZERO).only_tag(1).only_tag(2)), []);
    let mut back = wal.reader_back(wal.durable_end()).only_tags([1, 3]);
    assert_eq!(back.next().unwrap().unwrap().payload, b"d");
    assert_eq!(content(back.only_tag(1)).len(), 2);
}

#[test]
fn follower_with_a_filter_waits_through_groups_of_other_tags() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let mut follower = wal.follow(Lsn::ZERO).unwrap().only_tag(7);
    let writer = wal.clone();
    let written = std::thread::spawn(move || {
        for n in 0..200_u64 {
            writer.append_tagged(8, &n.to_le_bytes()).unwrap();
            if n % 50 == 49 {
                writer.tagged(7).append_durable(&n.to_le_bytes()).unwrap();
            }
        }
        writer.close().unwrap();
    });
    let mut found = Vec::new();
    while let Some(record) = follower.next_ref().unwrap() {
        assert_eq!(record.tag(), Some(7));
        found.push(u64::from_le_bytes(*record.payload().first_chunk().unwrap()));
    }
    written.join().unwrap();
    assert_eq!(found, [49, 99, 149, 199]);
}

#[test]
fn consumer_with_a_filter_is_caught_up_when_none_of_its_tags_is_left() {
    let temp = Temp::new();
    let wal = small(&temp.log()).max_segments(3).open().unwrap();
    let mut worker = wal.consumer("worker").unwrap().only_tag(7);
    assert!(worker.is_caught_up());
    let others = |n: u8| {
        for _ in 0..60 {
            wal.append_tagged(8, &vec![n; 5000]).unwrap();
            wal.append(&[n; 50]).unwrap();
        }
        wal.sync().unwrap();
    };
    others(0);
    assert!(worker.is_caught_up() && worker.lag() == 0, "nothing is of its tag");
    let first = wal.append_tagged(7, b"first").unwrap();
    others(1);
    let second = wal.append_tagged(7, b"second").unwrap();
    others(2);
    assert!(!worker.is_caught_up() && worker.lag() > 0);
    assert_eq!(worker.records().unwrap().next_ref().unwrap().unwrap().lsn(), first);
    worker.commit(first).unwrap();
    assert_eq!(worker.position(), first.next(), "the records of others before are passed");
    assert!(!worker.is_caught_up());
    // Passes nothing of its tag, delivered or not.
    assert_eq!(worker.commit_skipped().unwrap(), second);
    assert_eq!(worker.records().unwrap().next_ref().unwrap().unwrap().lsn(), second);
    assert_eq!(worker.commit_skipped().unwrap(), second);
    worker.commit(second).unwrap();
    assert!(worker.is_caught_up());
    // It holds the log until it says that it skips the rest.
    let oldest = wal.truncate_before(wal.end()).unwrap();
    assert!(oldest <= second);
    let end = wal.durable_end();
    assert!(worker.commit_skipped().unwrap() >= end);
    assert!(wal.truncate_before(wal.end()).unwrap() > second);
    // A restart needs the filter again, and the position is kept.
    drop(worker);
    wal.close().unwrap();
    let wal = small(&temp.log()).max_segments(3).open().unwrap();
    let mut worker = wal.consumer("worker").unwrap().only_tags([7, 9]);
    assert!(worker.is_caught_up());
    let third = wal.tagged(9).append_durable(b"third").unwrap();
    assert!(!worker.is_caught_up());
    // A cut takes it away again, and the answer with it.
    wal.truncate_from(third).unwrap();
    assert!(worker.is_caught_up());
    assert!(worker.records().unwrap().try_next().unwrap().is_none());
    let unfiltered = wal.consumer("other").unwrap();
    assert_eq!({ unfiltered }.commit_skipped().unwrap(), wal.oldest_lsn());
}

/// Flips a bit of the byte at this distance from a record.
fn damage(dir: &Path, lsn: Lsn, at: u64) {
    let path = segments(dir).into_iter().next().unwrap();
    let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let (mut byte, place) = ([0], SeekFrom::Start(lsn.as_u64() + at));
    file.seek(place).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(place).unwrap();
    file.write_all(&[byte[0] ^ 4]).unwrap();
}

#[test]
fn damaged_payload_of_a_skipped_record_is_passed_and_its_damaged_header_or_tag_is_corruption() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let mine = wal.append_tagged(7, b"mine before").unwrap();
    let other = wal.append_tagged(8, &[1; 600]).unwrap();
    let batch = wal.append_batch_tagged(&[(8, [2; 90]), (9, [3; 90])]).unwrap().last_lsn();
    let plain = wal.append(&[4; 300]).unwrap();
    let last = wal.append_tagged(7, b"mine after").unwrap();
    wal.close().unwrap();
    let read = |name: &str, places: &[(Lsn, u64)]| {
        let dir = temp.path().join(name);
        copy_dir(&temp.log(), &dir);
        places.iter().for_each(|(lsn, at)| damage(&dir, *lsn, *at));
        let wal = small(&dir).open().unwrap();
        let forwards: Result<Vec<_>, _> = wal.reader(Lsn::ZERO).only_tag(7).collect();
        let backwards: Result<Vec<_>, _> = wal.reader_back(wal.durable_end()).only_tag(7).collect();
        assert_eq!(forwards.is_ok(), backwards.is_ok(), "{name}");
        let all: Result<Vec<_>, _> = wal.reader(Lsn::ZERO).collect();
        assert!(all.is_err() || places.is_empty(), "{name}");
        forwards.map(|records| records.iter().map(Record::lsn).collect::<Vec<_>>())
    };
    assert_eq!(read("sound", &[]).unwrap(), [mine, last]);
    // Payloads of others: a record's from its byte 24, an item's from its byte 20.
    assert_eq!(read("payloads", &[(other, 24), (other, 600), (batch, 30)]).unwrap(), [mine, last]);
    // Length, kind, flags, epoch tag, check, tag; of an item length, distance, check, tag.
    for at in [0, 1, 8, 9, 10, 12, 15, 16, 23] {
        let found = read(&format!("other-{at}"), &[(other, at)]);
        assert!(matches!(found, Err(Error::Corruption { .. })), "byte {at}: {found:?}");
    }
    for at in [0, 4, 8, 12, 19] {
        let found = read(&format!("item-{at}"), &[(batch, at)]);
        assert!(matches!(found, Err(Error::Corruption { .. })), "byte {at}: {found:?}");
    }
    // A wanted record is summed, and so is one without a tag.
    for (lsn, at) in [(mine, 9), (mine, 16), (mine, 26), (last, 24), (plain, 9), (plain, 200)] {
        let found = read(&format!("summed-{lsn}-{at}"), &[(lsn, at)]);
        assert!(matches!(found, Err(Error::Corruption { .. })), "{at} of {lsn}: {found:?}");
    }
}

#[test]
fn tag_counts_for_the_size_of_a_record_and_a_batch_must_hold_one() {
    let temp = Temp::new();
    let wal = small(&temp.log()).max_record_size(1000).open().unwrap();
    let longest = wal.append_tagged(7, &[1; 988]).unwrap();
    for refused in [
        wal.append_tagged(7, &[1; 989]),
        wal.tagged(7).try_append(&[1; 989]),
        wal.tagged(7).append_durable(&[1; 989]),
        wal.tagged(7).append_with(usize::MAX, |_| {}),
        smol::block_on(wal.tagged(7).append_async(&[1; 989])),
    ] {
        assert!(matches!(refused, Err(Error::RecordTooLarge { max: 1000, .. })), "{refused:?}");
    }
    assert!(matches!(wal.append_batch_tagged::<&str>(&[]), Err(Error::EmptyBatch)));
    assert!(matches!(wal.tagged(1).append_batch::<&str>(&[]), Err(Error::EmptyBatch)));
    wal.append_batch_tagged(&[(1, [0; 480]), (2, [0; 480])]).unwrap_err();
    wal.append_batch_tagged(&[(1, [0; 476]), (2, [0; 476])]).unwrap();
    wal.sync().unwrap();
    assert_eq!(wal.read(longest).unwrap().payload.len(), 988);
    wal.close().unwrap();
    assert!(matches!(wal.append_tagged(7, b"late"), Err(Error::Closed)));
}

#[test]
fn batch_with_tags_is_cut_as_a_whole() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let lsns: Vec<_> =
        wal.append_batch_tagged(&[(1, "one"), (2, "two"), (3, "three")]).unwrap().collect();
    wal.sync().unwrap();
    let inside = wal.truncate_from(lsns[1]);
    assert!(matches!(inside, Err(Error::InsideBatch { first, .. }) if first == lsns[0]));
    wal.truncate_from(lsns[0]).unwrap();
    assert_eq!(content(wal.reader(Lsn::ZERO).only_tags([1, 2, 3])), []);
}
