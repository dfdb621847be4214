//! Futures that are dropped after any number of polls, and handles that are dropped in any order,
//! in any state of the log. No record appears that no call reported as appended. No waiter sleeps
//! for ever, no record is lost, and the log opens again.
//!
//! `RINGWAL_DROPS=n` sets how many futures and handles.
#![allow(clippy::print_stdout, reason = "tests say what they did")]

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::support::{Temp, backends, long, read_all};
use fastrand::Rng;
use futures_util::SinkExt;
use ringwal::{BackendChoice, Durability, Error, Lsn, Wal, WalBuilder};

fn wanted() -> u64 {
    let asked = std::env::var("RINGWAL_DROPS").ok().map(|n| n.parse().expect("a number"));
    asked.unwrap_or(if long() { 1_000_000 } else { 4_000 })
}

/// A ring of two buffers, which is often full.
fn tight(temp: &Temp, backend: BackendChoice, rng: &mut Rng) -> WalBuilder {
    let durability = match rng.u8(..3) {
        0 => Durability::Manual,
        1 => Durability::Interval(Duration::from_millis(1)),
        _ => Durability::EveryGroup,
    };
    Wal::builder(temp.log())
        .segment_size(64 << 10)
        .max_record_size(2000)
        .ring_capacity(8 << 10)
        .durability(durability)
        .backend(backend)
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls at most `polls` times, each after a wake or a moment.
fn poll_some<T>(mut future: Pin<&mut impl Future<Output = T>>, polls: u32) -> Option<T> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    for n in 0..polls {
        // A different waker each time, or one that does nothing.
        let noop = n % 3 == 2;
        let mut context = Context::from_waker(if noop { Waker::noop() } else { &waker });
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Some(value);
        }
        if n > 0 {
            std::thread::park_timeout(Duration::from_micros(50));
        }
    }
    None
}

