//! `loadgen crash`: checks that acknowledged records survive the death of the writer or of the
//! machine.
//!
//! 1. Acknowledgements are stored beyond the reach of the crash: by the process that kills the
//!    writer, or by a witness on another machine that stays on.
//! 2. A record names its life of the writer, thread and number, and its filler derives from them.
//!    So gaps, order and content can be checked with the acknowledgements alone.
//! 3. A writer acknowledges a record after it is durable, never before. A record may be durable
//!    without an acknowledgement.

mod check;
mod record;
mod witness;
mod writer;

use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use check::{Found, check};
pub use witness::serve;
pub use writer::write;

use crate::cli::CrashArgs;
use crate::error::Error;
use crate::log_dir::RunDir;
use crate::measure::environment::Environment;
use crate::output::progress::{Part, Progress};
use crate::random::SplitMix;
use crate::stop::Stop;
use crate::units::grouped;
use record::Acks;

/// The moment to kill a writer.
#[derive(Debug, Clone, Copy)]
struct Life {
    /// Counts from the first acknowledgement, not from the start.
    after_first: bool,
    time: Duration,
}

/// Time to wait for a first acknowledgement.
const FIRST: Duration = Duration::from_secs(60);
/// Time to wait for the lock of a killed writer.
const LOCKED: Duration = Duration::from_secs(120);

/// The result of the rounds.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Killed writers.
    pub rounds: u64,
    /// Acknowledgements over all lives.
    pub acknowledged: u64,
    /// Records found at the end.
    pub found: u64,
    /// Records found without an acknowledgement.
    pub unacknowledged: u64,
    /// Kills before the first acknowledgement: during open and recovery.
    pub in_opening: u64,
    /// Longest time of an open in nanoseconds.
    pub longest_open: u64,
    /// Directory of the log, if it is kept.
    pub log: Option<PathBuf>,
    /// Requested rounds.
    pub asked: u64,
    /// The reason for an early end.
    pub ended_by: Option<&'static str>,
    /// The conditions of the measurement.
    pub environment: Option<Environment>,
}

/// Kills writers at random moments, and checks after each kill that every acknowledged record is in
/// the log.
///
/// # Errors
///
/// [`Error::Verify`] if a record is missing; those of the directory and the log.
pub fn rounds(args: &CrashArgs, stop: &Arc<Stop>) -> Result<Outcome, Error> {
    let mut dir = RunDir::own(args.dir.as_deref(), args.keep, stop)?;
    let log = dir.path().join("log");
    let mut progress = Progress::new(args.quiet);
    let (mut acks, mut outcome) = (Acks::default(), Outcome::default());
    outcome.asked = args.rounds;
    outcome.environment = Some(Environment::of(dir.path()));
    let mut random = SplitMix(u64::from(std::process::id()) ^ 0x6372_6173_6800);
    while outcome.rounds < args.rounds && !stop.was_signalled() {
        // Half of the kills are early, to hit open and recovery. The other writers have
        // acknowledged records, the first one included: otherwise no record could be missing.
        let soon = outcome.rounds > 0 && random.next().is_multiple_of(2);
        let longest = if soon { 30_000 } else { 400_000 };
        let life =
            Life { after_first: !soon, time: Duration::from_micros(random.next() % longest) };
        progress.step(
            &format!(
                "round {} of {}: {} acknowledged so far",
                outcome.rounds + 1,
                args.rounds,
                grouped(acks.count())
            ),
            Part::Share(outcome.rounds as f64 / args.rounds as f64),
        );
        let round = one_round(&log, args, life, stop, &mut acks, &mut outcome);
        if let Err(e) = round {
            let (kills, place) = (outcome.rounds + 1, log.display());
            let what = match e {
                Error::Verify(what) => what,
                Error::Log(e) => format!("the log cannot be opened again: {e}"),
                other => return Err(other),
            };
            // The log is the evidence, so it stays.
            dir.leave();
            let text = format!("{what}; after {kills} kills; the log stays in {place}");
            return Err(Error::Verify(text));
        }
    }
    progress.clear();
    outcome.ended_by = stop.was_signalled().then_some("a signal");
    outcome.log = dir.stays().then_some(log);
    Ok(outcome)
}

