//! Error types.

mod code;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::lsn::Lsn;

/// The result of most operations on a log.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on a log failed. A clone is cheap: every waiter gets the same failure.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The ring has no room, or the next segment is not prepared yet, and the call must not block.
    /// Nothing was appended. Retry once the device has caught up, or call the blocking form.
    #[error("the ring is full: retry later, use the blocking append, or raise ring_capacity")]
    RingFull,
    /// The record, or the batch as a whole, does not fit. Nothing was appended.
    #[error(
        "a record or batch of {len} bytes is larger than max_record_size, {max} bytes: split it, or open with a larger \
         one"
    )]
    RecordTooLarge {
        /// Bytes that the record would take. For a batch: all its records with their item headers.
        len: usize,
        /// Bytes of the largest record that this log takes.
        max: usize,
    },
    /// A batch must hold at least one record. Nothing was appended.
    #[error("a batch must hold at least one record")]
    EmptyBatch,
    /// A write or a sync failed earlier, or the I/O thread panicked. Nothing is retried. Records
    /// not acknowledged by then are indeterminate until the log is opened again.
    #[error("the log is poisoned ({cause}): close it, fix the cause and open it again")]
    Poisoned {
        /// The first failure.
        cause: Arc<Failure>,
    },
    /// The log was closed.
    #[error("the log is closed; open it again to go on")]
    Closed,
    /// There is no room for the next segment. Nothing was appended and nothing is lost. Appends
    /// resume by themselves once there is room.
    #[error(
        "no space for the next segment: free space in the log's filesystem or allow retention to \
         remove old segments; appending resumes by itself"
    )]
    NoSpace,
    /// A segment cannot be prepared or removed, for a cause that may pass: too few file
    /// descriptors, too little memory, a missing permission. Nothing was appended and nothing is
    /// lost. The log retries, and appends resume by themselves once the cause is gone.
    #[error(
        "{path} cannot be prepared or removed ({source}): remove the cause, or raise the limit; the log retries, and \
         appending resumes by itself"
    )]
    Obstructed {
        /// The file, or the directory.
        path: PathBuf,
        /// The error of the last attempt.
        source: Arc<io::Error>,
    },
    /// Another writer has this directory and prefix open.
    #[error("{path} is locked by {}", holder(.pid))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The process id of the writer that holds the lock, if it could be read.
        pid: Option<u32>,
    },
    /// Durable data was damaged, or a required file is missing.
    #[error(
        "corruption in {segment} at offset {offset} (LSN {lsn}): {reason}; run `ringwal verify DIR` on the \
         log's directory to see everything that is damaged"
    )]
    Corruption {
        /// Name of the segment file.
        segment: String,
        /// Bytes from the start of the file to the damage.
        offset: u64,
        /// The position of the damage in the log.
        lsn: Lsn,
        /// The kind of damage.
        reason: &'static str,
    },
    /// The position lies below the oldest position that is kept.
    #[error("that position was removed by retention; the oldest kept is {oldest}")]
    Pruned {
        /// The oldest position that can be read.
        oldest: Lsn,
    },
    /// The position was never assigned to a record. Waiting for it would never end.
    #[error("nothing was appended at {lsn}; the log ends at {end}")]
    NotAppended {
        /// The position asked for.
        lsn: Lsn,
        /// The first position that is not assigned yet.
        end: Lsn,
    },
    /// The position is not durable yet and cannot be read.
    #[error("{lsn} is not durable yet, the durable end is {durable_end}; wait for it first")]
    NotDurable {
        /// The position asked for.
        lsn: Lsn,
        /// The first position that is not durable.
        durable_end: Lsn,
    },
    /// No record starts at the position.
    #[error("no record starts at {lsn}; a reader from there finds the next one")]
    NoRecord {
        /// The position asked for.
        lsn: Lsn,
    },
    /// No durable record has the ordinal. A later append may get it.
    #[error("no durable record has the ordinal {ordinal}; the log ends before it")]
    NoOrdinal {
        /// The ordinal asked for.
        ordinal: u64,
    },
    /// [`Wal::truncate_from`](crate::Wal::truncate_from) made the position void, with everything
    /// from `from` up to `to`.
    #[error("positions from {from} up to {to} were cut out of the log by truncate_from")]
    Truncated {
        /// The first void position.
        from: Lsn,
        /// The position at which the log continues.
        to: Lsn,
    },
    /// The position lies inside a batch. A batch is kept or cut as a whole. Nothing was cut.
    #[error("{lsn} lies inside a batch, which is cut as a whole: cut at its first record, {first}")]
    InsideBatch {
        /// The position asked for.
        lsn: Lsn,
        /// The position of the batch's first record.
        first: Lsn,
    },
    /// The consumer's name does not make a plain file name.
    #[error("{name:?} is no consumer's name: 1 to 64 of A-Z, a-z, 0-9, - and _")]
    ConsumerName {
        /// The name as given.
        name: String,
    },
    /// The consumer's name and the log's prefix make a file name longer than filesystems accept.
    #[error(
        "the consumer's name {name:?} and the log's prefix together make a file name of more than 255 \
         bytes: with this prefix a consumer's name has at most {longest} bytes"
    )]
    ConsumerNameTooLong {
        /// The name as given.
        name: String,
        /// Bytes that a name may have with this prefix.
        longest: usize,
    },
    /// A file has the name that one of the log's files would get, or one that differs from it in
    /// case alone, which some filesystems take for the same. Nothing was changed.
    #[error(
        "{path} exists, under this name or under one that differs in case alone and that some \
         filesystems take for the same: choose a prefix, or a consumer's name, that differs in more \
         than that"
    )]
    NameTaken {
        /// The file that was to be created.
        path: PathBuf,
    },
    /// The consumer is attached already. A name has one [`Consumer`](crate::Consumer) at a time.
    #[error("the consumer {name} is attached already; release it first")]
    ConsumerInUse {
        /// The consumer's name.
        name: String,
    },
    /// There is no consumer of that name.
    #[error("there is no consumer {name}")]
    NoConsumer {
        /// The name asked for.
        name: String,
    },
    /// The record lies below the position that the consumer has committed. `seek` moves the
    /// position back.
    #[error("{lsn} lies below the consumer's position, {position}; seek goes back")]
    ConsumerBackwards {
        /// The position of the record.
        lsn: Lsn,
        /// The consumer's position.
        position: Lsn,
    },
    /// The lease of a job has ended, and another worker has the job, or it was given up.
    #[error(
        "the lease of the job at {lsn} has ended and the job went to another worker: take a longer lease, or \
         extend it"
    )]
    LeaseExpired {
        /// The position of the job.
        lsn: Lsn,
    },
    /// The position of a consumer, or of the hook on sealed segments, is damaged: neither of its
    /// two stored copies is valid.
    #[error(
        "the position in {file} is damaged, or of another log: restore the file, or remove it: its owner \
         then starts at the oldest record that is kept"
    )]
    ConsumerDamaged {
        /// The file that stores the position.
        file: PathBuf,
    },
    /// The name of a cell must be plain.
    #[error("{name:?} is no cell's name: 1 to 64 of A-Z, a-z, 0-9, - and _")]
    CellName {
        /// The name as given.
        name: String,
    },
    /// The value does not fit a cell. Nothing was stored.
    #[error(
        "a value of {len} bytes is too large for the cell {name}: a cell holds {max}; append it as a \
         record, and store its LSN"
    )]
    CellTooLarge {
        /// The cell's name.
        name: String,
        /// Bytes of the value.
        len: usize,
        /// Bytes that a cell holds.
        max: usize,
    },
    /// All cells together would take more than they may. Nothing was stored.
    #[error(
        "the cells would take {len} bytes, and may take {max}: remove cells, or store less in them"
    )]
    CellsFull {
        /// Bytes that the cells would take, with their names.
        len: usize,
        /// Bytes that they may take.
        max: usize,
    },
    /// The file of the cells is damaged, or of another log: neither of its two copies is valid.
    #[error(
        "the cells in {file} are damaged, or of another log: restore the file from a backup, or remove \
         it: every cell is then empty"
    )]
    CellsDamaged {
        /// The file that stores the cells.
        file: PathBuf,
    },
    /// A write or a sync of the cells has failed. A cell holds the value that was stored last or
    /// the one that was being stored, and opening the log finds out which. Nothing is retried. The
    /// log itself goes on.
    #[error(
        "the cells in {file} could not be stored ({source}), and what the disk holds is unknown: close the \
         log, fix the cause and open it again"
    )]
    CellsFailed {
        /// The file that stores the cells.
        file: PathBuf,
        /// The first failure.
        source: Arc<io::Error>,
    },
    /// The tag has no floor.
    #[error("the tag {tag} has no floor; hold_tag registers one")]
    NoTagFloor {
        /// The tag asked for.
        tag: u64,
    },
    /// The log holds the floors of as many tags as it can. No floor was registered.
    #[error(
        "a log holds the floors of at most {max} tags; remove those that need nothing any more"
    )]
    TooManyTagFloors {
        /// Floors that a log can hold.
        max: usize,
    },
    /// The file with the floors of tags is damaged: none of its copies is valid.
    #[error(
        "the floors of tags in {file} are damaged, or of another log: restore the file, or remove it: the \
         log then keeps nothing for any tag until hold_tag registers the floors again"
    )]
    TagFloorsDamaged {
        /// The file that stores the floors.
        file: PathBuf,
    },
    /// A consumer has consumed records that the cut would remove. Nothing was cut.
    #[error("the consumer {name} is at {position}, beyond the cut; seek it back first")]
    Consumed {
        /// The consumer's name.
        name: String,
        /// The consumer's position.
        position: Lsn,
    },
    /// A newer version wrote the segment, or the segment has features that this version does not
    /// know.
    #[error("{segment} cannot be read by this version: {what}; use a newer ringwal")]
    Unsupported {
        /// Name of the segment file.
        segment: String,
        /// The unknown version or feature.
        what: String,
    },
    /// The segment belongs to another log: its id differs from that of the earlier segments.
    #[error(
        "{segment} belongs to another log than the segments before it; `ringwal verify` names the foreign ones: move \
         those out of the directory"
    )]
    ForeignSegment {
        /// Name of the segment file.
        segment: String,
    },
    /// The application version of the log differs from the one asked for with
    /// [`WalBuilder::application_version`](crate::WalBuilder::application_version).
    #[error(
        "the log's application version is {found}, not {expected}: convert it, or open it without \
         application_version to read it"
    )]
    ApplicationVersion {
        /// The log's version. 0 if the log was created without one.
        found: u32,
        /// The version asked for.
        expected: u32,
    },
    /// There is no log, and the options say that one must exist. Nothing was created. A volume may
    /// be missing, or the prefix may be wrong.
    #[error(
        "there is no log with the prefix {prefix:?} in {path}: mount the volume, correct the directory \
         or the prefix, or open without must_exist and expect_log_id to create a log"
    )]
    NoLog {
        /// The directory.
        path: PathBuf,
        /// The log's prefix.
        prefix: String,
    },
    /// There is a log, and the options say that it must be created. Nothing was changed.
    #[error(
        "a log with the prefix {prefix:?} exists in {path}: choose another directory or prefix, open it \
         without create_new, or remove it"
    )]
    LogExists {
        /// The directory.
        path: PathBuf,
        /// The log's prefix.
        prefix: String,
    },
    /// The log in the directory is another one than the options expect. Nothing was changed.
    #[error(
        "the log in {path} has the id {}, not {}: correct the directory or the prefix, or mount the \
         right volume", hex(.found), hex(.expected)
    )]
    OtherLog {
        /// The directory.
        path: PathBuf,
        /// The id of the log that is there.
        found: [u8; 16],
        /// The id that [`WalBuilder::expect_log_id`](crate::WalBuilder::expect_log_id) states.
        expected: [u8; 16],
    },
    /// An option is out of its range.
    #[error("invalid options: {0}")]
    Options(#[from] OptionsError),
    /// The requested backend cannot run here.
    #[error("the {backend} backend cannot run here: {reason}")]
    BackendUnavailable {
        /// The backend asked for.
        backend: &'static str,
        /// Why the backend cannot run, and what to do.
        reason: String,
    },
    /// A system call failed before the log was running, or during a read.
    #[error("cannot {op} {path}: {source}")]
    Io {
        /// The operation that failed.
        op: &'static str,
        /// The file of the operation.
        path: PathBuf,
        /// The error of the system.
        source: Arc<io::Error>,
    },
    /// The call would wait for its own thread. A waker or a callback made it on one of the log's
    /// threads.
    #[error("a blocking call on the I/O thread would wait for itself; move it to another thread")]
    WouldDeadlock,
    /// The call came from inside the closure of `append_with`.
    #[error("a log was called from inside append_with's closure; call it before or after")]
    Reentrant,
    /// The process was forked after the log was opened. Only the parent may use the log.
    #[error("this log was opened before fork(); open another in the child")]
    Forked,
}

