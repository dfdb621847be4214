//! The report of a run: its figures, and the verdict of `--require`.

use std::path::PathBuf;
use std::time::SystemTime;

use ringwal::{BackendInfo, BackendKind, Stats};

use crate::cli::Args;
use crate::commands::probe::Cell;
use crate::commands::run::baseline::Comparison;
use crate::commands::run::settings::Settings;
use crate::error::Error;
use crate::log_dir::device::Device;
use crate::measure::environment::Environment;
use crate::measure::require::{self, Check, Metric};
use crate::measure::series::Series;
use crate::measure::usage::Spent;
use crate::workload::ledger::Verified;
use crate::workload::{Meaning, Outcome, readers};

/// Everything that a run has found out.
#[derive(Debug)]
pub struct Report {
    /// What was asked for.
    pub args: Args,
    /// What the workload did.
    pub outcome: Outcome,
    /// The same as time passed.
    pub series: Series,
    /// What a latency is.
    pub meaning: Meaning,
    /// What the log did for it.
    pub work: Work,
    /// What did the I/O.
    pub backend: BackendInfo,
    /// Where the log was.
    pub directory: PathBuf,
    /// Whether it is still there.
    pub stays: bool,
    /// How the disk was used.
    pub settings: Settings,
    /// What is under it.
    pub device: Device,
    /// The raw device, if it was measured.
    pub baseline: Option<Comparison>,
    /// The raw device in every shape, if it was measured.
    pub grid: Vec<Cell>,
    /// The verdict, if there was to be one.
    pub verified: Option<Result<Verified, String>>,
    /// Why the run ended before its time, if it did.
    pub ended_by: Option<&'static str>,
    /// What the log failed with, if it did: the figures are those until then.
    pub failed: Option<Error>,
    /// What arrivals, sizes and content were drawn from.
    pub seed: u64,
    /// Where and how.
    pub environment: Environment,
    /// When the measured part began.
    pub begun: SystemTime,
    /// Processor time of the measured part.
    pub spent: Spent,
    /// What became of --require; nothing after an interruption.
    pub required: Vec<Check>,
    /// Of the readers beside, if there were any.
    pub readers: Option<readers::Report>,
    /// The most memory that the process had, in bytes.
    pub peak_memory: Option<u64>,
}

/// What a log did during a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work {
    /// Groups with records.
    pub groups: u64,
    /// Bytes of all groups, with headers and padding.
    pub group_bytes: u64,
    /// Groups in flight on average, the one just submitted included.
    pub mean_depth: f64,
    /// Durability barriers.
    pub syncs: u64,
    /// Rotations to the next segment.
    pub rotations: u64,
    /// Segments written in advance.
    pub prepared: u64,
    /// Segments reused.
    pub recycled: u64,
    /// Appends that waited for room in the ring.
    pub full_waits: u64,
    /// Flushes of the disk, by everybody.
    pub flushes: Option<u64>,
}

impl Work {
    pub(super) fn between(
        before: &Stats,
        after: &Stats,
        flushes: (Option<u64>, Option<u64>),
    ) -> Work {
        Work {
            groups: after.groups - before.groups,
            group_bytes: after.group_bytes - before.group_bytes,
            mean_depth: (after.depth_sum - before.depth_sum) as f64
                / (after.groups - before.groups).max(1) as f64,
            syncs: after.syncs - before.syncs,
            rotations: after.rotations - before.rotations,
            prepared: after.segments_prepared - before.segments_prepared,
            recycled: after.segments_recycled - before.segments_recycled,
            full_waits: after.ring_full_waits - before.ring_full_waits,
            flushes: flushes.0.zip(flushes.1).and_then(|(a, b)| b.checked_sub(a)),
        }
    }

    /// Mean bytes of a group; 0 without groups.
    #[must_use]
    pub fn mean_group(&self) -> f64 {
        if self.groups == 0 { 0.0 } else { self.group_bytes as f64 / self.groups as f64 }
    }
}

impl Report {
    /// There is no device then, nor any sync, to be compared with.
    #[must_use]
    pub fn writes_nothing(&self) -> bool {
        self.backend.kind == BackendKind::Discard
    }

    pub(super) fn figure(&self, metric: Metric) -> Option<f64> {
        let outcome = &self.outcome;
        match metric {
            Metric::Rate => Some(outcome.records as f64 / outcome.seconds),
            Metric::Bandwidth => Some(outcome.bytes as f64 / outcome.seconds),
            Metric::Eta => self.baseline.as_ref()?.eta,
            Metric::Overdue => self.args.rate.map(|_| outcome.overdue as f64),
            Metric::Cpu => self.spent.us_per_record(outcome.records).map(|us| us * 1e3),
            Metric::Memory => self.peak_memory.map(|n| n as f64),
            Metric::Knee => None,
            Metric::Quantile(_) | Metric::Max | Metric::Mean => {
                require::latency(&outcome.latencies, metric)
            }
        }
    }

    /// What a gate is to make of it.
    ///
    /// # Errors
    ///
    /// [`Error::Verify`] if records are missing; what the log failed with; [`Error::Interrupted`] and [`Error::Nothing`] if there
    /// are no records; [`Error::Required`] if what is required does not hold.
    pub fn verdict(self) -> Result<(), Error> {
        if let Some(Err(what)) = self.verified {
            let place = self.directory.display();
            return Err(Error::Verify(format!("{what}; the log stays in {place}")));
        }
        if let Some(e) = self.failed {
            return Err(e);
        }
        if self.ended_by == Some("a signal") {
            let judged = self.args.require.is_some();
            return match (self.outcome.records, judged) {
                (0, _) => Err(Error::Interrupted("no record was measured".into())),
                (_, true) => Err(Error::Interrupted("what is required was not judged".into())),
                _ => Ok(()),
            };
        }
        if self.outcome.records == 0 {
            let text = "no record was acknowledged; run for longer, or at a higher --rate";
            return Err(Error::Nothing(text.into()));
        }
        require::verdict(&self.required)
    }
}