fn payload(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![number as u8; len.max(8)];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn number(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

/// Counts the results of one thread's futures.
#[derive(Debug, Default)]
struct Tally {
    dropped: u64,
    /// Futures dropped before they were ready.
    unready: u64,
    appended: Vec<u64>,
    followed: u64,
}

/// Creates futures, polls each a few times and drops it, until `left` is zero or the log is closed.
fn work(wal: &Wal, left: &AtomicU64, numbers: &AtomicU64, seed: u64) -> Tally {
    let mut rng = Rng::with_seed(seed);
    let mut tally = Tally::default();
    let mut follower = wal.follow(wal.durable_end()).unwrap();
    let mut followed = None;
    let take = || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
    while take().is_ok() {
        tally.dropped += 1;
        let polls = rng.u32(..5);
        let ready = match rng.u8(..8) {
            0..=4 => {
                let number = numbers.fetch_add(1, Ordering::SeqCst);
                let bytes = payload(number, rng.usize(..2000));
                let future = pin!(wal.append_async(&bytes));
                match poll_some(future, polls) {
                    Some(Ok(_)) => {
                        tally.appended.push(number);
                        true
                    }
                    Some(Err(Error::Closed)) => return tally,
                    Some(Err(e)) => panic!("{e}"),
                    None => false,
                }
            }
            5 | 6 => {
                // The newest record is seldom durable.
                let lsn = wal.durable_end().as_u64().saturating_sub(rng.u64(..3));
                match poll_some(pin!(wal.when_durable(Lsn::new(lsn))), polls) {
                    Some(Ok(()) | Err(Error::NotAppended { .. } | Error::Closed)) => true,
                    Some(Err(e)) => panic!("{e}"),
                    None => false,
                }
            }
            _ => match poll_some(pin!(follower.next_record()), polls) {
                Some(Some(Ok(record))) => {
                    assert!(followed.is_none_or(|last| last < record.lsn), "delivered twice");
                    followed = Some(record.lsn);
                    tally.followed += 1;
                    true
                }
                Some(None) => return tally,
                Some(Some(Err(e))) => panic!("{e}"),
                None => false,
            },
        };
        tally.unready += u64::from(!ready);
    }
    tally
}

#[test]
fn futures_dropped_at_any_await_point_append_nothing_and_block_no_one() {
    let (left, seeds) = (AtomicU64::new(wanted()), AtomicU64::new(0));
    let (mut dropped, mut unready, mut followed) = (0, 0, 0);
    while left.load(Ordering::SeqCst) > 0 {
        for backend in backends() {
            let seed = seeds.fetch_add(1, Ordering::SeqCst);
            let mut rng = Rng::with_seed(seed);
            let temp = Temp::new();
            let wal = tight(&temp, backend, &mut rng).open().unwrap();
            let numbers = AtomicU64::new(0);
            let some = AtomicU64::new(left.load(Ordering::SeqCst).min(rng.u64(500..3000)));
            left.fetch_sub(some.load(Ordering::SeqCst), Ordering::SeqCst);
            // Some rounds close the log meanwhile.
            let close_after = (rng.u8(..4) == 0).then(|| Duration::from_micros(rng.u64(..20_000)));
            let tallies: Vec<Tally> = std::thread::scope(|scope| {
                let (wal, some, numbers) = (&wal, &some, &numbers);
                let workers: Vec<_> = (0..4)
                    .map(|n| scope.spawn(move || work(wal, some, numbers, seed << 8 | n)))
                    .collect();
                if let Some(after) = close_after {
                    std::thread::sleep(after);
                    wal.close().unwrap();
                }
                workers.into_iter().map(|w| w.join().unwrap()).collect()
            });
            if close_after.is_none() {
                // No waiter sleeps for ever, and no reservation blocks the ring.
                wal.append_durable(&payload(u64::MAX, 2000)).unwrap();
            }
            wal.close().unwrap();
            // Futures that the close left over.
            left.fetch_add(some.into_inner(), Ordering::SeqCst);
            let said: BTreeSet<u64> = tallies.iter().flat_map(|t| t.appended.clone()).collect();
            let found: Vec<u64> = read_all(&wal).iter().map(|(_, p)| number(p)).collect();
            let set: BTreeSet<u64> = found.iter().copied().filter(|n| *n != u64::MAX).collect();
            assert_eq!(set, said, "seed {seed}: what is there is what was said to be");
            assert!(found.len() <= set.len() + 1, "seed {seed}: appended twice");
            for t in tallies {
                dropped += t.dropped;
                unready += t.unready;
                followed += t.followed;
            }
        }
    }
    assert!(dropped >= wanted() && unready > dropped / 10, "{dropped}, {unready}");
    println!("{dropped} futures dropped, {unready} of them pending; {followed} records followed");
}

/// Every kind of handle of a log, to be dropped in any order.
enum Handle {
    Wal(Wal),
    Other(Box<dyn std::any::Any>),
}

#[test]
fn handles_dropped_in_any_order_leave_a_log_that_opens() {
    let (mut dropped, mut rounds, goal) = (0_u64, 0_u64, wanted() / 4);
    let all = backends();
    while dropped < goal {
        let seed = rounds;
        rounds += 1;
        let mut rng = Rng::with_seed(seed);
        let temp = Temp::new();
        let backend = all[rng.usize(..all.len())];
        let builder = tight(&temp, backend, &mut rng);
        let wal = builder.clone().open().unwrap();
        let called = Arc::new(AtomicU64::new(0));
        let (mut last, mut asked, mut appended) = (Lsn::ZERO, 0, 0);
        let mut handles = vec![Handle::Wal(wal.clone())];
        for n in 0..rng.u64(5..60) {
            last = wal.append(&payload(n, rng.usize(..1500))).unwrap();
            appended += 1;
            let mut other = |handle: Box<dyn std::any::Any>| handles.push(Handle::Other(handle));
            match rng.u8(..10) {
                0 => handles.push(Handle::Wal(wal.clone())),
                1 => other(Box::new(wal.reader(Lsn::ZERO))),
                2 => other(Box::new(wal.reader_back(wal.durable_end()))),
                3 => other(Box::new(wal.follow(Lsn::ZERO).unwrap())),
                4 => {
                    let mut future = Box::pin(wal.when_durable(last));
                    let _ = poll_some(future.as_mut(), rng.u32(..2));
                    other(Box::new(future));
                }
                5 => {
                    let mut sink = wal.sink::<Vec<u8>>();
                    let mut flush = sink.flush();
                    let _ = poll_some(pin!(&mut flush), rng.u32(..2));
                    other(Box::new(sink));
                }
                6 => other(Box::new(wal.consumer(&format!("c{n}")).unwrap())),
                7 => other(Box::new(wal.follow(Lsn::ZERO).unwrap().into_stream())),
                8 => {
                    let (count, inside) = (Arc::clone(&called), wal.clone());
                    asked += 1;
                    // The callback owns a handle too, perhaps the last one.
                    wal.on_durable(last, move |result| {
                        drop(inside);
                        assert!(matches!(result, Ok(()) | Err(Error::Closed)), "{result:?}");
                        count.fetch_add(1, Ordering::SeqCst);
                    });
                }
                _ => drop(wal.reader(Lsn::ZERO).next()),
            }
        }
        if rng.bool() {
            wal.close().unwrap();
        }
        handles.push(Handle::Wal(wal));
        rng.shuffle(&mut handles);
        for handle in handles {
            dropped += 1;
            match handle {
                Handle::Wal(wal) => drop(wal),
                Handle::Other(other) => drop(other),
            }
        }
        let until = Instant::now() + Duration::from_secs(60);
        let again = loop {
            match builder.clone().open() {
                // A callback owned the last handle, so the close ends some time later.
                Err(Error::Locked { .. }) if Instant::now() < until => std::thread::yield_now(),
                opened => break opened.unwrap(),
            }
        };
        assert!(again.durable_end() > last, "seed {seed}");
        assert_eq!(read_all(&again).len(), appended, "seed {seed}");
        assert_eq!(called.load(Ordering::SeqCst), asked, "seed {seed}: callbacks");
    }
    println!("{dropped} handles dropped in {rounds} rounds");
}
