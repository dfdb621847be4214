//! The adapter on a disk that loses power: what was acknowledged is there, and nothing else.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use fastrand::Rng;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId, RaftLogReader, StorageError, Vote};
use ringwal::Wal;
use ringwal::testing::SimulatedDisk;
use ringwal_openraft::{LogOptions, RaftLog, RaftLogs};
use support::{Put, Types};

const GROUPS: u64 = 3;

/// What a group must hold.
#[derive(Debug, Clone, PartialEq, Default)]
struct Expected {
    vote: Option<Vote<u64>>,
    committed: Option<LogId<u64>>,
    purged: Option<LogId<u64>>,
    entries: Vec<Entry<Types>>,
}

#[derive(Debug, Clone)]
enum Act {
    Vote(Vote<u64>),
    Committed(LogId<u64>),
    Append(Vec<Entry<Types>>),
    Truncate(LogId<u64>),
    Purge(LogId<u64>),
}

impl Expected {
    fn next(&self) -> u64 {
        let last = self.entries.last().map(|e| e.log_id).or(self.purged);
        last.map_or(0, |id| id.index + 1)
    }

    fn after(&self, act: &Act) -> Expected {
        let mut then = self.clone();
        match act {
            Act::Vote(vote) => then.vote = Some(*vote),
            Act::Committed(id) => then.committed = Some(*id),
            Act::Append(entries) => then.entries.extend(entries.iter().cloned()),
            Act::Truncate(id) => then.entries.retain(|e| e.log_id.index < id.index),
            Act::Purge(id) => {
                then.purged = Some(*id);
                then.entries.retain(|e| e.log_id.index > id.index);
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

fn id(term: u64, index: u64) -> LogId<u64> {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

fn any_act(rng: &mut Rng, expected: &Expected, term: &mut u64) -> Act {
    *term += u64::from(rng.u8(0..4) == 0);
    let next = expected.next();
    let first = expected.entries.first().map_or(next, |e| e.log_id.index);
    match rng.u8(0..10) {
        0 => Act::Vote(Vote::new(*term, rng.u64(0..3))),
        1 => Act::Committed(id(*term, rng.u64(0..=next))),
        2 if first < next => Act::Truncate(id(*term, rng.u64(first..next))),
        3 | 4 if first < next => {
            let at = rng.usize(0..expected.entries.len());
            Act::Purge(expected.entries[at].log_id)
        }
        5 if rng.u8(0..6) == 0 => Act::Purge(id(*term, next + rng.u64(0..20))),
        _ => {
            let many = rng.u64(1..6);
            let one = |n| Entry {
                log_id: id(*term, next + n),
                payload: EntryPayload::Normal(Put {
                    key: n,
                    value: "v".repeat(rng.usize(0..3000)),
                }),
            };
            Act::Append((0..many).map(one).collect())
        }
    }
}

async fn run(logs: &RaftLogs, log: &mut RaftLog<Types>, act: &Act) -> bool {
    // A simulated log has no threads: a callback comes while a caller waits for the log.
    let drive = async {
        loop {
            let _ = logs.wal().sync();
            tokio::task::yield_now().await;
        }
    };
    let done = match act.clone() {
        Act::Vote(vote) => log.save_vote(&vote).await,
        Act::Committed(id) => log.save_committed(Some(id)).await,
        Act::Append(entries) => tokio::select! {
            biased;
            done = log.blocking_append(entries) => done,
            () = drive => unreachable!(),
        },
        Act::Truncate(id) => log.truncate(id).await,
        Act::Purge(id) => log.purge(id).await,
    };
    done.is_ok()
}

async fn found(log: &mut RaftLog<Types>) -> Result<Expected, StorageError<u64>> {
    let state = log.get_log_state().await?;
    let entries = log.try_get_log_entries(..).await?;
    let last = entries.last().map(|e| e.log_id).or(state.last_purged_log_id);
    assert_eq!(state.last_log_id, last);
    Ok(Expected {
        vote: log.read_vote().await?,
        committed: log.read_committed().await?,
        purged: state.last_purged_log_id,
        entries,
    })
}

fn open(disk: &SimulatedDisk, rng: &mut Rng) -> Result<RaftLogs, ringwal_openraft::LogError> {
    let mut options = LogOptions::default();
    options.cache_bytes = rng.usize(0..20_000);
    options.release_bytes = rng.u64(1..100_000);
    options.lag_limit = Some(rng.u64(20_000..300_000));
    let builder = Wal::builder("raft")
        .segment_size(64 << 10)
        .ring_capacity(64 << 10)
        .max_record_size(16 << 10)
        .on(disk);
    RaftLogs::open_with(builder, options)
}

async fn life_and_death(seed: u64) -> u64 {
    let mut rng = Rng::with_seed(seed);
    let disk = SimulatedDisk::new(seed);
    let mut all = vec![Expected::default(); GROUPS as usize];
    let mut acts = 0;
    let mut term = 1;
    for life in 0..4 {
        disk.power_off_after(rng.u64(20..400));
        let mut failed: Option<(usize, Act)> = None;
        if let Ok(logs) = open(&disk, &mut rng) {
            for _ in 0..rng.u32(1..200) {
                // One group is slow, so that it lags behind the limit.
                let group = [0, 0, 0, 0, 0, 1, 1, 1, 1, 2][rng.usize(0..10)];
                let act = any_act(&mut rng, &all[group], &mut term);
                if !run(&logs, &mut logs.group(group as u64), &act).await {
                    failed = Some((group, act));
                    break;
                }
                acts += 1;
                all[group] = all[group].after(&act);
                if rng.u8(0..8) == 0 {
                    match found(&mut logs.group(group as u64)).await {
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
        let logs =
            open(&disk, &mut rng).unwrap_or_else(|e| panic!("seed {seed}, life {life}: {e}"));
        for group in 0..GROUPS as usize {
            let act = failed.as_ref().filter(|(at, _)| *at == group).map(|(_, act)| act);
            let now = found(&mut logs.group(group as u64)).await.unwrap();
            assert!(
                all[group].permits(act, &now),
                "seed {seed}, life {life}, group {group}\nbefore {:?}\nfailed {act:?}\nfound {now:?}",
                all[group]
            );
            all[group] = now;
        }
        logs.close().unwrap();
    }
    acts
}

/// `RINGWAL_RAFT_SEEDS` runs more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_state_of_each_group_survives_power_failures() {
    let seeds = std::env::var("RINGWAL_RAFT_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let mut acts = 0;
    for seed in 0..seeds {
        acts += life_and_death(seed).await;
    }
    assert!(acts > seeds * 20, "{acts} acts of {seeds} seeds");
}
