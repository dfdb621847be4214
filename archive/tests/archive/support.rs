//! Logs, directories, and what a log holds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use object_store::ObjectStore;
use ringwal::{Lsn, ReadOnlyWal, Wal, WalBuilder};
use ringwal_archive::{Archive, Archiver, ArchiverBuilder, object_store};

pub(crate) const SEGMENT: u64 = 256 << 10;
/// Of which a segment has four.
pub(crate) const PART: u64 = 64 << 10;

pub(crate) struct Temp(PathBuf);

impl Temp {
    /// In memory where the system has a directory for that: hundreds of logs are restored and
    /// synced, and no test here depends on a disk.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringwal-archive-test-{}-{n}", std::process::id());
        let root = memory_disk().unwrap_or_else(std::env::temp_dir);
        let path = root.join(name);
        // A killed process with the same id may have left it.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Temp(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A directory that does not exist yet.
    pub(crate) fn fresh(&self) -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        self.0.join(format!("fresh-{}", COUNT.fetch_add(1, Ordering::Relaxed)))
    }
}

/// A directory in memory with room for all tests.
fn memory_disk() -> Option<PathBuf> {
    let path = "/dev/shm";
    let df = std::process::Command::new("df").args(["-Pk", path]).output().ok()?;
    let table = String::from_utf8(df.stdout).ok()?;
    let free: u64 = table.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    (df.status.success() && free > 1 << 20).then(|| path.into())
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits until `done` returns true, for a long time: the machine and its disk may be busy.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn builder(dir: &Path) -> WalBuilder {
    Wal::builder(dir).segment_size(SEGMENT)
}

pub(crate) fn payload(n: u32) -> Vec<u8> {
    let mut bytes = vec![n as u8; 3000 + n as usize * 37 % 20_000];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    bytes
}

pub(crate) type Records = Vec<(Lsn, Vec<u8>)>;

/// A closed log with at least so many sealed segments.
pub(crate) fn closed_log(dir: &Path, sealed: u64) -> Records {
    let wal = builder(dir).open().unwrap();
    let mut records = Vec::new();
    for n in 0.. {
        records.push((wal.append(&payload(n)).unwrap(), payload(n)));
        if n % 7 == 0 {
            wal.sync().unwrap();
        }
        if wal.end().as_u64() > sealed * SEGMENT + 8192 {
            break;
        }
    }
    wal.close().unwrap();
    records
}

/// The records of the log that lie before `end`.
pub(crate) fn before(records: &Records, end: Lsn) -> Records {
    records.iter().filter(|(lsn, _)| *lsn < end).cloned().collect()
}

/// Opens the log, as its program would, and reads everything.
pub(crate) fn contents(dir: &Path) -> Records {
    timed(dir).into_iter().map(|(lsn, payload, _)| (lsn, payload)).collect()
}

pub(crate) fn timed(dir: &Path) -> Vec<(Lsn, Vec<u8>, SystemTime)> {
    let wal = builder(dir).must_exist(true).open().unwrap();
    let read = wal.reader(Lsn::ZERO).map(|record| {
        let record = record.unwrap();
        let written = record.written_at().unwrap();
        (record.lsn, record.payload, written)
    });
    let read = read.collect();
    wal.close().unwrap();
    read
}

pub(crate) fn durable_end(dir: &Path) -> Lsn {
    ReadOnlyWal::open(dir).unwrap().durable_end().unwrap()
}

pub(crate) fn archive(store: &Arc<dyn ObjectStore>) -> Archive {
    let archive = Archive::new(Arc::clone(store), "logs/orders").unwrap();
    archive.request_timeout(Duration::from_secs(20))
}

pub(crate) fn archiver(archive: &Archive) -> ArchiverBuilder {
    Archiver::builder(archive.clone())
        .part_bytes(PART)
        .backoff(Duration::from_millis(1), Duration::from_millis(8))
}

/// Ships what is sealed, and stops.
pub(crate) fn ship(archive: &Archive, dir: &Path) -> ringwal_archive::CaughtUp {
    archiver(archive).start().unwrap().catch_up(dir, "wal").unwrap()
}

pub(crate) fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(object_store::memory::InMemory::new())
}

/// Runs requests of the test itself.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

/// The names of all objects, with their bytes.
pub(crate) fn objects(store: &Arc<dyn ObjectStore>) -> Vec<(String, Vec<u8>)> {
    use futures_util::TryStreamExt;
    use object_store::ObjectStoreExt;

    wait(async {
        let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
        let mut all = Vec::new();
        for meta in listed {
            let bytes = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
            all.push((meta.location.to_string(), bytes.to_vec()));
        }
        all.sort();
        all
    })
}

/// The objects of the segments or of the manifests, oldest first.
pub(crate) fn names(store: &Arc<dyn ObjectStore>, kind: &str) -> Vec<String> {
    let all = objects(store).into_iter().map(|(name, _)| name);
    all.filter(|name| name.contains(kind)).collect()
}

pub(crate) fn put(store: &Arc<dyn ObjectStore>, name: &str, bytes: Vec<u8>) {
    use object_store::ObjectStoreExt;

    wait(store.put(&name.into(), bytes.into())).unwrap();
}

pub(crate) fn delete(store: &Arc<dyn ObjectStore>, name: &str) {
    use object_store::ObjectStoreExt;

    wait(store.delete(&name.into())).unwrap();
}

/// A directory must be as it was: absent or empty.
pub(crate) fn assert_nothing_left(dir: &Path) {
    match std::fs::read_dir(dir) {
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::NotFound),
        Ok(entries) => assert_eq!(entries.count(), 0, "{}", dir.display()),
    }
}
