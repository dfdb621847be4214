//! Settings of a log, and their one check.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::OptionsError;
use crate::format::{GROUP_HEADER, MAX_GROUP, MAX_SEGMENT, RECORD_HEADER};
use crate::hooks::{OnSealed, OnStall};
use crate::lsn::align_up;

/// When the log makes appended records durable without a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The log syncs every group. The default.
    EveryGroup,
    /// The log writes groups at once and syncs them together, once per this duration. Longer than
    /// zero.
    Interval(Duration),
    /// The log writes groups at once. It syncs when `sync`, `wait_durable` or `append_durable`
    /// asks, when a segment is full, and at close.
    Manual,
}

/// The backend that does the I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendChoice {
    /// io_uring where it works in the log's directory, otherwise `std::fs`. The default.
    Auto,
    /// io_uring, or an error with the reason why it cannot run.
    IoUring,
    /// `std::fs`: `pwrite` and `fdatasync` on the I/O thread.
    Std,
    /// Writes no record, and reports every record as durable. This measures the engine without a
    /// device. For measurements only, in a directory of its own: the log cannot be read. Needs the
    /// feature `discard`.
    #[cfg(feature = "discard")]
    Discard,
}

/// How a group is made durable on the io_uring backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommitMethod {
    /// The log chooses. It starts with the linked fsync, which is correct on every device. It times
    /// both methods in a scratch file in the background. It changes to DSYNC if DSYNC is faster and
    /// the device is seen to flush for it. The file `<prefix>.commit` stores the verdict for this
    /// device and kernel. The default.
    Auto,
    /// A write with a linked `fdatasync`.
    LinkedFsync,
    /// One write with `RWF_DSYNC`.
    Dsync,
}

impl fmt::Display for CommitMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CommitMethod::Auto => "auto",
            CommitMethod::LinkedFsync => "linked-fsync",
            CommitMethod::Dsync => "dsync",
        })
    }
}

impl FromStr for CommitMethod {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "auto" => Ok(CommitMethod::Auto),
            "linked-fsync" => Ok(CommitMethod::LinkedFsync),
            "dsync" => Ok(CommitMethod::Dsync),
            _ => Err(format!("{s:?} is none of auto, linked-fsync, dsync")),
        }
    }
}

/// Whether opening may create a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Creation {
    /// Opens the log, or creates it.
    #[default]
    IfMissing,
    /// Opens the log. Creates nothing if there is none.
    Never,
    /// Creates the log. Opens nothing if there is one.
    Always,
}

/// The settings as the builder collects them. `None`: derived from the other settings.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) prefix: String,
    pub(crate) segment_size: u64,
    pub(crate) ring_capacity: Option<usize>,
    pub(crate) max_record_size: Option<usize>,
    pub(crate) depth: usize,
    pub(crate) durability: Durability,
    pub(crate) commit_delay: Duration,
    pub(crate) idle_seal: Duration,
    pub(crate) max_segments: Option<usize>,
    pub(crate) max_total_bytes: Option<u64>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) backend: BackendChoice,
    pub(crate) commit_method: CommitMethod,
    pub(crate) application_version: u32,
    pub(crate) lock_wait: Duration,
    pub(crate) consumer_limit: Option<u64>,
    pub(crate) stall_threshold: Duration,
    pub(crate) on_stall: Option<OnStall>,
    pub(crate) on_sealed: Option<OnSealed>,
    /// Permission bits of the log's files. `None`: created files get 0600.
    pub(crate) file_mode: Option<u32>,
    /// Whether a repair has removed the first segments.
    pub(crate) front_was_taken: bool,
    pub(crate) creation: Creation,
    pub(crate) log_id: Option<[u8; 16]>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            prefix: DEFAULT_PREFIX.into(),
            segment_size: 64 << 20,
            ring_capacity: None,
            max_record_size: None,
            depth: 4,
            durability: Durability::EveryGroup,
            commit_delay: Duration::ZERO,
            idle_seal: Duration::from_millis(20),
            max_segments: None,
            max_total_bytes: None,
            max_age: None,
            backend: BackendChoice::Auto,
            commit_method: CommitMethod::Auto,
            application_version: 0,
            lock_wait: DEFAULT_LOCK_WAIT,
            consumer_limit: None,
            stall_threshold: Duration::from_secs(1),
            on_stall: None,
            on_sealed: None,
            file_mode: None,
            front_was_taken: false,
            creation: Creation::IfMissing,
            log_id: None,
        }
    }
}

