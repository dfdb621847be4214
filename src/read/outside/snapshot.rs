//! What a process that only reads knows of the directory, and how it is brought up to date.
//!
//! Three states are told apart at each look (`end_file`):
//!
//! 1. A writer says now how far the log is durable. Its word is held against the groups once, and against the list of
//!    segments; where they do not reach it, they were lost.
//! 2. There is no writer: the end is where opening would find it. A word of the last writer, of this boot and directory,
//!    that lies above it is damage; one below it is stale. The result is kept until a group comes.
//! 3. Neither is known: only what the durable marks of the groups prove.
//!
//! The end that is reported never goes back.

use std::sync::Arc;
use std::time::Duration;

use super::tip::{News, Tip};
use crate::engine::log_view::LogView;
use crate::engine::recover::{ENDS_EARLY, check_end, check_position, load_cuts};
use crate::error::{Error, Result};
use crate::format::{SegmentHeader, StatedEnd};
use crate::io::fs::{Access, Dir, OsDir};
use crate::lsn::Lsn;
use crate::positions::furthest_position;
use crate::recovery::{MISSING, Scan, Walker, find_end, is_gone, read_header, scan, states_oldest};
use crate::segment::cuts::Cuts;
use crate::segment::end_file::{EndReader, Writer, is_written};
use crate::segment::recent::RecentGroups;
use crate::segment::{Names, SegmentTable};

/// A directory that changes while it is looked at is looked at again, so often and after such pauses.
const LOOKS: u32 = 60;
const PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// Words that are asked for until the list of segments has caught up with one.
const WORDS: u32 = 5;

#[derive(Debug)]
pub(super) struct Known {
    segments: Vec<SegmentHeader>,
    /// Files with positions.
    positions: Vec<String>,
    end: u64,
    /// What was durable before the segments were listed.
    begun: u64,
    end_file: EndReader,
    newest_cut: u64,
    /// A word was found true once: the directory is the one that its writer writes.
    believed: bool,
    /// The chain's end, while no writer's word tells it.
    tip: Option<Tip>,
}

pub(super) fn open(dir: &Arc<OsDir>, prefix: &str) -> Result<(Arc<LogView>, Known)> {
    let names = Names::new(prefix);
    let table = SegmentTable::new([], []);
    let state: Arc<dyn Dir> = Arc::<OsDir>::clone(dir);
    let view = Arc::new(LogView::new(table, &state, &names, RecentGroups::new(0), Cuts::new()));
    view.leave();
    if view.oldest_there().map_err(|e| Error::io("list", dir.path(), e))?.is_none() {
        return Err(no_log(&view));
    }
    let mut known = Known {
        segments: Vec::new(),
        positions: Vec::new(),
        end: 0,
        begun: 0,
        end_file: EndReader::default(),
        newest_cut: 0,
        believed: false,
        tip: None,
    };
    settled(|| look(&view, &mut known, true))?;
    Ok((view, known))
}

fn no_log(view: &LogView) -> Error {
    let none = std::io::Error::new(std::io::ErrorKind::NotFound, "there is no log in it");
    Error::io("read", view.dir.path_of(""), none)
}

pub(super) fn application_version(known: &Known) -> u32 {
    known.segments.first().map_or(0, |segment| segment.app_version)
}

/// Whether a writer said how far the log is durable when that was asked last.
#[cfg(linux_calls)]
pub(super) fn is_told(known: &Known) -> bool {
    known.tip.is_none()
}

/// Which segments there are now.
pub(super) fn list(view: &LogView, known: &mut Known) -> Result<()> {
    settled(|| list_once(view, known))
}

fn list_once(view: &LogView, known: &mut Known) -> Result<()> {
    let Scan { segments, positions, .. } = scan(&*view.dir, &view.names, known.begun())?;
    let Some(first) = segments.first() else { return Err(no_log(view)) };
    // What the look at the end does not ask again.
    if let Some(before) = known.segments.first()
        && known.end > 0
        && first.base > before.base
        && !states_oldest(&*view.dir, &view.names, first.base)?
    {
        return Err(corruption(view, before, before.base, MISSING));
    }
    view.table.replace(&segments);
    view.cuts.forget_below(first.base);
    known.segments = segments;
    known.positions = positions;
    Ok(())
}

/// How far the log is durable now.
pub(super) fn refresh(view: &LogView, known: &mut Known) -> Result<u64> {
    let mut again = false;
    settled(|| look(view, known, std::mem::replace(&mut again, true)))
}

