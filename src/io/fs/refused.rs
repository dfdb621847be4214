//! A call that the system refused, with the file that it was for.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::sys::os_error::is_passing;

/// Why a file could not be created, written, renamed or removed.
#[derive(Debug)]
pub(crate) struct Refused {
    /// What was tried.
    pub(crate) op: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
    /// The call before it was carried out, and perhaps not durably so: what is on disk is not
    /// known.
    pub(crate) half_done: bool,
}

impl Refused {
    pub(crate) fn new(op: &'static str, path: PathBuf, source: io::Error) -> Self {
        Refused { op, path, source, half_done: false }
    }

    /// A sync of the directory after a name in it was changed.
    pub(crate) fn names_not_synced(path: PathBuf, source: io::Error) -> Self {
        Refused { op: "sync the directory", path, source, half_done: true }
    }

    /// Whether the same may succeed later, and nothing is lost by waiting for that: the answer is
    /// about room, rights, limits or names, which an operator may change, and not about the device.
    pub(crate) fn may_pass(&self) -> bool {
        use io::ErrorKind as Kind;
        let kind = self.source.kind();
        let passing = match kind {
            Kind::StorageFull
            | Kind::QuotaExceeded
            | Kind::FileTooLarge
            | Kind::PermissionDenied
            | Kind::ReadOnlyFilesystem
            | Kind::NotFound
            | Kind::AlreadyExists
            | Kind::NotADirectory
            | Kind::IsADirectory
            | Kind::DirectoryNotEmpty
            | Kind::InvalidFilename
            | Kind::TooManyLinks
            | Kind::ResourceBusy
            | Kind::ExecutableFileBusy
            | Kind::OutOfMemory
            | Kind::WouldBlock
            | Kind::Interrupted
            | Kind::TimedOut
            | Kind::StaleNetworkFileHandle => true,
            // What is in the file's place is no regular file: said by this process, not by the
            // system.
            Kind::InvalidInput => self.source.raw_os_error().is_none(),
            _ => self.source.raw_os_error().is_some_and(is_passing),
        };
        passing && !self.half_done
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.op, self.path.display(), self.source)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn refused(source: io::Error) -> Refused {
        Refused::new("create", "/logs/wal.tmp".into(), source)
    }

    #[test]
    fn room_rights_limits_and_names_may_pass_and_the_device_may_not() {
        // EPERM ENOENT EAGAIN ENOMEM EACCES EBUSY EEXIST ENOTDIR EISDIR ENFILE EMFILE EFBIG ENOSPC
        // EROFS EMLINK ENAMETOOLONG ENOLCK ELOOP ETIMEDOUT ESTALE EDQUOT
        for errno in
            [1, 2, 11, 12, 13, 16, 17, 20, 21, 23, 24, 27, 28, 30, 31, 36, 37, 40, 110, 116, 122]
        {
            assert!(refused(io::Error::from_raw_os_error(errno)).may_pass(), "{errno}");
            let half_done =
                Refused { half_done: true, ..refused(io::Error::from_raw_os_error(errno)) };
            assert!(!half_done.may_pass(), "{errno}");
        }
        // EIO ENXIO EBADF EFAULT EINVAL ENODEV ENOSYS EUCLEAN EREMOTEIO
        for errno in [5, 6, 9, 14, 22, 19, 38, 117, 121] {
            assert!(!refused(io::Error::from_raw_os_error(errno)).may_pass(), "{errno}");
        }
        let text = refused(io::Error::from_raw_os_error(13)).to_string();
        assert!(text.starts_with("cannot create /logs/wal.tmp: Permission denied"), "{text}");
    }
}
