//! `ringwal`: what an operator needs for a log. See `--help`.

mod args;
mod bar;
mod change;
mod error;
mod export;
mod generate;
mod info;
mod record;
mod repair;
mod show;
mod stop;
mod survey;

use std::io::Write;
use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser;
use error::{Error, Result};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let Err(e) = run(&cli) else { return ExitCode::SUCCESS };
    if !matches!(e, Error::Enough) {
        let mut stderr = anstream::stderr();
        let red = anstyle::AnsiColor::Red.on_default().bold();
        let _ = writeln!(stderr, "{red}ringwal:{red:#} {e}");
        if let Some(advice) = e.advice() {
            let _ = writeln!(stderr, "  {advice}");
        }
    }
    ExitCode::from(e.exit_status())
}

fn run(cli: &Cli) -> Result<()> {
    let changes =
        matches!(cli.command, Command::Repair(_) | Command::TruncateBefore(_) | Command::Import(_));
    stop::listen(!changes);
    match &cli.command {
        Command::Info(look) => info::info(cli, look),
        Command::Verify(look) => survey::verify(cli, look),
        Command::Stats(look) => survey::stats(cli, look),
        Command::Dump(dump) => show::dump(cli, dump),
        Command::Tail(tail) => show::tail(cli, tail),
        Command::Export(export) => export::export(cli, export),
        Command::Repair(repair) => repair::repair(cli, repair),
        Command::TruncateBefore(truncate) => change::truncate_before(cli, truncate),
        Command::Import(import) => change::import(cli, import),
        Command::Completions { shell } => generate::completions(*shell),
        Command::Man { directory } => generate::man(directory.as_deref()),
    }
}
