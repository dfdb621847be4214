//! Which indexes entries and purges may have, in logs of this version and of earlier ones.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{RaftLogReader, Vote};
use ringwal_openraft::{LogError, LogOptions, RaftLog, RaftLogs};
use support::{Temp, Types, builder, entry, fill_with_votes, raw, ten};

/// The indexes of the entries that a group has.
async fn indexes(log: &mut RaftLog<Types>) -> Vec<u64> {
    let entries = log.try_get_log_entries(..).await.unwrap();
    entries.into_iter().map(|entry| entry.log_id.index).collect()
}

async fn refused(log: &mut RaftLog<Types>, indexes: &[u64]) -> String {
    let entries = indexes.iter().map(|index| entry(*index, 1)).collect::<Vec<_>>();
    log.blocking_append(entries).await.unwrap_err().to_string()
}

#[tokio::test]
async fn entries_that_are_purged_or_leave_a_gap_are_refused_before_any_is_appended() {
    let temp = Temp::new();
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    let mut log = logs.group::<Types>(1);
    log.blocking_append((1..=20).map(|index| entry(index, 1))).await.unwrap();
    let end = logs.wal().end();
    assert!(refused(&mut log, &[21, 23]).await.contains("index 23 cannot follow Some(21)"));
    assert_eq!(logs.wal().end(), end);

    // After a truncation of everything the group goes on where it began.
    log.truncate(entry(1, 0).log_id).await.unwrap();
    assert!(refused(&mut log, &[50]).await.contains("cannot follow Some(0)"));
    log.blocking_append((1..=20).map(|index| entry(index, 1))).await.unwrap();

    log.purge(entry(10, 0).log_id).await.unwrap();
    for purged in [&[5][..], &[10], &[9, 10, 11]] {
        let refused = refused(&mut log, purged).await;
        assert!(refused.contains("the entries up to 10 are purged"), "{refused}");
    }
    assert!(indexes(&mut log).await.into_iter().eq(11..=20));
    // A purge beyond the end, after a snapshot was installed.
    log.purge(entry(1000, 0).log_id).await.unwrap();
    for purged in [&[1000][..], &[999, 1000, 1001], &[1000, 1001]] {
        assert!(refused(&mut log, purged).await.contains("the entries up to 1000 are purged"));
    }
    assert!(refused(&mut log, &[1002]).await.contains("cannot follow Some(1000)"));
    // openraft's suite expects success.
    log.blocking_append([entry(999, 1)]).await.unwrap();
    assert!(indexes(&mut log).await.is_empty());
    log.blocking_append([entry(1001, 1)]).await.unwrap();
    logs.close().unwrap();
    drop((log, logs));
    let mut log = RaftLogs::open(builder(&temp)).unwrap().group::<Types>(1);
    assert_eq!(indexes(&mut log).await, [1001]);
}

#[tokio::test]
async fn a_group_without_a_purged_id_may_begin_again_at_a_lower_index() {
    let temp = Temp::new();
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    for (group, again) in [(1, 3), (2, 1), (3, 0)] {
        let mut log = logs.group::<Types>(group);
        log.blocking_append([entry(7, 1), entry(8, 1)]).await.unwrap();
        log.blocking_append([entry(again, 1), entry(again + 1, 1)]).await.unwrap();
        log.save_vote(&Vote::new(2, 1)).await.unwrap();
        assert_eq!(indexes(&mut log).await, [again, again + 1]);
    }
    logs.close().unwrap();
    drop(logs);
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    for (group, again) in [(1, 3), (2, 1), (3, 0)] {
        let mut log = logs.group::<Types>(group);
        assert_eq!(indexes(&mut log).await, [again, again + 1]);
    }
}

#[tokio::test]
async fn a_purge_of_what_is_purged_changes_nothing() {
    let temp = Temp::new();
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    let mut log = logs.group::<Types>(1);
    log.blocking_append((1..=20).map(|index| entry(index, 1))).await.unwrap();
    log.purge(entry(10, 0).log_id).await.unwrap();
    let end = logs.wal().end();
    for index in [10, 5, 0] {
        log.purge(entry(index, 0).log_id).await.unwrap();
    }
    assert_eq!(logs.wal().end(), end);
    logs.close().unwrap();
    drop((log, logs));
    let mut log = RaftLogs::open(builder(&temp)).unwrap().group::<Types>(1);
    assert_eq!(log.get_log_state().await.unwrap().last_purged_log_id, Some(entry(10, 0).log_id));
    assert!(indexes(&mut log).await.into_iter().eq(11..=20));
}

/// The bytes of a state record with a purged index, and an id of it.
fn purge_record(index: u64) -> Vec<u8> {
    let mut id = Vec::new();
    <ringwal::Postcard as ringwal::Codec<_>>::encode(&entry(index, 0).log_id, &mut id).unwrap();
    let mut record = vec![3, 1];
    record.extend_from_slice(&index.to_le_bytes());
    record.extend_from_slice(&[0xff; 8]);
    record.extend_from_slice(&(id.len() as u32).to_le_bytes());
    record.extend_from_slice(&id);
    record
}

