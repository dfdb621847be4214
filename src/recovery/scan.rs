//! Lists the segments and checks their headers.

use super::walk::Walker;
use crate::error::{Error, Result};
use crate::format::{HeaderInvalid, Link, SEGMENT_HEADER, SegmentHeader};
use crate::io::fs::{Access, Dir, File, read_full};
use crate::segment::{Names, SegmentName};

#[derive(Debug)]
pub(crate) struct Scan {
    /// The segments' headers in ascending order, without a gap.
    pub(crate) segments: Vec<SegmentHeader>,
    pub(crate) temporaries: Vec<String>,
    /// Names of position files: of consumers, of the hook on sealed segments, of tags.
    pub(crate) positions: Vec<String>,
    /// There is a file of cells.
    pub(crate) has_cells: bool,
}

/// Reads the directory, and the header of every segment that is not in `known`. Changes nothing.
///
/// A writer may remove and create segments meanwhile. It removes the oldest first: if a listed
/// segment is gone, so are all before it. A listing may lack a segment that was created or renamed
/// during it; `scan` opens that segment by its name.
pub(crate) fn scan(dir: &dyn Dir, names: &Names, known: &[SegmentHeader]) -> Result<Scan> {
    let entries = dir.list().map_err(|e| Error::io("list", dir.path_of(""), e))?;
    let mut bases = Vec::new();
    let mut temporaries = Vec::new();
    let mut positions = Vec::new();
    let cells = names.cells();
    let mut has_cells = false;
    for entry in entries {
        match names.parse(&entry.name) {
            SegmentName::Segment(base) => bases.push((base, entry.len)),
            SegmentName::Temporary if entry.regular => temporaries.push(entry.name),
            SegmentName::Foreign if names.is_of_positions(&entry.name) => {
                positions.push(entry.name);
            }
            SegmentName::Foreign if entry.name == cells => has_cells = true,
            SegmentName::Temporary | SegmentName::Foreign => {}
        }
    }
    bases.sort_unstable();
    let mut segments: Vec<SegmentHeader> = Vec::with_capacity(bases.len());
    for (base, len, read) in read_headers(dir, names, known, &bases)? {
        let header = sound(names, base, len, read)?;
        if !fill_gap(dir, names, &mut segments, &header)? {
            segments.clear();
        }
        if let Some(before) = segments.last() {
            follows(names, before, &header)?;
        }
        segments.push(header);
    }
    Ok(Scan { segments, temporaries, positions, has_cells })
}

/// A header, or what is wrong with it.
pub(crate) type Read = std::result::Result<SegmentHeader, HeaderInvalid>;

/// Reads the headers, oldest first. Returns each with its file's base and length.
fn read_headers(
    dir: &dyn Dir,
    names: &Names,
    known: &[SegmentHeader],
    bases: &[(u64, u64)],
) -> Result<Vec<(u64, u64, Read)>> {
    let mut headers = Vec::with_capacity(bases.len());
    for &(base, len) in bases.iter().rev() {
        let read = match known.binary_search_by_key(&base, |header| header.base) {
            Ok(at) => Ok(known[at]),
            Err(_) => match read_header(dir, &names.segment(base)) {
                Err(e) if is_gone(&e) => break,
                read => read?,
            },
        };
        headers.push((base, len, read));
    }
    headers.reverse();
    Ok(headers)
}

/// Checks the header of the file at `base` against its base and length.
fn sound(names: &Names, base: u64, len: u64, read: Read) -> Result<SegmentHeader> {
    let segment = names.segment(base);
    let damaged = |segment: String, reason| Err(Error::corruption(segment, 0, base, reason));
    match read {
        Err(HeaderInvalid::Damaged(reason)) => damaged(segment, reason),
        Err(HeaderInvalid::Version(v)) => {
            let what = format!("format version {v}");
            Err(Error::Unsupported { segment, what })
        }
        Err(HeaderInvalid::Features(bits)) => {
            let what = format!("format features {bits:#x}");
            Err(Error::Unsupported { segment, what })
        }
        Ok(header) if header.base != base => damaged(segment, "the header is of another segment"),
        Ok(header) if header.size != len => {
            damaged(segment, "the file is not as long as its header says")
        }
        Ok(header) => Ok(header),
    }
}

/// Checks that `header` follows `before`: same log, same application version, no gap.
pub(crate) fn follows(names: &Names, before: &SegmentHeader, header: &SegmentHeader) -> Result<()> {
    let segment = names.segment(header.base);
    if before.log_id != header.log_id {
        return Err(Error::ForeignSegment { segment });
    }
    let damaged = |segment: String, base, reason| Err(Error::corruption(segment, 0, base, reason));
    if before.app_version != header.app_version {
        let reason = "another application version than the segments before it";
        return damaged(segment, header.base, reason);
    }
    if before.end() != header.base {
        return damaged(names.segment(before.end()), before.end(), MISSING);
    }
    Ok(())
}