/// Sizes derived from the options and from the block size of the log's filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) block: u32,
    pub(crate) segment_size: u64,
    /// Bytes of one ring buffer, which is also the largest group.
    pub(crate) buffer: u32,
    /// Number of ring buffers, a power of two.
    pub(crate) buffers: usize,
    pub(crate) max_record: usize,
}

/// A kernel needs far less than this to end a killed process.
pub(crate) const DEFAULT_LOCK_WAIT: Duration = Duration::from_secs(2);
const DEFAULT_RING: usize = 8 << 20;
const DEFAULT_BUFFERS: usize = 8;
const MAX_BUFFERS: usize = 1024;
pub(crate) const DEFAULT_PREFIX: &str = "wal";
const MAX_PREFIX: usize = 200;

/// Bytes that a record takes beside its payload, at most, in a group of its own.
pub(crate) const RECORD_OVERHEAD: usize = GROUP_HEADER as usize + RECORD_HEADER + 7;

fn range(option: &'static str, value: u64, must: impl Into<String>) -> OptionsError {
    OptionsError::Range { option, value, must: must.into() }
}

impl Options {
    /// Whether opening may create a log.
    pub(crate) fn may_create(&self) -> bool {
        self.creation != Creation::Never && self.log_id.is_none()
    }

    /// Checks the settings that do not depend on the filesystem, and reports every bad one.
    pub(crate) fn validate(&self) -> Result<(), OptionsError> {
        let mut bad = Vec::new();
        bad.extend(validate_prefix(&self.prefix).err());
        bad.extend(self.file_mode.and_then(|mode| validate_mode(mode).err()));
        if self.creation == Creation::Always && self.log_id.is_some() {
            let (first, second) = ("create_new", "expect_log_id");
            bad.push(OptionsError::Conflict { first, second });
        }
        if !(1..=256).contains(&self.depth) {
            bad.push(range("depth", self.depth as u64, "1 to 256 groups in flight"));
        }
        self.validate_times(&mut bad);
        self.validate_retention(&mut bad);
        // Positions of groups depend on the block, which the filesystem may want larger.
        bad.extend(self.geometry(4096).err());
        match bad.len() {
            0 => Ok(()),
            1 => Err(bad.remove(0)),
            _ => Err(OptionsError::Several(bad)),
        }
    }

