//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::builder::styling::{AnsiColor, Styles};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

use crate::units;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Inspects, verifies, repairs and copies ringwal logs; exports and imports records.
///
/// Only repair --apply, truncate-before, remove-consumer and import change a log. Every other
/// command only reads it, takes no lock, and may be used beside a running writer.
#[derive(Debug, Parser)]
#[command(name = "ringwal", version, styles = STYLES, after_help = "\
Exit status: 0 done, or sound; 1 damage was found; 2 the arguments cannot work; 3 the log cannot be read or changed; \
130 interrupted.

Examples:
  ringwal info /var/lib/orders
  ringwal verify /var/lib/orders && echo sound
  ringwal tail -n 20 --follow /var/lib/orders
  ringwal dump --from 8320 --limit 5 --format hex /var/lib/orders
  ringwal dump --since 10m --format json /var/lib/orders
  ringwal backup /var/lib/orders /backup/orders
  ringwal archive --follow --to /backup/archive /var/lib/orders
  ringwal repair /var/lib/orders            # says what it would do
  ringwal repair --apply /var/lib/orders

Positions are bytes: 8320, 64k, 64KiB (powers of 1024). Numbers of records: 1000, 20k (powers of 1000), 4Ki. Times: RFC 3339, \
seconds since 1970, or how long ago (10m).")]
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

/// Names the option of a negative value, which the parser takes for an unknown option.
pub(crate) fn explain(e: clap::Error, words: &[OsString]) -> clap::Error {
    let negative = |word: &str| {
        let rest = word.strip_prefix('-').unwrap_or_default();
        rest.starts_with(|c: char| c.is_ascii_digit() || c == '.')
    };
    match e.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) if negative(word) => {}
        _ => return e,
    }
    let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let Some(at) = words.iter().position(|word| negative(word)) else { return e };
    let before = words[at.saturating_sub(1)];
    let place = if before.starts_with('-') { format!(" for '{before}'") } else { String::new() };
    let text = format!(
        "invalid value '{}'{place}: it must not be negative\n\nFor more information, try '--help'.\n",
        words[at]
    );
    clap::Error::raw(ErrorKind::InvalidValue, text).with_cmd(&Cli::command())
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What the log is: its extent, segments, writer and consumers.
    #[command(after_help = "\
Examples:
  ringwal info /var/lib/orders
  ringwal info --json /var/lib/orders | jq .durable_end")]
    Info(Look),
    /// Reads everything and checks every checksum, link and record. Exits with 1 if anything is
    /// damaged.
    #[command(after_help = "\
Examples:
  ringwal verify /var/lib/orders && echo sound
  ringwal verify --json /var/lib/orders | jq '.damage[] | {segment, offset, records_lost}'")]
    Verify(Look),
    /// What each segment holds, times in UTC. Reads everything. Exits with 1 if anything is
    /// damaged.
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
  ringwal dump --tag 7 /var/lib/orders      # what one stream appended
  ringwal dump --follow /var/lib/orders     # and what comes, until it is interrupted")]
    Dump(Dump),
    /// Writes the newest records out.
    #[command(after_help = "\
Examples:
  ringwal tail -n 3 /var/lib/orders
  ringwal tail --follow --format json /var/lib/orders")]
    Tail(Tail),
    /// Makes a damaged log open again. Without --apply it only prints its plan.
    ///
    /// If a repair in place keeps every intact record, the log is repaired in place. Otherwise
    /// every intact record is copied into a new log, as by `salvage`, and the damaged log stays
    /// unchanged. --keep repairs in place and keeps one part only: with --keep before the log
    /// continues at the first damage, and later positions are assigned again. Files that leave the
    /// log are moved, whole, into a directory beside it, and never destroyed.
    #[command(after_help = "\
Examples:
  ringwal repair /var/lib/orders
  ringwal repair --apply /var/lib/orders
  ringwal repair --apply --json /var/lib/orders > report.json
  ringwal repair --apply --keep after /var/lib/orders   # a snapshot has what lay before")]
    Repair(Repair),
    /// Copies every intact record of a damaged log, in order, into a new log.
    ///
    /// The damaged log is only read. The new log has new positions: the file NAME.positions.tsv in
    /// it holds, line by line, the old position and the new one. Consumers continue where they
    /// were. The files get the owner and the mode of the damaged log's files.
    #[command(after_help = "\
