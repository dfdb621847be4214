//! The suites for storage of openraft 0.9 and 0.10, on both backends, alone and with more than 64
//! groups in one log.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};

use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};
use ringwal::{BackendChoice, Wal, WalBuilder};
use ringwal_openraft::{LogOptions, RaftLog, RaftLogs};
use support::{Machine, Temp, Types, ten};

fn small(temp: &Temp, backend: BackendChoice) -> WalBuilder {
    Wal::builder(temp.path())
        .backend(backend)
        .segment_size(1 << 20)
        .ring_capacity(512 << 10)
        .max_record_size(64 << 10)
}

/// A new log for each test of the suite.
struct Alone(BackendChoice);

impl StoreBuilder<Types, RaftLog<Types>, Machine, (RaftLogs, Temp)> for Alone {
    async fn build(
        &self,
    ) -> Result<((RaftLogs, Temp), RaftLog<Types>, Machine), StorageError<u64>> {
        let temp = Temp::new();
        let logs = RaftLogs::open(small(&temp, self.0)).unwrap();
        let log = logs.group(1);
        Ok(((logs, temp), log, Machine::default()))
    }
}

/// A group of one log for each test of the suite, with a cache of nothing: every durable entry is
/// read from the disk.
struct Shared {
    logs: RaftLogs,
    next: AtomicU64,
}

impl StoreBuilder<Types, RaftLog<Types>, Machine> for Shared {
    async fn build(&self) -> Result<((), RaftLog<Types>, Machine), StorageError<u64>> {
        let group = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(((), self.logs.group(group), Machine::default()))
    }
}

impl
    openraft10::testing::log::StoreBuilder<
        ten::Types,
        RaftLog<ten::Types>,
        ten::Machine,
        (RaftLogs, Temp),
    > for Alone
{
    async fn build(
        &self,
    ) -> Result<
        ((RaftLogs, Temp), RaftLog<ten::Types>, ten::Machine),
        openraft10::StorageError<ten::Types>,
    > {
        let temp = Temp::new();
        let logs = RaftLogs::open(small(&temp, self.0)).unwrap();
        let log = logs.group(1);
        Ok(((logs, temp), log, ten::Machine::default()))
    }
}

impl openraft10::testing::log::StoreBuilder<ten::Types, RaftLog<ten::Types>, ten::Machine>
    for Shared
{
    async fn build(
        &self,
    ) -> Result<((), RaftLog<ten::Types>, ten::Machine), openraft10::StorageError<ten::Types>> {
        let group = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(((), self.logs.group(group), ten::Machine::default()))
    }
}

#[test]
fn openraft_suite_passes_with_io_uring_where_there_is_io_uring() {
    Suite::test_all(Alone(BackendChoice::Auto)).unwrap();
}

#[test]
fn openraft_suite_passes_with_the_std_backend() {
    Suite::test_all(Alone(BackendChoice::Std)).unwrap();
}

#[test]
fn openraft_suite_passes_with_many_groups_in_one_log() {
    for backend in [BackendChoice::Auto, BackendChoice::Std] {
        let temp = Temp::new();
        let mut options = LogOptions::default();
        (options.cache_bytes, options.release_bytes) = (0, 1);
        let logs = RaftLogs::open_with(small(&temp, backend), options).unwrap();
        for first in [0, 1 << 32, 1 << 40] {
            let next = AtomicU64::new(first);
            Suite::test_all(Shared { logs: logs.clone(), next }).unwrap();
        }
        let count = logs.groups().len();
        assert!(count >= 64, "{count} groups");
        logs.close().unwrap();
        drop(logs);
        let again = RaftLogs::open(small(&temp, backend)).unwrap();
        assert_eq!(again.groups().len(), count);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_0_10_suite_passes_with_io_uring_where_there_is_io_uring() {
    openraft10::testing::log::Suite::test_all(Alone(BackendChoice::Auto)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_0_10_suite_passes_with_the_std_backend() {
    openraft10::testing::log::Suite::test_all(Alone(BackendChoice::Std)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_0_10_suite_passes_with_many_groups_in_one_log() {
    for backend in [BackendChoice::Auto, BackendChoice::Std] {
        let temp = Temp::new();
        let mut options = LogOptions::default();
        (options.cache_bytes, options.release_bytes) = (0, 1);
        let logs = RaftLogs::open_with(small(&temp, backend), options).unwrap();
        for first in [0, 1 << 32, 1 << 40] {
            let next = AtomicU64::new(first);
            let store = Shared { logs: logs.clone(), next };
            openraft10::testing::log::Suite::test_all(store).await.unwrap();
        }
        let count = logs.groups().len();
        assert!(count >= 64, "{count} groups");
        logs.close().unwrap();
        drop(logs);
        let again = RaftLogs::open(small(&temp, backend)).unwrap();
        assert_eq!(again.groups().len(), count);
    }
}