fn one_round(
    log: &Path,
    args: &CrashArgs,
    life: Life,
    stop: &Stop,
    acks: &mut Acks,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let before = acks.count();
    one_life(log, args, life, stop, acks)?;
    outcome.in_opening += u64::from(acks.count() == before);
    let begun = Instant::now();
    let found = loop {
        match check(log, acks) {
            // The kernel completes the killed writer's I/O before it releases the lock.
            Err(Error::Log(ringwal::Error::Locked { .. })) if begun.elapsed() < LOCKED => {}
            checked => break checked?,
        }
    };
    outcome.longest_open = outcome.longest_open.max(begun.elapsed().as_nanos() as u64);
    outcome.rounds += 1;
    outcome.found = found.records;
    outcome.unacknowledged = found.records.saturating_sub(acks.count());
    outcome.acknowledged = acks.count();
    Ok(())
}

/// The result after a power failure.
#[derive(Debug, Clone, Copy)]
pub struct Survived {
    /// Acknowledgements that the witness stored.
    pub acknowledged: u64,
    /// The content of the log.
    pub found: Found,
}

/// Checks that every acknowledgement of the witness is in the log of `dir`.
///
/// # Errors
///
/// [`Error::Verify`] if a record is missing, or the witness has no acknowledgement.
/// [`Error::Directory`] if the directory does not exist.
pub fn ask_and_check(witness: &str, dir: &Path) -> Result<Survived, Error> {
    if !dir.is_dir() {
        return Err(Error::directory(dir, "it is not there; give the --dir that was written to"));
    }
    let acks = witness::ask(witness)?;
    if acks.count() == 0 {
        let text = "the witness has heard of no record, so that nothing was checked; was it started with the same --acks?";
        return Err(Error::Verify(text.into()));
    }
    let found = check(&dir.join("log"), &acks).map_err(|e| match e {
        Error::Verify(what) => Error::Verify(format!(
            "{what}; if the directory was emptied since, start the witness with other --acks"
        )),
        other => other,
    })?;
    Ok(Survived { acknowledged: acks.count(), found })
}

impl Survived {
    /// Returns the table with a final newline.
    #[must_use]
    pub fn table(&self) -> String {
        format!(
            "all {} acknowledged records are there, of {} in the log, from {} lives\n",
            grouped(self.acknowledged),
            grouped(self.found.records),
            grouped(self.found.lives)
        )
    }

    /// Returns the JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "schema": "ringwal-loadgen/crash-check/1",
            "environment": Environment::of(Path::new(".")).json(),
            "acknowledged": self.acknowledged,
            "found": self.found.records,
            "lives": self.found.lives,
            "lost": 0,
        })
    }
}

/// Runs one writer and kills it after a delay. Its acknowledgements until then count.
fn one_life(
    log: &Path,
    args: &CrashArgs,
    life: Life,
    stop: &Stop,
    acks: &mut Acks,
) -> Result<(), Error> {
    let failed = |what| move |source| Error::System { what, source };
    let program = std::env::current_exe().map_err(failed("find this program"))?;
    let mut command = Command::new(program);
    // A writer in the same group would receive Ctrl-C too, end by itself, and count as a failure.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command
        .arg("crash-writer")
        .args(["--threads", &args.threads.to_string(), "--size", &args.size.to_string(), "--"])
        .arg(log)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed("start a writer"))?;
    stop.doom_child(Some(child.id()));
    let ended = until_killed(&mut child, life, stop, acks);
    stop.doom_child(None);
    ended
}