Examples:
  ringwal salvage /var/lib/orders /var/lib/orders.salvaged
  awk '$1 == 8320 { print $2 }' /var/lib/orders.salvaged/wal.positions.tsv")]
    Salvage(Salvage),
    /// Removes the segments that hold only records below a position.
    ///
    /// Never removes the newest segment, nor one that a consumer still needs.
    #[command(after_help = "\
Examples:
  ringwal truncate-before --dry-run /var/lib/orders 8m   # says what would go
  ringwal truncate-before /var/lib/orders 8388608")]
    TruncateBefore(TruncateBefore),
    /// Copies the log into another directory, consistently, also beside a running writer.
    ///
    /// A segment that an earlier backup copied whole is not copied again. The whole copy is read
    /// and verified. It is a log with the same positions. Once it has been opened as a log, it
    /// accepts no further backup.
    #[command(after_help = "\
Examples:
  ringwal backup /var/lib/orders /backup/orders
  ringwal backup --prune --json /var/lib/orders /backup/orders | jq .durable_end")]
    Backup(Backup),
    /// Copies the sealed segments of a log into an object store, also beside a running writer.
    ///
    /// A segment is sealed when the log has gone on to the next one: records of the newest segment
    /// are not archived yet. Each object is read back and compared. What is archived already is not
    /// sent again, so the command can be repeated after any interruption. A writer that runs does
    /// not wait for it: if retention removes a segment first, the archive has a gap, and the
    /// command exits with 1. A program that uses the crate ringwal-archive makes retention wait.
    #[command(after_help = "\
Examples:
  ringwal archive --to /backup/orders /var/lib/orders
  ringwal archive --follow --to s3://bucket/orders /var/lib/orders     # with the feature s3
  ringwal archive prune --from /backup/orders --older-than 30d")]
    Archive(Archive),
    /// Restores a log from an archive into a new or an empty directory.
    ///
    /// Every object is compared with its checksums, and the whole log is verified before it is in
    /// its place. The restored log keeps its id and its positions. If it fails, nothing remains in
    /// the directory; if it is killed, the next one continues. Archive a restored log that
    /// continues to a new place.
    #[command(after_help = "\
Examples:
  ringwal restore --from /backup/orders /var/lib/orders
  ringwal restore --from /backup/orders --to-time 2026-12-31T12:00:00Z /var/lib/before-noon
  ringwal restore --from s3://bucket/orders --to-lsn 8320 /var/lib/orders")]
    Restore(Restore),
    /// Lists the segments of an archive: positions, times, sizes, and what is missing. Exits with 1
    /// if anything is missing; with --verify also if anything is damaged.
    #[command(after_help = "\
Examples:
  ringwal list --from /backup/orders
  ringwal list --from /backup/orders --verify
  ringwal list --from s3://bucket/orders --json | jq .gaps")]
    List(ListArchive),
    /// Lists the consumers with their positions, their lag, and what the log keeps for each alone.
    #[command(after_help = "\
Examples:
  ringwal consumers /var/lib/orders
  ringwal consumers --json /var/lib/orders | jq '.[] | select(.position == null)'")]
    Consumers(Look),
    /// Lists the cells with the sizes of their values, or prints one.
    #[command(after_help = "\
Examples:
  ringwal cells /var/lib/orders
  ringwal cells --raw vote /var/lib/orders | xxd")]
    Cells(Cells),
    /// Removes an abandoned consumer, so that retention no longer waits for it.
    ///
    /// Refused while a writer has the log open; a program calls Wal::remove_consumer there.
    #[command(after_help = "\
Examples:
  ringwal remove-consumer --dry-run /var/lib/orders mailer
  ringwal remove-consumer /var/lib/orders mailer")]
    RemoveConsumer(RemoveConsumer),
    /// Writes records to a file that import reads.
    #[command(after_help = "\
