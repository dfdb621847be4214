//! Ships one segment.
//!
//! 1. The segment is read and judged first: nothing damaged is shipped, and so nothing damaged is
//!    released.
//! 2. The object is stored, then read back and compared, and then the manifest is stored. A segment
//!    without a valid manifest is not archived. So a crash between two steps leaves at most an
//!    object that the next attempt replaces by the same bytes.
//! 3. A manifest is stored only where none is, and then read back. An answer that was lost is found
//!    there.
//! 4. An object has the chain hash in its name: another history never replaces it.
//! 5. Before the manifest is stored, the segment file must still have its name. A log that reuses a
//!    file renames it first, so what was read is the segment's.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, TryStreamExt};
use object_store::PutPayload;
use ringwal::inspect::{Directory, SealedContent};
use ringwal::{Lsn, ReadOnlyWal};

use crate::error::{Error, Result, io};
use crate::layout;
use crate::manifest::{MAX_PART, Manifest, ranges};
use crate::store::{Archive, Found, IN_FLIGHT};

/// S3 takes 10,000 parts at most.
const MOST_PARTS: u64 = 9_000;
/// How long an upload that is given up may take to say so.
const ABORT: Duration = Duration::from_secs(2);

/// A log's directory, and the start of its file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) dir: PathBuf,
    pub(crate) prefix: String,
}

/// The result of shipping a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shipped {
    /// Bytes sent. 0: the segment was archived already, or pruned.
    pub(crate) bytes: u64,
    /// The first position after the segment.
    pub(crate) end: Lsn,
}

impl Source {
    fn open(&self) -> Result<Directory> {
        Ok(Directory::open(&self.dir, &self.prefix)?)
    }

    /// The segment files, oldest first: base and size.
    pub(crate) fn files(&self) -> Result<Vec<(u64, u64)>> {
        let files = self.open()?.segment_files()?;
        Ok(files.into_iter().map(|file| (file.base.as_u64(), file.size)).collect())
    }

    /// The sealed ones of them: behind the newest with groups there may be several without.
    pub(crate) fn sealed(&self) -> Result<Vec<(u64, u64)>> {
        let log = ReadOnlyWal::open_with_prefix(&self.dir, &self.prefix)?;
        let end = log.durable_end()?.as_u64();
        drop(log);
        // The durable end passes the end of a segment with the first group of the next one.
        Ok(self.files()?.into_iter().filter(|(base, size)| base + size < end).collect())
    }

    fn file(&self, base: u64) -> PathBuf {
        self.dir.join(layout::log_file(&self.prefix, base))
    }

    /// Whether retention has removed the segment, or reused its file.
    pub(crate) fn is_gone(&self, base: u64) -> bool {
        let found = std::fs::symlink_metadata(self.file(base));
        found.is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
    }
}

/// Ships the segment at `base` unless it is archived, and returns when its archive is confirmed.
/// With `is_known`, the place was this log's before. With `is_linked`, the archive has the segment
/// before it, of the same history.
pub(crate) async fn ship(
    archive: &Archive,
    source: &Source,
    base: u64,
    part_bytes: u64,
    is_known: bool,
    is_linked: bool,
) -> Result<Shipped> {
    let content = source.open()?.sealed_content(Lsn::new(base))?;
    let end = Lsn::new(base + content.file.size);
    let floor = archive.claim(&content.log_id, is_known).await?;
    if base < floor {
        has_common_history(archive, source).await?;
        return Ok(Shipped { bytes: 0, end });
    }
    let before = archive.manifest(base).await?;
    if let Found::Archived(manifest) = &before {
        if !manifest.is_of_one_history(&content) {
            return Err(diverged(archive, base));
        }
        if archive.size(&manifest.object).await? == Some(manifest.bytes) {
            return Ok(Shipped { bytes: 0, end });
        }
        // The store has lost the object, or a part of it.
        return restock(archive, source, &content, manifest).await;
    }
    if !is_linked {
        continues(archive, &content, floor).await?;
    }
    let bytes = content.groups_end.as_u64() - base;
    let part = part_bytes.max(bytes.div_ceil(MOST_PARTS)).min(MAX_PART);
    let manifest = send(archive, source, &content, part).await?;
    confirm(archive, &manifest, matches!(before, Found::Invalid)).await?;
    Ok(Shipped { bytes, end })
}

/// Refuses the archived segment at `base` if it is of another history than the log's.
pub(crate) async fn compare(archive: &Archive, source: &Source, base: u64) -> Result<()> {
    let content = match source.open()?.sealed_content(Lsn::new(base)) {
        Err(_) if source.is_gone(base) => return Err(Error::Overtaken { base: Lsn::new(base) }),
        content => content?,
    };
    match archive.manifest(base).await? {
        Found::Archived(manifest) if !manifest.is_of_one_history(&content) => {
            Err(diverged(archive, base))
        }
        _ => Ok(()),
    }
}

/// Refuses a log that has nothing in common with what a prune has left of the archive.
pub(crate) async fn has_common_history(archive: &Archive, source: &Source) -> Result<()> {
    let sealed = source.sealed()?;
    let mut newest = sealed.last().map_or(0, |(base, _)| *base);
    for (base, _) in sealed.iter().rev() {
        if let Found::Archived(_) = archive.manifest(*base).await? {
            return compare(archive, source, *base).await;
        }
        newest = *base;
    }
    Err(diverged(archive, newest))
}

