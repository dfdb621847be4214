//! The futures: durable, and appended. Neither needs a particular executor.

use std::borrow::Borrow;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::durable::{Registrar, Verdict};
use crate::engine::append::Appender;
use crate::engine::batch::{BatchLsns, BatchRecords};
use crate::error::{Error, Result};
use crate::format::PayloadSum;
use crate::lsn::Lsn;
use crate::ring::{PendingReservation, Reservation, Turn};

/// Resolves when a record is durable. From [`Wal::when_durable`](crate::Wal::when_durable).
#[derive(Debug)]
#[must_use = "a future does nothing until it is polled"]
pub struct DurableFuture {
    appender: Appender,
    lsn: u64,
    /// The ticket under which the future is registered to be woken.
    ticket: Option<u64>,
}

impl DurableFuture {
    pub(crate) fn new(appender: Appender, lsn: u64) -> Self {
        DurableFuture { appender, lsn, ticket: None }
    }

    /// The future is registered, and the outcome was unknown at the last look.
    fn pending(&self) -> Poll<Result<()>> {
        loop {
            match self.appender.state.durable.verdict(self.lsn) {
                Verdict::NotYet if self.appender.state.drive() => {}
                Verdict::NotYet => return Poll::Pending,
                Verdict::Durable => {
                    return Poll::Ready(self.appender.state.view.cuts.check(self.lsn));
                }
                Verdict::Failed(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl Future for DurableFuture {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let durable = &this.appender.state.durable;
        if durable.is_forked() {
            return Poll::Ready(this.appender.check_not_forked());
        }
        // The I/O thread may have woken this task to wake others.
        durable.pass_on();
        if let Some(ticket) = this.ticket {
            match durable.verdict(this.lsn) {
                Verdict::NotYet if durable.update(this.lsn, ticket, cx.waker()) => {
                    return this.pending();
                }
                // The waker was taken, or the wake-up that follows every advance will take it.
                _ => this.ticket = None,
            }
        }
        let mut verdict = this.appender.ask_durable(this.lsn);
        if matches!(verdict, Verdict::NotYet) {
            let (registered, ticket) = durable.register(this.lsn, cx.waker(), Registrar::Task);
            verdict = match registered {
                Verdict::Durable => this.appender.unless_cut(this.lsn),
                other => other,
            };
            if matches!(verdict, Verdict::NotYet) {
                this.ticket = Some(ticket);
            }
        }
        match verdict {
            Verdict::Durable => Poll::Ready(Ok(())),
            Verdict::Failed(e) => Poll::Ready(Err(e)),
            Verdict::NotYet => this.pending(),
        }
    }
}

impl Drop for DurableFuture {
    fn drop(&mut self) {
        let durable = &self.appender.state.durable;
        if let Some(ticket) = self.ticket.take()
            && !durable.is_forked()
        {
            durable.forget(self.lsn, ticket);
            durable.pass_on();
        }
    }
}

/// Resolves when a record has its place in the log. From
/// [`Wal::append_async`](crate::Wal::append_async).
///
/// The future may be polled late, dropped or leaked. Room granted to it while the ring is full is
/// reserved for some 10 ms. Then the future waits again, after the producers that came meanwhile.
#[derive(Debug)]
#[must_use = "a future does nothing until it is polled"]
pub struct AppendFuture<'a> {
    tag: Option<u64>,
    payload: &'a [u8],
    wait: RoomWait<&'a Appender>,
}

impl<'a> AppendFuture<'a> {
    pub(crate) fn new(appender: &'a Appender, tag: Option<u64>, payload: &'a [u8]) -> Self {
        AppendFuture { tag, payload, wait: RoomWait::new(appender) }
    }
}

impl Future for AppendFuture<'_> {
    type Output = Result<Lsn>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let AppendFuture { tag, payload, wait } = &mut *self;
        wait.append(cx, *tag, payload)
    }
}

/// Resolves when a record has its place in the log, as an [`AppendFuture`] does, and owns what it
/// needs. From [`Wal::append_async_owned`](crate::Wal::append_async_owned).
#[derive(Debug)]
#[must_use = "a future does nothing until it is polled"]
pub struct AppendOwnedFuture {
    tag: Option<u64>,
    payload: Vec<u8>,
    wait: RoomWait<Appender>,
}

impl AppendOwnedFuture {
    pub(crate) fn new(appender: Appender, tag: Option<u64>, payload: Vec<u8>) -> Self {
        AppendOwnedFuture { tag, payload, wait: RoomWait::new(appender) }
    }
}

impl Future for AppendOwnedFuture {
    type Output = Result<Lsn>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let AppendOwnedFuture { tag, payload, wait } = &mut *self;
        wait.append(cx, *tag, payload)
    }
}

