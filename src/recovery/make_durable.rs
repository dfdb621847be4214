//! Makes the recovered log durable, and removes temporary files.

use super::find_end::FoundEnd;
use crate::error::{Error, Result};
use crate::format::SegmentHeader;
use crate::io::fs::{Access, Dir};
use crate::segment::Names;

/// Syncs every file from the last proven mark on, and the directory, before the writer relies on
/// them: recovery may have read them from a cache whose content the device lacks. Segments after
/// the end are synced too: no write of the last writer may reach them after a write of the next.
/// Returns the number of temporary files removed.
pub(crate) fn make_durable(
    dir: &dyn Dir,
    names: &Names,
    segments: &[SegmentHeader],
    end_found: Option<&FoundEnd>,
    temporaries: &[String],
) -> Result<usize> {
    if let Some(end_found) = end_found {
        let unproven = segments.iter().filter(|s| s.end() > end_found.proven);
        for header in unproven {
            let name = names.segment(header.base);
            let synced = dir.open(&name, Access::Write).and_then(|f| f.sync_data());
            synced.map_err(|e| Error::io("sync", dir.path_of(&name), e))?;
        }
    }
    let mut removed = 0;
    for name in temporaries {
        match dir.remove(name) {
            Ok(()) => removed += 1,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("remove", dir.path_of(name), e)),
        }
    }
    dir.sync().map_err(|e| Error::io("sync", dir.path_of(""), e))?;
    Ok(removed)
}
