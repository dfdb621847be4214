//! Logs of many groups: what is released, what is refused, what comes back.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{EntryPayload, RaftLogReader, Vote};
use ringwal::Wal;
use ringwal_openraft::{LogError, LogOptions, RaftLogs};
use support::{Put, Temp, Types, builder, entry, fill_with_votes, raw, ten};

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

#[tokio::test]
async fn a_group_that_begins_at_any_index_is_there_after_an_opening() {
    let temp = Temp::new();
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    let mut log = logs.group::<Types>(1);
    log.save_vote(&Vote::new(7, 3)).await.unwrap();
    log.blocking_append([entry(7, 10), entry(8, 10)]).await.unwrap();
    logs.close().unwrap();
    drop((log, logs));
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    let mut log = logs.group::<Types>(1);
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), [entry(7, 10), entry(8, 10)]);
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, None);
    assert_eq!(state.last_log_id, Some(entry(8, 0).log_id));
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(7, 3)));
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

#[test]
fn a_limit_of_retention_is_refused_before_anything_is_opened() {
    let temp = Temp::new();
    let dir = temp.path().join("raft");
    let day = std::time::Duration::from_secs(86_400);
    let limited = [
        ("max_segments", Wal::builder(&dir).max_segments(1000)),
        ("max_total_bytes", Wal::builder(&dir).max_total_bytes(1 << 40)),
        ("max_age", Wal::builder(&dir).max_age(day)),
    ];
    for (name, builder) in limited {
        let refused = RaftLogs::open(builder).unwrap_err();
        let is_named = matches!(refused, LogError::RetentionLimit { option } if option == name);
        assert!(is_named && refused.to_string().contains("lag_limit"), "{refused}");
        assert!(!dir.exists());
    }
}