    fn validate_times(&self, bad: &mut Vec<OptionsError>) {
        if self.durability == Durability::Interval(Duration::ZERO) {
            let option = "durability(Interval)";
            let instead = "for no background sync choose Manual";
            bad.push(OptionsError::ZeroDuration { option, instead });
        }
        if self.commit_delay > Duration::from_secs(1) {
            let us = u64::try_from(self.commit_delay.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
            bad.push(range("commit_delay (us)", us, "at most one second"));
        }
        if self.idle_seal < Duration::from_millis(1) {
            let us = self.idle_seal.as_micros() as u64;
            bad.push(range("idle_seal (us)", us, "at least one millisecond"));
        }
        let threshold = self.stall_threshold;
        if !(Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&threshold) {
            let us = u64::try_from(threshold.as_micros()).unwrap_or(u64::MAX);
            bad.push(range("stall_threshold (us)", us, "one millisecond to one hour"));
        }
        if self.max_age == Some(Duration::ZERO) {
            let instead = "leave it out to keep segments of any age";
            bad.push(OptionsError::ZeroDuration { option: "max_age", instead });
        }
    }

    fn validate_retention(&self, bad: &mut Vec<OptionsError>) {
        if let Some(n) = self.max_segments
            && n < 2
        {
            let must = "at least 2: the active segment and the one before it";
            bad.push(range("max_segments", n as u64, must));
        }
        // Nothing has bounded the segment size yet.
        let least = self.segment_size.saturating_mul(2);
        if let Some(n) = self.max_total_bytes
            && n < least
        {
            let must = format!("at least two segments, {least} bytes");
            bad.push(range("max_total_bytes", n, must));
        }
    }

    /// Derives the sizes for a filesystem with this block size.
    pub(crate) fn geometry(&self, block: u32) -> Result<Geometry, OptionsError> {
        let b = u64::from(block);
        let size = self.segment_size;
        if size == 0 || !size.is_multiple_of(b) || !(4 * b..=MAX_SEGMENT).contains(&size) {
            let must = format!("a multiple of {b} from {} to {MAX_SEGMENT} bytes", 4 * b);
            return Err(range("segment_size", size, must));
        }
        let room = size - b;
        let needed = match self.max_record_size {
            None => b,
            Some(n) => {
                let most = room.min(u64::from(MAX_GROUP)) - RECORD_OVERHEAD as u64;
                if n == 0 || n as u64 > most {
                    let must = if room < u64::from(MAX_GROUP) {
                        format!(
                            "1 to {most} bytes: a record must fit in one segment of {size} bytes"
                        )
                    } else {
                        format!("1 to {most} bytes: a record and its headers must fit in 256 MiB")
                    };
                    return Err(range("max_record_size", n as u64, must));
                }
                align_up((n + RECORD_OVERHEAD) as u64, b)
            }
        };
        let ring = self.ring_capacity.unwrap_or(DEFAULT_RING) as u64;
        if ring > 1 << 36 {
            return Err(range("ring_capacity", ring, "at most 64 GiB"));
        }
        // The log leaves a segment when less than a whole buffer remains. Small buffers waste less
        // of it.
        let by_segment = room / 4 / b * b;
        let by_ring = ring / DEFAULT_BUFFERS as u64 / b * b;
        let buffer = by_segment.min(by_ring).min(u64::from(MAX_GROUP)).max(b).max(needed);
        let buffers = match self.ring_capacity {
            Some(n) => {
                let fit = n as u64 / buffer;
                if fit < 2 {
                    let must =
                        format!("at least two buffers of {buffer} bytes, {} bytes", 2 * buffer);
                    return Err(range("ring_capacity", n as u64, must));
                }
                let fit = usize::try_from(fit).unwrap_or(MAX_BUFFERS).min(MAX_BUFFERS);
                1 << fit.ilog2()
            }
            None => {
                let fit = usize::try_from(ring / buffer).unwrap_or(MAX_BUFFERS).min(MAX_BUFFERS);
                (1usize << fit.max(1).ilog2()).clamp(4, 64)
            }
        };
        let largest = (buffer as usize - RECORD_OVERHEAD) & !7;
        Ok(Geometry {
            block,
            segment_size: size,
            buffer: buffer as u32,
            buffers,
            max_record: self.max_record_size.unwrap_or(largest),
        })
    }
}

fn validate_mode(mode: u32) -> Result<(), OptionsError> {
    if mode & !0o777 == 0 && mode & 0o600 == 0o600 {
        return Ok(());
    }
    let must = "permission bits, with reading and writing for the owner: 0o600 to 0o777".into();
    Err(OptionsError::Mode { option: "file_mode", mode, must })
}

pub(crate) fn validate_prefix(prefix: &str) -> Result<(), OptionsError> {
    let why = if prefix.is_empty() {
        "is empty"
    } else if prefix.len() > MAX_PREFIX {
        "is longer than 200 bytes"
    } else if prefix.contains(['/', '\\']) {
        "contains a path separator"
    } else if prefix.contains("..") || prefix.starts_with('.') {
        "starts with a dot or contains '..'"
    } else if prefix.chars().any(char::is_control) {
        "contains a control character"
    } else if prefix.to_lowercase().ends_with(".consumer") {
        "ends with .consumer, as the files of another log's consumers do"
    } else if prefix.contains([':', '*', '?', '"', '<', '>', '|']) {
        "contains a character that no file name has on Windows"
    } else if prefix.ends_with(['.', ' ']) {
        "ends with a dot or a space, which Windows drops"
    } else if is_device(prefix) {
        "is the name of a device on Windows"
    } else {
        return Ok(());
    };
    Err(OptionsError::Prefix { prefix: prefix.into(), why })
}

/// Whether Windows opens a device for every file whose name starts with this one and a dot.
fn is_device(prefix: &str) -> bool {
    let stem = prefix.split('.').next().unwrap_or_default().trim_end_matches(' ');
    let is = |name: &str| stem.eq_ignore_ascii_case(name);
    let numbered = ["com", "lpt"].iter().any(|port| {
        let digit =
            stem.get(..3).filter(|name| name.eq_ignore_ascii_case(port)).map(|_| &stem[3..]);
        // Some consoles type superscripts, and Windows takes them for digits.
        digit.is_some_and(|digit| {
            matches!(digit, "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9")
                || matches!(digit, "\u{b9}" | "\u{b2}" | "\u{b3}")
        })
    });
    numbered || ["con", "prn", "aux", "nul", "conin$", "conout$", "clock$"].into_iter().any(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(f: impl FnOnce(&mut Options)) -> Result<Geometry, OptionsError> {
        let mut o = Options::default();
        f(&mut o);
        o.validate()?;
        o.geometry(4096)
    }

    #[test]
    fn defaults_give_eight_buffers_of_a_mebibyte() {
        let g = with(|_| ()).unwrap();
        assert_eq!((g.buffer, g.buffers, g.segment_size), (1 << 20, 8, 64 << 20));
        assert!(g.max_record + RECORD_OVERHEAD <= g.buffer as usize);
    }

    #[test]
    fn small_segments_get_small_buffers() {
        let g = with(|o| o.segment_size = 64 << 10).unwrap();
        assert_eq!(g.buffer, 12 << 10);
        let g = with(|o| o.segment_size = 16 << 10).unwrap();
        assert_eq!(g.buffer, 4096);
    }

    #[test]
    fn a_large_record_makes_large_buffers() {
        let g = with(|o| o.max_record_size = Some(5 << 20)).unwrap();
        assert_eq!(g.buffer, (5 << 20) + 4096);
        assert!(g.buffers >= 4);
        let g = with(|o| {
            o.max_record_size = Some(100_000);
            o.segment_size = 128 << 10;
        });
        assert_eq!(g.unwrap().max_record, 100_000);
    }

    /// The documentation of the builder, of the C header and the guide states these numbers.
    #[test]
    fn default_of_the_largest_record_follows_ring_and_segment() {
        for (segment, ring, largest) in [
            (64 << 20, None, 1_048_424),
            (1 << 20, None, 257_896),
            (1 << 20, Some(1 << 20), 130_920),
            (64 << 20, Some(1 << 30), 16_772_968),
            (16 << 10, None, 3_944),
            #[cfg(target_pointer_width = "64")]
            (MAX_SEGMENT, Some(1 << 36), MAX_RECORD & !7),
        ] {
            let g = with(|o| (o.segment_size, o.ring_capacity) = (segment, ring)).unwrap();
            assert_eq!(g.max_record, largest, "{segment} {ring:?}");
            let eighth = ring.unwrap_or(8 << 20) as u64 / 8 / 4096 * 4096;
            let quarter = (segment - 4096) / 4 / 4096 * 4096;
            let buffer = eighth.min(quarter).clamp(4096, 256 << 20);
            assert_eq!(g.max_record as u64, (buffer - 147) / 8 * 8, "{segment} {ring:?}");
        }
    }

    const MAX_RECORD: usize = 268_435_309;

    #[test]
    fn bound_of_the_largest_record_is_exact_and_its_cause_is_named() {
        let asked = |size| {
            with(|o| (o.segment_size, o.max_record_size) = (4 << 30, Some(size)))
                .map(|g| g.max_record)
                .map_err(|e| e.to_string())
        };
        assert_eq!(asked(MAX_RECORD), Ok(MAX_RECORD));
        for size in [MAX_RECORD + 1, 256 << 20] {
            let refused = format!(
                "max_record_size is {size}, but must be 1 to {MAX_RECORD} bytes: a record and its headers \
                 must fit in 256 MiB"
            );
            assert_eq!(asked(size), Err(refused));
        }
        let small = with(|o| (o.segment_size, o.max_record_size) = (1 << 20, Some(1 << 20)));
        let most = (1 << 20) - 4096 - 147;
        let refused =
            format!("1 to {most} bytes: a record must fit in one segment of 1048576 bytes");
        assert!(small.unwrap_err().to_string().ends_with(&refused));
        let fits = with(|o| (o.segment_size, o.max_record_size) = (1 << 20, Some(most)));
        assert_eq!(fits.unwrap().max_record, most);
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        for size in [0, 1, 4096, 8192, 20_000, (64 << 20) + 1, u64::MAX] {
            assert!(with(|o| o.segment_size = size).is_err(), "{size}");
        }
        assert!(with(|o| o.max_record_size = Some(64 << 20)).is_err());
        assert!(with(|o| o.max_record_size = Some(0)).is_err());
        assert!(with(|o| o.ring_capacity = Some(0)).is_err());
        assert!(with(|o| o.ring_capacity = Some(4096)).is_err());
        assert!(with(|o| o.depth = 0).is_err());
        assert!(with(|o| o.max_segments = Some(1)).is_err());
        assert!(with(|o| o.max_total_bytes = Some(1)).is_err());
        assert!(with(|o| o.durability = Durability::Interval(Duration::ZERO)).is_err());
    }

    /// Sets one option, or two, to the ends of their ranges. Each case is rejected, or gives sizes
    /// on which the engine can rely, without overflow.
    #[test]
    fn every_option_at_its_bounds_and_with_every_other_is_refused_or_sound() {
        let steps = every_step();
        let mut sound = 0;
        for (first, one) in &steps {
            for (second, other) in &steps {
                let mut options = Options::default();
                one(&mut options);
                other(&mut options);
                let name = format!("{first}, {second}");
                let checked = options.validate();
                for block in [4096, 16_384, 65_536] {
                    if let (Ok(geometry), Ok(())) = (options.geometry(block), &checked) {
                        sound += 1;
                        check(&name, &options, &geometry);
                    }
                }
                if let Err(e) = checked {
                    assert!(!e.to_string().is_empty(), "{name}");
                }
            }
        }
        assert!(sound > 1000, "{sound}");
    }

    type Step = (String, Box<dyn Fn(&mut Options)>);

    fn every_step() -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        let mut add = |name: String, set: Box<dyn Fn(&mut Options)>| steps.push((name, set));
        let sizes = [12_288, 16_384, 65_536, u64::from(MAX_GROUP), MAX_SEGMENT, 1 << 36];
        let near = sizes.iter().flat_map(|&n| [n - 1, n, n + 1]);
        for n in near.chain([0, 1, 2, 1 << 32, 1 << 63, u64::MAX / 2 + 1, u64::MAX - 1, u64::MAX]) {
            add(format!("segment_size {n}"), Box::new(move |o| o.segment_size = n));
            add(format!("max_total_bytes {n}"), Box::new(move |o| o.max_total_bytes = Some(n)));
            add(format!("consumer_limit {n}"), Box::new(move |o| o.consumer_limit = Some(n)));
            let Ok(n) = usize::try_from(n) else { continue };
            add(format!("ring_capacity {n}"), Box::new(move |o| o.ring_capacity = Some(n)));
            add(format!("max_record_size {n}"), Box::new(move |o| o.max_record_size = Some(n)));
        }
        for n in [0, 1, 2, 256, 257, usize::MAX - 1, usize::MAX] {
            add(format!("depth {n}"), Box::new(move |o| o.depth = n));
            add(format!("max_segments {n}"), Box::new(move |o| o.max_segments = Some(n)));
        }
        let one = Duration::from_nanos(1);
        for time in
            [Duration::ZERO, one, Duration::from_secs(1), Duration::MAX - one, Duration::MAX]
        {
            let every = Durability::Interval(time);
            add(format!("interval {time:?}"), Box::new(move |o| o.durability = every));
            add(format!("commit_delay {time:?}"), Box::new(move |o| o.commit_delay = time));
            add(format!("idle_seal {time:?}"), Box::new(move |o| o.idle_seal = time));
            add(format!("max_age {time:?}"), Box::new(move |o| o.max_age = Some(time)));
            add(format!("stall_threshold {time:?}"), Box::new(move |o| o.stall_threshold = time));
        }
        for n in [0, 1, u32::MAX - 1, u32::MAX] {
            add(format!("version {n}"), Box::new(move |o| o.application_version = n));
        }
        steps
    }

    /// Checks the relations on which the engine relies.
    fn check(name: &str, options: &Options, g: &Geometry) {
        let (block, buffer) = (u64::from(g.block), u64::from(g.buffer));
        assert!(g.segment_size == options.segment_size && g.segment_size <= MAX_SEGMENT, "{name}");
        assert!(buffer.is_multiple_of(block) && buffer <= u64::from(MAX_GROUP), "{name}: {g:?}");
        assert!(buffer + block <= g.segment_size, "a group fits in a segment: {name}: {g:?}");
        assert!(g.max_record > 0 && g.max_record + RECORD_OVERHEAD <= g.buffer as usize, "{name}");
        assert!(g.buffers.is_power_of_two() && (2..=MAX_BUFFERS).contains(&g.buffers), "{name}");
        if let Some(ring) = options.ring_capacity {
            assert!(buffer * g.buffers as u64 <= ring as u64, "{name}: {g:?}");
        }
    }

    #[test]
    fn modes_that_are_more_than_permissions_or_lock_the_owner_out_are_refused() {
        for bad in [0, 0o400, 0o200, 0o040, 0o440, 0o044, 0o1600, 0o4600, 0o100_600, u32::MAX] {
            let refused = with(|o| o.file_mode = Some(bad)).unwrap_err();
            assert!(matches!(refused, OptionsError::Mode { mode, .. } if mode == bad), "{bad:o}");
        }
        assert!(with(|o| o.file_mode = Some(0o400)).unwrap_err().to_string().contains("0o400"));
        for good in [0o600, 0o640, 0o644, 0o660, 0o664, 0o666, 0o700, 0o777] {
            assert!(with(|o| o.file_mode = Some(good)).is_ok(), "{good:o}");
        }
    }

    #[test]
    fn prefixes_that_make_no_plain_name_are_refused() {
        for bad in [
            "",
            "/",
            "a/b",
            "..",
            "../x",
            ".",
            ".hidden",
            "a..b",
            "nul\0",
            "\n",
            "a\\b",
            "a.consumer",
            "a.Consumer",
        ] {
            assert!(with(|o| o.prefix = bad.into()).is_err(), "{bad:?}");
        }
        assert!(with(|o| o.prefix = "x".repeat(300)).is_err());
        // A log moves between systems: what is no name on Windows is a name on none.
        let mut bad =
            vec!["a:b", "c:", "a*", "a?", "\"a", "a<", "a>", "a|b", "a.", "a ", "nul", "Con"];
        bad.extend(["aux", "PRN", "nul.a", "nul .a", "com1", "LPT9", "com\u{b2}.log", "conin$"]);
        bad.retain(|bad| with(|o| o.prefix = (*bad).into()).is_ok());
        assert!(bad.is_empty(), "accepted: {bad:?}");
        for good in ["null", "console", "com", "com10", "a.nul", "comx", "lpt\u{e9}", " a", "x y"] {
            assert!(with(|o| o.prefix = good.into()).is_ok(), "{good:?}");
        }
        for good in ["wal", "a.b.c", "no-dot", "with space", "über"] {
            assert!(with(|o| o.prefix = good.into()).is_ok(), "{good:?}");
        }
    }
}
