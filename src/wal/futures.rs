//! The futures: durable, and appended. Neither needs a particular executor.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::durable::{Registrar, Verdict};
use crate::engine::append::Appender;
use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::ring::{PendingReservation, Turn};

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
    appender: &'a Appender,
    payload: &'a [u8],
    pending: Option<PendingReservation>,
    done: bool,
}

impl<'a> AppendFuture<'a> {
    pub(crate) fn new(appender: &'a Appender, payload: &'a [u8]) -> Self {
        AppendFuture { appender, payload, pending: None, done: false }
    }

    fn attempt(&mut self, cx: &Context<'_>) -> Poll<Result<Lsn>> {
        let ring = &self.appender.state.ring;
        if let Some(pending) = &self.pending {
            let Some(turn) = pending.poll(ring, cx.waker()) else { return Poll::Pending };
            self.pending = None;
            match turn {
                Turn::Granted(room) => {
                    return Poll::Ready(Ok(self.appender.put_polled(room, self.payload)));
                }
                Turn::Refused(refused) => return Poll::Ready(Err(self.appender.refused(refused))),
                Turn::Missed => {}
            }
        }
        let len = self.appender.check_append(self.payload)?;
        let room = match ring.try_reserve(len) {
            Ok(room) => Ok(room),
            Err(_) => match ring.reserve_later(len, cx.waker()) {
                Ok(Ok(room)) => Ok(room),
                Ok(Err(pending)) => {
                    self.pending = Some(pending);
                    return Poll::Pending;
                }
                Err(refused) => Err(refused),
            },
        };
        match room {
            Ok(room) => Poll::Ready(Ok(self.appender.put_polled(room, self.payload))),
            Err(refused) => Poll::Ready(Err(self.appender.refused(refused))),
        }
    }
}

impl Future for AppendFuture<'_> {
    type Output = Result<Lsn>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.done {
            // Polled after it was ready: nothing is appended twice.
            return Poll::Ready(Err(Error::Closed));
        }
        // The granted room belongs to the parent process.
        self.appender.check_not_forked()?;
        let mut polled = self.attempt(cx);
        while polled.is_pending() && self.appender.state.drive() {
            polled = self.attempt(cx);
        }
        self.done = polled.is_ready();
        polled
    }
}

impl Drop for AppendFuture<'_> {
    fn drop(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        if self.appender.state.durable.is_forked() {
            std::mem::forget(pending);
        } else if let Some(room) = pending.cancel(&self.appender.state.ring) {
            self.appender.abort(room);
        }
    }
}
