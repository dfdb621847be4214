//! The segment files as they lie there, with a header for each that can be read with one.

use std::path::Path;
use std::sync::Arc;

use super::{Damage, Directory, Survey};
use crate::error::{Error, Result};
use crate::format::{HeaderInvalid, MAX_GROUP, SEGMENT_HEADER, SegmentHeader};
use crate::lsn::Lsn;
use crate::segment::SegmentName;
use crate::storage::{Access, Dir, File, read_full};

/// A segment file.
#[derive(Debug, Clone)]
pub(super) struct SegmentFile {
    pub(super) name: String,
    /// Its own, or if that is damaged what the neighbours, the name and the length say.
    pub(super) header: SegmentHeader,
    /// Why the header is not its own.
    pub(super) wrong: Option<&'static str>,
}

/// All of them, oldest first.
pub(super) fn list(log: &Directory) -> Result<Vec<SegmentFile>> {
    let io = |e| Error::io("list", log.dir.path(), e);
    let mut found: Vec<(u64, u64)> = Vec::new();
    for entry in log.dir.list().map_err(io)? {
        if let SegmentName::Segment(base) = log.names.parse(&entry.name) {
            found.push((base, entry.len));
        }
    }
    found.sort_unstable();
    if found.is_empty() {
        return Err(io(std::io::Error::new(std::io::ErrorKind::NotFound, "there is no log in it")));
    }
    let mut read = Vec::with_capacity(found.len());
    for (base, len) in found {
        let name = log.names.segment(base);
        match header(log, &name) {
            Ok(header) => read.push((name, base, len, header?)),
            // Retention was faster.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    let sound = |read: &Option<SegmentHeader>, base, len| {
        read.is_some_and(|h| h.base == base && h.size == len)
    };
    let model = read.iter().find_map(|(_, base, len, found)| {
        let found = found.as_ref().ok().copied();
        if sound(&found, *base, *len) { found } else { None }
    });
    Ok(read
        .into_iter()
        .filter_map(|(name, base, len, found)| {
            let wrong = match &found {
                Err(reason) => Some(*reason),
                Ok(header) if header.base != base => Some("the header is of another segment"),
                Ok(header) if header.size != len => {
                    Some("the file is not as long as its header says")
                }
                Ok(header) if model.is_some_and(|m| m.log_id != header.log_id) => {
                    Some("a segment of another log")
                }
                Ok(_) => None,
            };
            let header = match (found, wrong) {
                (Ok(header), None) => header,
                _ => substitute(&model?, base, len),
            };
            Some(SegmentFile { name, header, wrong })
        })
        .collect())
}

/// What the header of a segment should be, as its neighbours are.
fn substitute(model: &SegmentHeader, base: u64, len: u64) -> SegmentHeader {
    let block = u64::from(model.block);
    SegmentHeader {
        base,
        size: (len / block * block).max(2 * block),
        max_group: model.max_group.max(MAX_GROUP.min(len as u32) / model.block * model.block),
        ..*model
    }
}

/// The header in the file, or what is wrong with it.
fn header(
    log: &Directory,
    name: &str,
) -> Result<Result<std::result::Result<SegmentHeader, &'static str>>> {
    let io = |e| Error::io("read", log.dir.path_of(name), e);
    let file = open(log, name)?;
    let mut block = [0; SEGMENT_HEADER];
    let n = read_full(&*file, &mut block, 0).map_err(io)?;
    let unsupported = |what| Err(Error::Unsupported { segment: name.to_owned(), what });
    Ok(match SegmentHeader::decode(&block[..n]) {
        Ok(header) => Ok(Ok(header)),
        Err(HeaderInvalid::Damaged(reason)) => Ok(Err(reason)),
        Err(HeaderInvalid::Version(v)) => unsupported(format!("format version {v}")),
        Err(HeaderInvalid::Features(bits)) => unsupported(format!("format features {bits:#x}")),
    })
}

pub(super) fn open(log: &Directory, name: &str) -> Result<Arc<dyn File>> {
    log.dir.open(name, Access::Read).map_err(|e| Error::io("open", log.dir.path_of(name), e))
}

/// Whether that file is still the segment that it was.
pub(super) fn is_still_there(log: &Directory, file: &SegmentFile) -> bool {
    match header(log, &file.name) {
        Ok(Ok(Ok(header))) => header == file.header,
        Ok(_) => file.wrong.is_some(),
        Err(_) => false,
    }
}

/// The process that holds a lock on that file, as the kernel lists it.
pub(super) fn holder(lock: &Path) -> Option<u32> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;

        let inode = std::fs::metadata(lock).ok()?.ino().to_string();
        // "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF"
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        locks.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let at = fields.get(5)?.rsplit(':').next()?;
            let held = fields.get(1) == Some(&"FLOCK") && at == inode;
            if held { fields.get(4)?.parse().ok() } else { None }
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = lock;
        None
    }
}

/// Enters damage that has no bytes of its own yet.
pub(super) fn damage(
    file: &str,
    base: u64,
    lsn: u64,
    found: &'static str,
    expected: String,
) -> Damage {
    Damage {
        segment: file.to_owned(),
        offset: lsn.saturating_sub(base),
        lsn: Lsn::new(lsn),
        found,
        expected,
        bytes: 0,
        records_before: 0,
        records_lost: None,
        records_after: 0,
        cut: lsn,
    }
}

impl Survey {
    pub(super) fn enter(&mut self, damage: Damage) {
        self.damaged_places += 1;
        self.records_lost += damage.records_lost.unwrap_or(0);
        if self.damage.len() < super::MOST_DAMAGE {
            self.damage.push(damage);
        }
    }
}