Examples:
  ringwal export --output orders.jsonl /var/lib/orders
  ringwal export --damaged --output all.jsonl /var/lib/orders   # what damage has left
  ringwal export --format length-prefixed /var/lib/orders | zstd > orders.zst")]
    Export(Export),
    /// Appends records from a file that export wrote, or from standard input, and makes them
    /// durable.
    ///
    /// A failed import into a new log leaves nothing. A failed import into an existing log, or an
    /// interrupted one, prints how many records are durable; --skip resumes after them. A damaged
    /// log is refused.
    #[command(after_help = "\
Examples:
  ringwal import --skip 120k /var/lib/new orders.jsonl   # resumes
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

#[derive(Debug, Args)]
pub(crate) struct Cells {
    /// The log's directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// Prints the value of this cell, byte for byte.
    #[arg(long, value_name = "NAME", conflicts_with = "json")]
    pub(crate) raw: Option<String>,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Position, tab, record as text; line breaks and what is no UTF-8 are escaped.
    Lines,
    /// A JSON object each: `lsn`, `tag` if it has one, and `text`, or `base64` for what is no
    /// UTF-8.
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
    #[arg(long, default_value_t = 0, value_name = "LSN", value_parser = units::position)]
    pub(crate) from: u64,
    /// From the record with this ordinal: the first record ever appended has 0.
    #[arg(long, value_name = "N", value_parser = units::count)]
    pub(crate) from_ordinal: Option<u64>,
    /// Up to this position, itself excluded.
    #[arg(long, value_name = "LSN", value_parser = units::position)]
    pub(crate) to: Option<u64>,
    #[command(flatten)]
    pub(crate) window: Window,
    /// Only records with this tag; may be given several times.
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<u64>,
    /// At most so many records.
    #[arg(long, value_name = "N", value_parser = units::count)]
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
    /// Number of records; without it 10, or all with --since.
    #[arg(short = 'n', long, value_name = "N", value_parser = units::count)]
    pub(crate) records: Option<u64>,
    #[command(flatten)]
    pub(crate) window: Window,
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
    /// Whole segments after the last damage, as if retention had removed the others.
    After,
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// The log's directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// Applies the plan.
    #[arg(long)]
    pub(crate) apply: bool,
    /// Repairs in place, and keeps only this part of the log.
    #[arg(long, value_enum)]
    pub(crate) keep: Option<Kept>,
    /// Directory of a new log; without it NAME.salvaged.TIME in DIR.
    #[arg(long, value_name = "DEST", value_hint = ValueHint::DirPath, conflicts_with = "keep")]
    pub(crate) into: Option<PathBuf>,
    /// Prints the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TruncateBefore {
    /// The log's directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// Records at or above this position are kept.
    #[arg(value_name = "LSN", value_parser = units::position)]
    pub(crate) lsn: u64,
    /// Prints what would be removed, and changes nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Salvage {
    /// The damaged log's directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// The new log's directory: not there yet, or empty.
    #[arg(value_name = "DEST", value_hint = ValueHint::DirPath)]
    pub(crate) dest: PathBuf,
    /// Prints the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The log's directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// The copy's directory: not there yet, empty, or with an earlier backup of this log.
    #[arg(value_name = "DEST", value_hint = ValueHint::DirPath)]
    pub(crate) dest: PathBuf,
    /// Removes segments from the copy that the log does not have any more.
    #[arg(long)]
    pub(crate) prune: bool,
    /// Prints the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Archive {
    #[command(subcommand)]
    pub(crate) command: Option<ArchiveCommand>,
    #[command(flatten)]
    pub(crate) to: Option<ArchiveTo>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// Removes the oldest segments from an archive, for good. What a restore to any later point
    /// needs stays, and so does the newest segment.
    ///
    /// May be repeated after any interruption, and may run beside `archive --follow`: what was
    /// pruned is not archived again, also if the log still has it.
    #[command(after_help = "\
Examples:
  ringwal archive prune --from /backup/orders --older-than 30d --dry-run
  ringwal archive prune --from s3://bucket/orders --keep-from 2026-12-01
  ringwal archive prune --from /backup/orders --keep-from 8320")]
    Prune(PruneArchive),
}

