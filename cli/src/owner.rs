//! Gives new files the owner and mode of their neighbours, so that a command run as root does not
//! lock the service out.

use std::fs::Metadata;
use std::path::Path;

/// Gives the file or directory the owner, the group and the permission bits of another, where the
/// process may do so.
#[cfg(unix)]
pub(crate) fn make_like(path: &Path, model: &Metadata) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
    let Ok(own) = std::fs::symlink_metadata(path) else { return };
    if (own.uid(), own.gid()) != (model.uid(), model.gid()) {
        // Refused without the privilege, and by filesystems that store no owner.
        let _ = lchown(path, Some(model.uid()), Some(model.gid()));
    }
    let bits = std::fs::Permissions::from_mode(model.permissions().mode() & 0o7777);
    // Last: a change of the owner may take bits away.
    let _ = std::fs::set_permissions(path, bits);
}

#[cfg(not(unix))]
pub(crate) fn make_like(_: &Path, _: &Metadata) {}

/// Permission bits of a regular file; none on systems without them.
pub(crate) fn mode_of(path: &Path) -> Option<u32> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let meta = std::fs::symlink_metadata(path).ok()?;
        meta.is_file().then_some(meta.permissions().mode() & 0o777)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}
