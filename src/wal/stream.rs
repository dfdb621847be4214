//! Followers as streams and appending as a sink: the traits of `futures-core` and `futures-sink`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_sink::Sink;

use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::read::Record;
use crate::read::follow::Follow;
use crate::wal::Wal;
use crate::wal::futures::DurableFuture;

impl Follow {
    /// Converts the follower to a [`Stream`]. Feature `futures`.
    pub fn into_stream(self) -> FollowStream {
        FollowStream { follow: self }
    }
}

impl Wal {
    /// Returns a sink that appends its items. Flushing the sink waits until they are durable.
    /// Feature `futures`.
    pub fn sink<T: AsRef<[u8]>>(&self) -> AppendSink<T> {
        AppendSink::new(self.clone())
    }
}

/// A stream of durable records, as they become durable. From [`Follow::into_stream`].
#[derive(Debug)]
#[must_use = "a stream does nothing until it is polled"]
pub struct FollowStream {
    follow: Follow,
}

impl Stream for FollowStream {
    type Item = Result<Record>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.follow.poll_next_record(cx)
    }
}

type Appending = Pin<Box<dyn Future<Output = Result<Lsn>> + Send>>;

/// A sink that appends its items. From [`Wal::sink`].
///
/// The sink is ready when the previous record has its place in the log. It is not ready while the
/// ring is full, which is the backpressure. *Flushed* means durable. A sink that is dropped while
/// it is not ready does not append the record that it holds. Closing the sink flushes it, and
/// leaves the log open.
///
/// ```
/// use futures_util::SinkExt;
/// # let dir = std::env::temp_dir().join(format!("ringwal-doc-sink-{}", std::process::id()));
/// # let wal = ringwal::Wal::open(&dir)?;
/// let mut sink = wal.sink();
/// # smol::block_on(async {
/// sink.feed("one").await?;
/// sink.send("two").await?; // both are durable
/// # Ok::<(), ringwal::Error>(()) })?;
/// assert_eq!(wal.reader(ringwal::Lsn::ZERO).count(), 2);
/// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
/// # Ok::<(), ringwal::Error>(())
/// ```
#[must_use = "a sink does nothing until something is sent to it"]
pub struct AppendSink<T> {
    wal: Wal,
    /// The record that was sent and waits for room.
    waiting: Option<Waiting<T>>,
    /// The position of the last appended record, and whether a flush waits for it.
    last: Option<Lsn>,
    durable: Option<DurableFuture>,
}

/// A waiting record. Allocated only while the ring is full.
enum Waiting<T> {
    Item(T),
    Appending(Appending),
}

impl<T> AppendSink<T> {
    pub(crate) fn new(wal: Wal) -> Self {
        AppendSink { wal, waiting: None, last: None, durable: None }
    }

    /// The position of the last record that was appended through this sink.
    #[must_use]
    pub fn last_lsn(&self) -> Option<Lsn> {
        self.last
    }
}

impl<T> fmt::Debug for AppendSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.waiting.is_some();
        f.debug_struct("AppendSink").field("last", &self.last).field("waiting", &waiting).finish()
    }
}

impl<T: AsRef<[u8]> + Send + Unpin + 'static> AppendSink<T> {
    fn poll_append(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            let appended = match self.waiting.take() {
                None => return Poll::Ready(Ok(())),
                Some(Waiting::Item(item)) => match self.wal.try_append(item.as_ref()) {
                    Err(Error::RingFull) => {
                        let wal = self.wal.clone();
                        let append = async move { wal.append_async(item.as_ref()).await };
                        self.waiting = Some(Waiting::Appending(Box::pin(append)));
                        continue;
                    }
                    appended => appended,
                },
                Some(Waiting::Appending(mut appending)) => match appending.as_mut().poll(cx) {
                    Poll::Ready(appended) => appended,
                    Poll::Pending => {
                        self.waiting = Some(Waiting::Appending(appending));
                        return Poll::Pending;
                    }
                },
            };
            self.last = Some(appended?);
            self.durable = None;
        }
    }
}

impl<T: AsRef<[u8]> + Send + Unpin + 'static> Sink<T> for AppendSink<T> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_append(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, item: T) -> Result<()> {
        if self.waiting.is_some() {
            // Called without being ready: the record taken before stays in the sink.
            return Err(Error::RingFull);
        }
        match self.wal.try_append(item.as_ref()) {
            Ok(lsn) => {
                self.last = Some(lsn);
                self.durable = None;
                Ok(())
            }
            Err(Error::RingFull) => {
                self.waiting = Some(Waiting::Item(item));
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_append(cx))?;
        let Some(last) = self.last else { return Poll::Ready(Ok(())) };
        let wal = self.wal.clone();
        let durable = self.durable.get_or_insert_with(|| wal.when_durable(last));
        let settled = ready!(Pin::new(durable).poll(cx));
        self.durable = None;
        Poll::Ready(settled)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_flush(cx)
    }
}
