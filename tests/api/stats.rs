//! Counters, histograms and metrics report what the log did.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crate::support::{Temp, backends, small};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use ringwal::{Durability, HeldBy};

#[test]
fn histograms_and_counters_agree() {
    for backend in backends() {
        for durability in [Durability::EveryGroup, Durability::Manual] {
            let temp = Temp::new();
            let builder = small(&temp.log()).backend(backend).durability(durability);
            let wal = builder.open().unwrap();
            let threads = 4;
            std::thread::scope(|scope| {
                for n in 0..threads {
                    let wal = wal.clone();
                    scope.spawn(move || {
                        for i in 0..50 {
                            wal.append(&vec![n; i * 13]).unwrap();
                            wal.append_durable(&[n]).unwrap();
                        }
                    });
                }
            });
            wal.append_batch(&["a", "b", "c"]).unwrap();
            wal.close().unwrap();
            let (stats, histograms) = (wal.stats(), wal.histograms());
            let written = stats.groups + stats.control_groups;
            assert_eq!(stats.records, u64::from(threads) * 100 + 3);
            assert_eq!(histograms.group_records.count(), stats.groups);
            assert_eq!(histograms.group_records.sum(), stats.records);
            assert_eq!(histograms.group_bytes.count(), written);
            assert_eq!(histograms.group_bytes.sum(), stats.group_bytes);
            assert_eq!(histograms.queue_time.count(), stats.groups);
            assert_eq!(histograms.ring_bytes.count(), stats.groups);
            assert!(histograms.ring_bytes.quantile(0.0) >= histograms.group_bytes.quantile(0.0));
            let prepared = stats.segments_prepared + stats.segments_recycled;
            assert_eq!(histograms.prepare_time.count(), prepared);
            assert_eq!(stats.ring_bytes, 0, "all of it is durable");
            assert_eq!(histograms.write_time.count(), written);
            assert_eq!(histograms.commit_time.count(), written);
            assert_eq!(histograms.sync_time.count() + stats.dsync_groups, stats.syncs);
            assert!(histograms.wake_time.count() > 0);
            let (write, commit) = (&histograms.write_time, &histograms.commit_time);
            assert!(write.quantile(0.0) > 0 && commit.quantile(1.0) >= write.quantile(0.0));
            assert!(commit.sum() >= write.sum(), "a commit lasts as long as its write at least");
        }
    }
}

#[test]
fn published_metrics_equal_the_stats() {
    let temp = Temp::new();
    // The test compares published values with later ones, so no idle seal may come between.
    let wal = small(&temp.log()).idle_seal(Duration::MAX).open().unwrap();
    for n in 0..500_u32 {
        wal.append(&vec![1; n as usize]).unwrap();
    }
    wal.sync().unwrap();
    drop(wal.consumer("slow").unwrap());
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        wal.publish_metrics("orders");
        // Counters are absolute: a second publication changes nothing.
        wal.publish_metrics("orders");
    });
    let mut told = HashMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let key = key.key().clone();
        let labels: Vec<_> = key.labels().map(|l| (l.key(), l.value())).collect();
        assert!(labels.contains(&("log", "orders")), "{key}");
        let extra = labels.iter().find(|(name, _)| *name != "log").map_or("", |(_, value)| value);
        let value = match value {
            DebugValue::Counter(n) => n as f64,
            DebugValue::Gauge(n) => n.into_inner(),
            DebugValue::Histogram(_) => panic!("{key}"),
        };
        told.insert(format!("{} {extra}", key.name()), value);
    }
    assert_eq!(told["ringwal_records_total "], 500.0);
    assert!(told["ringwal_rotations_total "] >= 1.0);
    assert_eq!(told["ringwal_durable_end "], wal.durable_end().as_u64() as f64);
    assert_eq!(told["ringwal_consumer_lag_bytes slow"], wal.consumers()[0].lag_bytes as f64);
    let (median, worst) =
        (told["ringwal_commit_seconds 0.5"], told["ringwal_commit_seconds 0.999"]);
    assert!(median > 0.0 && median <= worst && worst < 60.0, "{median} {worst}");
    assert_eq!((told["ringwal_out_of_space "], told["ringwal_poisoned "]), (0.0, 0.0));
    // The dashboard and the alerts query only published metrics, and include each metric of
    // trouble.
    let dashboard = include_str!("../../examples/grafana/ringwal.json");
    let rules = include_str!("../../examples/grafana/rules.yml");
    let asked: std::collections::BTreeSet<_> = [dashboard, rules]
        .into_iter()
        .flat_map(|file| file.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .filter(|word| word.starts_with("ringwal_"))
        .collect();
    let names: Vec<_> = told.keys().map(|key| key.split(' ').next().unwrap()).collect();
    for name in &asked {
        assert!(names.contains(name), "{name} is not published");
    }
    let documented = include_str!("../../src/wal/metrics.rs");
    for name in &names {
        let row = format!("`{name}`");
        assert!(documented.contains(&row), "publish_metrics does not document {name}");
    }
    for name in ["ringwal_poisoned", "ringwal_out_of_space", "ringwal_stalled_seconds"] {
        assert!(asked.contains(name), "no dashboard or alert queries {name}");
    }
}

