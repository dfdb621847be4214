//! The directory and the command of a test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A separate directory for each test, and the command to run in it.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("loadgen-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
        // Makes the output independent of the terminal of the tests.
        command.env_remove("COLUMNS").env_remove("CLICOLOR_FORCE");
        command.current_dir(&self.0).args(line.split_whitespace());
        command
    }

    pub(crate) fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Runs the command and returns the JSON on stdout.
    pub(crate) fn json(&self, line: &str) -> Value {
        let output = self.run(&format!("{line} --json - --quiet"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {stderr}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Waits until the command has created a file. Its signal handler is installed by then.
    pub(crate) fn until_more_than(&self, before: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.entries().len() <= before {
            assert!(Instant::now() < deadline, "it does nothing");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn entries(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits for the first line of `--status-interval`, after which records are measured.
pub(crate) fn until_it_measures(child: &mut Child) {
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("records/s") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "the run ended before it measured");
    }
    // Drains the pipe, so that the command can write the rest.
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
}

/// Small segments and a small disk, so that retention works even in a short run.
pub(crate) const SMALL: &str = "--segment-size 1m --max-disk 12m";
