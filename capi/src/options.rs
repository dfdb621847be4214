//! Settings of a log.

use std::ffi::c_char;
use std::path::Path;
use std::time::Duration;

use ringwal::{BackendChoice, CommitMethod, Durability, Wal, WalBuilder};

use crate::border::{Checked, Refusal, caught, free, guarded, hand_out, slice, text, value_mut};
use crate::status::ringwal_status;

/// Settings for ringwal_open. Each has a default. The functions that set a size, a number or a
/// time accept any. ringwal_open checks them all together, and gives RINGWAL_ERROR_OPTIONS with
/// every bad one.
pub struct ringwal_options {
    settings: Vec<Box<dyn Fn(WalBuilder) -> WalBuilder + Send + Sync>>,
}

/// When records become durable without a request.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ringwal_durability {
    /// Each group is synced. The default.
    RINGWAL_DURABILITY_EVERY_GROUP = 0,
    /// Groups are synced together, once per interval.
    RINGWAL_DURABILITY_INTERVAL = 1,
    /// Only when a call asks, when a segment is full, and at close.
    RINGWAL_DURABILITY_MANUAL = 2,
}

/// What does the I/O.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ringwal_backend {
    /// io_uring where it works, otherwise the system calls that every system has. The default.
    RINGWAL_BACKEND_AUTO = 0,
    /// io_uring, or RINGWAL_ERROR_BACKEND_UNAVAILABLE.
    RINGWAL_BACKEND_IO_URING = 1,
    /// pwrite and fdatasync.
    RINGWAL_BACKEND_STD = 2,
}

/// How io_uring makes a group durable.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ringwal_commit_method {
    /// The log measures and chooses. The default.
    RINGWAL_COMMIT_AUTO = 0,
    /// A write with a linked fdatasync.
    RINGWAL_COMMIT_LINKED_FSYNC = 1,
    /// One write with RWF_DSYNC.
    RINGWAL_COMMIT_DSYNC = 2,
}

impl std::fmt::Debug for ringwal_options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ringwal_options").field("settings", &self.settings.len()).finish()
    }
}

impl ringwal_options {
    pub(crate) fn builder(&self, dir: &Path) -> WalBuilder {
        self.settings.iter().fold(Wal::builder(dir), |builder, set| set(builder))
    }
}

/// Adds a setting.
///
/// # Safety
///
/// As for [`value_mut`].
unsafe fn set(
    options: *mut ringwal_options,
    setting: impl Fn(WalBuilder) -> WalBuilder + Send + Sync + 'static,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: as required.
        unsafe { value_mut(options, "options") }?.settings.push(Box::new(setting));
        Ok(())
    })
}

/// The choice with this number.
fn chosen<T: Copy>(what: &str, number: i32, choices: &[(i32, T)]) -> Checked<T> {
    let choice = choices.iter().find(|(known, _)| *known == number).map(|(_, choice)| *choice);
    choice.ok_or_else(|| Refusal::Argument(format!("there is no {what} {number}")))
}

/// Creates options with the defaults. Free them with ringwal_options_free.
#[unsafe(no_mangle)]
pub extern "C" fn ringwal_options_new() -> *mut ringwal_options {
    let new = caught(|| hand_out(ringwal_options { settings: Vec::new() }));
    new.unwrap_or(std::ptr::null_mut())
}

/// Frees options. Logs that were opened with them stay as they are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_free(options: *mut ringwal_options) {
    // SAFETY: the caller owns the handle (invariant 2).
    unsafe { free(options) }
}

/// Start of the file names, "wal" by default. Logs with different prefixes share a directory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_prefix(
    options: *mut ringwal_options,
    prefix: *const c_char,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2.
        let (options, prefix) =
            unsafe { (value_mut(options, "options")?, text(prefix, "prefix")?) };
        let prefix = prefix.to_owned();
        options.settings.push(Box::new(move |builder| builder.prefix(prefix.clone())));
        Ok(())
    })
}

