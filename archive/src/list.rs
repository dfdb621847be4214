//! What an archive holds.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringwal::Lsn;

use crate::block_on::block_on;
use crate::error::{Error, Result};
use crate::layout;
use crate::manifest::Manifest;
use crate::store::{Archive, Found};

/// What an archive holds, from [`Archive::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listing {
    /// The id of the log, in hexadecimal.
    pub log_id: String,
    /// The archive begins there or later: what was below was pruned. 0 if it never was.
    pub floor: Lsn,
    /// The archived segments, oldest first.
    pub segments: Vec<ArchivedSegment>,
    /// What is missing between them, and before the first one.
    pub gaps: Vec<Gap>,
    /// The segments that do not continue the one before them, by their first positions: they are of
    /// another history of the log. No restore has both.
    pub other_histories: Vec<Lsn>,
    /// Manifests that are torn or damaged. Such a segment is not archived; an archiver that still
    /// has it ships it again.
    pub invalid_manifests: Vec<String>,
    /// Objects of segments that no manifest names: uploads that were not confirmed.
    pub unconfirmed_objects: Vec<String>,
}

/// An archived segment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchivedSegment {
    /// Its first position.
    pub base: Lsn,
    /// The first position after it.
    pub end: Lsn,
    /// The first position after its last group: positions from there to its end hold nothing.
    pub groups_end: Lsn,
    /// Records in it, void ones included.
    pub records: u64,
    /// Number of records in the log before it.
    pub first_ordinal: u64,
    /// When its first group was written, by the clock of its writer.
    pub first_written: SystemTime,
    /// When its last group was written.
    pub last_written: SystemTime,
    /// Bytes of its object.
    pub bytes: u64,
    /// The object's name in the store.
    pub object: String,
    /// The application's version of its records.
    pub application_version: u32,
}

/// Positions that an archive lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The first one.
    pub from: Lsn,
    /// The first one that is there again.
    pub to: Lsn,
    /// The object that is missing.
    pub missing: String,
}

/// The manifests of an archive, with what is wrong in them.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) log_id: String,
    /// The first position that belongs to the archive.
    pub(crate) floor: u64,
    /// Ascending, without two of one base.
    pub(crate) manifests: Vec<Manifest>,
    pub(crate) gaps: Vec<Gap>,
    /// First positions of segments that do not continue the one before.
    pub(crate) breaks: Vec<u64>,
    /// Segments whose manifest is torn or damaged, or overlaps the one before, by their first
    /// positions.
    pub(crate) invalid: Vec<u64>,
    unconfirmed: Vec<String>,
}

impl Archive {
    /// Lists the archived segments and what is missing between them. Reads manifests and the names
    /// of objects, and no segment.
    ///
    /// # Errors
    ///
    /// [`Error::NoArchive`] if nothing was archived there; [`Error::AnotherLog`] if manifests are
    /// of several logs; [`Error::Store`]; [`Error::Unsupported`].
    pub fn list(&self) -> Result<Listing> {
        let index = block_on(self.index())?;
        let time = |nanos| UNIX_EPOCH + Duration::from_nanos(nanos);
        let segment = |m: Manifest| ArchivedSegment {
            base: Lsn::new(m.base),
            end: Lsn::new(m.end()),
            groups_end: Lsn::new(m.groups_end),
            records: m.records,
            first_ordinal: m.first_ordinal,
            first_written: time(m.first_written),
            last_written: time(m.last_written),
            bytes: m.bytes,
            object: self.path(&m.object).to_string(),
            application_version: m.application_version,
        };
        Ok(Listing {
            log_id: index.log_id,
            floor: Lsn::new(index.floor),
            segments: index.manifests.into_iter().map(segment).collect(),
            gaps: index.gaps,
            other_histories: index.breaks.into_iter().map(Lsn::new).collect(),
            invalid_manifests: index
                .invalid
                .into_iter()
                .map(|base| self.manifest_path(base))
                .collect(),
            unconfirmed_objects: index.unconfirmed,
        })
    }

    /// Reads all manifests, and looks for their objects.
    pub(crate) async fn index(&self) -> Result<Index> {
        let none = || Error::NoArchive { place: self.place() };
        let log_id = self.identity().await?.ok_or_else(none)?;
        let mut floor = self.floor(&log_id).await?;
        loop {
            let index = self.index_from(&log_id, floor).await?;
            // What a prune removes meanwhile is not missing.
            let now = self.floor(&log_id).await?;
            if now == floor {
                return Ok(index);
            }
            floor = now;
        }
    }

    /// The whole name of a manifest.
    pub(crate) fn manifest_path(&self, base: u64) -> String {
        self.path(&layout::manifest(base)).to_string()
    }

