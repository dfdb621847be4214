//! Drives a ringwal log and says how fast it is on this disk. See `--help`.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use loadgen::cli::{Args, BenchArgs, Command, SweepArgs};
use loadgen::output::{OutputFile, print};
use loadgen::run::{Report, run};
use loadgen::stop::Stop;
use loadgen::{Error, bench, hgrm, html, report, sweep};

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
        None => {}
    }
    args.check()?;
    let json = args.json.as_ref().filter(|_| !args.json_on_stdout());
    let json_file = open("--json", json)?;
    let hgrm_file = open("--hgrm", args.hgrm.as_ref())?;
    let html_file = open("--html", args.html.as_ref())?;
    let stop = Arc::new(Stop::default());
    listen(&stop)?;
    let report = run(args, &stop)?;
    publish(args, &report, json_file, hgrm_file)?;
    if let Some(file) = html_file {
        file.write(&html::run(&report))?;
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
