//! Lists the segment files, each with its header or one derived from its neighbours.

use std::path::Path;
use std::sync::Arc;

use super::medium_errors::{MediumErrors, UNREADABLE};
use super::view::View;
use super::{Damage, Finding, Remedy, Survey, Watch};
use crate::error::{Error, Result};
use crate::format::{
    ADDRESS_SPACE, GROUP_HEADER, GroupHeader, HeaderInvalid, MAX_GROUP, MIN_BLOCK, SEGMENT_HEADER,
    SegmentHeader,
};
use crate::io::fs::{Access, read_full};
use crate::lsn::Lsn;
use crate::segment::SegmentName;

/// Damage of a segment file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is not a regular file, and is not read.
    NotRegular,
    /// Its header is damaged, or not of this place and log.
    Header(&'static str),
    /// Its header is sound, and says another length.
    Length,
}

impl Wrong {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Wrong::NotRegular => "not a regular file",
            Wrong::Header(reason) => reason,
            Wrong::Length => "the file is not as long as its header says",
        }
    }
}

/// A segment file.
#[derive(Debug, Clone)]
pub(super) struct ListedSegment {
    pub(super) name: String,
    /// Its own header, or if that is damaged, one derived from the neighbours, the name and the
    /// length.
    pub(super) header: SegmentHeader,
    pub(super) wrong: Option<Wrong>,
    /// The file's length.
    pub(super) len: u64,
    /// There may be groups of the log in it.
    pub(super) walkable: bool,
    /// The header that it was listed with, whether or not that is the right one.
    listed: Header,
}

type Header = std::result::Result<SegmentHeader, Wrong>;

