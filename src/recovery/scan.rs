//! Which segments there are, and whether their headers are sound.

use crate::error::{Error, Result};
use crate::format::{HeaderInvalid, SEGMENT_HEADER, SegmentHeader};
use crate::lsn::Lsn;
use crate::segment::{Names, SegmentName};
use crate::storage::{Access, Dir, read_full};

#[derive(Debug)]
pub(crate) struct Scan {
    /// In ascending order, each following its predecessor without a gap.
    pub(crate) segments: Vec<SegmentHeader>,
    pub(crate) temporaries: Vec<String>,
    /// Files with positions: of consumers, and of the hook on sealed segments.
    pub(crate) positions: Vec<String>,
}

/// Reads the directory and the header of every segment that is not among the `known`. Changes nothing.
pub(crate) fn scan(dir: &dyn Dir, names: &Names, known: &[SegmentHeader]) -> Result<Scan> {
    let entries = dir.list().map_err(|e| Error::io("list", dir.path_of(""), e))?;
    let mut bases = Vec::new();
    let mut temporaries = Vec::new();
    let mut positions = Vec::new();
    let sealed = names.sealed();
    for entry in entries {
        match names.parse(&entry.name) {
            SegmentName::Segment(base) => bases.push((base, entry.len)),
            SegmentName::Temporary if entry.regular => temporaries.push(entry.name),
            SegmentName::Foreign
                if entry.name == sealed || names.parse_consumer(&entry.name).is_some() =>
            {
                positions.push(entry.name);
            }
            SegmentName::Temporary | SegmentName::Foreign => {}
        }
    }
    bases.sort_unstable();
    let mut segments: Vec<SegmentHeader> = Vec::with_capacity(bases.len());
    for (base, len) in bases {
        let name = names.segment(base);
        let damaged = |reason| {
            Err(Error::Corruption { segment: name.clone(), offset: 0, lsn: Lsn::new(base), reason })
        };
        let read = match known.binary_search_by_key(&base, |header| header.base) {
            Ok(at) => Ok(known[at]),
            Err(_) => read_header(dir, &name)?,
        };
        let header = match read {
            Ok(header) => header,
            Err(HeaderInvalid::Damaged(reason)) => return damaged(reason),
            Err(HeaderInvalid::Version(v)) => {
                let what = format!("format version {v}");
                return Err(Error::Unsupported { segment: name, what });
            }
            Err(HeaderInvalid::Features(bits)) => {
                let what = format!("format features {bits:#x}");
                return Err(Error::Unsupported { segment: name, what });
            }
        };
        if header.base != base {
            return damaged("the header is of another segment");
        }
        if header.size != len {
            return damaged("the file is not as long as its header says");
        }
        if let Some(before) = segments.last() {
            if before.log_id != header.log_id {
                return Err(Error::ForeignSegment { segment: name });
            }
            if before.app_version != header.app_version {
                return damaged("another application version than the segments before it");
            }
            if before.end() != header.base {
                let segment = names.segment(before.end());
                let lsn = Lsn::new(before.end());
                let reason = "the segment is missing";
                return Err(Error::Corruption { segment, offset: 0, lsn, reason });
            }
        }
        segments.push(header);
    }
    Ok(Scan { segments, temporaries, positions })
}

/// The header of a segment, or what is wrong with it.
pub(crate) fn read_header(
    dir: &dyn Dir,
    name: &str,
) -> Result<std::result::Result<SegmentHeader, HeaderInvalid>> {
    let io = |e| Error::io("read", dir.path_of(name), e);
    let file = dir.open(name, Access::Read).map_err(io)?;
    let mut block = [0; SEGMENT_HEADER];
    let n = read_full(&*file, &mut block, 0).map_err(io)?;
    Ok(SegmentHeader::decode(&block[..n]))
}