/// Bytes of a segment file: a multiple of the filesystem's block (4096 as a rule), from four blocks
/// to 1 TiB. Default 64 MiB.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_segment_size(
    options: *mut ringwal_options,
    bytes: u64,
) -> ringwal_status {
    // SAFETY: invariant 2.
    unsafe { set(options, move |builder| builder.segment_size(bytes)) }
}

/// Bytes of the ring, the only buffer. Default 8 MiB, less for small segments and more for large
/// records. At most 64 GiB, and at least two of its buffers. A buffer has an eighth of the ring or
/// a quarter of a segment, whichever is less, in whole blocks, and room for the largest record.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_ring_capacity(
    options: *mut ringwal_options,
    bytes: usize,
) -> ringwal_status {
    // SAFETY: invariant 2.
    unsafe { set(options, move |builder| builder.ring_capacity(bytes)) }
}

/// Bytes of the largest record or batch: 1 to 268435309, which is 256 MiB less 147 bytes for
/// headers. At most the segment size less one block (4096 as a rule) and 147 bytes.
///
/// Default: the smaller of ring_capacity / 8 and (segment_size - block) / 4, each rounded down to
/// whole blocks, but at least a block and at most 256 MiB. Of that, 147 bytes less, rounded down to
/// a multiple of 8. That is 1048424 with the other defaults, and 257896 with segments of 1 MiB.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_max_record_size(
    options: *mut ringwal_options,
    bytes: usize,
) -> ringwal_status {
    // SAFETY: invariant 2.
    unsafe { set(options, move |builder| builder.max_record_size(bytes)) }
}

/// When records become durable without a request: a ringwal_durability. The interval in
/// microseconds counts only for RINGWAL_DURABILITY_INTERVAL, and is longer than 0 there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_durability(
    options: *mut ringwal_options,
    durability: i32,
    interval_us: u64,
) -> ringwal_status {
    guarded(|| {
        use ringwal_durability::*;
        let interval = Durability::Interval(Duration::from_micros(interval_us));
        let choices = [
            (RINGWAL_DURABILITY_EVERY_GROUP as i32, Durability::EveryGroup),
            (RINGWAL_DURABILITY_INTERVAL as i32, interval),
            (RINGWAL_DURABILITY_MANUAL as i32, Durability::Manual),
        ];
        let durability = chosen("durability", durability, &choices)?;
        // SAFETY: invariant 2.
        let options = unsafe { value_mut(options, "options") }?;
        options.settings.push(Box::new(move |builder| builder.durability(durability)));
        Ok(())
    })
}

/// What does the I/O: a ringwal_backend.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_backend(
    options: *mut ringwal_options,
    backend: i32,
) -> ringwal_status {
    guarded(|| {
        use ringwal_backend::*;
        let choices = [
            (RINGWAL_BACKEND_AUTO as i32, BackendChoice::Auto),
            (RINGWAL_BACKEND_IO_URING as i32, BackendChoice::IoUring),
            (RINGWAL_BACKEND_STD as i32, BackendChoice::Std),
        ];
        let backend = chosen("backend", backend, &choices)?;
        // SAFETY: invariant 2.
        let options = unsafe { value_mut(options, "options") }?;
        options.settings.push(Box::new(move |builder| builder.backend(backend)));
        Ok(())
    })
}

/// How io_uring makes a group durable: a ringwal_commit_method.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_commit_method(
    options: *mut ringwal_options,
    method: i32,
) -> ringwal_status {
    guarded(|| {
        use ringwal_commit_method::*;
        let choices = [
            (RINGWAL_COMMIT_AUTO as i32, CommitMethod::Auto),
            (RINGWAL_COMMIT_LINKED_FSYNC as i32, CommitMethod::LinkedFsync),
            (RINGWAL_COMMIT_DSYNC as i32, CommitMethod::Dsync),
        ];
        let method = chosen("commit method", method, &choices)?;
        // SAFETY: invariant 2.
        let options = unsafe { value_mut(options, "options") }?;
        options.settings.push(Box::new(move |builder| builder.commit_method(method)));
        Ok(())
    })
}

