//! The lab's runs: images of a traced run, faults on the live disk, and writers killed over a
//! stopped disk.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::check::check;
use crate::device::Fault;
use crate::disk::Trace;
use crate::images::{Class, Cutter};
use crate::lab::Lab;
use crate::process::Process;
use crate::slot::Slot;
use crate::workload::{Ack, Config};

/// Counts what was run, for the published figures.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub(crate) runs: u64,
    pub(crate) images: u64,
    /// Number of further images that their filesystem refused.
    pub(crate) unmountable: u64,
    pub(crate) by_class: [u64; Class::ALL.len()],
    pub(crate) acknowledged: u64,
    /// Number of acknowledgements compared with images, summed.
    pub(crate) checked: u64,
    pub(crate) writes: u64,
    pub(crate) flushes: u64,
    /// Number of runs for each kind of fault, and of requests that the disk failed.
    pub(crate) by_fault: BTreeMap<&'static str, u64>,
    pub(crate) failed_requests: u64,
    pub(crate) most_in_flight: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (acknowledged, checked) = (self.acknowledged, self.checked);
        write!(f, "{} runs, {acknowledged} acknowledgements", self.runs)?;
        write!(f, ", held {checked} times against what was found")?;
        if self.writes > 0 {
            let (writes, flushes, most) = (self.writes, self.flushes, self.most_in_flight);
            write!(f, "; {writes} writes, {flushes} flushes, at most {most} in flight")?;
        }
        if self.images > 0 {
            let (images, refused) = (self.images, self.unmountable);
            write!(f, "; {images} images, {refused} more that did not mount")?;
        }
        for (fault, n) in &self.by_fault {
            write!(f, "; {fault}: {n}")?;
        }
        if self.failed_requests > 0 {
            write!(f, "; {} requests failed", self.failed_requests)?;
        }
        for (class, n) in Class::ALL.iter().zip(self.by_class).filter(|(_, n)| *n > 0) {
            write!(f, "; {class}: {n}")?;
        }
        Ok(())
    }
}

/// Time after which a workload counts as hanging.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Runner<'l> {
    pub(crate) lab: &'l Lab,
    /// The lab's own binary, whose subcommand `workload` is crashed.
    pub(crate) binary: PathBuf,
    pub(crate) counts: Counts,
    /// Number of images of each run.
    pub(crate) images: u64,
    /// Whether the writers run under a filter that denies `io_uring_register`.
    pub(crate) deny_register: bool,
}

