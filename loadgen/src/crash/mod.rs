//! `loadgen crash`: whether what was acknowledged is there after the writer, or the machine, has died.
//!
//! 1. Acknowledgements are kept where the crash does not reach: by the process that kills the writer, or by a witness on another
//!    machine, for pulling a real plug.
//! 2. A record says which life of the writer, which thread and which number it is, and is filled from that: so the
//!    log is checked for gaps, order and content without anything but the acknowledgements.
//! 3. An acknowledgement is sent when the record is durable, never before. What was durable and not yet acknowledged
//!    may be there.

mod check;
mod record;
mod witness;
mod writer;

use std::io::{self, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use check::{Found, check};
pub use witness::{ask, serve};
pub use writer::write;

use crate::cli::CrashArgs;
use crate::directory::RunDir;
use crate::error::Error;
use crate::payload::SplitMix;
use crate::progress::Progress;
use crate::stop::Stop;
use crate::units::grouped;
use record::Acks;

/// What the rounds came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// Writers that were killed.
    pub rounds: u64,
    /// Acknowledgements, of all lives.
    pub acknowledged: u64,
    /// Records found in the end.
    pub found: u64,
    /// Found though they were not acknowledged.
    pub unacknowledged: u64,
    /// Kills before the writer had acknowledged anything: in opening and recovery.
    pub in_opening: u64,
    /// The longest that opening took, in nanoseconds.
    pub longest_open: u64,
}

/// Kills writers at random moments, and looks after each whether what it had acknowledged is there.
///
/// # Errors
///
/// [`Error::Verify`] if it is not; any other.
pub fn rounds(args: &CrashArgs, stop: &Arc<Stop>) -> Result<Outcome, Error> {
    let dir = match &args.dir {
        Some(path) => RunDir::given(path, args.keep, stop)?,
        None => RunDir::fresh(args.keep, stop)?,
    };
    let log = dir.path().join("log");
    let mut progress = Progress::new(args.quiet);
    let (mut acks, mut outcome) = (Acks::default(), Outcome::default());
    let mut random = SplitMix(u64::from(std::process::id()) ^ 0x6372_6173_6800);
    while outcome.rounds < args.rounds && !stop.was_signalled() {
        // Half of them soon: opening and recovery are killed too.
        let longest = if random.next().is_multiple_of(2) { 30_000 } else { 400_000 };
        let life = Duration::from_micros(random.next() % longest);
        progress.step(&format!(
            "round {} of {}: {} acknowledged so far",
            outcome.rounds + 1,
            args.rounds,
            grouped(acks.count())
        ));
        let before = acks.count();
        one_life(&log, args, life, &mut acks)?;
        outcome.in_opening += u64::from(acks.count() == before);
        let begun = Instant::now();
        let found = check(&log, &acks)?;
        outcome.longest_open = outcome.longest_open.max(begun.elapsed().as_nanos() as u64);
        outcome.rounds += 1;
        outcome.found = found.records;
        outcome.unacknowledged = found.records.saturating_sub(acks.count());
        outcome.acknowledged = acks.count();
    }
    progress.clear();
    Ok(outcome)
}

/// One writer, killed after so long. What it had said by then counts.
fn one_life(log: &Path, args: &CrashArgs, life: Duration, acks: &mut Acks) -> Result<(), Error> {
    let failed = |what| move |source| Error::System { what, source };
    let program = std::env::current_exe().map_err(failed("find this program"))?;
    let mut child = Command::new(program)
        .arg("crash-writer")
        .arg(log)
        .args(["--threads", &args.threads.to_string(), "--size", &args.size.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed("start a writer"))?;
    let Some(output) = child.stdout.take() else { return Ok(()) };
    let reader = std::thread::spawn(move || {
        let (mut input, mut found) = (BufReader::new(output), Acks::default());
        while let Ok(Some(ack)) = record::read_ack(&mut input) {
            found.add(ack);
        }
        found
    });
    let until = Instant::now() + life;
    while Instant::now() < until {
        // One that ends by itself has failed.
        if let Ok(Some(status)) = child.try_wait() {
            let mut why = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                let _ = io::Read::read_to_string(&mut stderr, &mut why);
            }
            return Err(Error::Verify(format!(
                "a writer ended by itself, {status}: {}",
                why.trim()
            )));
        }
        std::thread::sleep((until - Instant::now()).min(Duration::from_millis(5)));
    }
    child.kill().map_err(failed("kill the writer"))?;
    child.wait().map_err(failed("wait for the writer"))?;
    let told =
        reader.join().map_err(|_| Error::Verify("the reader of a writer panicked".into()))?;
    acks.merge(&told);
    Ok(())
}

impl Outcome {
    /// For people, ended by a newline.
    #[must_use]
    pub fn table(&self) -> String {
        format!(
            "ringwal loadgen crash: every acknowledged record was there, after each kill\n\n  \
             writers killed  {}, {} of them while opening\n  \
             acknowledged    {} records\n  \
             found           {}: in order, without gaps, whole; {} of them not acknowledged in time\n  \
             opening         {} at most, and reading everything\n",
            grouped(self.rounds),
            grouped(self.in_opening),
            grouped(self.acknowledged),
            grouped(self.found),
            grouped(self.unacknowledged),
            crate::units::nanos(self.longest_open),
        )
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "rounds": self.rounds,
            "killed_in_opening": self.in_opening,
            "acknowledged": self.acknowledged,
            "found": self.found,
            "unacknowledged": self.unacknowledged,
            "longest_open_ns": self.longest_open,
            "lost": 0,
        })
    }
}