fn listed(errors: &[OptionsError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn hex(id: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*id))
}

fn holder(pid: &Option<u32>) -> String {
    match pid {
        Some(pid) if *pid == std::process::id() => {
            "this process: use the handle that has it open, or close it first".into()
        }
        Some(pid) => format!("process {pid}; stop it or use another directory or prefix"),
        None => "another process; stop it or use another directory or prefix".into(),
    }
}

impl Error {
    pub(crate) fn io(op: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Error::Io { op, path: path.into(), source: Arc::new(source) }
    }

    /// Damage `offset` bytes into `segment`, which is `lsn` in the log.
    pub(crate) fn corruption(
        segment: impl Into<String>,
        offset: u64,
        lsn: u64,
        reason: &'static str,
    ) -> Self {
        Error::Corruption { segment: segment.into(), offset, lsn: Lsn::new(lsn), reason }
    }

    /// Whether the log goes on by itself, so that the same call may succeed later without a change
    /// by the caller: `RingFull`, `NoSpace`, `Obstructed`, `NotDurable`.
    ///
    /// `Locked` and `ConsumerInUse` are not transient: another owner has to end first. Opening has
    /// waited for [`WalBuilder::lock_wait`](crate::WalBuilder::lock_wait) before it gives `Locked`.
    ///
    /// ```
    /// assert!(ringwal::Error::RingFull.is_transient());
    /// assert!(!ringwal::Error::Closed.is_transient());
    /// ```
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Error::RingFull | Error::NoSpace | Error::Obstructed { .. } | Error::NotDurable { .. }
        )
    }
}

