//! Three processes under load and faults. Every operation of the clients is recorded, and the
//! history must be linearizable. At the end every node's state and log have what was acknowledged.
//!
//! The test prints the seed of its random choices. `REPLICATED_KV_SEED` sets it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod history;
mod load;
#[path = "../place/mod.rs"]
mod place;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use openraft::RaftLogReader;
use replicated_kv::client::{Client, Said};
use replicated_kv::cluster::{Cluster, free_ports};
use replicated_kv::machine::Applied;
use replicated_kv::node::open_log;
use replicated_kv::types::{GROUP, Types};
use reqwest::Method;

use crate::load::{LIMIT, Shared};

const CLIENTS: usize = 6;

/// How long a step may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

const SEGMENT: u64 = 1 << 20;

/// The node whose disk is small.
const SMALL: u64 = 3;

/// A directory that is removed at the end, with a small disk in it if the test may mount one.
struct Place {
    dir: PathBuf,
    disk: Option<PathBuf>,
}

impl Place {
    fn new() -> Place {
        let dir = place::directory("faults");
        let disk = dir.join(place::DISK);
        fs::create_dir_all(&disk).unwrap();
        let is_mounted = Uid::effective().is_root()
            && mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::empty(), Some("size=64m"))
                .is_ok();
        if !is_mounted {
            println!("skipped: the full disk, which needs the right to mount");
        }
        Place { dir, disk: is_mounted.then_some(disk) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for id in 1..=3 {
                let said = fs::read_to_string(self.dir.join(format!("node-{id}.txt")));
                eprintln!("node {id} said:\n{}", said.unwrap_or_default());
            }
        }
        if let Some(disk) = &self.disk {
            let _ = umount2(disk, MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

struct Test {
    cluster: Cluster,
    client: Client,
    shared: Arc<Shared>,
    rng: Rng,
}

impl Test {
    async fn leader(&self) -> u64 {
        self.cluster.leader(&self.client, Instant::now() + PATIENCE).await.unwrap()
    }

    /// A node that does not lead.
    async fn follower(&mut self) -> u64 {
        let leader = self.leader().await;
        let ids = self.cluster.ids();
        let others: Vec<_> = ids.into_iter().filter(|id| *id != leader).collect();
        *self.rng.choice(&others).unwrap()
    }

    fn signal(&self, id: u64, signal: Signal) {
        kill(Pid::from_raw(self.cluster.pid(id).unwrap() as i32), signal).unwrap();
    }

    /// Waits until so many more changes are acknowledged.
    async fn progress(&self, step: &str, changes: u64) {
        let acknowledged = || self.shared.acknowledged.load(Ordering::Relaxed);
        let (from, began) = (acknowledged(), Instant::now());
        while acknowledged() < from + changes {
            assert!(began.elapsed() < PATIENCE, "{step}: no progress within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("{step}: {changes} changes in {:?}", began.elapsed());
    }

    /// Waits until a node has applied what the leader has in its log now.
    async fn caught_up(&self, step: &str, id: u64) {
        let began = Instant::now();
        let leader = self.leader().await;
        let target = self.client.status(&self.cluster.address(leader)).await.unwrap().last_log;
        loop {
            let status = self.client.status(&self.cluster.address(id)).await;
            if status.is_ok_and(|status| status.applied >= target) {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{step}: node {id} does not catch up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn cut(&self, id: u64, others: &[u64]) {
        let body = serde_json::to_vec(others).unwrap();
        let node = self.cluster.address(id);
        let said = self.client.ask_node(&node, Method::PUT, "/fault/cut", body).await;
        assert!(matches!(said, Said::Done(_)), "{said:?}");
    }

    async fn leader_killed(&mut self) {
        let leader = self.leader().await;
        self.cluster.kill(leader);
        self.progress("leader killed", 100).await;
        self.cluster.start(leader).unwrap();
        self.caught_up("leader killed", leader).await;
    }

    async fn paused(&mut self, step: &str, id: u64) {
        self.signal(id, Signal::SIGSTOP);
        self.progress(step, 40).await;
        self.signal(id, Signal::SIGCONT);
        self.progress(step, 30).await;
        self.caught_up(step, id).await;
    }

    async fn leader_cut_off(&mut self) {
        let leader = self.leader().await;
        let ids = self.cluster.ids();
        let others: Vec<_> = ids.into_iter().filter(|id| *id != leader).collect();
        self.cut(leader, &others).await;
        // The other two elect a leader, and the old one is asked all the while.
        self.progress("leader cut off", 80).await;
        self.cut(leader, &[]).await;
        self.caught_up("leader cut off", leader).await;
    }

    async fn all_killed(&mut self) {
        for id in self.cluster.ids() {
            self.signal(id, Signal::SIGKILL);
        }
        for id in self.cluster.ids() {
            self.cluster.kill(id);
            self.cluster.start(id).unwrap();
        }
        self.progress("all killed", 60).await;
    }

    /// Fills the disk of a follower, which stops then and says why.
    async fn disk_full(&mut self, disk: &Path) {
        while self.leader().await == SMALL {
            self.signal(SMALL, Signal::SIGSTOP);
            tokio::time::sleep(Duration::from_secs(3)).await;
            self.signal(SMALL, Signal::SIGCONT);
        }
        let ballast = disk.join("ballast");
        let filled = fs::write(&ballast, vec![1; 64 << 20]).unwrap_err();
        assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
        let began = Instant::now();
        let ended = loop {
            if let Some((id, status)) = self.cluster.ended().pop() {
                assert_eq!(id, SMALL, "{status}");
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "the node does not notice that its disk is full");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(ended.code(), Some(1));
        let said = fs::read_to_string(self.cluster.output(SMALL)).unwrap();
        let last = said.lines().last().unwrap_or_default();
        // The log or the snapshot is the first that finds no space.
        let names_cause = last.to_lowercase().contains("no space");
        assert!(last.starts_with("error: raft stopped") && names_cause, "{said}");
        self.progress("disk full", 60).await;
        fs::remove_file(&ballast).unwrap();
        self.cluster.start(SMALL).unwrap();
        self.caught_up("disk full", SMALL).await;
    }

    /// A node leaves the cluster, loses its disk, and comes back by a snapshot of the leader.
    async fn wiped(&mut self) {
        let id = self.follower().await;
        let leader = self.leader().await;
        let purged = self.client.status(&self.cluster.address(leader)).await.unwrap().purged;
        assert!(purged.is_some(), "the leader has its whole log, so that no snapshot is needed");
        let all = self.cluster.ids();
        let rest = all.iter().copied().filter(|one| *one != id).collect();
        let client = self.cluster.client(PATIENCE, PATIENCE).unwrap();
        client.set_voters(&rest).await.unwrap();
        self.cluster.kill(id);
        let dir = self.cluster.node_dir(id);
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        }
        self.progress("a node wiped", 30).await;
        self.cluster.start(id).unwrap();
        client.add_learner(id, &self.cluster.address(id)).await.unwrap();
        client.set_voters(&all.into_iter().collect()).await.unwrap();
        self.caught_up("a node wiped", id).await;
        let status = self.client.status(&self.cluster.address(id)).await.unwrap();
        assert!(status.snapshot >= purged && status.voters.len() == 3, "{status:?}");
    }

    /// Reads every key from the leader, and compares every node's map, and then every node's files,
    /// with that.
    async fn nothing_is_lost(&mut self) {
        let mut newest = BTreeMap::new();
        for number in 0..load::KEYS {
            let key = load::key(number);
            let began = Instant::now();
            let value = loop {
                let leader = self.cluster.address(self.leader().await);
                if let Some(value) = load::get(&self.shared, &self.client, &leader, &key).await {
                    break value;
                }
                assert!(began.elapsed() < PATIENCE, "{key} cannot be read");
            };
            newest.extend(value.map(|value| (key, value)));
        }
        let leader = self.leader().await;
        let end =
            self.client.status(&self.cluster.address(leader)).await.unwrap().last_log.unwrap();
        let numbers = |values: BTreeMap<String, String>| -> BTreeMap<String, u64> {
            values.into_iter().map(|(key, value)| (key, load::number(&value))).collect()
        };
        for id in self.cluster.ids() {
            self.caught_up("the end", id).await;
            let copy = self.client.copy(&self.cluster.address(id)).await.unwrap();
            assert_eq!(numbers(copy.values), newest, "the map of node {id}");
        }
        for id in self.cluster.ids() {
            self.cluster.kill(id);
            let values = on_disk(&self.cluster.node_dir(id), end).await;
            assert_eq!(numbers(values), newest, "the snapshot and the log of node {id}");
        }
    }
}

/// The map that a node's snapshot and its log up to an entry make.
async fn on_disk(dir: &Path, end: u64) -> BTreeMap<String, String> {
    let mut applied = Applied::load(dir).unwrap();
    let log_of = dir.to_owned();
    let open = tokio::task::spawn_blocking(move || open_log(&log_of, SEGMENT));
    let logs = open.await.unwrap().unwrap();
    let first = applied.last.map_or(0, |id| id.index + 1);
    let entries = logs.group::<Types>(GROUP).try_get_log_entries(first..=end).await.unwrap();
    assert_eq!(entries.len() as u64, end + 1 - first, "entries of {}", dir.display());
    for entry in entries {
        applied.apply(entry);
    }
    applied.values
}

async fn all_faults(mut rng: Rng) {
    let place = Place::new();
    let program = Path::new(env!("CARGO_BIN_EXE_replicated_kv"));
    let options = [
        "--heartbeat-ms=250",
        "--election-ms=750",
        "--snapshot-every=200",
        "--keep-entries=50",
        "--fault-injection",
        &format!("--segment-bytes={SEGMENT}"),
    ];
    let options = options.map(str::to_owned).to_vec();
    let mut cluster = Cluster::new(program, &place.dir, &free_ports(3).unwrap(), options);
    if let Some(disk) = &place.disk {
        cluster.place(SMALL, &disk.join("node"));
    }
    cluster.begin().await.unwrap();
    let client = cluster.client(LIMIT, PATIENCE).unwrap();
    let shared = Arc::new(Shared::default());
    let worker = |_| {
        let run = load::run(Arc::clone(&shared), cluster.addresses(), rng.fork());
        tokio::spawn(run)
    };
    let workers: Vec<_> = (0..CLIENTS).map(worker).collect();
    let mut test = Test { cluster, client, shared: Arc::clone(&shared), rng };

    test.progress("no fault", 200).await;
    test.leader_killed().await;
    let follower = test.follower().await;
    test.paused("follower paused", follower).await;
    let leader = test.leader().await;
    test.paused("leader paused", leader).await;
    test.leader_cut_off().await;
    test.all_killed().await;
    if let Some(disk) = &place.disk {
        test.disk_full(disk).await;
    }
    test.wiped().await;
    test.progress("no fault again", 50).await;

    shared.stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    test.nothing_is_lost().await;
    let (operations, unknown) = shared.history.counts();
    let began = Instant::now();
    shared.history.check();
    println!("{operations} operations, {unknown} unknown, checked in {:?}", began.elapsed());
}

#[test]
fn cluster_under_faults_is_linearizable_and_loses_nothing() {
    let seed = std::env::var("REPLICATED_KV_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("REPLICATED_KV_SEED={seed}");
    let began = Instant::now();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(all_faults(Rng::with_seed(seed)));
    println!("took {:?}", began.elapsed());
}