/// Resolves when a batch has its place in the log. From
/// [`Wal::append_batch_async`](crate::Wal::append_batch_async). It waits for room as an
/// [`AppendFuture`] does.
#[derive(Debug)]
#[must_use = "a future does nothing until it is polled"]
pub struct AppendBatchFuture<'a> {
    /// Taken once the batch has its place.
    records: Option<BatchRecords<'a>>,
    wait: RoomWait<&'a Appender>,
}

impl<'a> AppendBatchFuture<'a> {
    pub(crate) fn new(appender: &'a Appender, records: BatchRecords<'a>) -> Self {
        AppendBatchFuture { records: Some(records), wait: RoomWait::new(appender) }
    }
}

impl<'a> Future for AppendBatchFuture<'a> {
    type Output = Result<BatchLsns<'a>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let AppendBatchFuture { records, wait } = &mut *self;
        let appender = wait.appender;
        let wanted = records.as_ref();
        let room = wait.request.poll(appender, cx, || match wanted {
            Some(records) => appender.check_polled_batch(records),
            None => Err(Error::Closed),
        });
        match (ready!(room), records.take()) {
            (Ok(room), Some(records)) => Poll::Ready(Ok(appender.put_batch(room, records))),
            (Ok(room), None) => {
                appender.abort(room);
                Poll::Ready(Err(Error::Closed))
            }
            (Err(e), _) => Poll::Ready(Err(e)),
        }
    }
}

/// A task's wait for room in the ring. Dropping it gives up room that was granted meanwhile.
///
/// `A` is an appender or a reference to one.
#[derive(Debug)]
struct RoomWait<A: Borrow<Appender>> {
    appender: A,
    request: RoomRequest,
    /// Of the record, from the first poll on.
    sum: Option<PayloadSum>,
}

#[derive(Debug, Default)]
struct RoomRequest {
    pending: Option<PendingReservation>,
    done: bool,
}

impl<A: Borrow<Appender>> RoomWait<A> {
    fn new(appender: A) -> Self {
        RoomWait { appender, request: RoomRequest::default(), sum: None }
    }

    /// Polls for the room of one record, and fills it.
    fn append(&mut self, cx: &Context<'_>, tag: Option<u64>, payload: &[u8]) -> Poll<Result<Lsn>> {
        let appender = self.appender.borrow();
        let sum = &mut self.sum;
        let room = self.request.poll(appender, cx, || {
            let len = appender.check_append(tag, payload)?;
            // Before the reservation: the payload's page faults must not hold up the log.
            sum.get_or_insert_with(|| appender.sum(tag, payload));
            Ok(len)
        });
        room.map_ok(|room| appender.put_polled(room, tag, payload, self.sum))
    }
}

impl RoomRequest {
    /// Polls for as much room as `len` says, which also checks that the log takes appends.
    fn poll<'a>(
        &mut self,
        appender: &'a Appender,
        cx: &Context<'_>,
        mut len: impl FnMut() -> Result<u64>,
    ) -> Poll<Result<Reservation<'a>>> {
        if self.done {
            // Polled after it was ready: nothing is appended twice.
            return Poll::Ready(Err(Error::Closed));
        }
        // The granted room belongs to the parent process.
        appender.check_not_forked()?;
        let mut polled = self.attempt(appender, cx, &mut len);
        while polled.is_pending() && appender.state.drive() {
            polled = self.attempt(appender, cx, &mut len);
        }
        self.done = polled.is_ready();
        polled
    }

    fn attempt<'a>(
        &mut self,
        appender: &'a Appender,
        cx: &Context<'_>,
        mut len: impl FnMut() -> Result<u64>,
    ) -> Poll<Result<Reservation<'a>>> {
        let ring = &appender.state.ring;
        if let Some(pending) = &self.pending {
            let Some(turn) = pending.poll(ring, cx.waker()) else { return Poll::Pending };
            self.pending = None;
            match turn {
                Turn::Granted(room) => return Poll::Ready(Ok(room)),
                Turn::Refused(refused) => return Poll::Ready(Err(appender.refused(refused))),
                Turn::Missed => {}
            }
        }
        let len = len()?;
        if let Ok(room) = ring.try_reserve(len) {
            return Poll::Ready(Ok(room));
        }
        match ring.reserve_later(len, cx.waker()) {
            Ok(Ok(room)) => Poll::Ready(Ok(room)),
            Ok(Err(pending)) => {
                self.pending = Some(pending);
                Poll::Pending
            }
            Err(refused) => Poll::Ready(Err(appender.refused(refused))),
        }
    }
}

impl<A: Borrow<Appender>> Drop for RoomWait<A> {
    fn drop(&mut self) {
        let Some(pending) = self.request.pending.take() else { return };
        let appender = self.appender.borrow();
        if appender.state.durable.is_forked() {
            std::mem::forget(pending);
        } else if let Some(room) = pending.cancel(&appender.state.ring) {
            appender.abort(room);
        }
    }
}
