//! The command line.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Looks into a ringwal log, verifies and repairs it, moves records in and out.
///
/// Everything but repair, truncate-before and import only reads: it takes no lock, and may be used beside a running
/// writer without disturbing it.
#[derive(Debug, Parser)]
#[command(name = "ringwal", version, styles = STYLES, after_help = "\
Exit status: 0 done, or sound; 1 damage was found; 2 the arguments cannot work; 3 the log cannot be read or changed; \
130 interrupted.

Examples:
  ringwal info /var/lib/orders
  ringwal verify /var/lib/orders && echo sound
  ringwal tail -n 20 --follow /var/lib/orders
  ringwal dump --from 8320 --limit 5 --format hex /var/lib/orders
  ringwal repair /var/lib/orders            # says what it would do
  ringwal repair --apply /var/lib/orders")]
pub(crate) struct Cli {
    /// Start of the log's file names.
    #[arg(long, global = true, default_value = "wal", value_name = "NAME", display_order = 100)]
    pub(crate) prefix: String,
    /// No progress bar.
    #[arg(short, long, global = true, display_order = 101)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What the log is: its extent, segments, writer and consumers.
    #[command(after_help = "\
Examples:
  ringwal info /var/lib/orders
  ringwal info --json /var/lib/orders | jq .durable_end")]
    Info(Look),
    /// Reads everything and checks every checksum, link and record. Exits with 1 if anything is damaged.
    #[command(after_help = "\
Examples:
  ringwal verify /var/lib/orders && echo sound
  ringwal verify --json /var/lib/orders | jq '.damage[] | {segment, offset, records_lost}'")]
    Verify(Look),
    /// What each segment holds, times in UTC. Reads everything. Exits with 1 if anything is damaged.
    #[command(after_help = "\
Examples:
  ringwal stats /var/lib/orders
  ringwal stats --json /var/lib/orders | jq '.segments[] | {name, records, last_written}'")]
    Stats(Look),
    /// Writes records out, oldest first.
    #[command(after_help = "\
Examples:
  ringwal dump --format json /var/lib/orders | jq .text
  ringwal dump --from 8320 --to 99000 /var/lib/orders
  ringwal dump --follow /var/lib/orders     # and what comes, until it is interrupted")]
    Dump(Dump),
    /// Writes the newest records out.
    #[command(after_help = "\
Examples:
  ringwal tail -n 3 /var/lib/orders
  ringwal tail --follow --format json /var/lib/orders")]
    Tail(Tail),
    /// Makes a damaged log open again. Without --apply it only says what it would do.
    ///
    /// What is taken out of the log is moved, whole files, into a directory beside it, and never destroyed. Where nothing but
    /// a segment's header or length is wrong, it is rebuilt and nothing is lost. With --keep before the log goes on where the
    /// first other damage is: positions behind it are given out again. Intact records behind the damage can be written out
    /// before, with `export --damaged`, and imported after.
    #[command(after_help = "\
Examples:
  ringwal repair /var/lib/orders
  ringwal export --damaged --output all.jsonl /var/lib/orders
  ringwal repair --apply --json /var/lib/orders > report.json
  ringwal repair --apply --keep after /var/lib/orders   # a snapshot has what lay before")]
    Repair(Repair),
    /// Removes the segments that hold only records below a position.
    #[command(after_help = "\
Examples:
  ringwal truncate-before /var/lib/orders 8388608")]
    TruncateBefore(TruncateBefore),
    /// Writes records to a file that import reads.
    #[command(after_help = "\
Examples:
  ringwal export --output orders.jsonl /var/lib/orders
  ringwal export --damaged --output all.jsonl /var/lib/orders   # what damage has left
  ringwal export --format length-prefixed /var/lib/orders | zstd > orders.zst")]
    Export(Export),
    /// Appends records from a file that export wrote, or from standard input, and makes them durable.
    ///
    /// Interrupted, it says how many are durable.
    #[command(after_help = "\
Examples:
  ringwal import /var/lib/new orders.jsonl
  zstd -dc orders.zst | ringwal import --format length-prefixed /var/lib/new")]
    Import(Import),
    /// Prints a completion script.
    #[command(after_help = "\
Examples:
  ringwal completions bash > ~/.local/share/bash-completion/completions/ringwal")]
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Prints the manual page, or writes one for each command into a directory.
    #[command(after_help = "\
Examples:
  ringwal man | man -l -
  ringwal man ~/.local/share/man/man1")]
    Man {
        /// Where to.
        #[arg(value_hint = ValueHint::DirPath)]
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Look {
    /// The log's directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Position, tab, record as text; line breaks and what is no UTF-8 are escaped.
    Lines,
    /// A JSON object each: `lsn`, and `text`, or `base64` for what is no UTF-8.
    Json,
    /// A hex dump.
    Hex,
    /// The bytes, with nothing between.
    Raw,
}

#[derive(Debug, Args)]
pub(crate) struct Dump {
    /// The log's directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// From the first record at or after this position.
    #[arg(long, default_value_t = 0, value_name = "LSN")]
    pub(crate) from: u64,
    /// Up to this position, itself excluded.
    #[arg(long, value_name = "LSN")]
    pub(crate) to: Option<u64>,
    /// At most so many records.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// How.
    #[arg(long, value_enum, default_value = "lines")]
    pub(crate) format: Format,
    /// Go on with what becomes durable.
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// The log's directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// How many.
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
    pub(crate) records: usize,
    /// How.
    #[arg(long, value_enum, default_value = "lines")]
    pub(crate) format: Format,
    /// Go on with what becomes durable.
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kept {
    /// What lies before the first damage.
    Before,
    /// Whole segments behind the last damage, as if retention had removed the others.
    After,
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// The log's directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// Do it.
    #[arg(long)]
    pub(crate) apply: bool,
    /// Which part of the log goes on; without it what lies before the damage, and only if that holds records.
    #[arg(long, value_enum)]
    pub(crate) keep: Option<Kept>,
    /// The report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TruncateBefore {
    /// The log's directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// What lies at or above this position is kept.
    #[arg(value_name = "LSN")]
    pub(crate) lsn: u64,
}

/// How records are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Framing {
    /// As `dump --format json`.
    Jsonl,
    /// Each record behind its length, four bytes, little-endian.
    LengthPrefixed,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The log's directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// From the first record at or after this position.
    #[arg(long, default_value_t = 0, value_name = "LSN")]
    pub(crate) from: u64,
    /// Up to this position, itself excluded.
    #[arg(long, value_name = "LSN")]
    pub(crate) to: Option<u64>,
    /// How.
    #[arg(long, value_enum, default_value = "jsonl")]
    pub(crate) format: Framing,
    /// A new file; standard output without it.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// Every intact record, also behind damage.
    #[arg(long)]
    pub(crate) damaged: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The log's directory; made if it is missing.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// The file; standard input without it.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) input: Option<PathBuf>,
    /// How it was written.
    #[arg(long, value_enum, default_value = "jsonl")]
    pub(crate) format: Framing,
    /// What the application calls the form of its records, for a new log.
    #[arg(long, value_name = "N")]
    pub(crate) application_version: Option<u32>,
    /// Permission bits of the log's files, as for chmod: 0640 lets readers of the group in. Without it those of
    /// the newest segment, or 0600 for a new log.
    #[arg(long, value_name = "MODE", value_parser = mode)]
    pub(crate) mode: Option<u32>,
}

fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    u32::from_str_radix(digits, 8).map_err(|_| "an octal number, as 0640".to_owned())
}
