//! `loadgen ab A B`: two binaries, or two sets of options, in alternation.
//!
//! 1. A pair has one run of each, consecutive, with the same seed. The order alternates. A slow
//!    drift of the machine affects both runs of a pair equally, and cancels in their ratio.
//! 2. Only complete pairs count. An interrupted pair supports no conclusion.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::AbArgs;
use crate::commands::compare::{Row, lines, rows_json, undecided};
use crate::commands::equals::FalseAlarms;
use crate::commands::run::new_seed;
use crate::error::Error;
use crate::log_dir::RunDir;
use crate::measure::environment::Environment;
use crate::measure::statistics::{ENOUGH, Verdict, paired};
use crate::output::progress::{Part, Progress};
use crate::stop::Stop;

/// A compared figure: its name, its JSON pointer, and if less is better.
const FIGURES: [(&str, &str, bool); 6] = [
    ("records a second", "/records_per_s", false),
    ("p50", "/latency_us/p50", true),
    ("p99", "/latency_us/p99", true),
    ("p99.9", "/latency_us/p99_9", true),
    ("max", "/latency_us/max", true),
    ("cpu a record", "/cpu/us_per_record", true),
];

/// One of the two sides.
#[derive(Debug, Clone)]
struct Side {
    program: PathBuf,
    words: Vec<String>,
    seeded: bool,
}

/// A finished comparison.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Command lines of both sides.
    lines: [String; 2],
    /// Complete pairs, and requested pairs.
    pairs: [usize; 2],
    tolerance: f64,
    /// The rows; empty after an interruption.
    rows: Vec<Row>,
    /// The false alarms, if both sides are one command and there are pairs enough.
    false_alarms: Option<FalseAlarms>,
    ended_by: Option<&'static str>,
    environment: Environment,
}

impl Side {
    /// Parses a side: a program, options of this program, or both; then the common options.
    fn parse(text: &str, args: &AbArgs) -> Result<Side, Error> {
        let unbalanced = || Error::Usage(format!("{text:?} has a quote that is not closed"));
        let mut words = shlex::split(text).ok_or_else(unbalanced)?;
        let own = words.first().is_none_or(|word| word.starts_with('-'));
        let program = if own {
            std::env::current_exe()
                .map_err(|source| Error::System { what: "find this program", source })?
        } else {
            let program = words.remove(0);
            if !Path::new(&program).is_file() {
                let text = format!(
                    "{program:?} is no program; give the path of one, or options: loadgen ab '--depth 1' '--depth 4'"
                );
                return Err(Error::Usage(text));
            }
            std::path::absolute(&program).map_err(|e| Error::directory(Path::new(&program), e))?
        };
        words.extend(args.common.iter().cloned());
        let has = |names: &[&str]| {
            words.iter().any(|word| names.contains(&word.split('=').next().unwrap_or(word)))
        };
        let mut more = Vec::new();
        if !has(&["--duration", "--records", "--input", "--replay"]) {
            more.extend(["--duration".into(), format!("{}us", args.time.as_micros())]);
        }
        if !has(&["--warm-up", "--input"]) {
            more.extend(["--warm-up".into(), "300ms".into()]);
        }
        if !has(&["--baseline"]) {
            more.extend(["--baseline".into(), "0".into()]);
        }
        for option in ["--json", "--quiet", "--dir", "--seed"] {
            if has(&[option]) {
                let text =
                    format!("{option} is of ab itself, not of its runs; leave it away there");
                return Err(Error::Usage(text));
            }
        }
        words.extend(more);
        Ok(Side { program, words, seeded: false })
    }

    fn line(&self) -> String {
        let words = self.words.iter().map(String::as_str);
        let line = shlex::try_join(words).unwrap_or_default();
        format!("{} {line}", self.program.display())
    }

