//! Numbers of the system's errors for which std has no stable word.

/// A device that failed: EIO, or ERROR_IO_DEVICE.
#[cfg(any(test, simulated))]
pub(crate) const DEVICE_FAILED: i32 = if cfg!(windows) { 1117 } else { 5 };

/// The path leads to something else than a directory: ENOTDIR, or ERROR_DIRECTORY.
pub(crate) const NOT_A_DIRECTORY: i32 = if cfg!(windows) { 267 } else { 20 };

/// Whether the error reports an unreadable sector, a wrong checksum or a failed disk.
///
/// 5 is EIO, and ERROR_ACCESS_DENIED on Windows: a file that may not be read has lost nothing.
pub(crate) fn is_of_the_medium(code: i32) -> bool {
    /// ERROR_CRC, ERROR_SEEK, ERROR_SECTOR_NOT_FOUND, ERROR_READ_FAULT, ERROR_DATA_CHECKSUM_ERROR,
    /// ERROR_DEVICE_HARDWARE_ERROR, ERROR_IO_DEVICE, ERROR_FILE_CORRUPT.
    #[cfg(windows)]
    const CODES: &[i32] = &[23, 25, 27, 30, 323, 483, 1117, 1392];
    /// EIO; then ENODATA, EBADMSG, EILSEQ and EREMOTEIO as Linux counts them.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CODES: &[i32] = &[5, 61, 74, 84, 121];
    #[cfg(not(any(windows, target_os = "linux", target_os = "android")))]
    const CODES: &[i32] = &[5];
    CODES.contains(&code)
}

/// Whether the same call may succeed later: limits, locks and names that an operator may change.
pub(crate) fn is_passing(code: i32) -> bool {
    /// ERROR_TOO_MANY_OPEN_FILES, ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION,
    /// ERROR_LOCK_VIOLATION, ERROR_HANDLE_DISK_FULL, ERROR_DELETE_PENDING,
    /// ERROR_USER_MAPPED_FILE, ERROR_DISK_QUOTA_EXCEEDED, ERROR_NO_SYSTEM_RESOURCES.
    #[cfg(windows)]
    const CODES: &[i32] = &[4, 5, 32, 33, 39, 303, 1224, 1295, 1450];
    /// ENFILE, EMFILE, ELOOP, ENOLCK.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CODES: &[i32] = &[23, 24, 40, 37];
    /// The same, as the BSDs and macOS count them.
    #[cfg(not(any(windows, target_os = "linux", target_os = "android")))]
    const CODES: &[i32] = &[23, 24, 62, 77];
    CODES.contains(&code)
}

/// Whether this process may not, or cannot now, open a file: rights, memory, or open files are
/// missing. What is in the file is not known then.
pub(crate) fn is_refusal(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{OutOfMemory, PermissionDenied};
    // ERROR_TOO_MANY_OPEN_FILES; ENFILE, EMFILE.
    let too_many: &[i32] = if cfg!(windows) { &[4] } else { &[23, 24] };
    matches!(e.kind(), PermissionDenied | OutOfMemory)
        || e.raw_os_error().is_some_and(|code| too_many.contains(&code))
}

/// Whether the filesystem, or the user's share of it, is full, and std has another word for it.
pub(crate) fn is_no_space(code: i32) -> bool {
    // ERROR_HANDLE_DISK_FULL, ERROR_DISK_FULL, ERROR_DISK_QUOTA_EXCEEDED.
    cfg!(windows) && matches!(code, 39 | 112 | 1295)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_windows_are_not_those_of_unix() {
        let access_denied_or_eio = is_of_the_medium(5);
        assert_eq!(access_denied_or_eio, cfg!(unix));
        assert!(is_of_the_medium(DEVICE_FAILED) && !is_passing(DEVICE_FAILED));
        // ERROR_CRC, and ENFILE.
        assert_eq!(is_of_the_medium(23), cfg!(windows));
        assert_eq!(is_passing(23), cfg!(unix));
        // A refusal, a missing file and a full disk show nothing of the medium, by any code.
        use std::io::ErrorKind::{AlreadyExists, NotFound, PermissionDenied, StorageFull};
        for code in 1..2000 {
            let kind = std::io::Error::from_raw_os_error(code).kind();
            if matches!(kind, AlreadyExists | NotFound | PermissionDenied | StorageFull) {
                assert!(!is_of_the_medium(code), "{code} is {kind:?}");
            }
        }
        let no_directory = std::io::Error::from_raw_os_error(NOT_A_DIRECTORY);
        assert_eq!(no_directory.kind(), std::io::ErrorKind::NotADirectory);
        // ERROR_HANDLE_DISK_FULL and ERROR_DISK_FULL.
        for full in [39, 112] {
            assert_eq!(is_no_space(full), cfg!(windows));
        }
    }
}
