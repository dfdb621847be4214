//! The adapter on a disk that loses power: what was acknowledged is there, and nothing else. Under
//! both versions of openraft, and with a version that changes from life to life.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fmt::Debug;

use fastrand::Rng;
use ringwal::Wal;
use ringwal::testing::SimulatedDisk;
use ringwal_openraft::{LogOptions, RaftLog, RaftLogs};
use support::{Put, Types, ten};

const GROUPS: u64 = 3;

/// Of the leader, in votes and log ids.
const NODE: u64 = 1;

/// Term and index.
type Id = (u64, u64);

/// A log id and what it stores.
type Entry = (Id, Put);

/// What a group must hold.
#[derive(Debug, Clone, PartialEq, Default)]
struct Expected {
    /// Term and node.
    vote: Option<(u64, u64)>,
    committed: Option<Id>,
    purged: Option<Id>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
enum Act {
    Vote(u64, u64),
    Committed(Id),
    Append(Vec<Entry>),
    /// Removes the entries from this one on.
    Truncate(Id),
    Purge(Id),
}

impl Expected {
    fn next(&self) -> u64 {
        let last = self.entries.last().map(|(id, _)| *id).or(self.purged);
        last.map_or(0, |(_, index)| index + 1)
    }

    fn after(&self, act: &Act) -> Expected {
        let mut then = self.clone();
        match act {
            Act::Vote(term, node) => then.vote = Some((*term, *node)),
            Act::Committed(id) => then.committed = Some(*id),
            Act::Append(entries) => then.entries.extend(entries.iter().cloned()),
            Act::Truncate((_, from)) => then.entries.retain(|((_, index), _)| index < from),
            Act::Purge(id) => {
                then.purged = Some(*id);
                then.entries.retain(|((_, index), _)| *index > id.1);
            }
        }
        then
    }

    /// Whether `found` may be there after `act` failed: all of it, nothing, or a first part of the
    /// entries.
    fn permits(&self, act: Option<&Act>, found: &Expected) -> bool {
        let Some(act) = act else { return self == found };
        if let Act::Append(entries) = act {
            return (0..=entries.len())
                .any(|n| self.after(&Act::Append(entries[..n].to_vec())) == *found);
        }
        self == found || self.after(act) == *found
    }
}

fn any_act(rng: &mut Rng, expected: &Expected, term: &mut u64) -> Act {
    *term += u64::from(rng.u8(0..4) == 0);
    let next = expected.next();
    let first = expected.entries.first().map_or(next, |((_, index), _)| *index);
    match rng.u8(0..10) {
        0 => Act::Vote(*term, rng.u64(0..3)),
        1 => Act::Committed((*term, rng.u64(0..=next))),
        2 if first < next => Act::Truncate((*term, rng.u64(first..next))),
        3 | 4 if first < next => {
            let at = rng.usize(0..expected.entries.len());
            Act::Purge(expected.entries[at].0)
        }
        5 if rng.u8(0..6) == 0 => Act::Purge((*term, next + rng.u64(0..20))),
        _ => {
            let many = rng.u64(1..6);
            let one =
                |n| ((*term, next + n), Put { key: n, value: "v".repeat(rng.usize(0..3000)) });
            Act::Append((0..many).map(one).collect())
        }
    }
}

/// A version of openraft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Nine,
    Ten,
}

impl Version {
    /// Does it, and says whether it was acknowledged.
    async fn act(self, logs: &RaftLogs, group: u64, act: &Act) -> bool {
        match self {
            Version::Nine => nine::act(logs.group(group), act.clone()).await,
            Version::Ten => with_ten::act(logs.group(group), act.clone()).await,
        }
    }

    async fn found(
        self,
        logs: &RaftLogs,
        group: u64,
    ) -> Result<Expected, Box<dyn std::error::Error>> {
        match self {
            Version::Nine => nine::found(logs.group(group)).await,
            Version::Ten => with_ten::found(logs.group(group)).await,
        }
    }
}