/// The reason of a `Corruption` for a missing segment.
pub(crate) const MISSING: &str = "the segment is missing";

/// Opens by their names the segments between the last of `segments` and `next`. Returns false if
/// retention has removed everything before `next`.
fn fill_gap(
    dir: &dyn Dir,
    names: &Names,
    segments: &mut Vec<SegmentHeader>,
    next: &SegmentHeader,
) -> Result<bool> {
    while let Some(before) = segments.last().copied().filter(|last| last.end() < next.base) {
        match read_header(dir, &names.segment(before.end())) {
            Ok(Ok(header)) if header.base == before.end() && header.end() <= next.base => {
                follows(names, &before, &header)?;
                segments.push(header);
            }
            Err(e) if is_gone(&e) => {
                let there = read_header(dir, &names.segment(before.base));
                return Ok(!there.is_err_and(|e| is_gone(&e)));
            }
            Ok(_) => return Ok(true),
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// Whether the error says that the file is missing.
pub(crate) fn is_gone(e: &Error) -> bool {
    matches!(e, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

/// Segments that a list of the directory may lack: those that were created while it was made.
const CREATED_MEANWHILE: usize = 1000;

/// Whether a group in the newest segment with groups states `oldest` or a higher position as the
/// oldest kept. If so, retention removed the segments below `oldest`; they are not lost.
///
/// The writer may go on meanwhile. A segment that is gone again had its statement repeated in later
/// ones, and a segment that the list lacks is found by its name.
pub(crate) fn states_oldest(dir: &dyn Dir, names: &Names, oldest: u64) -> Result<bool> {
    let entries = dir.list().map_err(|e| Error::io("list", dir.path_of(""), e))?;
    let mut bases: Vec<u64> = entries
        .iter()
        .filter_map(|entry| match names.parse(&entry.name) {
            SegmentName::Segment(base) => Some(base),
            SegmentName::Temporary | SegmentName::Foreign => None,
        })
        .collect();
    bases.sort_unstable();
    let mut found = None;
    while found.is_none()
        && let Some(base) = bases.pop()
    {
        found = stated_in(dir, names, base, oldest)?;
    }
    for _ in 0..CREATED_MEANWHILE {
        match found {
            None => return Ok(false),
            Some(Stated::Yes) => return Ok(true),
            Some(Stated::NotUpTo(end)) => found = stated_in(dir, names, end, oldest)?,
        }
    }
    Ok(false)
}

/// Whether the groups of a segment state a position.
#[derive(Debug, Clone, Copy)]
enum Stated {
    Yes,
    /// No group of the segment, which ends there.
    NotUpTo(u64),
}

/// `None`: there is no such segment, or no group in it.
fn stated_in(dir: &dyn Dir, names: &Names, base: u64, oldest: u64) -> Result<Option<Stated>> {
    let name = names.segment(base);
    let header = match read_header(dir, &name) {
        Ok(Ok(header)) => header,
        Ok(Err(_)) => return Ok(None),
        Err(e) if is_gone(&e) => return Ok(None),
        Err(e) => return Err(e),
    };
    let io = |e| Error::io("read", dir.path_of(&name), e);
    let file = match dir.open(&name, Access::Read) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(io)?,
    };
    let mut walker = Walker::new(file, header);
    let mut next = walker.group(header.first_group()).map_err(io)?;
    if next.is_err() {
        return Ok(None);
    }
    let mut link: Option<Link> = None;
    while let Ok(group) = next {
        if link.is_some_and(|link| !group.follows(&link)) {
            break;
        }
        if group.oldest >= oldest {
            return Ok(Some(Stated::Yes));
        }
        link = Some(group.link());
        next = walker.group(group.padded_end(header.block)).map_err(io)?;
    }
    Ok(Some(Stated::NotUpTo(header.end())))
}

/// Reads the header of the segment at `base`, and checks it against its base and its file's length.
pub(crate) fn sound_header(dir: &dyn Dir, names: &Names, base: u64) -> Result<SegmentHeader> {
    let name = names.segment(base);
    let io = |e| Error::io("read", dir.path_of(&name), e);
    let file = dir.open(&name, Access::Read).map_err(io)?;
    let len = file.len().map_err(io)?;
    sound(names, base, len, header_in(&*file).map_err(io)?)
}

/// Reads the header of a segment. The inner error says what is wrong with it.
pub(crate) fn read_header(dir: &dyn Dir, name: &str) -> Result<Read> {
    let io = |e| Error::io("read", dir.path_of(name), e);
    header_in(&*dir.open(name, Access::Read).map_err(io)?).map_err(io)
}

fn header_in(file: &dyn File) -> std::io::Result<Read> {
    let mut block = [0; SEGMENT_HEADER];
    let n = read_full(file, &mut block, 0)?;
    Ok(SegmentHeader::decode(&block[..n]))
}
