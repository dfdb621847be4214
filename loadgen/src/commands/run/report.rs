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

/// All results of a run.
#[derive(Debug)]
pub struct Report {
    /// The arguments.
    pub args: Args,
    /// The result of the workload.
    pub outcome: Outcome,
    /// The figures over time.
    pub series: Series,
    /// The definition of a latency.
    pub meaning: Meaning,
    /// The work of the log.
    pub work: Work,
    /// The backend of the log.
    pub backend: BackendInfo,
    /// Directory of the log.
    pub directory: PathBuf,
    /// True if the directory remains.
    pub stays: bool,
    /// Settings of the log and its use of the disk.
    pub settings: Settings,
    /// The device under the directory.
    pub device: Device,
    /// The raw device, if it was measured.
    pub baseline: Option<Comparison>,
    /// The raw device in every shape, if it was measured.
    pub grid: Vec<Cell>,
    /// The result of the verification, if there was one.
    pub verified: Option<Result<Verified, String>>,
    /// Why the run ended before its time, if it did.
    pub ended_by: Option<&'static str>,
    /// The failure of the log, if it failed. The figures count until then.
    pub failed: Option<Error>,
    /// Seed of arrivals, sizes and content.
    pub seed: u64,
    /// The conditions of the measurement.
    pub environment: Environment,
    /// Start of the measured part.
    pub begun: SystemTime,
    /// Processor time of the measured part.
    pub spent: Spent,
    /// Results of --require; empty after an interruption.
    pub required: Vec<Check>,
    /// Results of the readers beside the writers, if any.
    pub readers: Option<readers::Report>,
    /// Peak resident bytes of the process.
    pub peak_memory: Option<u64>,
}

/// The work of a log during a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work {
    /// Groups with records.
    pub groups: u64,
    /// Bytes of all groups, with headers and padding.
    pub group_bytes: u64,
    /// Mean groups in flight, including the one just submitted.
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
    /// Flushes of the disk, from all processes.
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
    /// True for the discarding backend, which has no sync and no device to compare with.
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
            Metric::Overdue => self.args.is_open().then_some(outcome.overdue as f64),
            Metric::Cpu => self.spent.us_per_record(outcome.records).map(|us| us * 1e3),
            Metric::Memory => self.peak_memory.map(|n| n as f64),
            Metric::Knee => None,
            Metric::Quantile(_) | Metric::Max | Metric::Mean => {
                require::latency(&outcome.latencies, metric)
            }
        }
    }

    /// Returns the result for a gate.
    ///
    /// # Errors
    ///
    /// [`Error::Verify`] if records are missing. The failure of the log. [`Error::Interrupted`] and
    /// [`Error::Nothing`] without records. [`Error::Required`] if a requirement is not met.
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
