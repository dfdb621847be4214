//! A place in an object store, and requests to it with a time limit.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use ringwal::Lsn;

use crate::error::{Error, Result, io};
use crate::layout;
use crate::manifest::{Identity, Invalid, MAX_MANIFEST, Manifest, hex};

/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Requests in flight at once.
pub(crate) const IN_FLIGHT: usize = 4;
/// What S3 removes by one request.
const DELETED_AT_ONCE: usize = 1000;
/// Requests for manifests in flight at once.
const MANIFESTS_IN_FLIGHT: usize = 16;
/// Reads of a small object before it counts as damaged.
const READS: u32 = 4;

/// The archive of one log: a store, and a prefix of the names of objects in it.
///
/// ```
/// use ringwal_archive::Archive;
///
/// # let dir = std::env::temp_dir().join(format!("ringwal-doc-archive-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir).unwrap();
/// let archive = Archive::at(dir.join("orders").to_str().unwrap())?;
/// assert!(archive.list().is_err(), "nothing was archived there yet");
/// # std::fs::remove_dir_all(&dir).unwrap();
/// # Ok::<(), ringwal_archive::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Archive {
    store: Arc<dyn ObjectStore>,
    root: Path,
    timeout: Duration,
}

/// What a manifest's name leads to.
#[derive(Debug)]
pub(crate) enum Found {
    Archived(Box<Manifest>),
    /// A torn upload, or damage.
    Invalid,
    Nothing,
}