/// `anew`: what is known of the segments may not be so any more.
fn look(view: &LogView, known: &mut Known, anew: bool) -> Result<u64> {
    let mut list = anew;
    for _ in 0..WORDS {
        let writer = known.end_file.ask(&*view.dir, &view.names);
        if list {
            if let Writer::Tells { said, .. } = writer
                && known.segments.first().is_none_or(|s| s.log_id == said.log_id)
            {
                known.begun = known.begun.max(said.durable_end);
            }
            list_once(view, known)?;
            list = false;
            if let Writer::Tells { said, .. } = writer {
                if known.segments.first().is_none_or(|s| s.log_id != said.log_id) {
                    known.begun = known.end;
                }
                // A word from before the list says nothing of what retention took until then.
                continue;
            }
        }
        let of_this_log = |said: &StatedEnd| {
            known.segments.first().is_some_and(|segment| segment.log_id == said.log_id)
        };
        let done = match writer {
            Writer::Tells { said, own } if of_this_log(&said) => {
                match follow_word(view, known, &said, own)? {
                    Word::Followed => true,
                    Word::Beyond => {
                        list = true;
                        false
                    }
                    Word::Elsewhere => by_marks(view, known, None)?,
                }
            }
            Writer::Tells { .. } => by_marks(view, known, None)?,
            Writer::Silent(said) => {
                let said = said.filter(of_this_log);
                by_marks(view, known, said)?
            }
            Writer::Gone(said) => {
                let said = said.filter(of_this_log);
                by_judging(view, known, said)?
            }
        };
        if done {
            return Ok(known.end);
        }
    }
    // The word stays beyond what is there. Opening may know better what is missing.
    find_end(&*view.dir, &view.names, &known.segments)?;
    let last = known.segments.last().copied();
    Err(last.map_or_else(|| no_log(view), |last| missing_after(view, &last)))
}

/// What a writer's word came to.
enum Word {
    Followed,
    /// It lies beyond the segments that can be found.
    Beyond,
    /// The groups here do not reach it, and need not: it is said of another directory.
    Elsewhere,
}

fn follow_word(view: &LogView, known: &mut Known, said: &StatedEnd, own: bool) -> Result<Word> {
    if said.durable_end > known.end || !known.believed {
        if !extend(view, known, said.durable_end)? {
            return Ok(if own { Word::Beyond } else { Word::Elsewhere });
        }
        if !known.believed {
            match reaches(view, &known.segments, said.durable_end)? {
                Ok(oldest) => check_front(view, known, oldest)?,
                Err((segment, at)) if own => {
                    return Err(corruption(view, &segment, at, ENDS_EARLY));
                }
                Err(_) => return Ok(Word::Elsewhere),
            }
            known.believed = true;
        }
        advance(view, known, said.durable_end, said.newest_cut)?;
    }
    known.tip = None;
    Ok(Word::Followed)
}

/// The groups state that nothing below `oldest` is kept: what is not there above it was lost.
fn check_front(view: &LogView, known: &Known, oldest: u64) -> Result<()> {
    match known.segments.first() {
        Some(first) if first.base > oldest => {
            let (segment, lsn) = (view.names.segment(oldest), Lsn::new(oldest));
            Err(Error::Corruption { segment, offset: 0, lsn, reason: MISSING })
        }
        _ => Ok(()),
    }
}

/// What the groups themselves prove, while nobody says more. False: to be looked at again.
fn by_marks(view: &LogView, known: &mut Known, said: Option<StatedEnd>) -> Result<bool> {
    let mut tip = match known.tip.take() {
        Some(mut tip) => match tip.advance(view)? {
            News::Lost => find_tip(view, known)?,
            News::Nothing | News::Groups => tip,
        },
        None => find_tip(view, known)?,
    };
    tip.judged = false;
    let first = known.segments.first().map_or(0, SegmentHeader::first_group);
    let mut end = tip.mark().max(first);
    if let Some(said) = said
        && said.durable_end <= tip.end()
        && said.durable_end > end
    {
        // It was true on this boot, and so it is if the groups reach it.
        if !known.believed && extend(view, known, said.durable_end)? {
            known.believed = reaches(view, &known.segments, said.durable_end)?.is_ok();
        }
        if known.believed {
            end = said.durable_end;
        }
    }
    let last_cut = tip.last_cut();
    known.tip = Some(tip);
    if !extend(view, known, end)? {
        list_once(view, known)?;
        known.begun = known.begun.max(end);
    }
    advance(view, known, end, last_cut)?;
    Ok(true)
}

fn find_tip(view: &LogView, known: &mut Known) -> Result<Tip> {
    list_once(view, known)?;
    let judged = find_end(&*view.dir, &view.names, &known.segments)?;
    Tip::new(view, known.segments[judged.active], &judged, false)
}

