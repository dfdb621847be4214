//! Publishes the counters of a log to the recorder of the crate `metrics`.

use crate::error::Error;
use crate::stats::histogram::Histogram;
use crate::wal::Wal;

/// Quantiles published for each histogram.
const QUANTILES: [(f64, &str); 4] = [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99"), (0.999, "0.999")];

impl Wal {
    /// Publishes [`Wal::stats`], [`Wal::histograms`] and [`Wal::consumers`] to the installed
    /// recorder of the crate `metrics`.
    ///
    /// Publishes counters `ringwal_*_total`, and gauges. Gauges of times are in seconds and have a
    /// label `quantile`. Each metric has the label `log`. Call it before each scrape, or every few
    /// seconds: nothing is published in between. Feature `metrics`.
    pub fn publish_metrics(&self, log: &str) {
        publish(self, log);
    }
}

fn publish(wal: &Wal, log: &str) {
    let stats = wal.stats();
    let counters = [
        ("ringwal_records_total", stats.records),
        ("ringwal_record_bytes_total", stats.record_bytes),
        ("ringwal_groups_total", stats.groups),
        ("ringwal_control_groups_total", stats.control_groups),
        ("ringwal_group_bytes_total", stats.group_bytes),
        ("ringwal_syncs_total", stats.syncs),
        ("ringwal_rotations_total", stats.rotations),
        ("ringwal_segments_prepared_total", stats.segments_prepared),
        ("ringwal_segments_recycled_total", stats.segments_recycled),
        ("ringwal_segments_removed_total", stats.segments_removed),
        ("ringwal_ring_full_waits_total", stats.ring_full_waits),
        ("ringwal_no_space_total", stats.no_space),
        ("ringwal_obstructions_total", stats.obstructions),
        ("ringwal_clock_steps_total", stats.clock_steps),
        ("ringwal_slow_reservations_total", stats.slow_reservations),
        ("ringwal_stalls_total", stats.stalls),
        ("ringwal_sealed_failures_total", stats.sealed_failures),
    ];
    for (name, value) in counters {
        metrics::counter!(name, "log" => log.to_owned()).absolute(value);
    }
    let gauge = |name: &'static str, value: f64| {
        metrics::gauge!(name, "log" => log.to_owned()).set(value);
    };
    let oldest = wal.oldest_lsn().as_u64();
    gauge("ringwal_kept_bytes", stats.durable_end.as_u64().saturating_sub(oldest) as f64);
    gauge("ringwal_durable_end", stats.durable_end.as_u64() as f64);
    gauge("ringwal_ring_bytes", stats.ring_bytes as f64);
    gauge("ringwal_reader_lag_bytes", stats.reader_lag as f64);
    gauge("ringwal_stalled_seconds", stats.stalled_for.as_secs_f64());
    gauge("ringwal_out_of_space", f64::from(u8::from(stats.out_of_space)));
    gauge("ringwal_obstructed", f64::from(u8::from(stats.obstructed)));
    let poisoned = matches!(wal.health(), Err(Error::Poisoned { .. }));
    gauge("ringwal_poisoned", f64::from(u8::from(poisoned)));
    for consumer in wal.consumers() {
        let labels = [("log", log.to_owned()), ("consumer", consumer.name)];
        metrics::gauge!("ringwal_consumer_lag_bytes", &labels).set(consumer.lag as f64);
    }
    let histograms = wal.histograms();
    quantiles("ringwal_group_records", log, &histograms.group_records, 1.0);
    quantiles("ringwal_group_bytes", log, &histograms.group_bytes, 1.0);
    for (name, nanoseconds) in [
        ("ringwal_queue_seconds", &histograms.queue_time),
        ("ringwal_prepare_seconds", &histograms.prepare_time),
        ("ringwal_write_seconds", &histograms.write_time),
        ("ringwal_sync_seconds", &histograms.sync_time),
        ("ringwal_commit_seconds", &histograms.commit_time),
        ("ringwal_wake_seconds", &histograms.wake_time),
    ] {
        quantiles(name, log, nanoseconds, 1e-9);
    }
}

fn quantiles(name: &'static str, log: &str, histogram: &Histogram, unit: f64) {
    for (share, quantile) in QUANTILES {
        let labels = [("log", log.to_owned()), ("quantile", quantile.to_owned())];
        metrics::gauge!(name, &labels).set(histogram.quantile(share) as f64 * unit);
    }
}