#[test]
fn reader_lag_and_ring_occupancy_are_reported() {
    let temp = Temp::new();
    let manual = small(&temp.log()).durability(Durability::Manual);
    let wal = manual.idle_seal(Duration::MAX).open().unwrap();
    assert_eq!(wal.stats().reader_lag_bytes, 0);
    let mut follow = wal.follow(ringwal::Lsn::ZERO).unwrap();
    let first = wal.append(&[1; 1000]).unwrap();
    assert!(wal.stats().ring_bytes >= 1000, "nothing syncs it");
    for _ in 0..300 {
        wal.append(&[1; 1000]).unwrap();
    }
    wal.sync().unwrap();
    let end = wal.durable_end().as_u64();
    assert_eq!(follow.lag(), end);
    assert_eq!(follow.next_ref().unwrap().unwrap().lsn, first);
    assert_eq!(follow.lag(), end - first.as_u64());
    assert!(wal.stats().reader_lag_bytes > 200_000 && wal.stats().reader_lag_bytes <= end);
    drop(follow);
    assert_eq!(wal.stats().reader_lag_bytes, 0);
}

#[test]
fn kept_bytes_and_oldest_age_follow_retention() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    assert_eq!(wal.stats().oldest_written_at, None, "no record has an age");
    assert_eq!(wal.stats().oldest_age(), None);
    let before = SystemTime::now() - Duration::from_secs(1);
    let first = wal.append_durable(b"the oldest").unwrap();
    let oldest = wal.stats().oldest_written_at.unwrap();
    assert!(oldest >= before && oldest <= SystemTime::now() + Duration::from_secs(1));
    assert!(wal.stats().oldest_age().unwrap() < Duration::from_secs(600));
    let mut last = first;
    while wal.stats().rotations < 2 {
        last = wal.append_durable(&[7; 3000]).unwrap();
    }
    let stats = wal.stats();
    assert_eq!(stats.oldest_written_at, Some(oldest), "it is the same record");
    assert_eq!(stats.kept_bytes, stats.durable_end.as_u64() - wal.oldest_lsn().as_u64());
    wal.truncate_before(last).unwrap();
    let after = wal.stats();
    assert!(after.kept_bytes < stats.kept_bytes);
    let kept = wal.reader(wal.oldest_lsn()).next().unwrap().unwrap();
    assert_eq!(after.oldest_written_at, kept.written_at());
    assert!(after.oldest_written_at > Some(oldest));
    wal.close().unwrap();
    let wal = small(&temp.log()).open().unwrap();
    assert_eq!(wal.stats().oldest_written_at, kept.written_at(), "it survives a restart");
}

#[test]
fn held_by_names_what_keeps_the_most() {
    let temp = Temp::new();
    let wal = small(&temp.log()).open().unwrap();
    assert_eq!(wal.held_by(), None);
    let mut slow = wal.consumer("slow").unwrap();
    let mut quick = wal.consumer("quick").unwrap();
    let mut last = wal.append_durable(b"first").unwrap();
    while wal.stats().rotations < 3 {
        last = wal.append_durable(&[7; 3000]).unwrap();
    }
    quick.commit(last).unwrap();
    let oldest = wal.oldest_lsn();
    assert_eq!(wal.truncate_before(last).unwrap(), oldest, "the slow one keeps everything");
    let Some(HeldBy::Consumer { name, position }) = wal.held_by() else { panic!() };
    assert_eq!((name.as_str(), position), ("slow", slow.position()));
    // Before the consumer commits: what it kept may be removed at any time from then on.
    let reader = wal.follow(oldest).unwrap();
    slow.commit(last).unwrap();
    drop(slow);
    wal.remove_consumer("slow").unwrap();
    assert!(
        matches!(wal.held_by(), Some(HeldBy::Reader { position }) if position <= oldest.next())
    );
    drop(reader);
    assert!(wal.truncate_before(last).unwrap() > oldest);
}