    /// An older program may not support --seed.
    fn knows_seeds(&self) -> bool {
        let output = Command::new(&self.program).arg("--help").stdin(Stdio::null()).output();
        output.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("--seed"))
    }

    /// Runs once and returns the JSON; `None` if the run was interrupted.
    fn run(&self, dir: &Path, seed: u64, stop: &Stop) -> Result<Option<Value>, Error> {
        let failed = |what| move |source| Error::System { what, source };
        let mut command = Command::new(&self.program);
        command.args(&self.words).args(["--quiet", "--json", "-", "--dir"]).arg(dir.join("log"));
        if self.seeded {
            command.args(["--seed", &seed.to_string()]);
        }
        // Ctrl-C on a terminal reaches this process, which forwards it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed("start a run"))?;
        stop.doom_child(Some(child.id()));
        let ended = self.read(&mut child, stop);
        stop.doom_child(None);
        ended
    }

    fn read(&self, child: &mut Child, stop: &Stop) -> Result<Option<Value>, Error> {
        let failed = |what| move |source| Error::System { what, source };
        let (Some(mut out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) else {
            return Ok(None);
        };
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            out.read_to_end(&mut text).map(|_| text)
        });
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = err.read_to_string(&mut text);
            text
        });
        let mut told = false;
        let status = loop {
            match child.try_wait().map_err(failed("wait for a run"))? {
                Some(status) => break status,
                None if stop.was_signalled() && !told => {
                    told = true;
                    end(child);
                }
                None => {}
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let text = reader.join().unwrap_or_else(|_| Ok(Vec::new()));
        let why = errors.join().unwrap_or_default();
        if told || stop.was_signalled() {
            return Ok(None);
        }
        let wrong = |why: String| Error::Run { which: self.line(), why };
        if !status.success() {
            return Err(wrong(format!("{status}: {}", why.trim())));
        }
        let value: Value = serde_json::from_slice(&text.map_err(failed("read a run"))?)
            .map_err(|e| wrong(format!("it wrote no JSON: {e}")))?;
        if !value["ended_by"].is_null() && value["ended_by"] != "its disk budget" {
            return Err(wrong(format!("{} ended it", value["ended_by"])));
        }
        Ok(Some(value))
    }
}

/// Sends the signal that a first Ctrl-C would.
fn end(child: &mut Child) {
    #[cfg(unix)]
    if let Ok(id) = i32::try_from(child.id()) {
        use nix::sys::signal::{Signal, kill};
        let _ = kill(nix::unistd::Pid::from_raw(id), Signal::SIGTERM);
        return;
    }
    let _ = child.kill();
}

/// Runs all pairs.
///
/// # Errors
///
/// [`Error::Usage`] for invalid arguments, [`Error::Run`] if a run fails.
pub fn run(args: &AbArgs, stop: &Arc<Stop>) -> Result<Outcome, Error> {
    args.check()?;
    let mut sides = [Side::parse(&args.first, args)?, Side::parse(&args.second, args)?];
    let dir = RunDir::own(args.dir.as_deref(), false, stop)?;
    let environment = Environment::of(dir.path());
    let seeded = sides.iter().all(Side::knows_seeds);
    sides.iter_mut().for_each(|side| side.seeded = seeded);
    let seed = args.seed.unwrap_or_else(new_seed);
    let mut progress = Progress::new(args.quiet);
    let mut pairs: Vec<[Value; 2]> = Vec::new();
    while pairs.len() < args.pairs && !stop.was_signalled() {
        let n = pairs.len();
        let mut pair = [Value::Null, Value::Null];
        for turn in 0..2 {
            // A B B A: neither side has the better position.
            let which = (turn + n) % 2;
            let what = format!("pair {} of {}: {}", n + 1, args.pairs, ["first", "second"][which]);
            progress.step(&what, Part::Share((2 * n + turn) as f64 / (2 * args.pairs) as f64));
            match sides[which].run(dir.path(), seed.wrapping_add(n as u64), stop)? {
                Some(value) => pair[which] = value,
                None => break,
            }
        }
        if stop.was_signalled() {
            break;
        }
        pairs.push(pair);
    }
    progress.clear();
    let ended_by = stop.was_signalled().then_some("a signal");
    let tolerance = args.tolerance / 100.0;
    let rows = if ended_by.is_some() { Vec::new() } else { rows(&pairs, tolerance) };
    let lines = [sides[0].line(), sides[1].line()];
    let equal = lines[0] == lines[1] && ended_by.is_none();
    let false_alarms = equal.then(|| FalseAlarms::of(&pairs, tolerance, seed)).flatten();
    Ok(Outcome {
        lines,
        pairs: [pairs.len(), args.pairs],
        tolerance,
        rows,
        false_alarms,
        ended_by,
        environment,
    })
}