impl Runner<'_> {
    fn start(&self, seed: u64, first_thread: u32) -> Result<Process, String> {
        let (live, sequence) = (self.lab.live(), self.lab.sequence());
        let options: &[&str] = if self.deny_register { &["--deny-register"] } else { &[] };
        Process::start(&self.binary, options, &live, seed, &sequence, first_thread)
    }

    fn io<T>(what: &str, result: std::io::Result<T>) -> Result<T, String> {
        result.map_err(|e| format!("{what}: {e}"))
    }

    /// Runs a seed's workload with a trace, and checks images of it.
    pub(crate) fn images_of(&mut self, seed: u64, until: Instant) -> Result<(), String> {
        let lab = self.lab;
        let mut rng = Rng::with_seed(seed);
        Self::io("mkfs", lab.make(seed))?;
        lab.device.set_slow([0, 100, 1000][rng.usize(..3)]);
        Self::io("mount", lab.mount_live())?;
        let mut process = self.start(seed, 0)?;
        let finished = process.finish(LIMIT);
        Self::io("unmount", lab.unmount_live())?;
        lab.device.set_slow(0);
        finished?;
        if !process.done {
            return Err("the workload failed on a sound disk".into());
        }
        let trace = lab.device.trace();
        self.counts.runs += 1;
        self.counts.acknowledged += process.acks.len() as u64;
        self.counts.writes += trace.writes.len() as u64;
        self.counts.flushes += trace.flushes.len() as u64;
        self.counts.most_in_flight = self.counts.most_in_flight.max(lab.device.most_pending());
        let mut acks = std::mem::take(&mut process.acks);
        acks.sort_unstable_by_key(|ack| ack.sequence);
        let config = Config::of(seed);
        let each = self.images.div_ceil(lab.slots.len() as u64);
        let (trace, acks) = (&trace, &acks[..]);
        let checked = std::thread::scope(|scope| {
            let workers: Vec<_> = (1..)
                .zip(&lab.slots)
                .map(|(n, slot)| {
                    let mut rng = Rng::with_seed(seed ^ n << 56);
                    scope.spawn(move || sample(slot, trace, acks, &config, each, &mut rng, until))
                })
                .collect();
            let ended = workers.into_iter().map(std::thread::ScopedJoinHandle::join);
            ended.map(|e| e.unwrap_or_else(|_| Err("the lab panicked".into()))).collect::<Vec<_>>()
        });
        for counts in checked {
            let counts = counts?;
            self.counts.images += counts.images;
            self.counts.unmountable += counts.unmountable;
            self.counts.checked += counts.checked;
            for (sum, n) in self.counts.by_class.iter_mut().zip(counts.by_class) {
                *sum += n;
            }
        }
        Ok(())
    }

    fn check_live(&mut self, config: &Config, acks: &[Ack], by: u64) -> Result<(), String> {
        Self::io("mounting again", self.lab.mount_live())?;
        let verdict = check(&self.lab.live(), config, acks, by);
        Self::io("unmounting", self.lab.unmount_live())?;
        self.counts.checked += acks.len() as u64;
        verdict
    }

    /// Runs a workload whose disk fails, stalls or vanishes, and returns.
    pub(crate) fn fault_of(&mut self, seed: u64) -> Result<(), String> {
        let lab = self.lab;
        let mut rng = Rng::with_seed(seed);
        Self::io("mkfs", lab.make(seed))?;
        Self::io("mount", lab.mount_live())?;
        let mut process = self.start(seed, 0)?;
        process.listen(Duration::from_millis(rng.u64(20..120)));
        let failed = lab.device.failed();
        let kind = rng.u8(..4);
        match kind {
            0 | 1 => lab.device.set_fault(Some(Fault {
                flush: kind == 1,
                after: rng.u64(..40),
                for_ever: rng.bool(),
            })),
            2 => {
                lab.device.stall(true);
                process.listen(Duration::from_millis(rng.u64(20..300)));
                lab.device.stall(false);
            }
            _ => lab.device.vanish(true),
        }
        let finished = process.finish(LIMIT);
        lab.device.set_fault(None);
        lab.device.vanish(false);
        // A filesystem with a failed journal may refuse a clean unmount, but is unmounted.
        Self::io("unmount", lab.unmount_live())?;
        finished?;
        let faults = lab.device.failed() - failed;
        if kind == 2 && process.failed {
            return Err("a disk that was only slow has failed the log".into());
        }
        self.counts.runs += 1;
        self.counts.failed_requests += faults;
        let name = ["write errors", "flush errors", "stalls", "vanished"][usize::from(kind)];
        *self.counts.by_fault.entry(name).or_default() += 1;
        self.counts.acknowledged += process.acks.len() as u64;
        let acks = std::mem::take(&mut process.acks);
        self.check_live(&Config::of(seed), &acks, rng.u64(..))
            .map_err(|e| format!("fault of kind {kind}: {e}"))
    }

    /// Kills a writer while its last write is stuck in a stopped disk, and runs a successor. Either
    /// the whole disk is stopped, or only the writes issued before.
    pub(crate) fn stopped_of(&mut self, seed: u64) -> Result<(), String> {
        let lab = self.lab;
        let mut rng = Rng::with_seed(seed);
        Self::io("mkfs", lab.make(seed))?;
        Self::io("mount", lab.mount_live())?;
        let mut first = self.start(seed, 0)?;
        first.listen(Duration::from_millis(rng.u64(30..150)));
        let whole = rng.bool();
        let mut stuck = 0;
        for _ in 0..200 {
            if whole {
                lab.device.stall(true);
            }
            first.listen(Duration::from_millis(1));
            stuck = if whole { lab.device.waiting() } else { lab.device.hold_writes() };
            if stuck > 0 {
                break;
            }
        }
        first.kill();
        let config = Config::of(seed);
        let mut second = self.start(seed, config.threads)?;
        second.listen(Duration::from_millis(rng.u64(5..60)));
        if whole && !second.acks.is_empty() {
            return Err("the successor was acknowledged by a stopped disk".into());
        }
        lab.device.stall(false);
        lab.device.release_held();
        first.bury();
        let finished = second.finish(LIMIT);
        Self::io("unmount", lab.unmount_live())?;
        finished?;
        self.counts.runs += 1;
        let name = if whole { "stopped disks" } else { "writes held back" };
        *self.counts.by_fault.entry(name).or_default() += u64::from(stuck > 0);
        let mut acks = std::mem::take(&mut first.acks);
        acks.append(&mut second.acks);
        self.counts.acknowledged += acks.len() as u64;
        let config = Config { threads: 2 * config.threads, ..config };
        self.check_live(&config, &acks, rng.u64(..))
    }
}

/// Checks so many images of a trace, from its start to its end.
fn sample(
    slot: &Slot,
    trace: &Trace,
    acks: &[Ack],
    config: &Config,
    images: u64,
    rng: &mut Rng,
    until: Instant,
) -> Result<Counts, String> {
    let mut counts = Counts::default();
    let first = trace.writes.first().map_or(0, |w| w.issued);
    let mut times: Vec<u64> = (0..images.div_ceil(2)).map(|_| rng.u64(first..=trace.end)).collect();
    times.sort_unstable();
    let mut cutter = Cutter::new(trace);
    for t in times {
        let loose = cutter.advance(t);
        for _ in 0..2 {
            let class = rng.usize(..Class::ALL.len());
            let image = cutter.image(Class::ALL[class], rng);
            // Every event with a number up to `t` has happened.
            let known = &acks[..acks.partition_point(|ack| ack.sequence <= t + 1)];
            let by = rng.u64(..);
            let seen =
                slot.with_image(&image, |at| check(at, config, known, by)).and_then(|seen| {
                    // No filesystem promises to survive torn blocks of its own metadata.
                    let excused = Class::ALL[class] == Class::Torn;
                    if seen.is_none() && !excused {
                        Err("it cannot be mounted".into())
                    } else {
                        Ok(seen)
                    }
                });
            let seen = seen.map_err(|e| {
                let class = Class::ALL[class];
                format!("at {t} of {}, {loose} writes loose, {class}: {e}", trace.end)
            })?;
            if seen.is_none() {
                counts.unmountable += 1;
                continue;
            }
            counts.images += 1;
            counts.by_class[class] += 1;
            counts.checked += known.len() as u64;
        }
        if Instant::now() >= until {
            break;
        }
    }
    Ok(counts)
}

/// Path of this process's binary.
pub(crate) fn this_binary() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|e| e.to_string())
}