fn entry_record(index: u64) -> Vec<u8> {
    let mut record = vec![1];
    record.extend_from_slice(&index.to_le_bytes());
    <ringwal::Postcard as ringwal::Codec<_>>::encode(&entry(index, 4), &mut record).unwrap();
    record
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_with_a_lower_purge_or_purged_entries_of_an_earlier_version_opens() {
    let temp = Temp::new();
    raw(&temp, 2, &entry_record(1));
    for record in (1..=20).map(entry_record).chain([purge_record(10), purge_record(5)]) {
        raw(&temp, 1, &record);
    }
    // An entry of group 3 that was appended although it was purged.
    for record in [purge_record(10), entry_record(10), entry_record(11)] {
        raw(&temp, 3, &record);
    }
    for _ in 0..2 {
        let logs = RaftLogs::open(builder(&temp)).unwrap();
        let mut log = logs.group::<Types>(1);
        let purged = log.get_log_state().await.unwrap().last_purged_log_id;
        assert_eq!(purged, Some(entry(10, 0).log_id));
        assert!(indexes(&mut log).await.into_iter().eq(11..=20));
        assert_eq!(indexes(&mut logs.group(2)).await, [1]);
        assert_eq!(indexes(&mut logs.group(3)).await, [11]);
        // The record of the higher purge goes, and what it states stays.
        let mut options = LogOptions::default();
        options.lag_limit = Some(1);
        drop(log);
        logs.close().unwrap();
        drop(logs);
        let logs = RaftLogs::open_with(builder(&temp), options).unwrap();
        fill_with_votes(&logs).await;
        let task = logs.clone();
        tokio::task::spawn_blocking(move || task.release()).await.unwrap().unwrap();
        assert!(logs.wal().oldest_lsn() > ringwal::Lsn::ZERO);
        logs.close().unwrap();
    }
}

async fn truncate_after_the_greatest_index(logs: &RaftLogs, group: u64) {
    let last = openraft10::testing::log_id::<ten::Types>(1, 1, u64::MAX);
    let mut log = logs.group::<ten::Types>(group);
    openraft10::storage::RaftLogStorage::truncate_after(&mut log, Some(last)).await.unwrap();
}

#[tokio::test]
async fn the_greatest_index_is_refused_before_anything_is_appended() {
    let temp = Temp::new();
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    let (mut log, mut late) = (logs.group::<Types>(1), logs.group::<Types>(2));
    log.blocking_append([entry(1, 1), entry(2, 1)]).await.unwrap();
    late.blocking_append([entry(u64::MAX - 1, 1)]).await.unwrap();
    let end = logs.wal().end();
    let purged = log.purge(entry(u64::MAX, 0).log_id).await.unwrap_err();
    assert!(purged.to_string().contains("has no next one"), "{purged}");
    for log in [&mut log, &mut late, &mut logs.group(3)] {
        assert!(refused(log, &[u64::MAX]).await.contains("has no next one"));
    }
    assert_eq!(logs.wal().end(), end);
    truncate_after_the_greatest_index(&logs, 1).await;
    late.truncate(entry(u64::MAX, 0).log_id).await.unwrap();
    late.purge(entry(u64::MAX - 1, 0).log_id).await.unwrap();
    assert!(refused(&mut late, &[u64::MAX]).await.contains("has no next one"));
    logs.close().unwrap();
    drop((log, late, logs));
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    assert_eq!(indexes(&mut logs.group(1)).await, [1, 2]);
    assert!(indexes(&mut logs.group(2)).await.is_empty());
}

#[tokio::test]
async fn a_log_with_the_greatest_index_of_an_earlier_version_opens_or_is_refused_by_name() {
    let temp = Temp::new();
    raw(&temp, 1, &entry_record(1));
    raw(&temp, 1, &purge_record(u64::MAX));
    raw(&temp, 2, &entry_record(1));
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    let mut log = logs.group::<Types>(1);
    assert!(indexes(&mut log).await.is_empty());
    let purged = log.get_log_state().await.unwrap().last_purged_log_id;
    assert_eq!(purged, Some(entry(u64::MAX, 0).log_id));
    log.save_vote(&Vote::new(2, 1)).await.unwrap();
    assert!(refused(&mut log, &[u64::MAX]).await.contains("has no next one"));
    assert_eq!(indexes(&mut logs.group(2)).await, [1]);
    logs.close().unwrap();
    drop((log, logs));

    for kind in [1, 2] {
        let temp = Temp::new();
        let mut record = entry_record(u64::MAX);
        record[0] = kind;
        raw(&temp, 4, &record);
        let before = temp.segments();
        let refused = RaftLogs::open(builder(&temp)).unwrap_err();
        assert!(temp.segments() == before, "{refused}: a segment was changed");
        assert!(matches!(refused, LogError::IndexLimit { group: 4 }), "{refused}");
    }
}
