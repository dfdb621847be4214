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

/// When a writer is killed.
#[derive(Debug, Clone, Copy)]
struct Life {
    /// Counted from the first acknowledgement, and not from the start.
    after_first: bool,
    time: Duration,
}

/// How long a first acknowledgement is waited for.
const FIRST: Duration = Duration::from_secs(60);
/// How long the lock of a killed writer is waited for.
const LOCKED: Duration = Duration::from_secs(120);

/// What the rounds came to.
#[derive(Debug, Clone, Default)]
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
    /// Where the log is, if it stays.
    pub log: Option<PathBuf>,
    /// How many rounds were asked for.
    pub asked: u64,
    /// What ended the rounds early.
    pub ended_by: Option<&'static str>,
    /// Where and how.
    pub environment: Option<Environment>,
}

/// Kills writers at random moments, and looks after each whether what it had acknowledged is there.
///
/// # Errors
///
/// [`Error::Verify`] if it is not; any other.
pub fn rounds(args: &CrashArgs, stop: &Arc<Stop>) -> Result<Outcome, Error> {
    let mut dir = RunDir::own(args.dir.as_deref(), args.keep, stop)?;
    let log = dir.path().join("log");
    let mut progress = Progress::new(args.quiet);
    let (mut acks, mut outcome) = (Acks::default(), Outcome::default());
    outcome.asked = args.rounds;
    outcome.environment = Some(Environment::of(dir.path()));
    let mut random = SplitMix(u64::from(std::process::id()) ^ 0x6372_6173_6800);
    while outcome.rounds < args.rounds && !stop.was_signalled() {
        // Half of them soon: opening and recovery are killed too. The others have acknowledged something, and the first is
        // one of them: of nothing acknowledged nothing could be missing.
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
            // The log is the evidence.
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
            // The kernel ends what the killed writer has begun before it lets go of the lock.
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

/// What a pulled plug came to.
#[derive(Debug, Clone, Copy)]
pub struct Survived {
    /// Acknowledgements that the witness has kept.
    pub acknowledged: u64,
    /// What the log holds.
    pub found: Found,
}

/// Looks whether everything that the witness has heard of is in the log of `dir`.
///
/// # Errors
///
/// [`Error::Verify`] if it is not, or if the witness has heard of nothing; [`Error::Directory`] if there is no such directory.
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
    /// For people, ended by a newline.
    #[must_use]
    pub fn table(&self) -> String {
        format!(
            "all {} acknowledged records are there, of {} in the log, from {} lives\n",
            grouped(self.acknowledged),
            grouped(self.found.records),
            grouped(self.found.lives)
        )
    }

    /// For programs.
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

/// One writer, killed after so long. What it had said by then counts.
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
    // Ctrl-C on a terminal is for this process, not for the writer: that would end by itself, which is a failure.
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
        // One that ends by itself has failed.
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

/// By somebody else, which is as good: a signal to a whole group also reaches a writer that has not yet left it.
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
    /// For people, ended by a newline.
    #[must_use]
    pub fn table(&self) -> String {
        let log = match &self.log {
            Some(log) => format!("  log             {} (stays)\n", log.display()),
            None => String::new(),
        };
        // Where nothing was acknowledged nothing could be missing.
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

    /// For programs.
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

    /// What a gate is to make of it.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`]; [`Error::Nothing`] if no record was acknowledged, so that none could be missing.
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
