//! What a process that only reads knows of the directory, and how it is brought up to date.

use std::sync::Arc;
use std::time::Duration;

use crate::cuts::Cuts;
use crate::end_file::{EndReader, Said};
use crate::error::{Error, Result};
use crate::files::Files;
use crate::format::SegmentHeader;
use crate::open::{check_position, load_cuts};
use crate::positions::furthest_position;
use crate::recovery::{Scan, Walker, judge, scan};
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
    /// Files with positions, as they were when it was opened.
    positions: Vec<String>,
    end: u64,
    told: EndReader,
    newest_cut: u64,
    /// The writer's word was found true once: the directory is the one that it writes.
    believed: bool,
}

pub(super) fn open(dir: &Arc<OsDir>, prefix: &str) -> Result<(Arc<Files>, Known)> {
    let names = Names::new(prefix);
    let Scan { segments, positions, .. } = settled(|| scan(&**dir, &names, &[]))?;
    if segments.is_empty() {
        let none = std::io::Error::new(std::io::ErrorKind::NotFound, "there is no log in it");
        return Err(Error::io("open", dir.path(), none));
    }
    let live = segments.iter().map(|header| (*header, None));
    let files = Arc::new(Files {
        table: Arc::new(Table::new(live, [])),
        dir: Arc::clone(dir) as Arc<dyn Dir>,
        names,
        tail: Arc::new(Tail::new(0)),
        cuts: Cuts::new(),
    });
    let mut known = Known {
        segments,
        positions,
        end: 0,
        told: EndReader::default(),
        newest_cut: 0,
        believed: false,
    };
    refresh(&files, &mut known)?;
    Ok((files, known))
}

/// Whoever tells how far the log is durable may not be who did.
pub(super) fn forget(known: &mut Known) {
    known.told.forget();
}

/// Which segments there are now.
pub(super) fn list(files: &Files, known: &mut Known) -> Result<()> {
    let found = settled(|| scan(&*files.dir, &files.names, &known.segments))?.segments;
    files.table.replace(&found);
    known.segments = found;
    Ok(())
}

/// How far the log is durable now.
pub(super) fn refresh(files: &Files, known: &mut Known) -> Result<u64> {
    let said = known
        .told
        .read(&*files.dir, &files.names)
        .filter(|said| known.segments.first().is_some_and(|s| s.log_id == said.log_id));
    if let Some(said) = said
        && believe(files, known, &said)?
    {
        return Ok(known.end);
    }
    // Nobody says: where the log ends is found as a writer would find it.
    let (judged, segments) = settled(|| {
        // First: what is stored meanwhile may lie behind the end that is found.
        let id = known.segments.first().map(|header| header.log_id).unwrap_or_default();
        let furthest = furthest_position(&*files.dir, &known.positions, &id);
        let found = scan(&*files.dir, &files.names, &known.segments)?.segments;
        let judged = judge(&*files.dir, &files.names, &found)?;
        check_position(&judged, &files.names, &found, furthest)?;
        Ok((judged, found))
    })?;
    files.table.replace(&segments);
    known.segments = segments;
    advance(files, known, judged.end, judged.link.last_cut)?;
    Ok(known.end)
}

fn believe(files: &Files, known: &mut Known, said: &Said) -> Result<bool> {
    if said.durable_end <= known.end && known.believed {
        return Ok(true);
    }
    if known.segments.last().is_none_or(|last| last.end() < said.durable_end) {
        list(files, known)?;
    }
    if !known.believed {
        known.believed = reaches(files, &known.segments, said.durable_end)?;
    }
    if known.believed {
        advance(files, known, said.durable_end, said.newest_cut)?;
    }
    Ok(known.believed)
}

/// Cuts first: who reads below the end knows of every cut below it.
fn advance(files: &Files, known: &mut Known, end: u64, newest_cut: u64) -> Result<()> {
    if newest_cut > known.newest_cut {
        let cuts = settled(|| load_cuts(&*files.dir, &files.names, &known.segments, newest_cut))?;
        let fresh = cuts.all().into_iter().filter(|cut| cut.to > known.newest_cut);
        fresh.for_each(|cut| files.cuts.add(cut));
        known.newest_cut = newest_cut;
    }
    known.end = known.end.max(end);
    Ok(())
}

/// Whether the groups of the segment that `end` lies in lead to it.
fn reaches(files: &Files, segments: &[SegmentHeader], end: u64) -> Result<bool> {
    let at = segments.partition_point(|header| header.end() < end);
    let Some(header) = segments.get(at) else { return Ok(false) };
    let name = files.names.segment(header.base);
    let io = |op, e| Error::io(op, files.dir.path_of(&name), e);
    let file = files.dir.open(&name, Access::Read).map_err(|e| io("open", e))?;
    let mut walker = Walker::new(file, *header);
    let (mut lsn, mut link) = (header.first_group(), None);
    while lsn < end {
        match walker.group(lsn).map_err(|e| io("read", e))? {
            Ok(group) if link.is_none_or(|link| group.follows(&link)) => {
                lsn = group.padded_end(header.block);
                link = Some(group.link());
            }
            _ => return Ok(false),
        }
    }
    Ok(lsn == end)
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
