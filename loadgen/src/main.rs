//! Drives a ringwal log and says how fast it is on this disk. See `--help`.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Parser;
use loadgen::cli::{Args, BenchArgs, Command, CompareArgs, CrashArgs, DeviceArgs, SweepArgs};
use loadgen::output::{OutputFile, print};
use loadgen::run::{Report, run};
use loadgen::stop::Stop;
use loadgen::{Error, bench, compare, crash, hgrm, html, probe, report, sweep};

fn main() -> ExitCode {
    let args = Args::parse();
    match go(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = print(io::stderr(), &format!("loadgen: {e}\n"));
            ExitCode::from(e.exit_status())
        }
    }
}

fn go(args: &Args) -> Result<(), Error> {
    match &args.command {
        Some(Command::Bench(bench)) => return go_bench(bench),
        Some(Command::Sweep(sweep)) => return go_sweep(sweep),
        Some(Command::Device(device)) => return go_device(device),
        Some(Command::Compare(compare)) => return go_compare(compare),
        Some(Command::Crash(crash)) => return go_crash(crash),
        Some(Command::Witness(witness)) => {
            let ready = |address| {
                let _ = print(io::stdout(), &format!("listening on {address}\n"));
            };
            return crash::serve(&witness.listen, &witness.acks, ready);
        }
        Some(Command::CrashWriter(writer)) => {
            return crash::write(&writer.log, writer.threads, writer.size, None);
        }
        None => {}
    }
    args.check()?;
    let json = args.json.as_ref().filter(|_| !args.json_on_stdout());
    let json_file = open("--json", json)?;
    let hgrm_file = open("--hgrm", args.hgrm.as_ref())?;
    let html_file = open("--html", args.html.as_ref())?;
    let hlog_file = open("--hlog", args.hlog.as_ref())?;
    let stop = Arc::new(Stop::default());
    listen(&stop)?;
    let begun = SystemTime::now();
    let report = run(args, &stop)?;
    publish(args, &report, json_file, hgrm_file)?;
    if let Some(file) = html_file {
        file.write(&html::run(&report))?;
    }
    if let Some(file) = hlog_file {
        let lasted = Duration::from_secs_f64(report.outcome.seconds);
        let log = hgrm::log(&report.outcome.latencies, begun, lasted);
        let failed =
            |e| Error::System { what: "encode the histogram", source: io::Error::other(e) };
        file.write(&log.map_err(failed)?)?;
    }
    match report.verified {
        Some(Err(what)) => Err(Error::Verify(what)),
        _ => Ok(()),
    }
}

fn open(
    option: &'static str,
    path: Option<&std::path::PathBuf>,
) -> Result<Option<OutputFile>, Error> {
    path.map(|path| OutputFile::open(option, path)).transpose()
}

fn go_bench(args: &BenchArgs) -> Result<(), Error> {
    args.check()?;
    let json = args.json.as_ref().filter(|_| !args.json_on_stdout());
    let json_file = open("--json", json)?;
    let markdown_file = open("--markdown", args.markdown.as_ref())?;
    let stop = Arc::new(Stop::default());
    listen(&stop)?;
    let suite = bench::run(args, &stop)?;
    let json = format!("{:#}\n", bench::json(&suite));
    if let Some(file) = json_file {
        file.write(&json)?;
    }
    if let Some(file) = markdown_file {
        file.write(&bench::markdown(&suite))?;
    }
    if args.json_on_stdout() {
        print(io::stdout(), &json)?;
    }
    match (args.quiet, args.json_on_stdout()) {
        (true, _) => Ok(()),
        (false, true) => print(io::stderr(), &bench::table(&suite)),
        (false, false) => print(io::stdout(), &bench::table(&suite)),
    }
}

