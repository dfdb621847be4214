//! A store that fails as stores do.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use ringwal_archive::object_store;

/// What a request meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 503: nothing is done.
    Unavailable,
    /// The answer is lost: it is done, and an error returned.
    LostAnswer,
    /// An upload stores half of its bytes, and an error is returned. Reads fail.
    Torn,
    /// An upload stores half of its bytes, and success is returned. Reads fail.
    TornInSilence,
    /// No answer ever comes.
    Hangs,
    /// A read gets one wrong byte. Uploads fail.
    Changed,
    /// A read finds nothing. Uploads fail.
    Absent,
}

type Decide = Box<dyn FnMut(u64) -> Option<Fault> + Send>;

/// Asks `decide` about each request, by its number.
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    requests: AtomicU64,
    decide: Mutex<Decide>,
    /// The newest objects are missing in lists.
    lag: usize,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

fn unavailable() -> object_store::Error {
    object_store::Error::Generic { store: "Faulty", source: "503 Service Unavailable".into() }
}

impl Faulty {
    pub(crate) fn new(
        inner: &Arc<dyn ObjectStore>,
        decide: impl FnMut(u64) -> Option<Fault> + Send + 'static,
    ) -> Arc<Self> {
        Arc::new(Faulty {
            inner: Arc::clone(inner),
            requests: AtomicU64::new(0),
            decide: Mutex::new(Box::new(decide)),
            lag: 0,
        })
    }

