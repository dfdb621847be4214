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
    /// Call it before each scrape, or every few seconds: nothing is published in between. Each
    /// metric has the label `log`. Feature `metrics`.
    ///
    /// Counters, from the field of [`Stats`](crate::Stats) that has the same name:
    ///
    /// | metric | unit | counts |
    /// |---|---|---|
    /// | `ringwal_records_total` | records | application records in submitted groups |
    /// | `ringwal_record_bytes_total` | bytes | those records, with headers and padding |
    /// | `ringwal_groups_total` | groups | submitted groups with records |
    /// | `ringwal_control_groups_total` | groups | submitted groups without records |
    /// | `ringwal_group_bytes_total` | bytes | written for groups of both kinds |
    /// | `ringwal_syncs_total` | operations | durability barriers |
    /// | `ringwal_rotations_total` | rotations | the log continued in the next segment |
    /// | `ringwal_segments_prepared_total` | segments | prepared ahead of need |
    /// | `ringwal_segments_recycled_total` | segments | reused after retention |
    /// | `ringwal_segments_removed_total` | segments | removed by retention |
    /// | `ringwal_ring_full_waits_total` | appends | had to wait for room in the ring |
    /// | `ringwal_no_space_total` | attempts | found the filesystem full |
    /// | `ringwal_obstructions_total` | attempts | to prepare or remove a segment, failed otherwise |
    /// | `ringwal_clock_steps_total` | steps | of the wall clock by more than a second |
    /// | `ringwal_slow_reservations_total` | groups | waited more than 10 ms for a producer |
    /// | `ringwal_stalls_total` | operations | took longer than `stall_threshold` |
    /// | `ringwal_sealed_failures_total` | calls | of the hook on sealed segments failed |
    ///
    /// Gauges:
    ///
    /// | metric | unit | value |
    /// |---|---|---|
    /// | `ringwal_kept_bytes` | bytes | of the log that are kept |
    /// | `ringwal_oldest_age_seconds` | seconds | age of the oldest record; 0 without a record |
    /// | `ringwal_durable_end` | LSN | the first position that is not durable |
    /// | `ringwal_ring_bytes` | bytes | appended and not durable yet |
    /// | `ringwal_reader_lag_bytes` | bytes | kept for the slowest reader |
    /// | `ringwal_tag_lag_bytes` | bytes | kept for the lowest floor of a tag |
    /// | `ringwal_consumer_lag_bytes` | bytes | behind the durable end; label `consumer` |
    /// | `ringwal_stalled_seconds` | seconds | that the disk has not answered, if stalled now |
    /// | `ringwal_out_of_space` | 0 or 1 | there is no space for the next segment |
    /// | `ringwal_obstructed` | 0 or 1 | a segment cannot be prepared or removed |
    /// | `ringwal_poisoned` | 0 or 1 | a write or sync failed, the log must be opened again |
    ///
    /// Histograms, as gauges with the label `quantile` (0.5, 0.9, 0.99, 0.999), since the opening,
    /// from the field of [`Histograms`](crate::Histograms) that has the same name:
    /// `ringwal_group_records` (records), `ringwal_group_bytes` (bytes), and in seconds
    /// `ringwal_queue_seconds`, `ringwal_prepare_seconds`, `ringwal_write_seconds`,
    /// `ringwal_sync_seconds`, `ringwal_commit_seconds` and `ringwal_wake_seconds`.
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
    gauge("ringwal_kept_bytes", stats.kept_bytes as f64);
    gauge("ringwal_oldest_age_seconds", stats.oldest_age().unwrap_or_default().as_secs_f64());
    gauge("ringwal_durable_end", stats.durable_end.as_u64() as f64);
    gauge("ringwal_ring_bytes", stats.ring_bytes as f64);
    gauge("ringwal_reader_lag_bytes", stats.reader_lag_bytes as f64);
    gauge("ringwal_tag_lag_bytes", stats.tag_lag_bytes as f64);
    gauge("ringwal_stalled_seconds", stats.stalled_for.as_secs_f64());
    gauge("ringwal_out_of_space", f64::from(u8::from(stats.out_of_space)));
    gauge("ringwal_obstructed", f64::from(u8::from(stats.obstructed)));
    let poisoned = matches!(wal.health(), Err(Error::Poisoned { .. }));
    gauge("ringwal_poisoned", f64::from(u8::from(poisoned)));
    for consumer in wal.consumers() {
        let labels = [("log", log.to_owned()), ("consumer", consumer.name)];
        metrics::gauge!("ringwal_consumer_lag_bytes", &labels).set(consumer.lag_bytes as f64);
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