/// Refuses a segment that is new to the archive and does not continue what it holds: the archived
/// segment before it, or the one after it, is of another history.
async fn continues(archive: &Archive, content: &SealedContent, floor: u64) -> Result<()> {
    let (base, end) = (content.file.base.as_u64(), content.file.base.as_u64() + content.file.size);
    // No parts are needed to compare.
    let own = Manifest::of(content, MAX_PART, &[]);
    let bases = archive.bases().await?;
    let before = bases.iter().rfind(|other| (floor..base).contains(*other));
    let after = bases.iter().find(|other| (base + 1..=end).contains(*other));
    for other in before.into_iter().chain(after) {
        // A torn one says nothing.
        let Found::Archived(found) = archive.manifest(*other).await? else { continue };
        let (first, second) = if *other < base { (&*found, &own) } else { (&own, &*found) };
        if !second.continues(first) {
            return Err(diverged(archive, *other));
        }
    }
    Ok(())
}

fn diverged(archive: &Archive, base: u64) -> Error {
    Error::Diverged { object: archive.manifest_path(base), base: Lsn::new(base) }
}

/// Stores the object of an archived segment again.
async fn restock(
    archive: &Archive,
    source: &Source,
    content: &SealedContent,
    manifest: &Manifest,
) -> Result<Shipped> {
    let sent = send(archive, source, content, manifest.part_bytes).await?;
    if sent.parts != manifest.parts {
        return Err(diverged(archive, manifest.base));
    }
    Ok(Shipped { bytes: sent.bytes, end: Lsn::new(manifest.end()) })
}

/// Stores the object and reads it back. Returns the manifest to be stored.
async fn send(
    archive: &Archive,
    source: &Source,
    content: &SealedContent,
    part: u64,
) -> Result<Manifest> {
    let base = content.file.base.as_u64();
    let path = source.file(base);
    let mut file = File::open(&path).map_err(io("open", &path))?;
    let (bytes, name) =
        (content.groups_end.as_u64() - base, layout::segment(base, content.chain_hash));
    let parts = match ranges(bytes, part).len() {
        1 => {
            let whole = read(&mut file, &path, bytes)?;
            let crc = crc32fast::hash(&whole);
            archive.put(&name, whole).await?;
            vec![crc]
        }
        _ => upload(archive, &mut file, &path, &name, bytes, part).await?,
    };
    let manifest = Manifest::of(content, part, &parts);
    read_back(archive, &manifest, &parts).await?;
    if source.is_gone(base) || !is_named(&file, &path) {
        return Err(Error::Overtaken { base: Lsn::new(base) });
    }
    Ok(manifest)
}

fn read(file: &mut File, path: &Path, len: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    file.read_exact(&mut bytes).map_err(io("read", path))?;
    Ok(bytes)
}

/// Whether the open file still has its name.
fn is_named(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;

        let (Ok(open), Ok(named)) = (file.metadata(), std::fs::metadata(path)) else {
            return false;
        };
        (open.dev(), open.ino()) == (named.dev(), named.ino())
    }
    #[cfg(not(unix))]
    {
        // An open file keeps its name there.
        let _ = (file, path);
        true
    }
}

/// Sends the object in parts. Returns their checksums.
async fn upload(
    archive: &Archive,
    file: &mut File,
    path: &Path,
    name: &str,
    bytes: u64,
    part: u64,
) -> Result<Vec<u32>> {
    let mut upload = archive.begin_upload(name).await?;
    let sent = async {
        file.seek(SeekFrom::Start(0)).map_err(io("read", path))?;
        let mut crcs = Vec::new();
        let mut flying = FuturesUnordered::new();
        for range in ranges(bytes, part) {
            if flying.len() >= IN_FLIGHT {
                flying.try_next().await?;
            }
            let bytes = read(file, path, range.end - range.start)?;
            crcs.push(crc32fast::hash(&bytes));
            let sending = upload.put_part(PutPayload::from(bytes));
            flying.push(archive.upload_step(name, sending));
        }
        while flying.next().await.transpose()?.is_some() {}
        drop(flying);
        archive.upload_step(name, upload.complete()).await?;
        Ok(crcs)
    };
    let sent = sent.await;
    if sent.is_err() {
        // Whether or not the store hears of it, there is no manifest.
        let _ = tokio::time::timeout(ABORT, upload.abort()).await;
    }
    sent
}

/// Compares the object in the store with what was sent.
async fn read_back(archive: &Archive, manifest: &Manifest, crcs: &[u32]) -> Result<()> {
    let parts = manifest.ranges().into_iter().zip(crcs.iter().copied());
    let reads = parts.map(|(range, crc)| archive.part(manifest, crc, range));
    futures_util::stream::iter(reads)
        .buffered(IN_FLIGHT)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await?;
    match archive.size(&manifest.object).await? {
        Some(size) if size == manifest.bytes => Ok(()),
        Some(size) => Err(archive.of_another_size(manifest, size)),
        None => Err(archive.missing(manifest)),
    }
}

/// Stores the manifest and reads it back.
async fn confirm(archive: &Archive, manifest: &Manifest, is_torn: bool) -> Result<()> {
    let (name, text) = (layout::manifest(manifest.base), manifest.encode());
    if is_torn {
        archive.put(&name, text).await?;
    } else {
        // False: an earlier attempt stored it, or another archiver did.
        archive.put_new(&name, text).await?;
    }
    match archive.manifest(manifest.base).await? {
        Found::Archived(found) if *found == *manifest => Ok(()),
        // Another archiver of the same log, with parts of another size: its object is verified.
        Found::Archived(found) if found.chain_hash == manifest.chain_hash => Ok(()),
        Found::Archived(_) => Err(diverged(archive, manifest.base)),
        Found::Invalid | Found::Nothing => Err(Error::DamagedObject {
            object: archive.path(&name).to_string(),
            offset: 0,
            found: "it does not read as written".into(),
            before: Lsn::new(manifest.base),
        }),
    }
}
