//! What a process that only reads knows of the directory, and how it is brought up to date.

use std::sync::Arc;
use std::time::Duration;

use crate::cuts::Cuts;
use crate::end_file::{EndReader, Said};
use crate::error::{Error, Result};
use crate::files::Files;
use crate::format::SegmentHeader;
use crate::lsn::Lsn;
use crate::open::{check_position, load_cuts};
use crate::positions::furthest_position;
use crate::recovery::{Scan, Walker, judge, read_header, scan};
use crate::segment::{Names, Table};
use crate::storage::{Access, Dir, OsDir};
use crate::tail::Tail;

/// A directory that changes while it is looked at is looked at again, so often and after such pauses.
const LOOKS: u32 = 60;
const PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Known {
    segments: Vec<SegmentHeader>,
    /// Files with positions.
    positions: Vec<String>,
    end: u64,
    told: EndReader,
    newest_cut: u64,
    /// The writer's word was found true once: the directory is the one that it writes.
    believed: bool,
}

pub(super) fn open(dir: &Arc<OsDir>, prefix: &str) -> Result<(Arc<Files>, Known)> {
    let names = Names::new(prefix);
    let table = Table::new([], []);
    let shared: Arc<dyn Dir> = Arc::<OsDir>::clone(dir);
    let files = Arc::new(Files::new(table, &shared, &names, Tail::new(0), Cuts::new()));
    files.leave();
    if files.oldest_there().map_err(|e| Error::io("list", dir.path(), e))?.is_none() {
        return Err(no_log(&files));
    }
    let mut known = Known {
        segments: Vec::new(),
        positions: Vec::new(),
        end: 0,
        told: EndReader::default(),
        newest_cut: 0,
        believed: false,
    };
    settled(|| look(&files, &mut known, true))?;
    Ok((files, known))
}

fn no_log(files: &Files) -> Error {
    let none = std::io::Error::new(std::io::ErrorKind::NotFound, "there is no log in it");
    Error::io("read", files.dir.path_of(""), none)
}

/// Whoever tells how far the log is durable may not be who did.
pub(super) fn forget(known: &mut Known) {
    known.told.forget();
}

pub(super) fn application_version(known: &Known) -> u32 {
    known.segments.first().map_or(0, |segment| segment.app_version)
}

/// Which segments there are now.
pub(super) fn list(files: &Files, known: &mut Known) -> Result<()> {
    settled(|| list_once(files, known))
}

fn list_once(files: &Files, known: &mut Known) -> Result<()> {
    let Scan { segments, positions, .. } = scan(&*files.dir, &files.names, known.begun())?;
    if segments.is_empty() {
        return Err(no_log(files));
    }
    files.table.replace(&segments);
    known.segments = segments;
    known.positions = positions;
    Ok(())
}

/// How far the log is durable now.
pub(super) fn refresh(files: &Files, known: &mut Known) -> Result<u64> {
    let mut again = false;
    settled(|| look(files, known, std::mem::replace(&mut again, true)))
}

/// `anew`: what is known of the segments may not be so any more.
fn look(files: &Files, known: &mut Known, anew: bool) -> Result<u64> {
    let said = known.told.read(&*files.dir, &files.names);
    if anew {
        // Behind that: what lies below the end that was read is begun, and does not change any more.
        list_once(files, known)?;
    }
    let said = said.filter(|said| known.segments.first().is_some_and(|s| s.log_id == said.log_id));
    if let Some(said) = said
        && believe(files, known, &said, anew)?
    {
        return Ok(known.end);
    }
    // Nobody says: where the log ends is found as a writer would find it.
    // First the positions: what is stored meanwhile may lie behind the end that is found.
    let id = known.segments.first().map(|header| header.log_id).unwrap_or_default();
    let furthest = furthest_position(&*files.dir, &known.positions, &id);
    list_once(files, known)?;
    let judged = judge(&*files.dir, &files.names, &known.segments)?;
    check_position(&judged, furthest)?;
    advance(files, known, judged.end, judged.link.last_cut)?;
    Ok(known.end)
}

fn believe(files: &Files, known: &mut Known, said: &Said, anew: bool) -> Result<bool> {
    if said.durable_end <= known.end && known.believed {
        return Ok(true);
    }
    if !anew && !are_all_known(files, known, said.durable_end)? {
        list_once(files, known)?;
    }
    if !known.believed {
        let oldest = reaches(files, &known.segments, said.durable_end)?;
        if let Some(oldest) = oldest
            && known.segments.first().is_none_or(|first| first.base > oldest)
        {
            // Retention may have gone on since the writer has said it: then what it says next is looked at.
            return Err(Error::Corruption {
                segment: files.names.segment(oldest),
                offset: 0,
                lsn: Lsn::new(oldest),
                reason: "the segment is missing",
            });
        }
        known.believed = oldest.is_some();
    }
    if known.believed {
        advance(files, known, said.durable_end, said.newest_cut)?;
    }
    Ok(known.believed)
}

/// Whether all segments up to `end` are known as they are: one that was prepared when it was seen may have been
/// made anew by the writer that began it.
fn are_all_known(files: &Files, known: &Known, end: u64) -> Result<bool> {
    if known.segments.last().is_none_or(|last| last.end() < end) {
        return Ok(false);
    }
    let prepared = &known.segments[known.begun().len()..];
    for header in prepared.iter().take_while(|header| header.first_group() < end) {
        if read_header(&*files.dir, &files.names.segment(header.base))? != Ok(*header) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Cuts first: who reads below the end knows of every cut below it.
fn advance(files: &Files, known: &mut Known, end: u64, newest_cut: u64) -> Result<()> {
    if newest_cut > known.newest_cut {
        let cuts = load_cuts(&*files.dir, &files.names, &known.segments, newest_cut)?;
        let fresh = cuts.all().into_iter().filter(|cut| cut.to > known.newest_cut);
        fresh.for_each(|cut| files.cuts.add(cut));
        known.newest_cut = newest_cut;
    }
    known.end = known.end.max(end);
    Ok(())
}

impl Known {
    /// The segments in which something was durable when they were listed: these do not change any more.
    fn begun(&self) -> &[SegmentHeader] {
        let begun = self.segments.partition_point(|header| header.first_group() < self.end);
        &self.segments[..begun]
    }
}

/// Whether the groups of the segment that `end` lies in lead to it: then what the last of them says is the
/// oldest that retention keeps.
fn reaches(files: &Files, segments: &[SegmentHeader], end: u64) -> Result<Option<u64>> {
    let at = segments.partition_point(|header| header.end() < end);
    let Some(header) = segments.get(at) else { return Ok(None) };
    let name = files.names.segment(header.base);
    let io = |op, e| Error::io(op, files.dir.path_of(&name), e);
    let file = files.dir.open(&name, Access::Read).map_err(|e| io("open", e))?;
    let mut walker = Walker::new(file, *header);
    let (mut lsn, mut link) = (header.first_group(), None);
    let mut oldest = None;
    while lsn < end {
        match walker.group(lsn).map_err(|e| io("read", e))? {
            Ok(group) if link.is_none_or(|link| group.follows(&link)) => {
                lsn = group.padded_end(header.block);
                link = Some(group.link());
                oldest = Some(group.oldest);
            }
            _ => return Ok(None),
        }
    }
    Ok(oldest.filter(|_| lsn == end))
}

/// Makes `look` again while it fails in a way that a change meanwhile may explain.
fn settled<T>(mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let mut pause = PAUSE;
    for _ in 1..LOOKS {
        match look() {
            Err(Error::Corruption { .. }) => {}
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            settled => return settled,
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    look()
}
