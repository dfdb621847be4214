//! What is done to a log, and random sequences of it.

use std::time::Duration;

use fastrand::Rng;
use ringwal::{BackendChoice, CommitMethod, Durability, WalBuilder};

/// A record, or a place that is none, by a number that the model reduces to what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Record(u32),
    /// So many bytes behind the start of a record.
    Inside(u32, u16),
    Zero,
    DurableEnd,
    /// Far behind everything.
    Beyond,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) std: bool,
    pub(crate) dsync: bool,
    /// 0 every group, 1 by interval, 2 manual.
    pub(crate) durability: u8,
    /// The ring and the records that it takes, from small to large.
    pub(crate) ring: u8,
    pub(crate) max_segments: Option<u8>,
    pub(crate) depth: u8,
}

impl Config {
    fn random(rng: &mut Rng) -> Self {
        Config {
            std: rng.bool(),
            dsync: rng.bool(),
            durability: rng.u8(..3),
            ring: rng.u8(..3),
            max_segments: (rng.u8(..4) == 0).then(|| rng.u8(3..7)),
            depth: rng.u8(1..5),
        }
    }

    pub(crate) fn max_record(self) -> usize {
        [1000, 5000, 12_000][usize::from(self.ring)]
    }

    pub(crate) fn apply(self, builder: WalBuilder, uring: bool) -> WalBuilder {
        let backend = match uring && !self.std {
            true => BackendChoice::IoUring,
            false => BackendChoice::Std,
        };
        let method = if self.dsync { CommitMethod::Dsync } else { CommitMethod::LinkedFsync };
        let durability = match self.durability {
            0 => Durability::EveryGroup,
            1 => Durability::Interval(Duration::from_millis(1)),
            _ => Durability::Manual,
        };
        let builder = builder
            .segment_size(64 << 10)
            .max_record_size(self.max_record())
            .ring_capacity(64 << self.ring << 10)
            .depth(self.depth.into())
            .backend(backend)
            .commit_method(method)
            .durability(durability);
        match self.max_segments {
            Some(n) => builder.max_segments(n.into()),
            None => builder,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Append(u16),
    TryAppend(u16),
    AppendWith(u16),
    AppendAsync(u16),
    AppendDurable(u16),
    /// More than fits.
    AppendTooMuch,
    /// The caller panics while it fills a record.
    PanicInside,
    Batch(Vec<u8>),
    /// Several records, to get on.
    Many(u8, u16),
    WaitDurable(Place),
    WhenDurable(Place),
    OnDurable(Place),
    Sync,
    Read(Place),
    ReadFrom(Place),
    Replay,
    TruncateBefore(Place),
    TruncateAfter(Place),
    Follow(Place),
    /// The follower takes what there is.
    Take,
    StopFollowing,
    Clone,
    DropClone,
    /// Closes the log, tries it, and opens it as it says.
    Reopen(Config),
    /// Drops every handle instead.
    DropAndOpen(Config),
}

fn place(rng: &mut Rng) -> Place {
    match rng.u8(..12) {
        0 => Place::Zero,
        1 => Place::DurableEnd,
        2 => Place::Beyond,
        3 | 4 => Place::Inside(rng.u32(..), rng.u16(1..400)),
        _ => Place::Record(rng.u32(..)),
    }
}

fn len(rng: &mut Rng) -> u16 {
    match rng.u8(..12) {
        0 => 0,
        1 => rng.u16(..10_000),
        _ => rng.u16(..300),
    }
}

fn op(rng: &mut Rng) -> Op {
    match rng.u8(..64) {
        0..=7 => Op::Append(len(rng)),
        8..=10 => Op::TryAppend(len(rng)),
        11 | 12 => Op::AppendWith(len(rng)),
        13 | 14 => Op::AppendAsync(len(rng)),
        15..=17 => Op::AppendDurable(len(rng)),
        18 => Op::AppendTooMuch,
        19 => Op::PanicInside,
        20..=23 => {
            let count = rng.usize(..6);
            Op::Batch((0..count).map(|_| rng.u8(..)).collect())
        }
        24..=29 => Op::Many(rng.u8(1..40), rng.u16(..2000)),
        30..=32 => Op::WaitDurable(place(rng)),
        33 | 34 => Op::WhenDurable(place(rng)),
        35 | 36 => Op::OnDurable(place(rng)),
        37..=39 => Op::Sync,
        40..=44 => Op::Read(place(rng)),
        45..=47 => Op::ReadFrom(place(rng)),
        48 => Op::Replay,
        49 => Op::TruncateBefore(place(rng)),
        50 => Op::TruncateAfter(place(rng)),
        51 | 52 => Op::Follow(place(rng)),
        53..=57 => Op::Take,
        58 => Op::StopFollowing,
        59 => Op::Clone,
        60 => Op::DropClone,
        61 | 62 => Op::Reopen(Config::random(rng)),
        _ => Op::DropAndOpen(Config::random(rng)),
    }
}

/// The sequence of a seed. It begins with opening the log in some way.
pub(crate) fn sequence(seed: u64) -> Vec<Op> {
    let mut rng = Rng::with_seed(seed);
    let mut ops = vec![Op::Reopen(Config::random(&mut rng))];
    let count = rng.usize(5..60);
    ops.extend((0..count).map(|_| op(&mut rng)));
    ops
}
