//! Logs of many groups: what is released, what is refused, what comes back.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId, RaftLogReader, Vote};
use ringwal::{Wal, WalBuilder};
use ringwal_openraft::{LogError, LogOptions, RaftLogs};
use support::{Put, Temp, Types};

fn builder(temp: &Temp) -> WalBuilder {
    Wal::builder(temp.path())
        .segment_size(256 << 10)
        .ring_capacity(128 << 10)
        .max_record_size(32 << 10)
}

fn entry(index: u64, len: usize) -> Entry<Types> {
    let put = Put { key: index, value: "x".repeat(len) };
    let log_id = LogId::new(CommittedLeaderId::new(1, 1), index);
    Entry { log_id, payload: EntryPayload::Normal(put) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_group_does_not_hold_the_log_and_loses_nothing() {
    let temp = Temp::new();
    let mut options = LogOptions::default();
    (options.cache_bytes, options.lag_limit, options.release_bytes) = (0, Some(1 << 20), 1);
    let logs = RaftLogs::open_with(builder(&temp), options).unwrap();
    let (mut slow, mut quick) = (logs.group::<Types>(1), logs.group::<Types>(2));
    slow.save_vote(&Vote::new(7, 3)).await.unwrap();
    let kept: Vec<_> = (0..20).map(|index| entry(index, 500)).collect();
    slow.blocking_append(kept.clone()).await.unwrap();
    for index in 0..2000 {
        quick.blocking_append([entry(index, 4000)]).await.unwrap();
        if index % 100 == 99 {
            quick.purge(entry(index - 10, 0).log_id).await.unwrap();
        }
    }
    let task = logs.clone();
    tokio::task::spawn_blocking(move || task.release()).await.unwrap().unwrap();
    let stats = logs.wal().stats();
    assert!(stats.kept_bytes < 3 << 20, "{} bytes are kept", stats.kept_bytes);
    assert_eq!(slow.try_get_log_entries(..).await.unwrap(), kept);
    logs.close().unwrap();
    drop((slow, quick, logs));

    let logs = RaftLogs::open(builder(&temp)).unwrap();
    assert_eq!(logs.groups(), [1, 2]);
    let mut slow = logs.group::<Types>(1);
    assert_eq!(slow.try_get_log_entries(3..7).await.unwrap(), kept[3..7]);
    assert_eq!(slow.try_get_log_entries(..).await.unwrap(), kept);
    assert_eq!(slow.read_vote().await.unwrap(), Some(Vote::new(7, 3)));
    // The moved entries can be cut and continued.
    slow.truncate(kept[15].log_id).await.unwrap();
    slow.blocking_append([entry(15, 9)]).await.unwrap();
    assert_eq!(slow.try_get_log_entries(14..).await.unwrap(), [kept[14].clone(), entry(15, 9)]);
}

#[tokio::test]
async fn a_read_for_replication_is_bounded_and_never_empty() {
    let temp = Temp::new();
    let mut options = LogOptions::default();
    options.read_bytes = 3000;
    let logs = RaftLogs::open_with(builder(&temp), options).unwrap();
    let mut log = logs.group::<Types>(1);
    log.blocking_append((0..10).map(|index| entry(index, 1000))).await.unwrap();
    log.blocking_append([entry(10, 20_000)]).await.unwrap();
    assert_eq!(log.limited_get_log_entries(0, 11).await.unwrap().len(), 2);
    assert_eq!(log.limited_get_log_entries(10, 11).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_entry_that_leaves_a_gap_is_refused() {
    let temp = Temp::new();
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    let mut log = logs.group::<Types>(1);
    log.blocking_append([entry(0, 1), entry(1, 1)]).await.unwrap();
    let refused = log.blocking_append([entry(3, 1)]).await.unwrap_err();
    assert!(refused.to_string().contains("append without a gap"), "{refused}");
    log.blocking_append([entry(2, 1)]).await.unwrap();
}

#[test]
fn a_log_of_another_kind_is_refused_and_left_as_it_is() {
    let temp = Temp::new();
    let wal = builder(&temp).open().unwrap();
    let lsn = wal.append_durable(b"not Raft's").unwrap();
    wal.close().unwrap();
    drop(wal);
    let refused = RaftLogs::open(builder(&temp)).unwrap_err();
    assert!(
        matches!(refused, LogError::Wal(ringwal::Error::ApplicationVersion { found: 0, .. })),
        "{refused}"
    );
    assert_eq!(builder(&temp).open().unwrap().read(lsn).unwrap().payload(), b"not Raft's");

    let temp = Temp::new();
    let wal =
        builder(&temp).application_version(ringwal_openraft::APPLICATION_VERSION).open().unwrap();
    wal.append_durable(b"without a tag").unwrap();
    wal.close().unwrap();
    drop(wal);
    assert!(matches!(RaftLogs::open(builder(&temp)), Err(LogError::ForeignRecord { .. })));

    let temp = Temp::new();
    let wal =
        builder(&temp).application_version(ringwal_openraft::APPLICATION_VERSION).open().unwrap();
    wal.tagged(4).append_durable(&[77, 1, 2, 3]).unwrap();
    wal.close().unwrap();
    drop(wal);
    assert!(matches!(RaftLogs::open(builder(&temp)), Err(LogError::UnknownRecord { .. })));
}

#[tokio::test]
async fn a_log_that_lost_its_front_is_refused_by_name() {
    let temp = Temp::new();
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    let mut log = logs.group::<Types>(9);
    for index in 0..200 {
        log.blocking_append([entry(index, 8000)]).await.unwrap();
    }
    let middle = logs.wal().oldest_lsn().as_u64() + (600 << 10);
    logs.wal().truncate_before(ringwal::Lsn::new(middle)).unwrap();
    logs.close().unwrap();
    drop((log, logs));
    match RaftLogs::open(builder(&temp)) {
        Err(LogError::MissingEntries { group: 9, first_missing: 0, next }) => assert!(next > 10),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_group_is_gone_and_can_begin_again() {
    let temp = Temp::new();
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    let mut log = logs.group::<Types>(3);
    log.save_vote(&Vote::new(1, 1)).await.unwrap();
    log.blocking_append([entry(0, 10), entry(1, 10)]).await.unwrap();
    let task = logs.clone();
    tokio::task::spawn_blocking(move || task.remove_group(3)).await.unwrap().unwrap();
    assert!(logs.groups().is_empty());
    assert_eq!(log.read_vote().await.unwrap(), None);
    logs.close().unwrap();
    drop((log, logs));
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    assert!(logs.groups().is_empty());
    let mut log = logs.group::<Types>(3);
    log.purge(entry(50, 0).log_id).await.unwrap();
    log.blocking_append([entry(51, 10)]).await.unwrap();
    assert_eq!(logs.groups(), [3]);
    assert_eq!(log.get_log_state().await.unwrap().last_purged_log_id, Some(entry(50, 0).log_id));
}

#[tokio::test]
async fn committed_id_that_was_not_waited_for_is_there_after_a_close() {
    let temp = Temp::new();
    let mut options = LogOptions::default();
    options.wait_committed = false;
    let logs = RaftLogs::open_with(builder(&temp), options).unwrap();
    let mut log = logs.group::<Types>(5);
    log.save_vote(&Vote::new(2, 1)).await.unwrap();
    log.blocking_append([entry(0, 10), entry(1, 10)]).await.unwrap();
    let committed = Some(entry(1, 10).log_id);
    log.save_committed(committed).await.unwrap();
    assert_eq!(log.read_committed().await.unwrap(), committed);
    logs.close().unwrap();
    drop((log, logs));
    let mut log = RaftLogs::open(builder(&temp)).unwrap().group::<Types>(5);
    assert_eq!(log.read_committed().await.unwrap(), committed);
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(2, 1)));
}
