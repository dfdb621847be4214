//! Removes the oldest segments of an archive.
//!
//! 1. The floor is stored first, and read back. From then on nothing below it belongs to the
//!    archive: no restore and no list reads it, and no archiver ships it again. A prune that ends
//!    early leaves objects that count for nothing, and the next one removes them.
//! 2. A floor is the end of a segment that was removed, and it never falls. The newest segment
//!    stays, and what is missing from the floor on may still be shipped.
//! 3. Only objects whose names are those of segments and manifests below the floor are removed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringwal::Lsn;

use crate::block_on::block_on;
use crate::error::{Error, Result};
use crate::layout;
use crate::list::Index;
use crate::manifest::{Floor, Manifest, nanos};
use crate::store::Archive;

/// What a prune keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepFrom {
    /// The records from this position on: the segments that end at or below it may go.
    Lsn(Lsn),
    /// What a restore to this time, or to a later one, needs. At least the last group before this
    /// time stays, by the clock of the writer. Where the clock was set back, the order of the log
    /// counts.
    Time(SystemTime),
}

/// The result of [`Archive::prune`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// The id of the log, in hexadecimal.
    pub log_id: String,
    /// The first position that the archive keeps.
    pub kept_from: Lsn,
    /// When the first group that it keeps was written, by the clock of its writer.
    pub first_written: SystemTime,
    /// Segments that are kept.
    pub kept_segments: u64,
    /// Archived segments that were removed.
    pub segments: u64,
    /// Bytes of all removed objects.
    pub bytes: u64,
    /// Removed objects: of segments, of manifests, and what an earlier prune or upload has left.
    pub objects: u64,
}

/// What is to be removed.
struct Plan {
    pruned: Pruned,
    manifests: Vec<object_store::path::Path>,
    segments: Vec<object_store::path::Path>,
}