/// Groups in flight at most, 1 to 256. Default 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_depth(
    options: *mut ringwal_options,
    groups: usize,
) -> ringwal_status {
    // SAFETY: invariant 2.
    unsafe { set(options, move |builder| builder.depth(groups)) }
}

/// How long a commit waits for more records while nothing is in flight. Default 0; a second at
/// most.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_commit_delay_us(
    options: *mut ringwal_options,
    delay_us: u64,
) -> ringwal_status {
    let delay = Duration::from_micros(delay_us);
    // SAFETY: invariant 2.
    unsafe { set(options, move |builder| builder.commit_delay(delay)) }
}

/// Segment files to keep at most, 2 or more. Default: no limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_max_segments(
    options: *mut ringwal_options,
    segments: usize,
) -> ringwal_status {
    // SAFETY: invariant 2.
    unsafe { set(options, move |builder| builder.max_segments(segments)) }
}

/// Bytes of all segment files at most, at least two segments. Default: no limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_max_total_bytes(
    options: *mut ringwal_options,
    bytes: u64,
) -> ringwal_status {
    // SAFETY: invariant 2.
    unsafe { set(options, move |builder| builder.max_total_bytes(bytes)) }
}

/// Age of its last record at which a segment is removed. Longer than 0. Default: never.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_max_age_ms(
    options: *mut ringwal_options,
    age_ms: u64,
) -> ringwal_status {
    let age = Duration::from_millis(age_ms);
    // SAFETY: invariant 2.
    unsafe { set(options, move |builder| builder.max_age(age)) }
}

/// Bytes by which a consumer may lag before retention stops keeping records for it. Default: no
/// limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_consumer_limit(
    options: *mut ringwal_options,
    bytes: u64,
) -> ringwal_status {
    // SAFETY: invariant 2.
    unsafe { set(options, move |builder| builder.consumer_limit(bytes)) }
}

/// Version that the application gives to the form of its records. Opening a log with another
/// version fails. Default 0: nothing is compared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_application_version(
    options: *mut ringwal_options,
    version: u32,
) -> ringwal_status {
    // SAFETY: invariant 2.
    unsafe { set(options, move |builder| builder.application_version(version)) }
}

/// Permission bits of the log's files, 0600 to 0777. Default 0600.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_file_mode(
    options: *mut ringwal_options,
    mode: u32,
) -> ringwal_status {
    // SAFETY: invariant 2.
    unsafe { set(options, move |builder| builder.file_mode(mode)) }
}

/// Whether the log must exist. Otherwise opening creates one if there is none, which is the
/// default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_must_exist(
    options: *mut ringwal_options,
    must_exist: bool,
) -> ringwal_status {
    // SAFETY: invariant 2.
    unsafe { set(options, move |builder| builder.must_exist(must_exist)) }
}

/// Whether the log must be new. The last call of this and of ringwal_options_set_must_exist counts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_create_new(
    options: *mut ringwal_options,
    create_new: bool,
) -> ringwal_status {
    // SAFETY: invariant 2.
    unsafe { set(options, move |builder| builder.create_new(create_new)) }
}

/// Opens only the log with this id, of 16 bytes: see ringwal_log_id. Default: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_expected_log_id(
    options: *mut ringwal_options,
    id: *const u8,
) -> ringwal_status {
    guarded(|| {
        // SAFETY: invariant 2: 16 bytes.
        let (options, id) = unsafe { (value_mut(options, "options")?, slice(id, 16, "id")?) };
        let id: [u8; 16] = id.try_into().map_err(|_| Refusal::Argument("id".into()))?;
        options.settings.push(Box::new(move |builder| builder.expect_log_id(id)));
        Ok(())
    })
}

/// How long opening waits for a lock that another writer holds. Default 2000.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringwal_options_set_lock_wait_ms(
    options: *mut ringwal_options,
    wait_ms: u64,
) -> ringwal_status {
    let wait = Duration::from_millis(wait_ms);
    // SAFETY: invariant 2.
    unsafe { set(options, move |builder| builder.lock_wait(wait)) }
}
