//! All calls at once, from many threads, on the smallest rings and segments, until a close at a
//! random moment. No call hangs. Every accepted record is there once, unaltered, and no other
//! record is there.
//!
//! `RINGWAL_TORTURE=seconds` runs for longer; `RINGWAL_TORTURE_SEED=n` starts with that seed.
#![allow(clippy::print_stderr, reason = "tests say what they did")]

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::support::{Temp, backends, read_all};
use ringwal::{BackendChoice, Durability, Error, Lsn, Wal, WalBuilder};

const PRODUCERS: u64 = 4;
const LARGEST: usize = 3000;

/// A small random generator: the same seed gives the same choices.
struct Draw(u64);

impl Draw {
    fn new(seed: u64) -> Self {
        Draw(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

type Accepted = Vec<(Lsn, Vec<u8>)>;

struct Producer {
    wal: Wal,
    id: u64,
    draw: Draw,
    count: u64,
    accepted: Accepted,
    called: Arc<AtomicU64>,
    asked: u64,
}

impl Producer {
    fn payload(&mut self, largest: usize) -> Vec<u8> {
        self.count += 1;
        let long = self.draw.one_in(8);
        let len = self.draw.below(if long { largest as u64 - 16 } else { 100 }) as usize;
        let mut payload = [self.id.to_le_bytes(), self.count.to_le_bytes()].concat();
        payload.resize(16 + len, self.count as u8);
        payload
    }

    /// Makes one call, or a few that belong together. `Err`: the log is closed.
    fn step(&mut self) -> Result<(), Error> {
        let wal = self.wal.clone();
        match self.draw.below(13) {
            0..=2 => {
                let payload = self.payload(LARGEST);
                let lsn = wal.append(&payload)?;
                self.accepted.push((lsn, payload));
            }
            3 => {
                let payload = self.payload(LARGEST);
                match wal.try_append(&payload) {
                    Ok(lsn) => self.accepted.push((lsn, payload)),
                    Err(Error::RingFull) => {}
                    Err(e) => return Err(e),
                }
            }
            4 => {
                let payload = self.payload(LARGEST);
                let lsn =
                    wal.append_with(payload.len(), |bytes| bytes.copy_from_slice(&payload))?;
                self.accepted.push((lsn, payload));
            }
            5 => {
                // A panic leaves no record.
                let len = self.payload(LARGEST).len();
                let filled = catch_unwind(AssertUnwindSafe(|| {
                    wal.append_with(len, |_| std::panic::resume_unwind(Box::new("on purpose")))
                }));
                if let Ok(refused) = filled {
                    refused?;
                    panic!("a panic was swallowed");
                }
            }
            6 => {
                let batch: Vec<_> = (0..=self.draw.below(5)).map(|_| self.payload(500)).collect();
                let mut lsn = wal.append_batch(&batch)?.as_u64();
                for payload in batch {
                    let stored = (8 + payload.len() as u64).next_multiple_of(8);
                    self.accepted.push((Lsn::new(lsn), payload));
                    lsn += stored;
                }
            }
            7 | 8 => self.append_async(&wal)?,
            9 => {
                if let Some((lsn, _)) = self.accepted.last() {
                    wal.wait_durable(*lsn)?;
                    assert!(wal.durable_end() > *lsn);
                }
            }
            10 => {
                if let Some((lsn, _)) = self.accepted.last() {
                    let mut future = wal.when_durable(*lsn);
                    let mut polls = self.draw.below(3);
                    while polls > 0 && is_pending(&mut future) {
                        polls -= 1;
                    }
                    if self.draw.one_in(2) {
                        smol::block_on(future)?;
                    }
                }
            }
            11 => {
                if let Some((lsn, _)) = self.accepted.last() {
                    let (called, lsn, inside) = (Arc::clone(&self.called), *lsn, wal.clone());
                    self.asked += 1;
                    wal.on_durable(lsn, move |result| {
                        result.unwrap();
                        assert!(inside.durable_end() > lsn);
                        called.fetch_add(1, Ordering::SeqCst);
                    });
                }
            }
            _ => {
                let last = self.accepted.last().map(|(lsn, _)| *lsn);
                let end = wal.sync()?;
                assert!(last.is_none_or(|last| end > last));
            }
        }
        Ok(())
    }

    /// Polls an append a few times, then awaits, drops or leaks it.
    fn append_async(&mut self, wal: &Wal) -> Result<(), Error> {
        let payload = self.payload(LARGEST);
        // A leaked future borrows its payload for ever, so leak that too.
        let bytes: &'static [u8] = payload.clone().leak();
        let owner: &'static Wal = Box::leak(Box::new(wal.clone()));
        let mut future = owner.append_async(bytes);
        let appended = match self.draw.below(4) {
            0 => Some(smol::block_on(future)),
            fate => {
                let mut last = None;
                for _ in 0..=self.draw.below(3) {
                    let polled =
                        Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop()));
                    if let Poll::Ready(appended) = polled {
                        last = Some(appended);
                        break;
                    }
                    std::thread::yield_now();
                }
                if last.is_none() && fate == 1 {
                    std::mem::forget(future);
                }
                last
            }
        };
        if let Some(appended) = appended {
            self.accepted.push((appended?, payload));
        }
        Ok(())
    }
}

fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

fn builder(temp: &Temp, draw: &mut Draw, backend: BackendChoice) -> WalBuilder {
    let durability = match draw.below(4) {
        0 => Durability::Manual,
        1 => Durability::Interval(Duration::from_millis(1 + draw.below(5))),
        _ => Durability::EveryGroup,
    };
    let mut builder = Wal::builder(temp.log())
        .segment_size((16 << 10) << draw.below(3))
        .ring_capacity(8192 << draw.below(3))
        .max_record_size(LARGEST)
        .depth(1 + draw.below(4) as usize)
        .idle_seal(Duration::from_millis(1 + draw.below(20)))
        .durability(durability)
        .backend(backend);
    if draw.one_in(3) {
        builder = builder.commit_delay(Duration::from_micros(draw.below(2000)));
    }
    if draw.one_in(3) {
        builder = builder.max_segments(2 + draw.below(4) as usize);
    }
    builder
}

fn follow(wal: &Wal, seen: &mpsc::Sender<usize>) {
    let mut follower = match wal.follow(wal.durable_end()) {
        Ok(follower) => follower,
        Err(Error::Pruned { .. }) => return,
        Err(e) => panic!("{e}"),
    };
    let (mut count, mut last) = (0, Lsn::ZERO);
    loop {
        match follower.next_timeout(Duration::from_millis(50)) {
            Ok(Some(record)) => {
                assert!(record.lsn > last && record.lsn < wal.durable_end());
                (last, count) = (record.lsn, count + 1);
            }
            Ok(None) if wal.health().is_ok() => {}
            // The log is closed, or a record has just become durable. The follower returns the rest
            // at once.
            Ok(None) => match follower.next_ref() {
                Ok(Some(_)) => count += 1,
                Ok(None) => break,
                Err(e) => panic!("{e}"),
            },
            Err(e) => panic!("{e}"),
        }
    }
    let _ = seen.send(count);
}

fn round(seed: u64, backend: BackendChoice) {
    let mut draw = Draw::new(seed);
    let temp = Temp::new();
    let options = builder(&temp, &mut draw, backend);
    let wal = options.clone().open().unwrap();
    let called = Arc::new(AtomicU64::new(0));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|id| {
            let mut producer = Producer {
                wal: wal.clone(),
                id,
                draw: Draw::new(seed ^ id << 32),
                count: 0,
                accepted: Vec::new(),
                called: Arc::clone(&called),
                asked: 0,
            };
            std::thread::spawn(move || {
                loop {
                    match producer.step() {
                        Ok(()) => {}
                        Err(Error::Closed) => return (producer.accepted, producer.asked),
                        Err(e) => panic!("{e}"),
                    }
                }
            })
        })
        .collect();
    let (seen, _count) = mpsc::channel();
    let follower = {
        let wal = wal.clone();
        std::thread::spawn(move || follow(&wal, &seen))
    };
    let truncates = draw.one_in(2);
    let until = Instant::now() + Duration::from_millis(40 + draw.below(120));
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(draw.below(20)));
        if truncates {
            let end = wal.durable_end().as_u64();
            let kept =
                wal.truncate_before(Lsn::new(end.saturating_sub(draw.below(1 << 17)))).unwrap();
            assert!(kept <= wal.durable_end());
        }
        assert!(wal.stats().durable_end <= wal.durable_end());
    }
    let others: Vec<_> = (0..draw.below(3))
        .map(|_| {
            let wal = wal.clone();
            std::thread::spawn(move || wal.close().unwrap())
        })
        .collect();
    wal.close().unwrap();
    others.into_iter().for_each(|other| other.join().unwrap());
    let mut accepted = BTreeMap::new();
    let mut asked = 0;
    for producer in producers {
        let (records, calls) = producer.join().unwrap();
        asked += calls;
        let mut last = Lsn::ZERO;
        for (lsn, payload) in records {
            assert!(lsn > last, "a thread's records are in its order");
            last = lsn;
            assert!(accepted.insert(lsn, payload).is_none(), "{lsn} was given twice");
        }
    }
    follower.join().unwrap();
    assert_eq!(called.load(Ordering::SeqCst), asked, "callbacks");
    // Reopen without a limit, so that retention removes nothing meanwhile.
    let again = options.max_segments(usize::MAX).open().unwrap();
    assert!(again.recovery().clean);
    let kept = accepted.split_off(&again.oldest_lsn());
    let read: BTreeMap<_, _> = read_all(&again).into_iter().collect();
    for (lsn, payload) in &kept {
        assert_eq!(read.get(lsn), Some(payload), "{lsn} is missing or altered");
    }
    assert_eq!(read.len(), kept.len(), "nothing else is there");
    again.close().unwrap();
}

#[test]
fn all_calls_at_once_on_the_smallest_log_lose_no_record() {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let seconds = number("RINGWAL_TORTURE");
    let begun = Instant::now();
    let mut seed = number("RINGWAL_TORTURE_SEED").unwrap_or(1);
    let first = seed;
    let enough = |seed| match seconds {
        Some(seconds) => begun.elapsed() > Duration::from_secs(seconds),
        None => seed >= first + 6,
    };
    let backends = backends();
    while !enough(seed) {
        for &backend in &backends {
            let (send, receive) = mpsc::channel();
            let round = std::thread::spawn(move || {
                round(seed, backend);
                let _ = send.send(());
            });
            if let Err(mpsc::RecvTimeoutError::Timeout) =
                receive.recv_timeout(Duration::from_secs(300))
            {
                panic!("it hangs: RINGWAL_TORTURE_SEED={seed}, {backend:?}");
            }
            if let Err(panicked) = round.join() {
                eprintln!("RINGWAL_TORTURE_SEED={seed}, {backend:?}");
                std::panic::resume_unwind(panicked);
            }
        }
        seed += 1;
    }
    eprintln!("{} rounds on each backend", seed - first);
}