impl Archive {
    /// Removes the segments before a position or a time, for good. What a restore to any later
    /// point needs stays, and so does the newest segment. May run beside an archiver, restores and
    /// other prunes; a restore that has begun may then fail, and is repeated.
    ///
    /// The prune may be repeated after a failure at any place. An archiver does not ship again what
    /// was pruned, also if the log still has it.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// use ringwal_archive::{Archive, Archiver, KeepFrom};
    ///
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-prune-{}", std::process::id()));
    /// # let wal = ringwal::Wal::builder(dir.join("log")).segment_size(64 << 10).open()?;
    /// # for _ in 0..200 { wal.append(&[7; 1000])?; }
    /// # wal.close()?;
    /// # let archive = Archive::at(dir.join("store").to_str().unwrap())?;
    /// # Archiver::builder(archive.clone()).start()?.catch_up(dir.join("log"), "wal")?;
    /// let month = Duration::from_secs(30 * 24 * 60 * 60);
    /// let keep = KeepFrom::Time(SystemTime::now() - month);
    /// println!("would remove {} bytes", archive.prunable(keep)?.bytes);
    /// let pruned = archive.prune(keep)?;
    /// assert_eq!(pruned.segments, 0, "nothing is that old");
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NoArchive`]; [`Error::NoSegment`]; [`Error::BeyondEnd`] for a position beyond the
    /// archive's end; [`Error::AnotherLog`] if manifests are of several logs; [`Error::Store`];
    /// [`Error::Unsupported`].
    pub fn prune(&self, keep: KeepFrom) -> Result<Pruned> {
        block_on(async {
            let plan = self.plan(keep).await?;
            self.raise_floor(&plan.pruned.log_id, plan.pruned.kept_from.as_u64()).await?;
            self.delete(layout::MANIFESTS, plan.manifests).await?;
            self.delete(layout::SEGMENTS, plan.segments).await?;
            Ok(plan.pruned)
        })
    }

    /// What [`Archive::prune`] would remove. Changes nothing.
    ///
    /// # Errors
    ///
    /// As [`Archive::prune`].
    pub fn prunable(&self, keep: KeepFrom) -> Result<Pruned> {
        block_on(self.plan(keep)).map(|plan| plan.pruned)
    }

    async fn plan(&self, keep: KeepFrom) -> Result<Plan> {
        let index = self.index().await?;
        let none = || Error::NoSegment { place: self.place() };
        let removed = removed(&index, keep)?;
        let (removed, kept) = index.manifests.split_at(removed);
        let first = kept.first().ok_or_else(none)?;
        let floor = removed.last().map_or(index.floor, Manifest::end);
        let below = |base: Option<u64>| base.is_some_and(|base| base < floor);
        let mut bytes = 0;
        let mut objects = async |folder, base_of: fn(&object_store::path::Path) -> Option<u64>| {
            let mut found = self.folder(folder).await?;
            found.retain(|(path, _)| below(base_of(path)));
            // Oldest first.
            found.sort_unstable();
            bytes += found.iter().map(|(_, size)| size).sum::<u64>();
            Ok::<Vec<_>, Error>(found.into_iter().map(|(path, _)| path).collect())
        };
        let manifests = objects(layout::MANIFESTS, layout::base_of).await?;
        let segments = objects(layout::SEGMENTS, layout::segment_base_of).await?;
        Ok(Plan {
            pruned: Pruned {
                kept_from: Lsn::new(floor),
                first_written: UNIX_EPOCH + Duration::from_nanos(first.first_written),
                kept_segments: kept.len() as u64,
                segments: removed.len() as u64,
                bytes,
                objects: (manifests.len() + segments.len()) as u64,
                log_id: index.log_id,
            },
            manifests,
            segments,
        })
    }

    /// The first position that belongs to the archive. 0 unless it was pruned.
    pub(crate) async fn floor(&self, log_id: &str) -> Result<u64> {
        let name = layout::FLOOR;
        match self.decoded(name, Floor::decode).await? {
            None => Ok(0),
            Some(Ok(floor)) if floor.log_id == log_id => Ok(floor.from),
            Some(Ok(floor)) => {
                let (place, expected, found) = (self.place(), log_id.to_owned(), floor.log_id);
                Err(Error::AnotherLog { place, expected, found })
            }
            // A torn upload. What an earlier prune has left may count again until the next one.
            Some(Err(_)) => Ok(0),
        }
    }

    async fn raise_floor(&self, log_id: &str, from: u64) -> Result<()> {
        if self.floor(log_id).await? >= from {
            return Ok(());
        }
        self.put(layout::FLOOR, Floor::of(log_id, from).encode()).await?;
        // Another prune may have been faster, and raised it further or less far. Objects go only
        // if a floor that is stored says so.
        match self.floor(log_id).await? {
            floor if floor >= from => Ok(()),
            _ => Err(Error::DamagedObject {
                object: self.path(layout::FLOOR).to_string(),
                offset: 0,
                found: "it does not read as written".into(),
                before: Lsn::ZERO,
            }),
        }
    }
}

/// How many of the oldest segments go.
fn removed(index: &Index, keep: KeepFrom) -> Result<usize> {
    let all = &index.manifests;
    let Some(last) = all.last() else { return Ok(0) };
    let at = match keep {
        KeepFrom::Lsn(lsn) if lsn.as_u64() > last.end() => {
            return Err(Error::BeyondEnd { asked: lsn, end: Lsn::new(last.end()) });
        }
        KeepFrom::Lsn(lsn) => all.iter().position(|manifest| manifest.end() > lsn.as_u64()),
        KeepFrom::Time(time) => {
            let time = nanos(time);
            let reached = all.iter().position(|manifest| manifest.latest_written >= time);
            // A restore to that time ends before the first group of that time: if that is the
            // segment's first one, the segment before it has the end.
            reached.map(|at| if all[at].first_written < time { at } else { at.saturating_sub(1) })
        }
    };
    Ok(at.unwrap_or(all.len() - 1))
}
