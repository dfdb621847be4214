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
    /// What is missing between them.
    pub gaps: Vec<Gap>,
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
    invalid: Vec<String>,
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
            invalid_manifests: index.invalid,
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

    async fn index_from(&self, log_id: &str, floor: u64) -> Result<Index> {
        let mut manifests: Vec<Manifest> = Vec::new();
        let mut invalid = Vec::new();
        let mut bases = self.bases().await?;
        bases.retain(|base| *base >= floor);
        for (base, found) in self.manifests(bases).await? {
            match found {
                Found::Archived(manifest) => manifests.push(*manifest),
                Found::Invalid => {
                    invalid.push(self.path(&layout::manifest(base)).to_string());
                }
                // A listing may still have an object that is gone.
                Found::Nothing => {}
            }
        }
        let manifests = self.without_lag(manifests, &mut invalid).await?;
        if let Some(foreign) = manifests.iter().find(|manifest| manifest.log_id != log_id) {
            let (place, found) = (self.place(), foreign.log_id.clone());
            return Err(Error::AnotherLog { place, expected: log_id.into(), found });
        }
        let objects = self.folder(layout::SEGMENTS).await?;
        let sizes: HashMap<String, u64> =
            objects.into_iter().map(|(path, size)| (path.to_string(), size)).collect();
        let mut gaps = between(self, floor, &manifests);
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
        let named: HashSet<String> =
            manifests.iter().map(|manifest| self.path(&manifest.object).to_string()).collect();
        let mut unconfirmed: Vec<String> =
            sizes.into_keys().filter(|path| !named.contains(path)).collect();
        unconfirmed.sort_unstable();
        Ok(Index { log_id: log_id.into(), floor, manifests, gaps, invalid, unconfirmed })
    }

    /// Adds manifests that the listing lacks: their names follow from the segments before them.
    /// Leaves out those that overlap the segment before them.
    async fn without_lag(
        &self,
        listed: Vec<Manifest>,
        invalid: &mut Vec<String>,
    ) -> Result<Vec<Manifest>> {
        let mut all: Vec<Manifest> = Vec::new();
        for manifest in listed {
            self.extend(&mut all, Some(manifest.base)).await?;
            match all.last() {
                // The listing had it, and so did its predecessor.
                Some(last) if last.base == manifest.base => {}
                Some(last) if last.end() > manifest.base => {
                    invalid.push(self.path(&layout::manifest(manifest.base)).to_string());
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

/// The gaps between manifests, and before the first one of a pruned archive.
fn between(archive: &Archive, floor: u64, manifests: &[Manifest]) -> Vec<Gap> {
    let mut end = (floor > 0).then_some(floor);
    let mut gaps = Vec::new();
    for manifest in manifests {
        if let Some(from) = end.filter(|end| *end != manifest.base) {
            let missing = archive.path(&layout::manifest(from)).to_string();
            gaps.push(Gap { from: Lsn::new(from), to: Lsn::new(manifest.base), missing });
        }
        end = Some(manifest.end());
    }
    gaps
}
