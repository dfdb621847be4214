//! One measurement, in a process of its own.
//!
//! 1. Threads, memory and process settings of a peer end with its process. A peer that panics or
//!    hangs costs one cell.
//! 2. The job comes in an argument, and the result goes to a file: peers may print anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::peer::{Entry, Result, find};
use crate::peers::walrus::DIRECTORY_VARIABLE;
use crate::workload::{self, Figures, Task, Times};

/// The hidden option that makes this program the child.
pub const OPTION: &str = "--cell";

/// Time for open, recovery and close, beside the requested times.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time for a killed child to complete the writes in flight.
const LAST_WRITES: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);
/// Characters of a failed child's output that are reported, from its end.
const LAST_WORDS: usize = 300;

/// The job of the child.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    peer: String,
    dir: PathBuf,
    result: PathBuf,
    task: Task,
    times: Times,
}

/// The child's side: does the job and writes its result, or its error.
pub fn serve(job: &str) -> Result<()> {
    let job: Job = serde_json::from_str(job)?;
    let entry = find(&job.peer).ok_or("no such peer")?;
    let result = workload::run(entry, &job.dir, job.task, job.times);
    let result = result.map_err(|e| e.to_string());
    fs::write(&job.result, serde_json::to_vec(&result)?)?;
    Ok(())
}

/// The parent's side: runs a task of a peer in `dir`.
pub fn run(entry: &Entry, dir: &Path, task: Task, times: Times) -> Result<Figures> {
    // Beside the directory, which belongs to the peer.
    let (result, printed) = (dir.with_extension("result"), dir.with_extension("stderr"));
    let job = Job { peer: entry.name.into(), dir: dir.into(), result: result.clone(), task, times };
    let mut child = Command::new(std::env::current_exe()?)
        .arg(OPTION)
        .arg(serde_json::to_string(&job)?)
        .env(DIRECTORY_VARIABLE, dir)
        // Without it, walrus prints a line for every record.
        .env("WALRUS_QUIET", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&printed)?)
        .spawn()?;
    let Some(status) = wait(&mut child, times.warm_up + times.run + PATIENCE)? else {
        child.kill()?;
        wait(&mut child, LAST_WRITES)?;
        return Err("it did not come to an end and was killed".into());
    };
    if !status.success() {
        return Err(format!("{status}: {}", last_words(&printed)).into());
    }
    let figures: std::result::Result<Figures, String> =
        serde_json::from_slice(&fs::read(&result)?)?;
    Ok(figures?)
}

fn wait(child: &mut Child, time: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + time;
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() > deadline {
            return Ok(status);
        }
        std::thread::sleep(POLL);
    }
}

fn last_words(printed: &Path) -> String {
    let text = fs::read(printed).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    let skipped = text.chars().count().saturating_sub(LAST_WORDS);
    text.chars().skip(skipped).collect()
}
