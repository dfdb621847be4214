//! Positions of named consumers: which are refused, and how far a consumer lags.

use std::time::Duration;

use crate::consumers::{fill, next};
use crate::support::{Temp, backends, small};
use ringwal::{Consumer, Error, Lsn, Wal};

/// Positions at which a consumer can be, and those inside a record.
#[test]
fn commit_and_seek_inside_a_record_or_beyond_the_end_are_refused() {
    for backend in backends() {
        let temp = Temp::new();
        let wal = small(&temp.log()).backend(backend).durability(ringwal::Durability::Manual);
        // No seal moves the end meanwhile.
        let wal = wal.idle_seal(Duration::MAX).open().unwrap();
        let one = wal.append(&[1; 300]).unwrap();
        let batch = wal.append_batch(&[&[2; 100][..], &[3; 100], &[4; 100]]).unwrap();
        let last = wal.append(&[5; 9000]).unwrap();
        wal.sync().unwrap();
        let mut consumer = wal.consumer("c").unwrap();
        let at = |lsn: Lsn, bytes: u64| Lsn::new(lsn.as_u64() + bytes);
        let tried = |consumer: &mut Consumer, at: Lsn| {
            [consumer.commit(at), consumer.seek(at), consumer.commit_before(at)]
        };
        for lsn in [one, batch, last] {
            for inside in [2, 4, 7, 8, 9, 16, 64] {
                let inside = at(lsn, inside);
                for refused in tried(&mut consumer, inside) {
                    assert!(matches!(refused, Err(Error::NoRecord { lsn }) if lsn == inside));
                }
                assert!(matches!(wal.read(inside), Err(Error::NoRecord { .. })));
            }
            assert!(matches!(consumer.commit(lsn.next()), Err(Error::NoRecord { .. })));
        }
        assert_eq!(consumer.position(), Lsn::new(1));
        // Between records, and at the durable end.
        let ends = [one, one.next(), at(one, 312), batch, batch.next(), last, last.next()];
        for position in ends.into_iter().chain([wal.durable_end()]) {
            consumer.commit_before(position).unwrap();
            assert_eq!(consumer.position(), position);
            consumer.seek(Lsn::ZERO).unwrap();
            consumer.seek(position).unwrap();
            assert_eq!(consumer.position(), position);
        }
        consumer.seek(Lsn::ZERO).unwrap();
        let waiting = wal.append(b"not synced").unwrap();
        assert!(matches!(consumer.commit(waiting), Err(Error::NotDurable { .. })));
        for refused in &tried(&mut consumer, wal.end())[1..] {
            assert!(matches!(refused, Err(Error::NotDurable { .. })));
        }
        // Synced, the open group is closed, and the end stays where it is.
        wal.sync().unwrap();
        let end = wal.end();
        assert_eq!(end, wal.durable_end());
        for far in [end.next(), Lsn::new(1 << 40), Lsn::new(u64::MAX)] {
            for refused in tried(&mut consumer, far) {
                assert!(matches!(refused, Err(Error::NotAppended { end: at, .. }) if at == end));
            }
        }
        assert!(matches!(consumer.commit(end), Err(Error::NotAppended { .. })));
    }
}

#[test]
fn commit_before_a_record_delivers_that_record_next() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    let lsns = fill(&wal, 0, 50);
    let mut consumer = wal.consumer("c").unwrap();
    for _ in 0..20 {
        next(&mut consumer);
    }
    consumer.commit_before(lsns[12]).unwrap();
    // The follower goes on after what it has delivered.
    assert_eq!(next(&mut consumer), (lsns[20], 20));
    consumer.commit_before(lsns[30]).unwrap();
    assert_eq!(next(&mut consumer), (lsns[30], 30));
    let back = consumer.commit_before(lsns[29]);
    assert!(matches!(back, Err(Error::ConsumerBackwards { position, .. }) if position == lsns[30]));
    drop(consumer);
    wal.close().unwrap();
    let wal = small(&temp.log()).open().unwrap();
    let mut consumer = wal.consumer("c").unwrap();
    assert_eq!(next(&mut consumer), (lsns[30], 30));
}

/// Whatever lies after the last record: marks, aborted appends, cut records, a restart.
#[test]
fn lag_of_a_consumer_that_has_everything_is_zero() {
    for backend in backends() {
        let temp = Temp::new();
        let open = || small(&temp.log()).backend(backend).open().unwrap();
        let mut wal = open();
        let lags = |wal: &Wal, consumer: &Consumer| {
            assert_eq!(wal.consumers()[0].lag_bytes, consumer.lag());
            assert_eq!(consumer.is_caught_up(), consumer.lag() == 0);
            consumer.lag()
        };
        let mut consumer = wal.consumer("c").unwrap();
        assert_eq!(lags(&wal, &consumer), 0, "an empty log");
        for round in 0..12 {
            let lsns = fill(&wal, 0, 3 + round);
            let (last, before) = (lsns[lsns.len() - 1], lsns[lsns.len() - 2]);
            let mut follow = wal.follow(lsns[0]).unwrap();
            for _ in &lsns {
                assert!(follow.lag() > 0);
                follow.try_next().unwrap().unwrap();
            }
            assert_eq!(follow.lag(), 0);
            consumer.commit(before).unwrap();
            assert!(lags(&wal, &consumer) > 0);
            match round % 4 {
                0 => consumer.commit(last).unwrap(),
                1 => {
                    let fill = |_: &mut [u8]| panic!("on purpose");
                    let panics = std::panic::AssertUnwindSafe(|| wal.append_with(100, fill));
                    assert!(std::panic::catch_unwind(panics).is_err());
                    wal.sync().unwrap();
                    consumer.commit_before(last).unwrap();
                    assert!(lags(&wal, &consumer) > 0);
                    consumer.commit(last).unwrap();
                }
                2 => {
                    wal.truncate_from(last).unwrap();
                    assert_eq!(lags(&wal, &consumer), 0);
                    // In a group of its own.
                    let alone = wal.append_durable(b"alone").unwrap();
                    assert!(lags(&wal, &consumer) > 0);
                    wal.truncate_from(alone).unwrap();
                }
                _ => {
                    consumer.commit(last).unwrap();
                    drop(consumer);
                    drop(follow);
                    wal.close().unwrap();
                    wal = open();
                    assert_eq!(wal.consumers()[0].lag_bytes, 0);
                    consumer = wal.consumer("c").unwrap();
                }
            }
            assert_eq!(lags(&wal, &consumer), 0, "round {round}");
        }
        let last = wal.append_durable(b"one more").unwrap();
        assert!(lags(&wal, &consumer) > 0);
        wal.append_batch(&["a", "b"]).unwrap();
        wal.sync().unwrap();
        consumer.commit(last).unwrap();
        assert!(lags(&wal, &consumer) > 0);
        consumer.seek(wal.durable_end()).unwrap();
        assert_eq!(lags(&wal, &consumer), 0);
    }
}
