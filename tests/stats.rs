//! The counters and histograms count what was done.

mod support;

use ringwal::Durability;
use support::{Temp, backends, small};

#[test]
fn histograms_and_counters_tell_the_same() {
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