/// Converts to the [`io::Error`] of the kind that fits best, with this error inside.
///
/// ```
/// let full: std::io::Error = ringwal::Error::NoSpace.into();
/// assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
/// assert!(full.get_ref().unwrap().is::<ringwal::Error>());
/// ```
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Io { source, .. } => source.kind(),
            Error::RingFull | Error::NotDurable { .. } => io::ErrorKind::WouldBlock,
            Error::NoSpace => io::ErrorKind::StorageFull,
            Error::Obstructed { source, .. } | Error::CellsFailed { source, .. } => source.kind(),
            Error::Closed => io::ErrorKind::BrokenPipe,
            Error::LeaseExpired { .. } => io::ErrorKind::TimedOut,
            Error::Locked { .. } | Error::ConsumerInUse { .. } => io::ErrorKind::ResourceBusy,
            Error::NameTaken { .. } | Error::LogExists { .. } => io::ErrorKind::AlreadyExists,
            Error::WouldDeadlock | Error::Reentrant => io::ErrorKind::Deadlock,
            Error::Corruption { .. }
            | Error::ForeignSegment { .. }
            | Error::OtherLog { .. }
            | Error::ConsumerDamaged { .. }
            | Error::CellsDamaged { .. }
            | Error::TagFloorsDamaged { .. } => io::ErrorKind::InvalidData,
            Error::Unsupported { .. }
            | Error::BackendUnavailable { .. }
            | Error::ApplicationVersion { .. } => io::ErrorKind::Unsupported,
            Error::Pruned { .. }
            | Error::Truncated { .. }
            | Error::NoRecord { .. }
            | Error::NoOrdinal { .. }
            | Error::NotAppended { .. }
            | Error::NoConsumer { .. }
            | Error::NoTagFloor { .. }
            | Error::NoLog { .. } => io::ErrorKind::NotFound,
            Error::RecordTooLarge { .. }
            | Error::EmptyBatch
            | Error::InsideBatch { .. }
            | Error::ConsumerName { .. }
            | Error::ConsumerNameTooLong { .. }
            | Error::ConsumerBackwards { .. }
            | Error::CellName { .. }
            | Error::CellTooLarge { .. }
            | Error::CellsFull { .. }
            | Error::Consumed { .. }
            | Error::TooManyTagFloors { .. }
            | Error::Options(_) => io::ErrorKind::InvalidInput,
            Error::Poisoned { .. } | Error::Forked => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// What kind of failure poisoned a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// A write, a sync or another operation failed, or a thread of the log panicked.
    Operation,
    /// The lock file was removed or replaced while the log was open, so that another writer can
    /// open the log. Every acknowledged record is durable.
    LockLost,
}