    async fn index_from(&self, log_id: &str, floor: u64) -> Result<Index> {
        let mut bases = self.bases().await?;
        bases.retain(|base| *base >= floor);
        let objects = self.folder(layout::SEGMENTS).await?;
        // A listing of manifests that lacks the first ones would move the beginning unseen.
        let listed = bases.first().copied().unwrap_or(u64::MAX);
        let earlier = objects.iter().filter_map(|(path, _)| layout::segment_base_of(path));
        bases.extend(earlier.filter(|base| (floor..listed).contains(base)));
        bases.sort_unstable();
        bases.dedup();
        let (mut manifests, mut invalid, mut unnamed) = (Vec::new(), Vec::new(), Vec::new());
        for (base, found) in self.manifests(bases).await? {
            match found {
                Found::Archived(manifest) => manifests.push(*manifest),
                Found::Invalid => invalid.push(base),
                Found::Nothing if base < listed => unnamed.push(base),
                // A listing may still have an object that is gone.
                Found::Nothing => {}
            }
        }
        let manifests = self.without_lag(manifests, &mut invalid).await?;
        if let Some(foreign) = manifests.iter().find(|manifest| manifest.log_id != log_id) {
            let (place, found) = (self.place(), foreign.log_id.clone());
            return Err(Error::AnotherLog { place, expected: log_id.into(), found });
        }
        let sizes: HashMap<String, u64> =
            objects.into_iter().map(|(path, size)| (path.to_string(), size)).collect();
        // Something of a segment is there that no sound manifest names.
        let remains = invalid.iter().chain(&unnamed).min().copied();
        let begin = if floor > 0 { Some(floor) } else { remains };
        let mut gaps = between(self, begin, &manifests);
        for manifest in &manifests {
            let path = self.path(&manifest.object).to_string();
            // A listing may lack an object that is there.
            let is_there =
                sizes.contains_key(&path) || self.size(&manifest.object).await?.is_some();
            if !is_there {
                let (from, to) = (Lsn::new(manifest.base), Lsn::new(manifest.end()));
                gaps.push(Gap { from, to, missing: path });
            }
        }
        gaps.sort_by_key(|gap| gap.from);
        let pairs = manifests.iter().zip(manifests.iter().skip(1));
        let breaks = pairs.filter(|(before, next)| !next.continues(before));
        let breaks = breaks.map(|(_, next)| next.base).collect();
        let named: HashSet<String> =
            manifests.iter().map(|manifest| self.path(&manifest.object).to_string()).collect();
        let mut unconfirmed: Vec<String> =
            sizes.into_keys().filter(|path| !named.contains(path)).collect();
        unconfirmed.sort_unstable();
        let log_id = log_id.into();
        Ok(Index { log_id, floor, manifests, gaps, breaks, invalid, unconfirmed })
    }

    /// Adds manifests that the listing lacks: their names follow from the segments before them.
    /// Leaves out those that overlap the segment before them.
    async fn without_lag(
        &self,
        listed: Vec<Manifest>,
        invalid: &mut Vec<u64>,
    ) -> Result<Vec<Manifest>> {
        let mut all: Vec<Manifest> = Vec::new();
        for manifest in listed {
            self.extend(&mut all, Some(manifest.base)).await?;
            match all.last() {
                // The listing had it, and so did its predecessor.
                Some(last) if last.base == manifest.base => {}
                Some(last) if last.end() > manifest.base => {
                    invalid.push(manifest.base);
                }
                _ => all.push(manifest),
            }
        }
        self.extend(&mut all, None).await?;
        Ok(all)
    }

    /// The end of the newest archived segment, or the first position that belongs to the archive.
    /// `None`: it begins with whatever is archived first.
    pub(crate) async fn end(&self, floor: u64) -> Result<Option<u64>> {
        let begins = (floor > 0).then_some(floor);
        let newest = self.bases().await?.pop().filter(|base| *base >= floor);
        let Some(newest) = newest else { return Ok(begins) };
        let Found::Archived(manifest) = self.manifest(newest).await? else {
            // Damaged: where its segment ends is unknown.
            return Ok(Some(newest));
        };
        let mut all = vec![*manifest];
        self.extend(&mut all, None).await?;
        Ok(all.last().map(Manifest::end))
    }

    /// Appends the manifests that follow the last one, up to a position.
    async fn extend(&self, all: &mut Vec<Manifest>, up_to: Option<u64>) -> Result<()> {
        while let Some(next) = all.last().map(Manifest::end) {
            if up_to.is_some_and(|end| next >= end) {
                return Ok(());
            }
            let Found::Archived(manifest) = self.manifest(next).await? else { return Ok(()) };
            all.push(*manifest);
        }
        Ok(())
    }
}

/// The gaps between manifests, and before the first one if it is known where the archive begins.
fn between(archive: &Archive, begin: Option<u64>, manifests: &[Manifest]) -> Vec<Gap> {
    let mut end = begin;
    let mut gaps = Vec::new();
    for manifest in manifests {
        if let Some(from) = end.filter(|end| *end < manifest.base) {
            let missing = archive.manifest_path(from);
            gaps.push(Gap { from: Lsn::new(from), to: Lsn::new(manifest.base), missing });
        }
        end = Some(manifest.end());
    }
    gaps
}