/// Lists the segment files, oldest first.
pub(super) fn list(log: &View) -> Result<Vec<ListedSegment>> {
    let io = |e| Error::io("list", log.path(), e);
    let mut found: Vec<(u64, u64, bool)> = Vec::new();
    for entry in log.dir.list().map_err(io)? {
        if let SegmentName::Segment(base) = log.names.parse(&entry.name) {
            found.push((base, entry.len, entry.regular));
        }
    }
    found.sort_unstable();
    if found.is_empty() {
        let none = std::io::Error::new(std::io::ErrorKind::NotFound, "there is no log in it");
        return Err(Error::io("open", log.path(), none));
    }
    let mut read: Vec<(String, u64, u64, Header)> = Vec::with_capacity(found.len());
    for (base, len, regular) in found {
        let name = log.names.segment(base);
        match if regular { header(log, &name) } else { Ok(Ok(Err(Wrong::NotRegular))) } {
            Ok(header) => read.push((name, base, len, header?)),
            // Retention has removed it meanwhile.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    let listed: Vec<Header> = read.iter().map(|(_, _, _, found)| *found).collect();
    // Most of the files belong to the log; a file with another id came from elsewhere.
    let id = most_common(read.iter().filter_map(|(_, base, _, found)| match found {
        Ok(header) if header.base == *base => Some(header.log_id),
        _ => None,
    }));
    for (_, base, _, found) in &mut read {
        *found = match *found {
            Ok(header) if header.base != *base => {
                Err(Wrong::Header("the header is of another segment"))
            }
            Ok(header) if Some(header.log_id) != id => {
                Err(Wrong::Header("a segment of another log"))
            }
            found => found,
        };
    }
    let app =
        most_common(read.iter().filter_map(|(_, _, _, found)| found.ok().map(|h| h.app_version)));
    for (_, _, _, found) in &mut read {
        if found.is_ok_and(|header| Some(header.app_version) != app) {
            *found = Err(Wrong::Header("another application version than the other segments"));
        }
    }
    let sound: Vec<Option<SegmentHeader>> =
        read.iter().map(|(_, _, _, found)| found.as_ref().ok().copied()).collect();
    let bases: Vec<u64> = read.iter().map(|(_, base, _, _)| *base).collect();
    let alone = match id {
        Some(_) => None,
        // No header is left. The groups say which log it is.
        None => read.iter().find_map(|(name, base, len, _)| by_groups(log, name, *base, *len)),
    };
    Ok(read
        .into_iter()
        .enumerate()
        .filter_map(|(at, (name, base, len, found))| {
            let listed = listed[at];
            let wrong = match found {
                Ok(header) if header.size == len => None,
                Ok(_) => Some(Wrong::Length),
                Err(wrong) => Some(wrong),
            };
            if let Ok(header) = found {
                return Some(ListedSegment { name, header, wrong, len, walkable: true, listed });
            }
            // The nearest is the likeliest to be as this one was.
            let before = sound[..at].iter().rev().flatten().next();
            let model = before.or(sound[at..].iter().flatten().next()).or(alone.as_ref())?;
            let room = bases.get(at + 1).map_or(u64::MAX, |next| next - base);
            let placed = substitute(model, base, len, room);
            let header = placed.unwrap_or(SegmentHeader { base, size: 0, ..*model });
            let walkable = placed.is_some() && wrong != Some(Wrong::NotRegular);
            Some(ListedSegment { name, header, wrong, len, walkable, listed })
        })
        .collect())
}

fn most_common<T: Copy + PartialEq>(ids: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: Vec<(T, usize)> = Vec::new();
    for id in ids {
        match counts.iter_mut().find(|(known, _)| *known == id) {
            Some((_, count)) => *count += 1,
            None => counts.push((id, 1)),
        }
    }
    // Of as many, the first.
    counts.iter().rev().max_by_key(|(_, count)| *count).map(|(id, _)| *id)
}

/// Derives a segment's header from a neighbour. `room` is the number of bytes up to the next
/// segment. `None`: there can be no segment there.
fn substitute(model: &SegmentHeader, base: u64, len: u64, room: u64) -> Option<SegmentHeader> {
    let block = u64::from(model.block);
    // A file that was cut short, or grew, was as long as the others.
    let likely = |size: &u64| size.is_multiple_of(block) && (2 * block..=room).contains(size);
    let size = [len, model.size, room].into_iter().find(likely)?;
    let fits = base.is_multiple_of(block)
        && base.checked_add(size).is_some_and(|end| end <= ADDRESS_SPACE);
    let most = u32::try_from(size).unwrap_or(u32::MAX).min(MAX_GROUP) / model.block * model.block;
    let max_group = model.max_group.max(most);
    fits.then_some(SegmentHeader { base, size, max_group, ..*model })
}

/// Derives the damaged header of a segment from a group in it, for a log without any sound header.
/// The block size is unknown; the smallest one finds groups of every size.
fn by_groups(log: &View, name: &str, base: u64, len: u64) -> Option<SegmentHeader> {
    const FAR: u64 = 1 << 20;
    let file = medium_errors(log, name).ok()?;
    let block = u64::from(MIN_BLOCK);
    (block..len.min(FAR)).step_by(MIN_BLOCK as usize).find_map(|offset| {
        let mut bytes = [0; GROUP_HEADER as usize];
        let n = read_full(&*file, &mut bytes, offset).ok()?;
        let model = SegmentHeader {
            log_id: *bytes[16..].first_chunk()?,
            block: MIN_BLOCK,
            size: 2 * block,
            base,
            max_group: MIN_BLOCK,
            created_at: 0,
            app_version: 0,
        };
        let header = substitute(&model, base, len, u64::MAX)?;
        let group = GroupHeader::decode(&bytes[..n], base.checked_add(offset)?, &header);
        group.is_ok().then_some(header)
    })
}

/// The header in the file, or what is wrong with it.
fn header(log: &View, name: &str) -> Result<Result<Header>> {
    let io = |e| Error::io("read", log.dir.path_of(name), e);
    let file = medium_errors(log, name)?;
    let mut block = [0; SEGMENT_HEADER];
    let n = read_full(&*file, &mut block, 0).map_err(io)?;
    if file.has_lost(0..SEGMENT_HEADER as u64) {
        return Ok(Ok(Err(Wrong::Header(UNREADABLE))));
    }
    let unsupported = |what| Err(Error::Unsupported { segment: name.to_owned(), what });
    Ok(match SegmentHeader::decode(&block[..n]) {
        Ok(header) => Ok(Ok(header)),
        Err(HeaderInvalid::Damaged(reason)) => Ok(Err(Wrong::Header(reason))),
        Err(HeaderInvalid::Version(v)) => unsupported(format!("format version {v}")),
        Err(HeaderInvalid::Features(bits)) => unsupported(format!("format features {bits:#x}")),
    })
}

/// A file, to be read as far as the disk can.
pub(super) fn medium_errors(log: &View, name: &str) -> Result<Arc<MediumErrors>> {
    let io = |e| Error::io("open", log.dir.path_of(name), e);
    let open = |access| log.dir.open(name, access).map_err(io);
    Ok(MediumErrors::new(open(Access::Read)?, open(Access::ReadDevice)?))
}

/// Returns whether the file is still the one that was listed. An error other than `NotFound` does
/// not show that it was removed.
pub(super) fn is_still_there(log: &View, file: &ListedSegment) -> bool {
    match header(log, &file.name) {
        Ok(Ok(header)) => header == file.listed,
        Ok(Err(_)) => false,
        Err(Error::Io { source, .. }) => source.kind() != std::io::ErrorKind::NotFound,
        Err(_) => true,
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

/// Damage without an extent yet, which a cut at its position removes.
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
        kept: 0,
        records_of: None,
        remedy: Remedy::Cut,
        reported: false,
    }
}

impl Survey {
    pub(super) fn enter(&mut self, damage: Damage) {
        self.damaged_places += 1;
        self.records_lost = self.records_lost.saturating_add(damage.records_lost.unwrap_or(0));
        if damage.remedy == Remedy::Cut {
            if self.first_cut.as_ref().is_none_or(|first| damage.lsn < first.lsn) {
                self.first_cut = Some(damage.clone());
            }
            if self.last_cut.as_ref().is_none_or(|last| damage.lsn >= last.lsn) {
                self.last_cut = Some(damage.clone());
            }
        }
        if self.damage.len() < super::MOST_DAMAGE {
            self.damage.push(damage);
        }
    }

    /// Reports the damage that was not reported before.
    pub(super) fn report(&mut self, watch: &mut Watch<'_>) {
        for place in self.damage.iter_mut().filter(|place| !place.reported) {
            place.reported = true;
            self.interrupted |= watch(Finding::Damage(place)).is_break();
        }
    }

    /// Removes the damage in records of groups that a cut of `[from, to)` makes void as a whole: no
    /// reader returns them.
    pub(super) fn forgive_void(&mut self, from: u64, to: u64, watch: &mut Watch<'_>) {
        // A group whose first record is void is void from its header on.
        let void = |place: &Damage| {
            let first = |group: u64| group.saturating_add(u64::from(GROUP_HEADER));
            place.records_of.is_some_and(|group| first(group) >= from && group < to)
        };
        let listed = self.damage.len();
        let mut lost = 0_u64;
        self.damage.retain(|place| {
            let keep = !void(place);
            if !keep && place.reported {
                let _ = watch(Finding::Void(place));
            }
            lost = lost.saturating_add(if keep { 0 } else { place.records_lost.unwrap_or(0) });
            keep
        });
        if self.damage.len() == listed {
            return;
        }
        let unlisted = self.damaged_places > listed as u64;
        self.damaged_places -= (listed - self.damage.len()) as u64;
        self.records_lost = self.records_lost.saturating_sub(lost);
        let mut cuts = self.damage.iter().filter(|place| place.remedy == Remedy::Cut);
        self.first_cut = cuts.next().cloned();
        if !unlisted {
            self.last_cut = cuts.next_back().cloned().or(self.first_cut.clone());
        }
    }

    /// The counters that surveying a segment changes.
    pub(super) fn so_far(&self) -> SoFar {
        SoFar {
            records: self.records,
            records_lost: self.records_lost,
            places: self.damaged_places,
            listed: self.damage.len(),
            cuts: self.cuts.len(),
        }
    }

    /// Resets these counters, and drops the damage found since.
    pub(super) fn back_to(&mut self, so_far: &SoFar) {
        self.records = so_far.records;
        self.records_lost = so_far.records_lost;
        self.damaged_places = so_far.places;
        self.damage.truncate(so_far.listed);
        self.cuts.truncate(so_far.cuts);
        let mut cuts = self.damage.iter().filter(|place| place.remedy == Remedy::Cut);
        self.first_cut = cuts.next().cloned();
        self.last_cut = cuts.next_back().cloned().or(self.first_cut.clone());
    }
}

#[derive(Debug)]
pub(super) struct SoFar {
    records: u64,
    records_lost: u64,
    places: u64,
    listed: usize,
    cuts: usize,
}