    /// Lists lack the newest objects.
    pub(crate) fn lagging(inner: &Arc<dyn ObjectStore>, lag: usize) -> Arc<Self> {
        let store = Faulty {
            inner: Arc::clone(inner),
            requests: AtomicU64::new(0),
            decide: Mutex::new(Box::new(|_| None)),
            lag,
        };
        Arc::new(store)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    fn next(&self) -> Option<Fault> {
        let n = self.requests.fetch_add(1, Ordering::SeqCst);
        (self.decide.lock().unwrap())(n)
    }

    /// Of a request that only reads.
    async fn read(&self) -> Result<()> {
        match self.next() {
            None => Ok(()),
            Some(Fault::Hangs) => std::future::pending().await,
            Some(_) => Err(unavailable()),
        }
    }

    /// Stores bytes as the fault has it.
    async fn store(
        &self,
        fault: Option<Fault>,
        location: &Path,
        bytes: Bytes,
        options: PutOptions,
    ) -> Result<PutResult> {
        let half = bytes.slice(..bytes.len() / 2);
        match fault {
            None => self.inner.put_opts(location, bytes.into(), options).await,
            Some(Fault::Unavailable | Fault::Changed | Fault::Absent) => Err(unavailable()),
            Some(Fault::LostAnswer) => {
                self.inner.put_opts(location, bytes.into(), options).await?;
                Err(unavailable())
            }
            Some(Fault::Torn) => {
                self.inner.put_opts(location, half.into(), options).await?;
                Err(unavailable())
            }
            Some(Fault::TornInSilence) => self.inner.put_opts(location, half.into(), options).await,
            Some(Fault::Hangs) => std::future::pending().await,
        }
    }
}

/// Lends the store to uploads.
#[derive(Debug, Clone)]
pub(crate) struct Shared(pub(crate) Arc<Faulty>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

pub(crate) fn shared(store: &Arc<Faulty>) -> Arc<dyn ObjectStore> {
    Arc::new(Shared(Arc::clone(store)))
}

#[derive(Debug)]
struct Upload {
    store: Arc<Faulty>,
    location: Path,
    parts: Arc<Mutex<Vec<Option<Bytes>>>>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, parts) = (Arc::clone(&self.store), Arc::clone(&self.parts));
        let at = parts.lock().unwrap().len();
        parts.lock().unwrap().push(None);
        async move {
            let bytes = Bytes::from(data);
            let half = bytes.slice(..bytes.len() / 2);
            let (kept, done) = match store.next() {
                None => (Some(bytes), Ok(())),
                Some(Fault::Unavailable | Fault::Changed | Fault::Absent) => {
                    (None, Err(unavailable()))
                }
                Some(Fault::LostAnswer) => (Some(bytes), Err(unavailable())),
                Some(Fault::Torn) => (Some(half), Err(unavailable())),
                Some(Fault::TornInSilence) => (Some(half), Ok(())),
                Some(Fault::Hangs) => std::future::pending().await,
            };
            parts.lock().unwrap()[at] = kept;
            done
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let parts: Vec<Option<Bytes>> = self.parts.lock().unwrap().clone();
        let whole: Vec<u8> = parts.into_iter().flatten().flatten().collect();
        let fault = self.store.next();
        self.store.store(fault, &self.location, whole.into(), PutOptions::default()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.store.read().await
    }
}

#[async_trait]
impl ObjectStore for Shared {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let fault = self.0.next();
        self.0.store(fault, location, payload.into(), options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.read().await?;
        let (store, location) = (Arc::clone(&self.0), location.clone());
        Ok(Box::new(Upload { store, location, parts: Arc::default() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.0.next();
        match fault {
            None => return self.0.inner.get_opts(location, options).await,
            Some(Fault::Changed) => {}
            Some(Fault::Absent) => {
                let (path, source) = (location.to_string(), "404 Not Found".into());
                return Err(object_store::Error::NotFound { path, source });
            }
            Some(Fault::Hangs) => return std::future::pending().await,
            Some(_) => return Err(unavailable()),
        }
        let mut found = self.0.inner.get_opts(location, options).await?;
        let (meta, range) = (found.meta.clone(), found.range.clone());
        let attributes = std::mem::take(&mut found.attributes);
        let extensions = std::mem::take(&mut found.extensions);
        let mut bytes = found.bytes().await?.to_vec();
        if let Some(byte) = bytes.first_mut() {
            *byte ^= 1;
        }
        let bytes = futures_util::stream::iter([Ok(Bytes::from(bytes))]).boxed();
        let payload = GetResultPayload::Stream(bytes);
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = Arc::clone(&self.0);
        let delete = move |location: Result<Path>| {
            let store = Arc::clone(&store);
            async move {
                let location = location?;
                match store.next() {
                    None | Some(Fault::TornInSilence) => {}
                    Some(Fault::LostAnswer) => {
                        store.inner.delete(&location).await?;
                        return Err(unavailable());
                    }
                    Some(Fault::Hangs) => std::future::pending().await,
                    Some(_) => return Err(unavailable()),
                }
                store.inner.delete(&location).await?;
                Ok(location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (Arc::clone(&self.0), prefix.cloned());
        let listed = async move {
            if let Err(e) = store.read().await {
                return futures_util::stream::iter(vec![Err(e)]);
            }
            let mut all: Vec<_> = store.inner.list(prefix.as_ref()).collect().await;
            all.sort_by_key(|meta| meta.as_ref().map(|meta| meta.location.clone()).ok());
            all.truncate(all.len().saturating_sub(store.lag));
            futures_util::stream::iter(all)
        };
        futures_util::stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.inner.copy_opts(from, to, options).await
    }
}

#[test]
fn store_with_faults_does_what_each_fault_says() {
    use crate::support::{memory, objects, wait};

    for (fault, ends, stored) in [
        (Fault::Unavailable, false, None),
        (Fault::LostAnswer, false, Some(10)),
        (Fault::Torn, false, Some(5)),
        (Fault::TornInSilence, true, Some(5)),
    ] {
        let inner = memory();
        let faulty = shared(&Faulty::new(&inner, move |n| (n == 0).then_some(fault)));
        let done = wait(faulty.put(&"a".into(), vec![7; 10].into()));
        assert_eq!(done.is_ok(), ends, "{fault:?}");
        let found = objects(&inner).first().map(|(_, bytes)| bytes.len());
        assert_eq!(found, stored, "{fault:?}");
    }
}
