//! Drives a ringwal log and reports how fast the log is on this disk. See `--help`.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use loadgen::Error;
use loadgen::cli::{
    AbArgs, Args, BenchArgs, Command, CompareArgs, CrashArgs, DeviceArgs, SweepArgs, WitnessArgs,
    explain, generate,
};
use loadgen::commands::run::run;
use loadgen::commands::{ab, bench, compare, crash, probe, sweep};
use loadgen::output::progress::{Part, Progress};
use loadgen::output::{Kind, Outputs, print};
use loadgen::report::{self, hgrm, html};
use loadgen::stop::Stop;
use loadgen::units::grouped;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let done = match Args::try_parse_from(&words) {
        Ok(args) => go(&args),
        // Help that was asked for is output like any other.
        // The empty text flushes what clap has written.
        Err(e) if !e.use_stderr() => match e.print() {
            Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
                Err(Error::System { what: "write the result", source })
            }
            _ => print(io::stdout(), ""),
        },
        Err(e) => explain(e, &words).exit(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = print(io::stderr(), &format!("loadgen: {e}\n"));
            ExitCode::from(e.exit_status())
        }
    }
}

fn go(args: &Args) -> Result<(), Error> {
    let stop = Arc::new(Stop::default());
    match &args.command {
        None => go_run(args, &stop),
        Some(Command::Bench(bench)) => go_bench(bench, &stop),
        Some(Command::Sweep(sweep)) => go_sweep(sweep, &stop),
        Some(Command::Device(device)) => go_device(device, &stop),
        Some(Command::Compare(compare)) => go_compare(compare),
        Some(Command::Ab(ab)) => go_ab(ab, &stop),
        Some(Command::Crash(crash)) => go_crash(crash, &stop),
        Some(Command::Witness(witness)) => go_witness(witness),
        Some(Command::Completions { shell }) => print(io::stdout(), &generate::completions(*shell)),
        Some(Command::Man { dir: None }) => print(io::stdout(), &generate::page()?),
        Some(Command::Man { dir: Some(dir) }) => generate::pages(dir),
        Some(Command::CrashWriter(writer)) => crash::write(
            &writer.log,
            writer.threads,
            writer.size as usize,
            None,
            &AtomicU64::new(0),
        ),
    }
}

fn go_run(args: &Args, stop: &Arc<Stop>) -> Result<(), Error> {
    args.check()?;
    listen(stop)?;
    let mut files = Outputs::new(stop, args.force);
    files.reads("--input", args.input.as_deref());
    files.reads("--sample", args.sample.as_deref());
    files.reads("--replay", args.replay.as_deref());
    let json = files.open_json(args.json.as_ref())?;
    let hgrm_file = files.open("--hgrm", Kind::Hgrm, args.hgrm.as_ref())?;
    let html_file = files.open("--html", Kind::Html, args.html.as_ref())?;
    let hlog_file = files.open("--hlog", Kind::Hlog, args.hlog.as_ref())?;
    let report = run(args, stop)?;
    let table = report::table(&report);
    files.show(args.quiet, json, &table, &format!("{:#}\n", report::json(&report)));
    files.write(hgrm_file, || Ok(hgrm::render(&report.outcome.latencies)));
    files.write(html_file, || Ok(html::run(&report)));
    files.write(hlog_file, || {
        hgrm::log(report.series.intervals(), report.begun).map_err(|e| Error::System {
            what: "encode the histogram",
            source: io::Error::other(e),
        })
    });
    files.result()?;
    report.verdict()
}

fn go_bench(args: &BenchArgs, stop: &Arc<Stop>) -> Result<(), Error> {
    args.check()?;
    listen(stop)?;
    let mut files = Outputs::new(stop, args.force);
    let json = files.open_json(args.json.as_ref())?;
    let markdown = files.open("--markdown", Kind::Markdown, args.markdown.as_ref())?;
    let html_file = files.open("--html", Kind::Html, args.html.as_ref())?;
    let suite = bench::run(args, stop)?;
    files.show(args.quiet, json, &bench::table(&suite), &format!("{:#}\n", bench::json(&suite)));
    files.write(markdown, || Ok(bench::markdown(&suite)));
    files.write(html_file, || Ok(html::bench(&suite)));
    files.result()?;
    suite.verdict()
}

fn go_sweep(args: &SweepArgs, stop: &Arc<Stop>) -> Result<(), Error> {
    args.check()?;
    listen(stop)?;
    let mut files = Outputs::new(stop, args.force);
    files.reads("--sample", args.sample.as_deref());
    let json = files.open_json(args.json.as_ref())?;
    let html_file = files.open("--html", Kind::Html, args.html.as_ref())?;
    let sweep = sweep::run(args, stop)?;
    files.show(args.quiet, json, &sweep.table(), &format!("{:#}\n", sweep.json()));
    files.write(html_file, || Ok(html::sweep(&sweep)));
    files.result()?;
    sweep.verdict()
}