/// Where opening the log would find its end. False: somebody came meanwhile, who may have written.
fn by_judging(view: &LogView, known: &mut Known, said: Option<StatedEnd>) -> Result<bool> {
    let proven = said.map_or(0, |said| said.durable_end).max(known.end);
    if let Some(tip) = &mut known.tip
        && tip.judged
        && tip.end() >= proven
        && tip.advance(view)? == News::Nothing
    {
        return Ok(true);
    }
    known.tip = None;
    // First the positions: what is stored meanwhile may lie behind the end that is found.
    let id = known.segments.first().map(|header| header.log_id).unwrap_or_default();
    let furthest = furthest_position(&*view.dir, &known.positions, &id);
    list_once(view, known)?;
    let judged = find_end(&*view.dir, &view.names, &known.segments)?;
    check_position(&judged, furthest)?;
    check_end(&judged, &view.names, &known.segments, proven)?;
    let tip = Tip::new(view, known.segments[judged.active], &judged, true)?;
    if is_written(&*view.dir, &view.names) != Some(false) {
        return Ok(false);
    }
    known.tip = Some(tip);
    known.begun = known.begun.max(judged.end);
    advance(view, known, judged.end, judged.link.last_cut)?;
    Ok(true)
}

/// Reads the headers of the segments up to `end`, which is durable: those that were not begun when they were read may have
/// been made anew. Their names follow from those before them. False: they cannot be found so.
fn extend(view: &LogView, known: &mut Known, end: u64) -> Result<bool> {
    let mut at = known.begun().len();
    if at == 0 {
        return Ok(false);
    }
    let mut changed = false;
    while known.segments[at - 1].end() < end {
        let before = known.segments[at - 1];
        let base = before.end();
        match read_header(&*view.dir, &view.names.segment(base)) {
            Ok(Ok(header)) if header.base == base && header.log_id == before.log_id => {
                if known.segments.get(at) != Some(&header) {
                    known.segments.truncate(at);
                    known.segments.push(header);
                    changed = true;
                }
                at += 1;
            }
            Ok(_) => return Ok(false),
            Err(e) if is_gone(&e) => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    if changed {
        view.table.replace(&known.segments);
    }
    known.begun = known.begun.max(end);
    Ok(true)
}

/// Cuts first: who reads below the end knows of every cut below it.
fn advance(view: &LogView, known: &mut Known, end: u64, last_cut: u64) -> Result<()> {
    if last_cut > known.newest_cut {
        let (dir, segments) = (&*view.dir, &known.segments);
        // One at or above the end is not durable yet.
        for cut in load_cuts(dir, &view.names, segments, last_cut, known.newest_cut)? {
            if cut.to < end {
                view.cuts.add(cut);
                known.newest_cut = cut.to;
            }
        }
    }
    known.end = known.end.max(end);
    Ok(())
}

impl Known {
    /// The segments in which something was durable when their headers were read: these do not change any more.
    fn begun(&self) -> &[SegmentHeader] {
        let begun = self.segments.partition_point(|header| header.first_group() < self.begun);
        &self.segments[..begun]
    }
}

/// Whether the groups of the segment that `end` lies in lead to it: then what the last of them says is the
/// oldest that retention keeps. If not, where they end.
fn reaches(
    view: &LogView,
    segments: &[SegmentHeader],
    end: u64,
) -> Result<std::result::Result<u64, (SegmentHeader, u64)>> {
    let at = segments.partition_point(|header| header.end() < end);
    let Some(header) = segments.get(at).or(segments.last()) else { return Err(no_log(view)) };
    let name = view.names.segment(header.base);
    let io = |op, e| Error::io(op, view.dir.path_of(&name), e);
    let file = view.dir.open(&name, Access::Read).map_err(|e| io("open", e))?;
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
            _ => return Ok(Err((*header, lsn))),
        }
    }
    Ok(oldest.filter(|_| lsn == end).ok_or((*header, lsn)))
}

fn missing_after(view: &LogView, last: &SegmentHeader) -> Error {
    let (segment, lsn) = (view.names.segment(last.end()), Lsn::new(last.end()));
    Error::Corruption { segment, offset: 0, lsn, reason: MISSING }
}

fn corruption(view: &LogView, header: &SegmentHeader, lsn: u64, reason: &'static str) -> Error {
    Error::Corruption {
        segment: view.names.segment(header.base),
        offset: lsn.saturating_sub(header.base),
        lsn: Lsn::new(lsn),
        reason,
    }
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