mod nine {
    use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
    use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId, RaftLogReader, Vote};

    use super::*;

    fn id((term, index): Id) -> LogId<u64> {
        LogId::new(CommittedLeaderId::new(term, NODE), index)
    }

    fn of(id: LogId<u64>) -> Id {
        assert_eq!(id.leader_id.node_id, NODE);
        (id.leader_id.term, id.index)
    }

    pub(super) async fn act(mut log: RaftLog<Types>, act: Act) -> bool {
        let entry = |(at, put)| Entry { log_id: id(at), payload: EntryPayload::Normal(put) };
        let done = match act {
            Act::Vote(term, node) => log.save_vote(&Vote::new(term, node)).await,
            Act::Committed(at) => log.save_committed(Some(id(at))).await,
            Act::Append(entries) => log.blocking_append(entries.into_iter().map(entry)).await,
            Act::Truncate(at) => log.truncate(id(at)).await,
            Act::Purge(at) => log.purge(id(at)).await,
        };
        done.is_ok()
    }

    pub(super) async fn found(
        mut log: RaftLog<Types>,
    ) -> Result<Expected, Box<dyn std::error::Error>> {
        let state = log.get_log_state().await?;
        let entries = log.try_get_log_entries(..).await?;
        let last = entries.last().map(|e| e.log_id).or(state.last_purged_log_id);
        assert_eq!(state.last_log_id, last);
        let put = |entry: Entry<Types>| match entry.payload {
            EntryPayload::Normal(put) => (of(entry.log_id), put),
            other => panic!("{other:?}"),
        };
        let vote = log.read_vote().await?;
        Ok(Expected {
            vote: vote.map(|vote| (vote.leader_id.term, vote.leader_id.node_id)),
            committed: log.read_committed().await?.map(of),
            purged: state.last_purged_log_id.map(of),
            entries: entries.into_iter().map(put).collect(),
        })
    }
}

mod with_ten {
    use futures_util::TryStreamExt;
    use openraft10::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
    use openraft10::testing::log_id;
    use openraft10::type_config::alias::{EntryOf, LogIdOf, VoteOf};
    use openraft10::{Entry, EntryPayload};

    use super::*;

    fn id((term, index): Id) -> LogIdOf<ten::Types> {
        log_id::<ten::Types>(term, NODE, index)
    }

    fn of(id: LogIdOf<ten::Types>) -> Id {
        assert_eq!(id.leader_id.node_id, NODE);
        (id.leader_id.term, id.index)
    }

    pub(super) async fn act(mut log: RaftLog<ten::Types>, act: Act) -> bool {
        let entry = |(at, put)| Entry { log_id: id(at), payload: EntryPayload::Normal(put) };
        match act {
            Act::Vote(term, node) => {
                log.save_vote(&VoteOf::<ten::Types>::new(term, node)).await.is_ok()
            }
            Act::Committed(at) => log.save_committed(Some(id(at))).await.is_ok(),
            Act::Append(entries) => {
                log.blocking_append(entries.into_iter().map(entry)).await.is_ok()
            }
            Act::Truncate((term, from)) => {
                let last = from.checked_sub(1).map(|last| id((term, last)));
                log.truncate_after(last).await.is_ok()
            }
            Act::Purge(at) => log.purge(id(at)).await.is_ok(),
        }
    }

    pub(super) async fn found(
        mut log: RaftLog<ten::Types>,
    ) -> Result<Expected, Box<dyn std::error::Error>> {
        let state = log.get_log_state().await?;
        let entries = log.try_get_log_entries(..).await?;
        let streamed: Vec<EntryOf<ten::Types>> = log.entries_stream(..).await.try_collect().await?;
        assert_eq!(streamed, entries);
        let last = entries.last().map(|e| e.log_id).or(state.last_purged_log_id);
        assert_eq!(state.last_log_id, last);
        let put = |entry: EntryOf<ten::Types>| match entry.payload {
            EntryPayload::Normal(put) => (of(entry.log_id), put),
            other => panic!("{other:?}"),
        };
        let vote = log.read_vote().await?;
        Ok(Expected {
            vote: vote.map(|vote| (vote.leader_id.term, vote.leader_id.node_id)),
            committed: log.read_committed().await?.map(of),
            purged: state.last_purged_log_id.map(of),
            entries: entries.into_iter().map(put).collect(),
        })
    }
}