fn go_device(args: &DeviceArgs, stop: &Arc<Stop>) -> Result<(), Error> {
    listen(stop)?;
    let mut files = Outputs::new(stop, args.force);
    let json = files.open_json(args.json.as_ref())?;
    let html_file = files.open("--html", Kind::Html, args.html.as_ref())?;
    let probe = probe::probe(args, stop)?;
    files.show(args.quiet, json, &probe.table(), &format!("{:#}\n", probe.json()));
    files.write(html_file, || Ok(html::device(&probe)));
    files.result()?;
    probe.verdict()
}

fn go_compare(args: &CompareArgs) -> Result<(), Error> {
    let comparison = compare::compare(&args.first, &args.second, args.tolerance / 100.0)?;
    let text = if args.json { format!("{:#}\n", comparison.json()) } else { comparison.table() };
    print(io::stdout(), &text)?;
    comparison.verdict(args.common)
}

fn go_ab(args: &AbArgs, stop: &Arc<Stop>) -> Result<(), Error> {
    listen(stop)?;
    let mut files = Outputs::new(stop, args.force);
    let json = files.open_json(args.json.as_ref())?;
    let outcome = ab::run(args, stop)?;
    files.show(args.quiet, json, &outcome.table(), &format!("{:#}\n", outcome.json()));
    files.result()?;
    outcome.verdict()
}

fn go_crash(args: &CrashArgs, stop: &Arc<Stop>) -> Result<(), Error> {
    args.check()?;
    if let (Some(witness), Some(dir)) = (&args.witness, &args.dir) {
        if args.check {
            let found = crash::ask_and_check(witness, dir)?;
            let text = if args.json { format!("{:#}\n", found.json()) } else { found.table() };
            return print(io::stdout(), &text);
        }
        return pull_the_plug(args, witness, dir);
    }
    listen(stop)?;
    let outcome = crash::rounds(args, stop)?;
    match (args.quiet, args.json) {
        (_, true) => print(io::stdout(), &format!("{:#}\n", outcome.json()))?,
        (true, _) => {}
        (false, false) => print(io::stdout(), &outcome.table())?,
    }
    outcome.verdict()
}

/// Writes until the power fails. A signal also ends it.
fn pull_the_plug(args: &CrashArgs, witness: &str, dir: &std::path::Path) -> Result<(), Error> {
    let (told, over) = (AtomicU64::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let (shown, ended, quiet) = (&told, &over, args.quiet);
        scope.spawn(move || show_count(quiet, shown, ended));
        let wrote =
            crash::write(&dir.join("log"), args.threads, args.size as usize, Some(witness), &told);
        over.store(1, Ordering::Relaxed);
        wrote
    })
}

fn show_count(quiet: bool, told: &AtomicU64, over: &AtomicU32) {
    let mut progress = Progress::new(quiet);
    let mut said = quiet;
    while over.load(Ordering::Relaxed) == 0 {
        if !said && told.load(Ordering::Relaxed) > 0 {
            said = true;
            let text = "writing until the power goes: pull the plug when you like, then start this with --check\n";
            let _ = print(io::stderr(), text);
        }
        let text = format!("{} records acknowledged", grouped(told.load(Ordering::Relaxed)));
        progress.step(&text, Part::Unknown);
        std::thread::sleep(Duration::from_millis(250));
    }
}

fn go_witness(args: &WitnessArgs) -> Result<(), Error> {
    let ready = |address| {
        let _ = print(io::stdout(), &format!("listening on {address}\n"));
    };
    let progress = std::sync::Mutex::new(Progress::new(false));
    let heard = move |count| {
        if let Ok(mut progress) = progress.lock() {
            let text = format!("{} acknowledgements are kept", grouped(count));
            progress.step(&text, Part::Unknown);
        }
    };
    crash::serve(&args.listen, &args.acks, ready, heard)
}

/// SIGINT, SIGTERM and SIGHUP end the run with its table. A second signal ends the process.
fn listen(stop: &Arc<Stop>) -> Result<(), Error> {
    const INTERRUPTED: i32 = 130;
    let stop = Arc::clone(stop);
    let handled = ctrlc::set_handler(move || {
        if let Some(_ending) = stop.signal() {
            #[allow(clippy::exit, reason = "the user has asked twice")]
            std::process::exit(INTERRUPTED);
        }
    });
    handled.map_err(|e| Error::System { what: "listen for signals", source: io::Error::other(e) })
}
