//! One writer's life, seen from the parent: it starts the writer, reads its output and kills it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use super::writer::{Config, THREADS};

/// What a writer reported before it was killed.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// The last acknowledgement of each thread: its number and position.
    pub(crate) last: [Option<(u32, u64)>; THREADS as usize],
    pub(crate) acknowledged: u64,
    /// Whether the writer had begun to open the log.
    pub(crate) open: bool,
}

/// The event after which the kill is timed.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Opening,
    Acknowledged,
}

fn listen(stderr: impl std::io::Read, events: &Sender<Event>) -> (Life, Vec<String>) {
    let mut life = Life::default();
    let mut others = Vec::new();
    // A killed writer leaves only whole lines in the pipe.
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let parts: Vec<_> = line.split(' ').collect();
        if let ["ack", thread, n, lsn] = parts[..] {
            let thread: usize = thread.parse().unwrap();
            life.last[thread] = Some((n.parse().unwrap(), lsn.parse().unwrap()));
            life.acknowledged += 1;
            if life.acknowledged == 1 {
                let _ = events.send(Event::Acknowledged);
            }
        } else if line == "opening" {
            life.open = true;
            let _ = events.send(Event::Opening);
        } else if line != "open" {
            others.push(line);
        }
    }
    (life, others)
}

/// Starts a writer and kills it. Of ten kills, one comes some milliseconds after the start, three
/// during the open or soon after it, and six after the first acknowledgement.
pub(crate) fn live_and_die(
    dir: &Path,
    round: u32,
    config: Config,
    rng: &mut fastrand::Rng,
) -> Life {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["writer_process", "--exact", "--nocapture", "--test-threads=1"])
        .env("RINGWAL_KILL_DIR", dir)
        .env("RINGWAL_KILL_ROUND", round.to_string())
        .env("RINGWAL_KILL_CONFIG", config.number().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    let (send, events) = channel();
    let listener = std::thread::spawn(move || listen(stderr, &send));
    let (from, micros) = match rng.u32(..10) {
        0 => (None, rng.u64(..6_000)),
        1..=3 => (Some(Event::Opening), rng.u64(..5_000)),
        4..=8 => (Some(Event::Acknowledged), rng.u64(..8_000)),
        _ => (Some(Event::Acknowledged), rng.u64(..60_000)),
    };
    // A writer that ends without a kill closes the channel. The check is below.
    while let Some(from) = &from {
        match events.recv_timeout(Duration::from_secs(60)) {
            Ok(event) if event == *from => break,
            Ok(_) => {}
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            Err(e) => {
                child.kill().unwrap();
                panic!("round {round}, {config:?}: nothing was acknowledged in a minute: {e}");
            }
        }
    }
    std::thread::sleep(Duration::from_micros(micros));
    child.kill().unwrap();
    let status = child.wait().unwrap();
    let (life, others) = listener.join().unwrap();
    #[cfg(unix)]
    let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
    #[cfg(not(unix))]
    let killed = status.code() == Some(1);
    assert!(
        killed && others.is_empty(),
        "round {round}, {config:?}: the writer ended by itself, {status}: {others:?}"
    );
    life
}