async fn run(version: Version, logs: &RaftLogs, group: u64, act: &Act) -> bool {
    // A simulated log has no threads: a callback comes while a caller waits for the log.
    let drive = async {
        loop {
            let _ = logs.wal().sync();
            tokio::task::yield_now().await;
        }
    };
    if !matches!(act, Act::Append(_)) {
        return version.act(logs, group, act).await;
    }
    tokio::select! {
        biased;
        done = version.act(logs, group, act) => done,
        () = drive => unreachable!(),
    }
}

fn open(disk: &SimulatedDisk, rng: &mut Rng) -> Result<RaftLogs, ringwal_openraft::LogError> {
    let mut options = LogOptions::default();
    options.cache_bytes = rng.usize(0..20_000);
    options.read_bytes = rng.usize(1..20_000);
    options.release_bytes = rng.u64(1..100_000);
    options.lag_limit = Some(rng.u64(20_000..300_000));
    let builder = Wal::builder("raft")
        .segment_size(64 << 10)
        .ring_capacity(64 << 10)
        .max_record_size(16 << 10)
        .on(disk);
    RaftLogs::open_with(builder, options)
}

async fn life_and_death(seed: u64, versions: &[Version]) -> u64 {
    let mut rng = Rng::with_seed(seed);
    let disk = SimulatedDisk::new(seed);
    let mut all = vec![Expected::default(); GROUPS as usize];
    let mut acts = 0;
    let mut term = 1;
    for life in 0..4 {
        disk.power_off_after(rng.u64(20..400));
        let version = *rng.choice(versions).unwrap();
        let mut failed: Option<(usize, Act)> = None;
        if let Ok(logs) = open(&disk, &mut rng) {
            for _ in 0..rng.u32(1..200) {
                // One group is slow, so that it lags behind the limit.
                let group = [0, 0, 0, 0, 0, 1, 1, 1, 1, 2][rng.usize(0..10)];
                let act = any_act(&mut rng, &all[group], &mut term);
                if !run(version, &logs, group as u64, &act).await {
                    failed = Some((group, act));
                    break;
                }
                acts += 1;
                all[group] = all[group].after(&act);
                if rng.u8(0..8) == 0 {
                    match version.found(&logs, group as u64).await {
                        Ok(now) => assert_eq!(now, all[group], "seed {seed}, group {group}"),
                        Err(e) => assert!(disk.is_off(), "seed {seed}, group {group}: {e}"),
                    }
                }
            }
            if rng.bool() {
                let logs = logs.clone();
                let _ = tokio::task::spawn_blocking(move || logs.release()).await.unwrap();
            }
        }
        disk.crash();
        disk.heal();
        let version = *rng.choice(versions).unwrap();
        let logs =
            open(&disk, &mut rng).unwrap_or_else(|e| panic!("seed {seed}, life {life}: {e}"));
        for (group, expected) in all.iter_mut().enumerate() {
            let act = failed.as_ref().filter(|(at, _)| *at == group).map(|(_, act)| act);
            let now = version.found(&logs, group as u64).await.unwrap();
            assert!(
                expected.permits(act, &now),
                "seed {seed}, life {life}, group {group}\nbefore {:?}\nfailed {act:?}\nfound {now:?}",
                expected
            );
            *expected = now;
        }
        logs.close().unwrap();
    }
    acts
}

/// `RINGWAL_RAFT_SEEDS` runs more.
async fn lives(first: u64, versions: &[Version]) {
    let seeds = std::env::var("RINGWAL_RAFT_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let mut acts = 0;
    for seed in first..first + seeds {
        acts += life_and_death(seed, versions).await;
    }
    assert!(acts > seeds * 20, "{acts} acts of {seeds} seeds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_state_of_each_group_survives_power_failures() {
    lives(0, &[Version::Nine]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_state_survives_power_failures_under_openraft_0_10() {
    lives(1_000_000, &[Version::Ten]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_state_survives_power_failures_while_the_version_changes() {
    lives(2_000_000, &[Version::Nine, Version::Ten]).await;
}