/// The failure that poisoned a log.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The kind of failure, for a program that reacts to it.
    pub kind: FailureKind,
    /// The operation that failed.
    pub op: &'static str,
    /// The error number of the system, if there was one.
    pub os_error: Option<i32>,
    /// The error as text.
    pub detail: String,
}

impl Failure {
    pub(crate) fn from_io(op: &'static str, e: &io::Error) -> Self {
        let kind = FailureKind::Operation;
        Failure { kind, op, os_error: e.raw_os_error(), detail: e.to_string() }
    }

    pub(crate) fn new(op: &'static str, detail: impl Into<String>) -> Self {
        Failure { kind: FailureKind::Operation, op, os_error: None, detail: detail.into() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} failed: {}", self.op, self.detail)
    }
}

/// An option, or a combination of two options, that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// Several options cannot work; each is reported.
    #[error("{}", listed(.0))]
    Several(Vec<OptionsError>),
    /// Two options exclude each other.
    #[error("{first} and {second} exclude each other: leave one out")]
    Conflict {
        /// A builder method.
        first: &'static str,
        /// The other builder method.
        second: &'static str,
    },
    /// The prefix does not make a plain file name.
    #[error("prefix {prefix:?} {why}")]
    Prefix {
        /// The prefix as given.
        prefix: String,
        /// The fault of the prefix.
        why: &'static str,
    },
    /// A number is out of its range.
    #[error("{option} is {value}, but must be {must}")]
    Range {
        /// The builder method.
        option: &'static str,
        /// The value as given.
        value: u64,
        /// The accepted range as text.
        must: String,
    },
    /// The mode has bits that are no permissions, or denies its owner reading or writing.
    #[error("{option} is {mode:#o}, but must be {must}")]
    Mode {
        /// The builder method.
        option: &'static str,
        /// The mode as given.
        mode: u32,
        /// The accepted modes as text.
        must: String,
    },
    /// A duration is zero that must be longer.
    #[error("{option} must be longer than zero; {instead}")]
    ZeroDuration {
        /// The builder method.
        option: &'static str,
        /// The setting to use instead.
        instead: &'static str,
    },
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError<E> {
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] Error),
    /// The caller's function rejected a record.
    #[error("the record at {lsn} was refused: {error}")]
    Apply {
        /// The position of the rejected record.
        lsn: Lsn,
        /// The error that the function returned.
        error: E,
    },
}