/// A group that has a vote, a committed and a purged id, and no entries.
async fn idle_group(logs: &RaftLogs) {
    let mut idle = logs.group::<Types>(7);
    idle.save_vote(&Vote::new(3, 2)).await.unwrap();
    idle.save_committed(Some(entry(40, 0).log_id)).await.unwrap();
    idle.purge(entry(41, 0).log_id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_votes_were_removed_by_a_limit_of_retention_is_refused() {
    let temp = Temp::new();
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    idle_group(&logs).await;
    fill_with_votes(&logs).await;
    logs.close().unwrap();
    drop(logs);
    // Another program opens it with a limit, and the first segment goes.
    let limited = builder(&temp).max_segments(2);
    let limited = limited.application_version(ringwal_openraft::APPLICATION_VERSION);
    let wal = limited.open().unwrap();
    let vote = state_record(&[9; 8000]);
    while wal.oldest_lsn() == ringwal::Lsn::ZERO {
        wal.tagged(9).append_durable(&vote).unwrap();
    }
    wal.close().unwrap();
    let begins = wal.oldest_lsn();
    drop(wal);
    match reopened(&temp) {
        LogError::LostFront { oldest, released } => {
            assert_eq!((oldest, released), (begins, ringwal::Lsn::ZERO));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_of_an_idle_group_outlives_its_segments_unless_others_remove_more() {
    let temp = Temp::new();
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    idle_group(&logs).await;
    for _ in 0..2 {
        fill_with_votes(&logs).await;
        let task = logs.clone();
        tokio::task::spawn_blocking(move || task.release()).await.unwrap().unwrap();
    }
    let floor = logs.wal().oldest_lsn();
    assert!(floor.as_u64() > 1 << 20, "{floor} is the oldest");
    logs.close().unwrap();
    drop(logs);

    let logs = RaftLogs::open(builder(&temp)).unwrap();
    let mut idle = logs.group::<Types>(7);
    assert_eq!(idle.read_vote().await.unwrap(), Some(Vote::new(3, 2)));
    assert_eq!(idle.read_committed().await.unwrap(), Some(entry(40, 0).log_id));
    let purged = idle.get_log_state().await.unwrap().last_purged_log_id;
    assert_eq!(purged, Some(entry(41, 0).log_id));
    fill_with_votes(&logs).await;
    // Not by a release: the state of the idle group is lost.
    logs.wal().truncate_before(logs.wal().durable_end()).unwrap();
    logs.close().unwrap();
    drop((idle, logs));
    assert!(matches!(reopened(&temp), LogError::LostFront { .. }));
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

/// Fills four segments with the entries of group 9, after a vote of group 7, which has nothing
/// else.
async fn a_log_with_an_idle_group(temp: &Temp) {
    let logs = RaftLogs::open(builder(temp)).unwrap();
    logs.group::<Types>(7).save_vote(&Vote::new(3, 2)).await.unwrap();
    let mut log = logs.group::<Types>(9);
    for index in 0..120 {
        log.blocking_append([entry(index, 8000)]).await.unwrap();
    }
    logs.close().unwrap();
}

fn reopened(temp: &Temp) -> LogError {
    let before = temp.segments();
    let refused = RaftLogs::open(builder(temp)).unwrap_err();
    assert!(temp.segments() == before, "{refused}: a segment was changed");
    refused
}

#[tokio::test]
async fn a_store_that_lacks_a_segment_is_refused_and_left_as_it_is() {
    let temp = Temp::new();
    a_log_with_an_idle_group(&temp).await;
    let segments = temp.segments();
    assert!(segments.len() >= 4, "{} segments", segments.len());
    let paths: Vec<_> = segments.keys().collect();

    for lost in [paths[1], paths[0]] {
        std::fs::remove_file(lost).unwrap();
        let refused = reopened(&temp);
        let reason = matches!(refused, LogError::Wal(ringwal::Error::Corruption { .. }));
        assert!(reason && refused.to_string().contains("missing"), "{refused}");
        std::fs::write(lost, &segments[lost]).unwrap();
    }
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    assert_eq!(logs.group::<Types>(7).read_vote().await.unwrap(), Some(Vote::new(3, 2)));
    assert_eq!(logs.group::<Types>(9).try_get_log_entries(..).await.unwrap().len(), 120);
}

/// The bytes of a state record with only a vote.
fn state_record(vote: &[u8]) -> Vec<u8> {
    let mut record = vec![3, 0];
    record.extend_from_slice(&[0; 8]);
    record.extend_from_slice(&(vote.len() as u32).to_le_bytes());
    record.extend_from_slice(vote);
    record.extend_from_slice(&[0xff; 8]);
    record
}

#[tokio::test]
async fn a_vote_that_cannot_be_read_is_an_error_and_stays() {
    // A vote of a term that has no end.
    let temp = Temp::new();
    raw(&temp, 4, &state_record(&[0xff; 11]));
    let before = temp.segments();
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    let refused = logs.group::<Types>(4).read_vote().await.unwrap_err().to_string();
    assert!(refused.contains("group 4: a vote") && refused.contains("the codec"), "{refused}");
    let refused = with_ten::read_vote(&logs, 4).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidData);
    assert!(refused.to_string().contains("group 4: a vote"), "{refused}");
    // Nothing overwrites it: neither a vote nor another part of the state.
    let mut log = logs.group::<Types>(4);
    let refused = log.save_vote(&Vote::new(9, 1)).await.unwrap_err().to_string();
    assert!(refused.contains("group 4: a vote"), "{refused}");
    assert!(with_ten::save_vote(&logs, 4).await.is_err());
    logs.group::<Types>(4).save_committed(Some(entry(0, 0).log_id)).await.unwrap();
    assert!(logs.group::<Types>(4).read_vote().await.is_err());
    logs.close().unwrap();
    drop((logs, before));

    // A state that is cut short, and one with a length beyond its end.
    let whole = state_record(b"vote");
    let mut long = whole.clone();
    long[10] = 200;
    for record in [&whole[..whole.len() - 1], &whole[..12], &long] {
        let temp = Temp::new();
        raw(&temp, 4, record);
        let refused = reopened(&temp);
        assert!(matches!(refused, LogError::UnknownRecord { .. }), "{refused}");
    }
}

#[tokio::test]
async fn a_vote_of_another_codec_is_not_replaced() {
    let temp = Temp::new();
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    let mut log = logs.group::<Types>(1);
    log.save_vote(&Vote::new(7, 3)).await.unwrap();
    let mut json = logs.group_with::<Types, ringwal::Json>(1);
    assert!(json.save_vote(&Vote::new(8, 3)).await.is_err());
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(7, 3)));
}

#[tokio::test]
async fn an_entry_with_another_index_than_its_record_is_an_error() {
    let temp = Temp::new();
    let mut record = vec![1];
    record.extend_from_slice(&1u64.to_le_bytes());
    <ringwal::Postcard as ringwal::Codec<_>>::encode(&entry(2, 4), &mut record).unwrap();
    raw(&temp, 4, &record);
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    let refused = logs.group::<Types>(4).try_get_log_entries(..).await.unwrap_err().to_string();
    assert!(refused.contains("the entry's index is 2, its record's 1"), "{refused}");
}

#[tokio::test]
async fn a_vote_whose_bytes_are_damaged_is_refused_and_left_as_it_is() {
    let temp = Temp::new();
    a_log_with_an_idle_group(&temp).await;
    let segments = temp.segments();
    let (path, bytes) = segments.first_key_value().unwrap();
    // The state with the vote is the first record of its kind.
    let state =
        bytes.windows(10).position(|bytes| bytes == [3, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let mut damaged = bytes.clone();
    damaged[state + 14] ^= 1;
    std::fs::write(path, &damaged).unwrap();
    let refused = reopened(&temp);
    assert!(matches!(refused, LogError::Wal(ringwal::Error::Corruption { .. })), "{refused}");
}

#[tokio::test]
async fn a_log_of_another_kind_of_leader_id_is_an_error_and_stays() {
    let temp = Temp::new();
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    let mut log = logs.group::<Types>(1);
    log.save_vote(&Vote::new(7, 3)).await.unwrap();
    let kept: Vec<_> = (0..9).map(|index| entry(index, 10)).collect();
    log.blocking_append(kept.clone()).await.unwrap();
    log.save_committed(Some(kept[4].log_id)).await.unwrap();
    log.purge(kept[1].log_id).await.unwrap();
    logs.close().unwrap();
    drop((log, logs));
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    for refused in with_ten::everything_of_another_kind(&logs, 1).await {
        assert_eq!(refused.kind(), std::io::ErrorKind::InvalidData);
        assert!(refused.to_string().contains("the kind of leader id"), "{refused}");
    }
    let mut log = logs.group::<Types>(1);
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(7, 3)));
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), kept[2..]);
}

#[tokio::test]
async fn a_log_of_openraft_0_9_is_read_and_continued_by_0_10_and_back() {
    let temp = Temp::new();
    let logs = RaftLogs::open(builder(&temp)).unwrap();
    let mut log = logs.group::<Types>(1);
    log.save_vote(&Vote::new_committed(7, 3)).await.unwrap();
    let mut kept: Vec<_> = (1..9).map(|index| entry(index, 10)).collect();
    let nodes = [1, 2, 3].map(|id| (id, openraft::BasicNode::new(format!("host{id}"))));
    let joint = vec![[1, 2].into(), [2, 3].into()];
    let membership = openraft::Membership::new(joint, std::collections::BTreeMap::from(nodes));
    kept[6].payload = EntryPayload::Membership(membership);
    kept[7].payload = EntryPayload::Blank;
    log.blocking_append(kept.clone()).await.unwrap();
    log.save_committed(Some(kept[4].log_id)).await.unwrap();
    log.purge(kept[1].log_id).await.unwrap();
    logs.close().unwrap();
    drop((log, logs));

    let logs = RaftLogs::open(builder(&temp)).unwrap();
    with_ten::continue_what_0_9_wrote(&logs, 1).await;
    logs.close().unwrap();
    drop(logs);

    let logs = RaftLogs::open(builder(&temp)).unwrap();
    let mut log = logs.group::<Types>(1);
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(8, 2)));
    assert_eq!(log.read_committed().await.unwrap(), Some(kept[5].log_id));
    assert_eq!(log.get_log_state().await.unwrap().last_purged_log_id, Some(kept[2].log_id));
    let read = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(read[..5], kept[3..]);
    assert_eq!(read[5..], [entry(9, 5)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_many_entries_reads_some_at_a_time() {
    let temp = Temp::new();
    let mut options = LogOptions::default();
    (options.cache_bytes, options.read_bytes) = (0, 3000);
    let logs = RaftLogs::open_with(builder(&temp), options).unwrap();
    let mut log = logs.group::<Types>(1);
    log.blocking_append((0..100).map(|index| entry(index, 1000))).await.unwrap();
    log.purge(entry(9, 0).log_id).await.unwrap();
    with_ten::read_as_a_stream(&logs, 1).await;
}

mod with_ten {
    use std::io;

    use futures_util::{StreamExt, TryStreamExt};
    use openraft10::EntryPayload;
    use openraft10::entry::RaftEntry;
    use openraft10::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
    use openraft10::testing::log_id;
    use openraft10::type_config::alias::{EntryOf, VoteOf};

    use super::*;

    type Vote10 = VoteOf<ten::Types>;

    pub(super) async fn read_vote(logs: &RaftLogs, group: u64) -> io::Result<Option<Vote10>> {
        logs.group::<ten::Types>(group).read_vote().await
    }

    pub(super) async fn save_vote(logs: &RaftLogs, group: u64) -> io::Result<()> {
        logs.group::<ten::Types>(group).save_vote(&Vote10::new(9, 1)).await
    }

    /// The errors of all calls that decode something.
    pub(super) async fn everything_of_another_kind(logs: &RaftLogs, group: u64) -> [io::Error; 5] {
        let mut log = logs.group::<ten::StdTypes>(group);
        [
            log.read_vote().await.unwrap_err(),
            log.read_committed().await.unwrap_err(),
            log.get_log_state().await.unwrap_err(),
            log.try_get_log_entries(3..5).await.unwrap_err(),
            log.entries_stream(3..5).await.next().await.unwrap().unwrap_err(),
        ]
    }

    fn index(entry: &EntryOf<ten::Types>) -> u64 {
        entry.index()
    }

    pub(super) async fn continue_what_0_9_wrote(logs: &RaftLogs, group: u64) {
        let id = |index| log_id::<ten::Types>(1, 1, index);
        let mut log = logs.group::<ten::Types>(group);
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote10::new_committed(7, 3)));
        assert_eq!(log.read_committed().await.unwrap(), Some(id(5)));
        let state = log.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(2)), Some(id(8))));
        let read = log.try_get_log_entries(..).await.unwrap();
        assert_eq!(read.iter().map(index).collect::<Vec<_>>(), [3, 4, 5, 6, 7, 8]);
        let put = Put { key: 3, value: "x".repeat(10) };
        assert_eq!(read[0].payload, EntryPayload::Normal(put));
        let membership = read[4].get_membership().unwrap();
        assert_eq!(membership.get_joint_config(), &[[1, 2].into(), [2, 3].into()]);
        assert_eq!(membership.get_node(&3).unwrap().addr, "host3");
        assert_eq!(read[5].payload, EntryPayload::Blank);

        log.save_vote(&Vote10::new(8, 2)).await.unwrap();
        log.save_committed(Some(id(6))).await.unwrap();
        log.purge(id(3)).await.unwrap();
        let normal = |index, len| {
            let put = Put { key: index, value: "x".repeat(len) };
            EntryOf::<ten::Types>::new_normal(id(index), put)
        };
        log.blocking_append([normal(9, 100), normal(10, 5)]).await.unwrap();
        log.truncate_after(Some(id(8))).await.unwrap();
        log.blocking_append([normal(9, 5)]).await.unwrap();
    }

    pub(super) async fn read_as_a_stream(logs: &RaftLogs, group: u64) {
        let mut log = logs.group::<ten::Types>(group);
        let all: Vec<_> = log.entries_stream(..).await.try_collect().await.unwrap();
        assert!(all.iter().map(index).eq(10..100));
        let some: Vec<_> = log.entries_stream(20..=30).await.try_collect().await.unwrap();
        assert!(some.iter().map(index).eq(20..=30));
        assert_eq!(log.limited_get_log_entries(20, 90).await.unwrap().len(), 2);
        // Entries that are purged while the stream is read are missed.
        let mut reader = log.clone();
        let mut stream = reader.entries_stream(20..90).await;
        assert_eq!(stream.next().await.unwrap().unwrap().index(), 20);
        log.purge(log_id::<ten::Types>(1, 1, 50)).await.unwrap();
        let rest: Vec<_> = stream.collect().await;
        let missed = rest.last().unwrap().as_ref().unwrap_err();
        assert!(missed.to_string().contains("were purged meanwhile"), "{missed}");
        // And are not an error at the beginning.
        let late: Vec<_> = log.entries_stream(20..90).await.try_collect().await.unwrap();
        assert!(late.iter().map(index).eq(51..90));
        assert!(log.entries_stream(200..).await.next().await.is_none());
    }
}
