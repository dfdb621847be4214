//! A log to run the command on, and what the command said.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use ringwal::{Lsn, ReadOnlyWal, Wal};
use serde_json::Value;

pub(crate) struct Temp(pub(crate) PathBuf);

impl Temp {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringwal-cli-{}-{n}", std::process::id()));
        // A killed process with the same id may have left it.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Temp(path)
    }

    pub(crate) fn log(&self) -> String {
        self.0.join("log").to_str().unwrap().to_owned()
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Does not depend on what the environment of the tests says of terminals.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringwal"));
    command.env_remove("COLUMNS").env_remove("CLICOLOR_FORCE");
    command
}

pub(crate) fn ringwal(arguments: &[&str]) -> Output {
    command().args(arguments).output().unwrap()
}

/// Returns what the command printed. It must have ended with this status, without a panic.
pub(crate) fn said(arguments: &[&str], status: i32) -> String {
    let out = ringwal(arguments);
    let (stdout, stderr) =
        (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    assert_eq!(out.status.code(), Some(status), "{arguments:?}: {stdout}{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert!(!stdout.contains('\x1b') && !stderr.contains('\x1b'), "no colours in a pipe");
    assert_eq!(stderr.is_empty(), status == 0, "{stderr}");
    stdout + &stderr
}

pub(crate) fn json(arguments: &[&str], status: i32) -> Value {
    let out = ringwal(arguments);
    assert_eq!(out.status.code(), Some(status), "{out:?}");
    serde_json::from_slice(&out.stdout).unwrap()
}

/// A closed log of small segments.
pub(crate) fn log(dir: &str) -> Vec<(Lsn, Vec<u8>)> {
    let wal = Wal::builder(dir).segment_size(64 << 10).application_version(3).open().unwrap();
    let records = (0..600_u32).map(|n| {
        let payload = format!("record {n} ").repeat(1 + n as usize % 60).into_bytes();
        (wal.append(&payload).unwrap(), payload)
    });
    let records: Vec<_> = records.collect();
    wal.sync().unwrap();
    wal.consumer("mailer").unwrap().commit(records[9].0).unwrap();
    wal.close().unwrap();
    records
}

pub(crate) fn contents(dir: &str) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    files
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
        .collect()
}

pub(crate) fn damage(dir: &str, segment: u64, offset: usize, len: usize) {
    let path = Path::new(dir).join(format!("wal.{:020}.wal", segment * (64 << 10)));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[offset..offset + len].iter_mut().for_each(|b| *b ^= 0x55);
    std::fs::write(path, bytes).unwrap();
}

/// What its records hold, oldest first.
pub(crate) fn payloads(dir: &str) -> Vec<Vec<u8>> {
    let log = ReadOnlyWal::open(dir).unwrap();
    log.reader(Lsn::ZERO).unwrap().map(|record| record.unwrap().payload).collect()
}
