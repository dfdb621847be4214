//! A background writer: another load on the filesystem, which writes and syncs.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::Error;

const BURST: usize = 4 << 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Writes 4 MiB and syncs it, ten times per second, until the handle is dropped.
#[derive(Debug)]
pub(crate) struct SecondWriter {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

pub(crate) fn start(dir: &Path) -> Result<SecondWriter, Error> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("loadgen-background-{}-{n}", std::process::id()));
    let created = OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = created.map_err(|e| Error::directory(dir, e))?;
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let body = move || {
        let burst = vec![7; BURST];
        while !seen.load(Ordering::Relaxed) {
            // The writer only adds load, so its own error does not end the run.
            let _ = file.seek(SeekFrom::Start(0));
            let _ = file.set_len(0);
            let _ = file.write_all(&burst);
            let _ = file.sync_all();
            std::thread::sleep(PAUSE);
        }
    };
    let spawned = std::thread::Builder::new().name("second-writer".into()).spawn(body);
    let thread = spawned.map_err(|source| Error::System { what: "start a thread", source })?;
    Ok(SecondWriter { over, thread: Some(thread), path })
}

impl Drop for SecondWriter {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}