fn until_killed(child: &mut Child, life: Life, stop: &Stop, acks: &mut Acks) -> Result<(), Error> {
    let failed = |what| move |source| Error::System { what, source };
    let Some(output) = child.stdout.take() else { return Ok(()) };
    let heard = Arc::new(AtomicBool::new(false));
    let first = Arc::clone(&heard);
    let reader = std::thread::spawn(move || {
        let (mut input, mut found) = (BufReader::new(output), Acks::default());
        while let Ok(Some(ack)) = record::read_ack(&mut input) {
            first.store(true, Ordering::Relaxed);
            found.add(ack);
        }
        found
    });
    let mut until = Instant::now() + if life.after_first { FIRST } else { life.time };
    let mut waiting = life.after_first;
    while Instant::now() < until && !stop.was_signalled() {
        if waiting && heard.load(Ordering::Relaxed) {
            waiting = false;
            until = Instant::now() + life.time;
        }
        // A writer that ends by itself has failed.
        if let Ok(Some(status)) = child.try_wait() {
            if was_killed(status) {
                break;
            }
            let mut why = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                let _ = io::Read::read_to_string(&mut stderr, &mut why);
            }
            return Err(Error::Verify(format!(
                "a writer ended by itself, {status}: {}",
                why.trim()
            )));
        }
        let left = until.saturating_duration_since(Instant::now());
        std::thread::sleep(left.min(Duration::from_millis(5)));
    }
    child.kill().map_err(failed("kill the writer"))?;
    child.wait().map_err(failed("wait for the writer"))?;
    let told =
        reader.join().map_err(|_| Error::Verify("the reader of a writer panicked".into()))?;
    acks.merge(&told);
    Ok(())
}

/// A signal from outside is as good a kill: one to a whole group may reach a writer that has not
/// left it yet.
fn was_killed(status: ExitStatus) -> bool {
    #[cfg(unix)]
    {
        use nix::libc::{SIGHUP, SIGINT, SIGKILL, SIGTERM};
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        signal.is_some_and(|signal| [SIGHUP, SIGINT, SIGKILL, SIGTERM].contains(&signal))
    }
    #[cfg(not(unix))]
    {
        let _ = status;
        false
    }
}

impl Outcome {
    /// Returns the table with a final newline.
    #[must_use]
    pub fn table(&self) -> String {
        let log = match &self.log {
            Some(log) => format!("  log             {} (stays)\n", log.display()),
            None => String::new(),
        };
        // Without acknowledgements, no record could be missing.
        let of = format!("{} of {} rounds", grouped(self.rounds), grouped(self.asked));
        let verdict = match (self.ended_by, self.acknowledged) {
            (Some(why), _) => format!("interrupted by {why} after {of}, which concludes nothing"),
            (None, 0) => {
                "nothing was acknowledged, so that nothing is shown; give more --rounds".into()
            }
            (None, _) => "every acknowledged record was there, after each kill".to_owned(),
        };
        format!(
            "ringwal loadgen crash: {verdict}\n\n  \
             writers killed  {}, {} of them while opening\n  \
             acknowledged    {} records\n  \
             found           {}: in order, without gaps, whole; {} of them not acknowledged in time\n  \
             opening         {} at most, and reading everything\n{log}",
            grouped(self.rounds),
            grouped(self.in_opening),
            grouped(self.acknowledged),
            grouped(self.found),
            grouped(self.unacknowledged),
            crate::units::nanos(self.longest_open),
        )
    }

    /// Returns the JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "schema": "ringwal-loadgen/crash/1",
            "asked_rounds": self.asked,
            "ended_by": self.ended_by,
            "environment": self.environment.as_ref().map(Environment::json),
            "rounds": self.rounds,
            "killed_in_opening": self.in_opening,
            "acknowledged": self.acknowledged,
            "found": self.found,
            "unacknowledged": self.unacknowledged,
            "longest_open_ns": self.longest_open,
            "lost": self.ended_by.is_none().then_some(0),
        })
    }

    /// Returns the result for a gate.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`]; [`Error::Nothing`] without an acknowledged record, because none
    /// could be missing.
    pub fn verdict(&self) -> Result<(), Error> {
        match (self.ended_by, self.acknowledged) {
            (Some(_), _) => {
                let text = format!("{} of {} rounds are complete", self.rounds, self.asked);
                Err(Error::Interrupted(text))
            }
            (None, 0) => Err(Error::Nothing(
                "no record was acknowledged before a kill; give more --rounds".into(),
            )),
            (None, _) => Ok(()),
        }
    }
}