fn go_sweep(args: &SweepArgs) -> Result<(), Error> {
    args.check()?;
    let on_stdout = args.json.as_ref().is_some_and(|path| path.as_os_str() == "-");
    let json_file = open("--json", args.json.as_ref().filter(|_| !on_stdout))?;
    let html_file = open("--html", args.html.as_ref())?;
    let stop = Arc::new(Stop::default());
    listen(&stop)?;
    let sweep = sweep::run(args, &stop)?;
    let json = format!("{:#}\n", sweep.json());
    if let Some(file) = json_file {
        file.write(&json)?;
    }
    if let Some(file) = html_file {
        file.write(&html::sweep(&sweep))?;
    }
    if on_stdout {
        print(io::stdout(), &json)?;
    }
    match (args.quiet, on_stdout) {
        (true, _) => Ok(()),
        (false, true) => print(io::stderr(), &sweep.table()),
        (false, false) => print(io::stdout(), &sweep.table()),
    }
}

fn go_device(args: &DeviceArgs) -> Result<(), Error> {
    let on_stdout = args.json.as_ref().is_some_and(|path| path.as_os_str() == "-");
    let json_file = open("--json", args.json.as_ref().filter(|_| !on_stdout))?;
    let stop = Arc::new(Stop::default());
    listen(&stop)?;
    let probe = probe::probe(args, &stop)?;
    let json = format!("{:#}\n", probe.json());
    if let Some(file) = json_file {
        file.write(&json)?;
    }
    if on_stdout {
        print(io::stdout(), &json)?;
    }
    match (args.quiet, on_stdout) {
        (true, _) => Ok(()),
        (false, true) => print(io::stderr(), &probe.table()),
        (false, false) => print(io::stdout(), &probe.table()),
    }
}

fn go_compare(args: &CompareArgs) -> Result<(), Error> {
    if !(0.0..=100.0).contains(&args.tolerance) {
        return Err(Error::Usage("--tolerance is a percentage, from 0 to 100".into()));
    }
    let comparison = compare::compare(&args.first, &args.second, args.tolerance / 100.0)?;
    let text = if args.json { format!("{:#}\n", comparison.json()) } else { comparison.table() };
    print(io::stdout(), &text)?;
    match comparison.worse() {
        0 => Ok(()),
        n => Err(Error::Worse(n)),
    }
}

fn go_crash(args: &CrashArgs) -> Result<(), Error> {
    args.check()?;
    if let (Some(witness), Some(dir)) = (&args.witness, &args.dir) {
        let log = dir.join("log");
        if !args.check {
            return crash::write(&log, args.threads, args.size, Some(witness));
        }
        let acks = crash::ask(witness)?;
        let found = crash::check(&log, &acks)?;
        let text = format!(
            "all {} acknowledged records are there, of {} in the log, from {} lives\n",
            acks.count(),
            found.records,
            found.lives
        );
        return print(io::stdout(), &text);
    }
    let stop = Arc::new(Stop::default());
    listen(&stop)?;
    let outcome = crash::rounds(args, &stop)?;
    match (args.quiet, args.json) {
        (_, true) => print(io::stdout(), &format!("{:#}\n", outcome.json())),
        (true, _) => Ok(()),
        (false, false) => print(io::stdout(), &outcome.table()),
    }
}

/// SIGINT, SIGTERM and SIGHUP end the run with its table; a second one ends the process.
fn listen(stop: &Arc<Stop>) -> Result<(), Error> {
    const INTERRUPTED: i32 = 130;
    let stop = Arc::clone(stop);
    let handled = ctrlc::set_handler(move || {
        if stop.signal() {
            #[allow(clippy::exit, reason = "the user has asked twice")]
            std::process::exit(INTERRUPTED);
        }
    });
    handled.map_err(|e| Error::System { what: "listen for signals", source: io::Error::other(e) })
}

fn publish(
    args: &Args,
    report: &Report,
    json_file: Option<OutputFile>,
    hgrm_file: Option<OutputFile>,
) -> Result<(), Error> {
    let json = format!("{:#}\n", report::json(report));
    if let Some(file) = json_file {
        file.write(&json)?;
    }
    if let Some(file) = hgrm_file {
        file.write(&hgrm::render(&report.outcome.latencies))?;
    }
    if args.json_on_stdout() {
        print(io::stdout(), &json)?;
    }
    match (args.quiet, args.json_on_stdout()) {
        (true, _) => Ok(()),
        (false, true) => print(io::stderr(), &report::table(report)),
        (false, false) => print(io::stdout(), &report::table(report)),
    }
}
