//! The operations on a log, and random sequences of them.

use std::time::Duration;

use fastrand::Rng;
use ringwal::{BackendChoice, CommitMethod, Durability, WalBuilder};

/// A position: of a record, or none. The model reduces the number to an existing record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Record(u32),
    /// So many bytes after the start of a record.
    Inside(u32, u16),
    Zero,
    DurableEnd,
    /// Far above the end.
    Beyond,
}

/// The limits of retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retention {
    None,
    Segments(u8),
    /// The bytes of so many segments.
    Bytes(u8),
    Milliseconds(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) std: bool,
    pub(crate) dsync: bool,
    /// 0: every group, 1: interval, 2: manual.
    pub(crate) durability: u8,
    /// The sizes of the ring and its largest record, from small to large.
    pub(crate) ring: u8,
    pub(crate) segment_size: u32,
    pub(crate) retention: Retention,
    pub(crate) depth: u8,
    /// The application version; 0: none is expected.
    pub(crate) version: u8,
    /// Whether consumers that lag by more than a segment hold no segments.
    pub(crate) consumer_limit: bool,
    pub(crate) hook: bool,
}

/// Where sequences run. On the simulated disk segments have the least size, so that more happens.
/// On files they are larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Files,
    Simulated,
}

impl Config {
    fn random(rng: &mut Rng, scale: Scale) -> Self {
        let retention = match rng.u8(..8) {
            0 | 1 => Retention::Segments(rng.u8(3..7)),
            2 => Retention::Bytes(rng.u8(3..7)),
            3 => Retention::Milliseconds(rng.u8(1..200)),
            _ => Retention::None,
        };
        let segment_size = match (scale, rng.u8(..4)) {
            (Scale::Files, _) => 64 << 10,
            (Scale::Simulated, 0) => 32 << 10,
            (Scale::Simulated, _) => 16 << 10,
        };
        Config {
            std: rng.bool(),
            dsync: rng.bool(),
            durability: rng.u8(..3),
            ring: rng.u8(..3),
            segment_size,
            retention,
            depth: rng.u8(1..5),
            version: if rng.u8(..6) == 0 { rng.u8(1..3) } else { 0 },
            consumer_limit: rng.u8(..6) == 0,
            hook: rng.u8(..4) == 0,
        }
    }

    pub(crate) fn max_record(self) -> usize {
        let sizes =
            if self.segment_size < 64 << 10 { [1000, 4500, 9000] } else { [1000, 5000, 12_000] };
        sizes[usize::from(self.ring)]
    }

