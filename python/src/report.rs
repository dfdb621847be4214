//! Reports of a log as the dataclasses of `ringwal/_reports.py`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arguments::nanoseconds;

fn seconds(time: SystemTime) -> f64 {
    Duration::from_nanos(nanoseconds(time)).as_secs_f64()
}

/// An instance of a dataclass.
fn made<'py>(
    py: Python<'py>,
    class: &str,
    fill: impl FnOnce(&Bound<'py, PyDict>) -> PyResult<()>,
) -> PyResult<Bound<'py, PyAny>> {
    let fields = PyDict::new(py);
    fill(&fields)?;
    py.import("ringwal._reports")?.getattr(class)?.call((), Some(&fields))
}

/// Sets each named field of a dictionary from the field of that name.
macro_rules! set_fields {
    ($fields:expr, $from:expr, $($name:ident),+ $(,)?) => {
        $($fields.set_item(stringify!($name), $from.$name)?;)+
    };
}

pub(crate) fn stats<'py>(py: Python<'py>, stats: &ringwal::Stats) -> PyResult<Bound<'py, PyAny>> {
    made(py, "Stats", |fields| {
        set_fields!(
            fields,
            stats,
            records,
            record_bytes,
            groups,
            group_bytes,
            control_groups,
            dsync_groups,
            syncs,
            depth_sum,
            io_sleeps,
            rotations,
            segments_prepared,
            segments_recycled,
            segments_removed,
            segments_hurried,
            slow_reservations,
            no_space,
            obstructions,
            sealed_failures,
            stalls,
            clock_steps,
            ring_full_waits,
            ring_bytes,
            kept_bytes,
            reader_lag_bytes,
            tag_lag_bytes,
            slowest_tag,
            out_of_space,
            obstructed,
            commit_method,
        );
        fields.set_item("durable_end", stats.durable_end.as_u64())?;
        fields.set_item("oldest_written_at", stats.oldest_written_at.map(seconds))?;
        fields.set_item("commit_method_reason", stats.commit_method_reason.to_string())?;
        fields.set_item("stalled_for", stats.stalled_for.as_secs_f64())
    })
}

pub(crate) fn recovery<'py>(
    py: Python<'py>,
    report: &ringwal::RecoveryReport,
) -> PyResult<Bound<'py, PyAny>> {
    made(py, "Recovery", |fields| {
        set_fields!(
            fields,
            report,
            next_ordinal,
            segments,
            clean,
            cut,
            discarded_bytes,
            epoch,
            application_version,
            temporaries_removed,
        );
        fields.set_item("case", format!("{:?}", report.case).to_lowercase())?;
        fields.set_item("oldest", report.oldest.as_u64())?;
        fields.set_item("durable_end", report.durable_end.as_u64())
    })
}

pub(crate) fn backend<'py>(
    py: Python<'py>,
    info: &ringwal::BackendInfo,
) -> PyResult<Bound<'py, PyAny>> {
    made(py, "Backend", |fields| {
        set_fields!(
            fields,
            info,
            commit_method,
            depth,
            block_size,
            direct_io,
            registered_buffers,
            ring_bytes,
            volatility,
        );
        fields.set_item("kind", info.kind.to_string())?;
        fields.set_item("reason", &info.reason)?;
        fields.set_item("commit_method_reason", info.commit_method_reason.to_string())?;
        fields.set_item("commit_method_detail", &info.commit_method_detail)
    })
}

pub(crate) fn consumer_info<'py>(
    py: Python<'py>,
    info: &ringwal::ConsumerInfo,
) -> PyResult<Bound<'py, PyAny>> {
    made(py, "ConsumerInfo", |fields| {
        set_fields!(fields, info, attached, lag_bytes);
        fields.set_item("name", &info.name)?;
        fields.set_item("position", info.position.as_u64())
    })
}

pub(crate) fn stall<'py>(py: Python<'py>, stall: &ringwal::Stall) -> PyResult<Bound<'py, PyAny>> {
    made(py, "Stall", |fields| {
        fields.set_item("kind", stall.kind.to_string())?;
        fields.set_item("lasted", stall.lasted.as_secs_f64())?;
        fields.set_item("over", stall.over)
    })
}

pub(crate) fn sealed_segment<'py>(
    py: Python<'py>,
    segment: &ringwal::SealedSegment,
) -> PyResult<Bound<'py, PyAny>> {
    made(py, "SealedSegment", |fields| {
        fields.set_item("path", &segment.path)?;
        fields.set_item("base", segment.base.as_u64())?;
        fields.set_item("end", segment.end.as_u64())
    })
}

/// The distribution of a value.
#[pyclass(frozen, module = "ringwal")]
#[derive(Debug)]
pub(crate) struct Histogram {
    histogram: ringwal::Histogram,
}

#[pymethods]
impl Histogram {
    /// How many values there are.
    fn count(&self) -> u64 {
        self.histogram.count()
    }

    /// The sum of the values.
    fn sum(&self) -> u64 {
        self.histogram.sum()
    }

    /// The mean of the values.
    fn mean(&self) -> f64 {
        self.histogram.mean()
    }

    /// The value below which a share of the values lies: 0.5 is the median.
    #[pyo3(signature = (share, /))]
    fn quantile(&self, share: f64) -> u64 {
        self.histogram.quantile(share)
    }

    fn __repr__(&self) -> String {
        let Histogram { histogram: h } = self;
        let (p50, p99) = (h.quantile(0.5), h.quantile(0.99));
        format!("<ringwal.Histogram count={} p50={p50} p99={p99}>", h.count())
    }
}

pub(crate) fn histograms(of: ringwal::Histograms) -> BTreeMap<&'static str, Histogram> {
    [
        ("commit_time", of.commit_time),
        ("group_bytes", of.group_bytes),
        ("group_records", of.group_records),
        ("prepare_time", of.prepare_time),
        ("queue_time", of.queue_time),
        ("ring_bytes", of.ring_bytes),
        ("sync_time", of.sync_time),
        ("wake_time", of.wake_time),
        ("write_time", of.write_time),
    ]
    .map(|(name, histogram)| (name, Histogram { histogram }))
    .into()
}