#[derive(Debug, Args)]
pub(crate) struct PruneArchive {
    /// The archive: a directory, file:///path, or s3://bucket/prefix.
    #[arg(long, value_name = "URL")]
    pub(crate) from: String,
    /// Keep the records from this position on, or what a restore to this time or later needs. A
    /// time is RFC 3339, as 2026-12-31 or 2026-12-31T12:00:00Z.
    #[arg(
        long,
        value_name = "LSN|TIME",
        value_parser = units::position_or_time,
        required_unless_present = "older_than"
    )]
    pub(crate) keep_from: Option<units::PositionOrTime>,
    /// Keep what a restore to a time less than this ago needs, as 30d or 12h.
    #[arg(
        long,
        value_name = "AGE",
        value_parser = units::age,
        conflicts_with = "keep_from"
    )]
    pub(crate) older_than: Option<SystemTime>,
    /// Reports the same, and removes nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Prints the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ArchiveTo {
    /// The log's directory. Write ./prune for one of that name.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// Where to: a directory, file:///path, or s3://bucket/prefix.
    #[arg(long, value_name = "URL")]
    pub(crate) to: String,
    /// Go on with segments as they are sealed, until it is interrupted.
    #[arg(short, long, conflicts_with = "once")]
    pub(crate) follow: bool,
    /// End when everything that is sealed now is archived: the default.
    #[arg(long)]
    pub(crate) once: bool,
    /// Prints the report as JSON; with --follow one line for each time that segments were shipped.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The directory of the restored log: not there yet, or empty.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// The archive: a directory, file:///path, or s3://bucket/prefix.
    #[arg(long, value_name = "URL")]
    pub(crate) from: String,
    /// Leave out the segments that end at or below this position.
    #[arg(long, value_name = "LSN", value_parser = units::position)]
    pub(crate) from_lsn: Option<u64>,
    /// Up to this position, itself excluded.
    #[arg(long, value_name = "LSN", value_parser = units::position, conflicts_with = "to_time")]
    pub(crate) to_lsn: Option<u64>,
    /// Up to the first record that was written at this time or later, itself excluded: RFC 3339,
    /// seconds since 1970, or how long ago (10m).
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    pub(crate) to_time: Option<SystemTime>,
    /// Prints the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArchive {
    /// The archive: a directory, file:///path, or s3://bucket/prefix.
    #[arg(long, value_name = "URL")]
    pub(crate) from: String,
    /// Reads all segments, and compares them with their checksums.
    #[arg(long)]
    pub(crate) verify: bool,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveConsumer {
    /// The log's directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// The consumer's name.
    pub(crate) name: String,
    /// Prints what would be freed, and changes nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Selects records by the time at which they were written, by the writer's clock.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Window {
    /// From the first record that was written at this time or later: RFC 3339, seconds since 1970,
    /// or how long ago (10m).
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    pub(crate) since: Option<SystemTime>,
    /// Up to the first record that was written at this time or later, itself excluded.
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    pub(crate) until: Option<SystemTime>,
}

/// How records are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Framing {
    /// As `dump --format json`.
    Jsonl,
    /// Each record after its length, four bytes, little-endian. Tags are not written.
    LengthPrefixed,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The log's directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// From the first record at or after this position.
    #[arg(long, default_value_t = 0, value_name = "LSN", value_parser = units::position)]
    pub(crate) from: u64,
    /// Up to this position, itself excluded.
    #[arg(long, value_name = "LSN", value_parser = units::position)]
    pub(crate) to: Option<u64>,
    #[command(flatten)]
    pub(crate) window: Window,
    /// How.
    #[arg(long, value_enum, default_value = "jsonl")]
    pub(crate) format: Framing,
    /// A new file; standard output without it.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// Every intact record, including those after damage.
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
    /// The application's version of its record format, for a new log.
    #[arg(long, value_name = "N", value_parser = units::version)]
    pub(crate) application_version: Option<u32>,
    /// Skips the first N records of the input, to resume an import.
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = units::count)]
    pub(crate) skip: u64,
    /// Does not verify an existing log first.
    #[arg(long)]
    pub(crate) unverified: bool,
    /// Permission bits of the log's files, as for chmod: 0640 admits readers of the group. Without
    /// it those of the newest segment, or 0600 for a new log.
    #[arg(long, value_name = "MODE", value_parser = units::mode)]
    pub(crate) mode: Option<u32>,
}