    fn ring_capacity(self) -> usize {
        if self.segment_size < 64 << 10 {
            [8, 32, 24][usize::from(self.ring)] << 10
        } else {
            64 << self.ring << 10
        }
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
        let mut builder = builder
            .segment_size(self.segment_size.into())
            .max_record_size(self.max_record())
            .ring_capacity(self.ring_capacity())
            .depth(self.depth.into())
            .backend(backend)
            .commit_method(method)
            .durability(durability)
            .application_version(self.version.into());
        if self.consumer_limit {
            builder = builder.consumer_limit(self.segment_size.into());
        }
        match self.retention {
            Retention::None => builder,
            Retention::Segments(n) => builder.max_segments(n.into()),
            Retention::Bytes(n) => {
                builder.max_total_bytes(u64::from(n) * u64::from(self.segment_size))
            }
            Retention::Milliseconds(n) => builder.max_age(Duration::from_millis(n.into())),
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
    /// Appends a record that is too large.
    AppendTooMuch,
    /// Panics while it fills a record in place.
    PanicInside,
    Batch(Vec<u8>),
    /// Appends several records.
    Many(u8, u16),
    WaitDurable(Place),
    WhenDurable(Place),
    OnDurable(Place),
    /// Polls a wait once, and drops it.
    DropWaiting(Place),
    DropAppending(u16),
    Sync,
    Read(Place),
    ReadFrom(Place),
    ReadBack(Place),
    Replay,
    TruncateBefore(Place),
    TruncateAfter(Place),
    Follow(Place),
    /// Takes every available record from the follower.
    Take,
    StopFollowing,
    /// Attaches the consumer with this number. The next operations take records, commit them, ...
    Attach(u8),
    Consume(u8, u8),
    Commit(u8),
    CommitAt(u8, Place),
    Seek(u8, Place),
    Detach(u8),
    RemoveConsumer(u8),
    Clone,
    DropClone,
    /// Closes the log, checks that calls fail, and opens it with these settings.
    Reopen(Config),
    /// Drops every handle, and opens the log with these settings.
    DropAndOpen(Config),
    /// On a simulated disk: turns the power off and on.
    Crash(Config),
    /// On a simulated disk: kills the process.
    Kill(Config),
    /// On a simulated disk: turns the power off after so many operations of the disk. Later calls
    /// fail, and the log is opened again.
    PowerOffAfter(u8, Config),
    /// On a simulated disk: makes every allocation fail, until [`Op::Room`].
    Full,
    Room,
    /// On a simulated disk: advances the clock by so many milliseconds.
    Advance(u8),
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

fn op(rng: &mut Rng, scale: Scale) -> Op {
    let config = |rng: &mut Rng| Config::random(rng, scale);
    let consumer = |rng: &mut Rng| rng.u8(..2);
    match rng.u8(..86) {
        0..=7 => Op::Append(len(rng)),
        8..=10 => Op::TryAppend(len(rng)),
        11 | 12 => Op::AppendWith(len(rng)),
        13 => Op::AppendAsync(len(rng)),
        14 => Op::DropAppending(len(rng)),
        15..=17 => Op::AppendDurable(len(rng)),
        18 => Op::AppendTooMuch,
        19 => Op::PanicInside,
        20..=23 => {
            let count = rng.usize(..6);
            Op::Batch((0..count).map(|_| rng.u8(..)).collect())
        }
        24..=29 if scale == Scale::Simulated => Op::Many(rng.u8(1..24), rng.u16(..900)),
        24..=29 => Op::Many(rng.u8(1..40), rng.u16(..2000)),
        30..=32 => Op::WaitDurable(place(rng)),
        33 | 34 => Op::WhenDurable(place(rng)),
        35 | 36 => Op::OnDurable(place(rng)),
        37 | 38 => Op::Sync,
        39 => Op::DropWaiting(place(rng)),
        40..=44 => Op::Read(place(rng)),
        45 | 46 => Op::ReadFrom(place(rng)),
        47 => Op::ReadBack(place(rng)),
        48 => Op::Replay,
        49 => Op::TruncateBefore(place(rng)),
        50 => Op::TruncateAfter(place(rng)),
        51 | 52 => Op::Follow(place(rng)),
        53..=57 => Op::Take,
        58 => Op::StopFollowing,
        59 => Op::Clone,
        60 => Op::DropClone,
        61 | 62 => Op::Reopen(config(rng)),
        63 => Op::DropAndOpen(config(rng)),
        64..=66 => Op::Attach(consumer(rng)),
        67..=70 => Op::Consume(consumer(rng), rng.u8(1..40)),
        71..=73 => Op::Commit(consumer(rng)),
        74 => Op::CommitAt(consumer(rng), place(rng)),
        75 => Op::Seek(consumer(rng), place(rng)),
        76 => Op::Detach(consumer(rng)),
        77 if rng.bool() => Op::RemoveConsumer(consumer(rng)),
        77 => Op::ReadBack(place(rng)),
        78 => Op::Crash(config(rng)),
        79 => Op::Kill(config(rng)),
        80 => Op::PowerOffAfter(rng.u8(..), config(rng)),
        81 => Op::Full,
        82 | 83 => Op::Room,
        _ => Op::Advance(rng.u8(1..)),
    }
}

/// Returns the sequence of a seed. It starts with an open.
pub(crate) fn sequence(seed: u64, scale: Scale) -> Vec<Op> {
    let mut rng = Rng::with_seed(seed);
    let mut ops = vec![Op::Reopen(Config::random(&mut rng, scale))];
    let count = rng.usize(5..60);
    ops.extend((0..count).map(|_| op(&mut rng, scale)));
    ops
}