/// Compares the figures of all pairs.
pub(super) fn rows(pairs: &[[Value; 2]], tolerance: f64) -> Vec<Row> {
    let found = FIGURES.iter().filter_map(|(name, at, less)| {
        let of = |value: &Value| value.pointer(at)?.as_f64().filter(|v| *v > 0.0);
        let values: Vec<[f64; 2]> =
            pairs.iter().filter_map(|[a, b]| Some([of(a)?, of(b)?])).collect();
        (!values.is_empty()).then_some((*name, *less, values))
    });
    let found: Vec<_> = found.collect();
    let count = found.len();
    let row = |(name, less, values): (&str, bool, Vec<[f64; 2]>)| {
        let differences: Vec<f64> = values.iter().map(|[a, b]| (b / a).ln()).collect();
        let ratio = paired(&differences, less, count);
        let mean = |n: usize| {
            let logs = values.iter().map(|pair| pair[n].ln());
            (logs.sum::<f64>() / values.len() as f64).exp()
        };
        let verdict = match values.len() >= ENOUGH {
            true => Verdict::of([ratio[1], ratio[2]], tolerance),
            false => Verdict::Undecided,
        };
        let figures = [mean(0), mean(1)];
        Row { name: name.into(), figures, ratio, values: [values.len(); 2], verdict }
    };
    found.into_iter().map(row).collect()
}

impl Outcome {
    fn worse(&self) -> usize {
        self.rows.iter().filter(|row| row.verdict == Verdict::Worse).count()
    }

    /// Returns the result for a gate.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`]; [`Error::Worse`]; [`Error::Usage`] if no row is decided.
    pub fn verdict(&self) -> Result<(), Error> {
        if self.ended_by.is_some() {
            let text = format!("{} of {} pairs are complete", self.pairs[0], self.pairs[1]);
            return Err(Error::Interrupted(text));
        }
        if self.worse() > 0 {
            return Err(Error::Worse { worse: self.worse(), missing: 0 });
        }
        undecided(&self.rows)
    }

    /// Returns the table with a final newline.
    #[must_use]
    pub fn table(&self) -> String {
        let [done, asked] = self.pairs;
        let mut out = format!("first   {}\nsecond  {}\n", self.lines[0], self.lines[1]);
        out += &format!("{}\n\n", self.environment.line());
        if let Some(why) = self.ended_by {
            return out + &format!("INTERRUPTED by {why} after {done} of {asked} pairs\n");
        }
        out += &format!(
            "second by first within {done} pairs, more is better, with an interval that holds for all rows together in\n\
             95 % of comparisons; the same, worse or better within or beyond {:.0} %\n\n",
            self.tolerance * 100.0
        );
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        out += &lines(&self.rows, width);
        out + &self.false_alarms.map(|found| found.lines()).unwrap_or_default()
    }

    /// Returns the JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "schema": "ringwal-loadgen/ab/1",
            "commands": self.lines,
            "pairs": self.pairs[0],
            "asked_pairs": self.pairs[1],
            "tolerance": self.tolerance,
            "worse": self.worse(),
            "ended_by": self.ended_by,
            "environment": self.environment.json(),
            "rows": rows_json(&self.rows),
            "false_alarms": self.false_alarms.map(|found| found.json()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(rate: f64, by: f64) -> [Value; 2] {
        let run = |rate: f64| json!({ "records_per_s": rate, "latency_us": { "p50": 1e6 / rate } });
        [run(rate), run(rate * by)]
    }

    #[test]
    fn pairs_are_judged_by_their_ratios_on_a_drifting_machine() {
        // The machine doubles its speed from pair to pair, and the second side is always slower by
        // a fifth.
        let pairs: Vec<_> = (0..8).map(|n| pair(1000.0 * f64::from(1 << (n % 3)), 0.8)).collect();
        let found = rows(&pairs, 0.05);
        assert_eq!(found.iter().map(|row| row.verdict).collect::<Vec<_>>(), [Verdict::Worse; 2]);
        assert!((found[0].ratio[0] - 0.8).abs() < 1e-9 && (found[1].ratio[0] - 0.8).abs() < 1e-9);
        let same: Vec<_> = (0..8).map(|n| pair(1000.0, 1.0 + f64::from(n % 2) * 0.01)).collect();
        assert!(rows(&same, 0.05).iter().all(|row| row.verdict == Verdict::Same));
        assert!(rows(&same[..3], 0.05).iter().all(|row| row.verdict == Verdict::Undecided));
    }
}