impl Archive {
    /// The archive with this prefix in a store. The names of its objects begin with the prefix; an
    /// empty one is the store's root. A [`LocalFileSystem`] should have `with_fsync(true)`:
    /// otherwise segments are released before the archive survives a power failure.
    ///
    /// # Errors
    ///
    /// [`Error::Url`] for a prefix that makes no object name.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self> {
        let root = Path::parse(prefix)
            .map_err(|e| Error::Url { url: prefix.into(), reason: e.to_string() })?;
        Ok(Archive { store, root, timeout: TIMEOUT })
    }

    /// The archive at a URL: a path or `file:///path` is a local directory, which is created, and
    /// to which every object is synced; `s3://bucket/prefix` (feature `s3`) takes its settings from
    /// the environment variables of AWS (`AWS_REGION`, `AWS_ENDPOINT`, `AWS_ALLOW_HTTP` and so on).
    ///
    /// # Errors
    ///
    /// [`Error::Url`] if this build has no such store; `Io` if the directory cannot be created.
    pub fn at(url: &str) -> Result<Self> {
        let wrong = |reason: &str| Error::Url { url: url.into(), reason: reason.into() };
        match url.split_once("://") {
            None if url.is_empty() => Err(wrong("it is empty")),
            None => Self::in_directory(std::path::Path::new(url)),
            Some(("file", _)) => {
                let parsed = url::Url::parse(url).map_err(|e| wrong(&e.to_string()))?;
                let path = parsed.to_file_path();
                Self::in_directory(&path.map_err(|()| wrong("write file:///path"))?)
            }
            Some(("s3" | "s3a", _)) => Self::in_s3(url),
            Some(_) => Err(wrong("write a path, file:///path, or s3://bucket/prefix")),
        }
    }

    /// As [`Archive::at`], for an archive that is only read: a local directory is not created.
    ///
    /// # Errors
    ///
    /// As [`Archive::at`]; [`Error::NoArchive`] if there is no such directory.
    pub fn existing(url: &str) -> Result<Self> {
        let path = match url.split_once("://") {
            None => Some(url.into()),
            Some(("file", _)) => url::Url::parse(url).ok().and_then(|url| url.to_file_path().ok()),
            Some(_) => None,
        };
        match path {
            Some(path) if !path.is_dir() => Err(Error::NoArchive { place: url.into() }),
            _ => Self::at(url),
        }
    }

    fn in_directory(path: &std::path::Path) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(io("create", path))?;
        let store = LocalFileSystem::new_with_prefix(path).map_err(|source| Error::Store {
            op: "open",
            object: path.display().to_string(),
            source,
        })?;
        Self::new(Arc::new(store.with_fsync(true)), "")
    }

    #[cfg(feature = "s3")]
    fn in_s3(url: &str) -> Result<Self> {
        let wrong = |reason: String| Error::Url { url: url.into(), reason };
        let parsed = url::Url::parse(url).map_err(|e| wrong(e.to_string()))?;
        let prefix = parsed.path().trim_matches('/').to_owned();
        let store = object_store::aws::AmazonS3Builder::from_env().with_url(url).build();
        Self::new(Arc::new(store.map_err(|e| wrong(e.to_string()))?), &prefix)
    }

    #[cfg(not(feature = "s3"))]
    fn in_s3(url: &str) -> Result<Self> {
        let reason = "this build has no S3; build it with the feature s3 (cargo install --path cli --features s3)";
        Err(Error::Url { url: url.into(), reason: reason.into() })
    }

    /// How long a request may take before it counts as failed. Default two minutes.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The place, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        match self.root.as_ref() {
            "" => self.store.to_string(),
            root => format!("{}/{root}", self.store),
        }
    }

    pub(crate) fn path(&self, name: &str) -> Path {
        self.root.parts().chain(Path::from(name).parts()).collect()
    }

    /// Waits for a request, for a bounded time. `None`: there is no such object.
    async fn request<T>(
        &self,
        op: &'static str,
        object: &str,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<Option<T>> {
        let object = || self.path(object).to_string();
        match tokio::time::timeout(self.timeout, request).await {
            Ok(Ok(done)) => Ok(Some(done)),
            Ok(Err(object_store::Error::NotFound { .. })) => Ok(None),
            Ok(Err(source)) => Err(Error::Store { op, object: object(), source }),
            Err(_) => {
                let seconds = self.timeout.as_secs();
                Err(Error::Timeout { op, object: object(), seconds })
            }
        }
    }

    /// As [`Archive::request`], for what cannot be missing: a missing bucket is an error.
    async fn required<T>(
        &self,
        op: &'static str,
        object: &str,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        let found = self.request(op, object, request).await?;
        found.ok_or_else(|| Error::Store {
            op,
            object: self.path(object).to_string(),
            source: object_store::Error::NotFound {
                path: self.path(object).to_string(),
                source: "the bucket, or a folder of it, does not exist".into(),
            },
        })
    }

    /// The bytes of a small object. `None`: there is none.
    pub(crate) async fn small(&self, name: &str) -> Result<Option<Bytes>> {
        let path = self.path(name);
        let read = async {
            let found = self.store.get(&path).await?;
            if found.meta.size > MAX_MANIFEST { Ok(Bytes::new()) } else { found.bytes().await }
        };
        self.request("read", name, read).await
    }

    /// Bytes of an object. `None`: there is none.
    pub(crate) async fn range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        let path = self.path(name);
        self.request("read", name, self.store.get_range(&path, range)).await
    }

    /// The size of an object. `None`: there is none.
    pub(crate) async fn size(&self, name: &str) -> Result<Option<u64>> {
        let path = self.path(name);
        let found = self.request("look at", name, self.store.head(&path)).await?;
        Ok(found.map(|meta| meta.size))
    }

    /// Stores an object, in place of one of its name.
    pub(crate) async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let path = self.path(name);
        let put = self.store.put(&path, PutPayload::from(bytes));
        self.required("write", name, put).await.map(drop)
    }

    /// Stores an object if there is none of its name, where the store can tell. False: there is
    /// one.
    pub(crate) async fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<bool> {
        let path = self.path(name);
        let payload = PutPayload::from(bytes.clone());
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.required("write", name, self.store.put_opts(&path, payload, options)).await {
            Ok(_) => Ok(true),
            Err(Error::Store { source: object_store::Error::AlreadyExists { .. }, .. }) => {
                Ok(false)
            }
            Err(Error::Store {
                source:
                    object_store::Error::NotImplemented { .. }
                    | object_store::Error::NotSupported { .. },
                ..
            }) => {
                // The caller has looked for the object before.
                self.put(name, bytes).await?;
                Ok(true)
            }
            Err(e) => Err(e),
        }
    }

    pub(crate) async fn begin_upload(
        &self,
        name: &str,
    ) -> Result<Box<dyn object_store::MultipartUpload>> {
        let path = self.path(name);
        self.required("write", name, self.store.put_multipart(&path)).await
    }

    /// Waits for a step of an upload.
    pub(crate) async fn upload_step<T>(
        &self,
        name: &str,
        step: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        self.required("write", name, step).await
    }

    /// The sizes of the objects in a folder, by their names in it.
    pub(crate) async fn folder(&self, folder: &str) -> Result<Vec<(Path, u64)>> {
        let path = self.path(folder);
        let mut list = self.store.list(Some(&path));
        let mut all = Vec::new();
        // The time limit is for each page: a large archive has many.
        while let Some(Some(meta)) = self.request("list", folder, list.try_next()).await? {
            all.push((meta.location, meta.size));
        }
        Ok(all)
    }

    /// Removes objects, in this order. One that is gone already is no error.
    pub(crate) async fn delete(&self, folder: &str, paths: Vec<Path>) -> Result<()> {
        for some in paths.chunks(DELETED_AT_ONCE) {
            let paths: Vec<_> = some.iter().cloned().map(Ok).collect();
            let stream = futures_util::stream::iter(paths).boxed();
            let deleted = self.store.delete_stream(stream).filter_map(|deleted| async {
                match deleted {
                    Ok(_) | Err(object_store::Error::NotFound { .. }) => None,
                    Err(e) => Some(e),
                }
            });
            let failed = async {
                let mut deleted = std::pin::pin!(deleted);
                deleted.next().await.map_or(Ok(()), Err)
            };
            self.required("remove objects of", folder, failed).await?;
        }
        Ok(())
    }

    /// Reads a small object and decodes it. What does not decode is read again: the read may have
    /// been bad, and the object be sound. `None`: there is none.
    pub(crate) async fn decoded<T>(
        &self,
        name: &str,
        decode: impl Fn(&[u8]) -> Result<T, Invalid>,
    ) -> Result<Option<Result<T, Invalid>>> {
        let mut found = None;
        for _ in 0..READS {
            let Some(text) = self.small(name).await? else { return Ok(None) };
            match decode(&text) {
                Err(Invalid::Version(version)) => return Err(self.unsupported(name, version)),
                Err(e) => found = Some(Err(e)),
                decoded => return Ok(Some(decoded)),
            }
        }
        Ok(found)
    }

    /// Reads the manifest of the segment that begins at `base`.
    pub(crate) async fn manifest(&self, base: u64) -> Result<Found> {
        let decode = |text: &[u8]| Manifest::decode(text, base);
        Ok(match self.decoded(&layout::manifest(base), decode).await? {
            None => Found::Nothing,
            Some(Ok(manifest)) => Found::Archived(Box::new(manifest)),
            Some(Err(_)) => Found::Invalid,
        })
    }

    /// Reads a manifest that a listing names, and again if it is not there: a read may be wrong.
    async fn listed_manifest(&self, base: u64) -> Result<Found> {
        for _ in 1..READS {
            match self.manifest(base).await? {
                Found::Nothing => {}
                found => return Ok(found),
            }
        }
        self.manifest(base).await
    }

    pub(crate) fn unsupported(&self, name: &str, version: u32) -> Error {
        Error::Unsupported { object: self.path(name).to_string(), version }
    }

    /// Reads the manifests of these segments, which a listing names, in this order.
    pub(crate) async fn manifests(&self, bases: Vec<u64>) -> Result<Vec<(u64, Found)>> {
        let reads = bases
            .into_iter()
            .map(|base| async move { Ok((base, self.listed_manifest(base).await?)) });
        futures_util::stream::iter(reads).buffered(MANIFESTS_IN_FLIGHT).try_collect().await
    }

    /// The first positions of the segments that have a manifest, ascending.
    pub(crate) async fn bases(&self) -> Result<Vec<u64>> {
        let listed = self.folder(layout::MANIFESTS).await?;
        let mut bases: Vec<u64> =
            listed.iter().filter_map(|(path, _)| layout::base_of(path)).collect();
        bases.sort_unstable();
        bases.dedup();
        Ok(bases)
    }

    /// Which log the archive is of, by its own object or by a manifest. `None`: of none yet.
    pub(crate) async fn identity(&self) -> Result<Option<String>> {
        if let Some(Ok(identity)) = self.decoded(layout::IDENTITY, Identity::decode).await? {
            return Ok(Some(identity.log_id));
        }
        for base in self.bases().await? {
            if let Found::Archived(manifest) = self.manifest(base).await? {
                return Ok(Some(manifest.log_id));
            }
        }
        Ok(None)
    }

    /// Makes the place that of one log, or checks that it is. With `is_known`, the place was that
    /// log's before, and must still say so: the volume of a local directory may be unmounted.
    /// Returns the first position that belongs to the archive.
    pub(crate) async fn claim(&self, log_id: &[u8; 16], is_known: bool) -> Result<u64> {
        let wanted = Identity::of(log_id);
        match self.identity().await? {
            Some(found) if found != wanted.log_id => {
                let (place, expected) = (self.place(), hex(log_id));
                return Err(Error::AnotherLog { place, expected, found });
            }
            None if is_known => return Err(Error::NoArchive { place: self.place() }),
            _ => {}
        }
        let name = layout::IDENTITY;
        match self.decoded(name, Identity::decode).await? {
            Some(Ok(_)) => return self.floor(&wanted.log_id).await,
            // A torn upload.
            Some(Err(_)) => self.put(name, wanted.encode()).await?,
            None => drop(self.put_new(name, wanted.encode()).await?),
        }
        // Another log may have been faster.
        match self.decoded(name, Identity::decode).await? {
            Some(Ok(found)) if found == wanted => self.floor(&wanted.log_id).await,
            Some(Ok(found)) => {
                let (place, expected, found) = (self.place(), hex(log_id), found.log_id);
                Err(Error::AnotherLog { place, expected, found })
            }
            _ => Err(Error::DamagedObject {
                object: self.path(name).to_string(),
                offset: 0,
                found: "it does not read as written".into(),
                before: Lsn::ZERO,
            }),
        }
    }

    /// Reads one part of a segment's object, and compares its checksum.
    pub(crate) async fn part(
        &self,
        manifest: &Manifest,
        crc: u32,
        range: Range<u64>,
    ) -> Result<Bytes> {
        let base = Lsn::new(manifest.base);
        let object = || self.path(&manifest.object).to_string();
        let damaged = |found: String| Error::DamagedObject {
            object: object(),
            offset: range.start,
            found,
            before: base,
        };
        // A store may answer with an error where the object is too short.
        let len = range.end - range.start;
        match self.range(&manifest.object, range.clone()).await? {
            None => Err(self.missing(manifest)),
            Some(bytes) if bytes.len() as u64 != len => {
                Err(damaged(format!("it ends after {} bytes of {len}", bytes.len())))
            }
            Some(bytes) if crc32fast::hash(&bytes) != crc => Err(damaged(format!(
                "the checksum of its {len} bytes from there on is not {crc:08x}"
            ))),
            Some(bytes) => Ok(bytes),
        }
    }

    /// The manifest of the segment at `base` is torn or damaged.
    pub(crate) fn damaged_manifest(&self, base: u64) -> Error {
        Error::DamagedObject {
            object: self.manifest_path(base),
            offset: 0,
            found: "it is torn, or its checksum is wrong".into(),
            before: Lsn::new(base),
        }
    }

    /// The segment's object has another size than its manifest states.
    pub(crate) fn of_another_size(&self, manifest: &Manifest, size: u64) -> Error {
        Error::DamagedObject {
            object: self.path(&manifest.object).to_string(),
            offset: manifest.bytes.min(size),
            found: format!("it has {size} bytes, not {}", manifest.bytes),
            before: Lsn::new(manifest.base),
        }
    }

    /// The segment's object is missing.
    pub(crate) fn missing(&self, manifest: &Manifest) -> Error {
        let (from, to) = (Lsn::new(manifest.base), Lsn::new(manifest.end()));
        Error::MissingObject { object: self.path(&manifest.object).to_string(), from, to }
    }
}
