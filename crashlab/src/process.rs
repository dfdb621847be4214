//! The workload's process, seen from the lab.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::workload::Ack;

#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    pub(crate) acks: Vec<Ack>,
    pub(crate) failed: bool,
    pub(crate) done: bool,
}

impl Process {
    /// Starts the workload of a seed on a mount, with threads numbered from `first_thread`.
    /// `binary` is the lab's own; `options` are those of its subcommand `workload`.
    ///
    /// # Errors
    ///
    /// The process cannot be started.
    pub(crate) fn start(
        binary: &Path,
        options: &[&str],
        mount: &Path,
        seed: u64,
        sequence: &Path,
        first_thread: u32,
    ) -> Result<Self, String> {
        let mut child = Command::new(binary)
            .arg("workload")
            .args(options)
            .arg(mount)
            .arg(seed.to_string())
            .arg(sequence)
            .arg(first_thread.to_string())
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| format!("{}: {e}", binary.display()))?;
        let out = child.stdout.take().ok_or("no pipe")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Process { child, lines, acks: Vec::new(), failed: false, done: false })
    }

    fn take(&mut self, line: &str) {
        if let Some(ack) = Ack::parse(line) {
            self.acks.push(ack);
        } else if line.starts_with("failed") {
            self.failed = true;
        } else if line == "done" {
            self.done = true;
        }
    }

    /// Reads the process's reports for `time`.
    pub(crate) fn listen(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.take(&line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    ///
    /// The process hangs, or ended with an error.
    pub(crate) fn finish(&mut self, limit: Duration) -> Result<(), String> {
        let until = Instant::now() + limit;
        let status = loop {
            self.listen(Duration::from_millis(1));
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < until => {}
                Ok(None) => {
                    let _ = self.child.kill();
                    return Err(format!("the workload hangs for {limit:?}"));
                }
                Err(e) => return Err(e.to_string()),
            }
        };
        while let Ok(line) = self.lines.recv() {
            self.take(&line);
        }
        if status.success() { Ok(()) } else { Err(format!("the workload ended with {status}")) }
    }

    /// Kills the process without a wait for its end, which I/O in flight may delay.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Reads the last reports of the process, after its end.
    pub(crate) fn bury(&mut self) {
        let _ = self.child.wait();
        while let Ok(line) = self.lines.recv() {
            self.take(&line);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
