//! `ringwal`: what an operator needs for a log. See `--help`.

mod archive;
mod args;
mod backup;
mod bar;
mod cells;
mod change;
mod consumers;
mod error;
mod export;
mod generate;
mod import;
mod info;
mod owner;
mod record;
mod repair;
mod salvage;
mod show;
mod stop;
mod survey;
mod units;
mod window;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use args::{Cli, Command};
use clap::Parser;
use error::{Error, Result};

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let done = match Cli::try_parse_from(&words) {
        Ok(cli) => run(&cli),
        // Help that was asked for is output like any other.
        Err(e) if !e.use_stderr() => {
            e.print().and_then(|()| std::io::stdout().flush()).map_err(Error::from)
        }
        Err(e) => args::explain(e, &words).exit(),
    };
    let Err(e) = done else { return ExitCode::SUCCESS };
    if !matches!(e, Error::Enough) {
        let mut stderr = anstream::stderr();
        let red = anstyle::AnsiColor::Red.on_default().bold();
        let _ = writeln!(stderr, "{red}ringwal:{red:#} {}", e.message());
        if let Some(advice) = e.advice() {
            let _ = writeln!(stderr, "  {advice}");
        }
    }
    ExitCode::from(e.exit_status())
}

fn run(cli: &Cli) -> Result<()> {
    stop::listen(match cli.command {
        Command::Repair(_)
        | Command::Salvage(_)
        | Command::TruncateBefore(_)
        | Command::Backup(_)
        | Command::Archive(_)
        | Command::Restore(_)
        | Command::RemoveConsumer(_)
        | Command::Import(_) => stop::Ends::ByItself,
        // They have a report to write.
        Command::Verify(_) | Command::Stats(_) => stop::Ends::Within(Duration::from_secs(5)),
        _ => stop::Ends::Within(Duration::from_millis(500)),
    });
    match &cli.command {
        Command::Info(look) => info::info(cli, look),
        Command::Verify(look) => survey::verify(cli, look),
        Command::Stats(look) => survey::stats(cli, look),
        Command::Dump(dump) => show::dump(cli, dump),
        Command::Tail(tail) => show::tail(cli, tail),
        Command::Export(export) => export::export(cli, export),
        Command::Repair(repair) => repair::repair(cli, repair),
        Command::TruncateBefore(truncate) => change::truncate_before(cli, truncate),
        Command::Salvage(args) => salvage::salvage(cli, args),
        Command::Backup(args) => backup::backup(cli, args),
        Command::Archive(args) => archive::archive(cli, args),
        Command::Restore(args) => archive::restore(cli, args),
        Command::List(args) => archive::list(cli, args),
        Command::Consumers(look) => consumers::consumers(cli, look),
        Command::Cells(args) => cells::cells(cli, args),
        Command::RemoveConsumer(args) => consumers::remove(cli, args),
        Command::Import(import) => import::import(cli, import),
        Command::Completions { shell } => generate::completions(*shell),
        Command::Man { directory } => generate::man(directory.as_deref()),
    }
}
