//! Applies each operation to the log and to the model, and compares the results.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use ringwal::{Error, Lsn, Wal};

use super::operations::{Config, Op, Place};
use super::subject::{Checked, Pending, Subject, wrong};

struct Unpark(Thread, AtomicBool);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.store(true, Ordering::SeqCst);
        self.0.unpark();
    }
}

/// Polls a future to its end. Without `threads` only polls move the log, so a pending future that
/// was not woken stays pending.
fn block_on<T>(future: impl Future<Output = T>, threads: bool) -> T {
    let unpark = Arc::new(Unpark(std::thread::current(), AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&unpark));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending if threads => std::thread::park(),
            Poll::Pending => assert!(unpark.1.swap(false, Ordering::SeqCst), "a future hangs"),
        }
    }
}

fn patience(threads: bool) -> Duration {
    Duration::from_secs(if threads { 60 } else { 0 })
}

impl Subject {
    pub(crate) fn act(&mut self, op: &Op) -> Checked {
        let wal = self.wal();
        let threads = self.disk().is_none();
        match op {
            Op::Append(len) => self.appended(&[*len], |p| wal.append(&p[0])),
            Op::TryAppend(len) => self.tried(&[*len], |p| wal.try_append(&p[0])),
            Op::AppendWith(len) => {
                let fill = |p: &[Vec<u8>]| {
                    wal.append_with(p[0].len(), |room| {
                        assert!(room.iter().all(|&b| b == 0), "not zeroed");
                        room.copy_from_slice(&p[0]);
                    })
                };
                self.appended(&[*len], fill)
            }
            Op::AppendAsync(len) => {
                self.appended(&[*len], |p| block_on(wal.append_async(&p[0]), threads))
            }
            Op::DropAppending(len) => {
                // Room granted before the drop becomes a hole.
                self.model.hole();
                self.tried(&[*len], |p| {
                    let future = pin!(wal.append_async(&p[0]));
                    match future.poll(&mut Context::from_waker(Waker::noop())) {
                        Poll::Ready(result) => result,
                        // The future is dropped now, so the record is not appended.
                        Poll::Pending => Err(Error::RingFull),
                    }
                })
            }
            Op::AppendDurable(len) => self.appended(&[*len], |p| {
                let lsn = wal.append_durable(&p[0])?;
                assert!(wal.durable_end() > lsn, "not durable");
                Ok(lsn)
            }),
            Op::AppendTooMuch => {
                let bytes = vec![0; self.config.map_or(0, Config::max_record) + 1];
                match wal.append(&bytes) {
                    Err(Error::RecordTooLarge { .. }) => Ok(()),
                    other => wrong(&other),
                }
            }
            Op::PanicInside => {
                let fill = || wal.append_with(100, |_| std::panic::resume_unwind(Box::new("fill")));
                match catch_unwind(AssertUnwindSafe(fill)) {
                    Err(_) => {
                        self.model.hole();
                        Ok(())
                    }
                    Ok(Err(Error::NoSpace)) if self.full => Ok(()),
                    Ok(returned) => wrong(&returned),
                }
            }
            Op::Batch(lens) if lens.is_empty() => match wal.append_batch::<&[u8]>(&[]) {
                Err(Error::EmptyBatch) => Ok(()),
                other => wrong(&other),
            },
            Op::Batch(lens) => {
                let lens: Vec<u16> = lens.iter().map(|&len| len.into()).collect();
                self.appended(&lens, |p| wal.append_batch(p))
            }
            Op::Many(count, len) => {
                (0..*count).try_for_each(|_| self.appended(&[*len], |p| wal.append(&p[0])))
            }
            Op::WaitDurable(place) => self.waited(*place, |wal, lsn| wal.wait_durable(lsn)),
            Op::WhenDurable(place) => {
                self.waited(*place, |wal, lsn| block_on(wal.when_durable(lsn), threads))
            }
            Op::OnDurable(place) => self.waited(*place, |wal, lsn| {
                let (send, receive) = channel();
                wal.on_durable(lsn, move |result| send.send(result).expect("waited for"));
                // A callback requests no sync, so modes without automatic syncs need one.
                let _ = wal.sync();
                receive.recv_timeout(patience(threads)).expect("called")
            }),
            Op::DropWaiting(place) => {
                let future = pin!(wal.when_durable(Lsn::new(self.lsn(*place))));
                let _ = future.poll(&mut Context::from_waker(Waker::noop()));
                Ok(())
            }
            Op::Sync => {
                let end = wal.sync().map_err(|e| e.to_string())?.as_u64();
                match self.model.records.last() {
                    Some((last, _)) if end <= *last => Err(format!("synced to {end} only")),
                    _ => self.model.durable(end),
                }
            }
            Op::Read(place) => self.read(*place),
            Op::ReadFrom(place) => self.read_from(self.lsn(*place)),
            Op::ReadBack(place) => self.read_back(self.lsn(*place)),
            Op::Replay => {
                let mut found = Vec::new();
                let replayed = wal.replay(|lsn, bytes| {
                    found.push((lsn.as_u64(), bytes.to_vec()));
                    Ok::<(), ()>(())
                });
                if replayed.map_err(|e| format!("{e:?}"))? != found.len() as u64 {
                    return Err("miscounted".into());
                }
                self.model.compare(&found, 0, wal.oldest_lsn().as_u64(), u64::MAX)
            }
            Op::TruncateBefore(place) => {
                let lsn = self.lsn(*place);
                let before = wal.oldest_lsn().as_u64();
                // A segment that could not be removed at the call is removed as soon as possible.
                self.truncate_to = self.truncate_to.max(lsn);
                let kept = match wal.truncate_before(Lsn::new(lsn)) {
                    // Segments this small keep no block for the mark.
                    Err(Error::NoSpace) if self.full => return Ok(()),
                    kept => kept.map_err(|e| e.to_string())?.as_u64(),
                };
                if kept > self.truncate_to.max(before) && !self.by_itself() {
                    return Err(format!("kept from {kept} on, asked for {lsn}, it was {before}"));
                }
                self.read_from(kept)
            }
            Op::TruncateAfter(place) => self.truncate_from(self.lsn(*place)),
            Op::Follow(place) => self.follow(self.lsn(*place)),
            Op::Take => self.take(),
            Op::StopFollowing => {
                self.follower = None;
                Ok(())
            }
            Op::Clone => {
                self.clones.push(wal);
                Ok(())
            }
            Op::DropClone => {
                self.clones.pop();
                Ok(())
            }
            Op::Attach(n) => self.attach(*n),
            Op::Consume(n, most) => self.consume(*n, *most),
            Op::Commit(n) => self.commit(*n, None),
            Op::CommitAt(n, place) => self.commit(*n, Some(self.lsn(*place))),
            Op::Seek(n, place) => self.seek(*n, self.lsn(*place)),
            Op::Detach(n) => {
                self.detach(*n);
                Ok(())
            }
            Op::RemoveConsumer(n) => self.remove_consumer(*n),
            Op::Reopen(_) | Op::DropAndOpen(_) | Op::Crash(_) | Op::Kill(_) => Ok(()),
            Op::PowerOffAfter(..) | Op::Full | Op::Room | Op::Advance(_) => Ok(()),
        }
    }

    fn truncate_from(&mut self, lsn: u64) -> Checked {
        let wal = self.wal();
        let is_record = self.model.records.binary_search_by_key(&lsn, |r| r.0).is_ok();
        let inner = is_record && self.model.inside_batch.contains(&lsn);
        let within = self.model.records[..self.model.index(lsn)].last();
        // Bytes after the payload are padding, or lie between groups.
        let perhaps = within.is_some_and(|(at, payload)| lsn < at + 40 + payload.len() as u64)
            || self.model.has_hole_behind(within.map(|(at, _)| *at));
        let within = within.is_some_and(|(at, payload)| lsn < at + 8 + payload.len() as u64);
        let appended = self.surely_appended(lsn);
        self.pending = Some(Pending::Cut(lsn));
        let cut = wal.truncate_from(Lsn::new(lsn));
        let from = self.cut_from(lsn);
        let first = self.model.records.get(self.model.index(from)).map(|r| r.0);
        let consumed = first.is_some_and(|first| self.consumers.beyond(first));
        match cut {
            Ok(to) if !consumed && !inner && !within && appended != Some(false) => {
                self.model.cut(from, to.as_u64())?;
                if let Some(f) = &mut self.follower {
                    f.cursor.cut(&self.model, from);
                }
                self.consumers.cut(&self.model, from);
                self.read_from(0)
            }
            Err(Error::InsideBatch { first, .. })
                if inner && !self.model.inside_batch.contains(&first.as_u64()) =>
            {
                Ok(())
            }
            Err(Error::NotAppended { .. }) if appended != Some(true) => Ok(()),
            // A batch begins before its first record.
            Err(Error::Consumed { name, position })
                if self.consumers.is_at(&name, position)
                    && position.as_u64() > lsn.saturating_sub(16) =>
            {
                Ok(())
            }
            Err(Error::NoSpace) if self.full => Ok(()),
            Err(Error::NoRecord { .. }) if !is_record && perhaps => Ok(()),
            Err(Error::Pruned { oldest }) if lsn != 0 && oldest.as_u64() > lsn => Ok(()),
            other => Err(format!("{lsn}: got {other:?}")),
        }
    }

    /// Returns the first position that a cut at `lsn` voids. Zero means the oldest position at that
    /// moment. Records that retention removed before are not void, and may still be delivered.
    fn cut_from(&self, lsn: u64) -> u64 {
        if lsn != 0 {
            return lsn;
        }
        let wal = self.wal();
        let last = self.model.records.last().map_or(Ok(()), |r| wal.wait_durable(Lsn::new(r.0)));
        match last {
            Err(Error::Truncated { from, .. }) => from.as_u64(),
            _ => wal.oldest_lsn().as_u64(),
        }
    }

    fn appended(
        &mut self,
        lens: &[u16],
        append: impl FnOnce(&[Vec<u8>]) -> ringwal::Result<Lsn>,
    ) -> Checked {
        self.append_with(lens, false, append)
    }

    /// Compares the result of an append that may fail because the ring is full.
    fn tried(
        &mut self,
        lens: &[u16],
        append: impl FnOnce(&[Vec<u8>]) -> ringwal::Result<Lsn>,
    ) -> Checked {
        self.append_with(lens, true, append)
    }

    fn append_with(
        &mut self,
        lens: &[u16],
        may_be_full: bool,
        append: impl FnOnce(&[Vec<u8>]) -> ringwal::Result<Lsn>,
    ) -> Checked {
        let payloads: Vec<_> = lens.iter().map(|&len| self.model.payload(len.into())).collect();
        let most = self.config.map_or(0, Config::max_record);
        let one = lens.len() == 1;
        let total: usize = lens.iter().map(|&len| 8 + usize::from(len).next_multiple_of(8)).sum();
        let large = if one { usize::from(lens[0]) > most } else { total + 4 > most };
        match append(&payloads) {
            Ok(lsn) if !large => self.model.append(lsn.as_u64(), payloads),
            Err(Error::RecordTooLarge { .. }) if large => Ok(()),
            Err(Error::RingFull) if may_be_full => Ok(()),
            Err(Error::NoSpace) if self.full => Ok(()),
            other => {
                self.pending = Some(Pending::Append(payloads));
                wrong(&other)
            }
        }
    }

    fn waited(
        &mut self,
        place: Place,
        wait: impl FnOnce(&Wal, Lsn) -> ringwal::Result<()>,
    ) -> Checked {
        let (wal, lsn) = (self.wal(), self.lsn(place));
        let waited = wait(&wal, Lsn::new(lsn));
        let oldest = wal.oldest_lsn().as_u64();
        match (waited, self.surely_appended(lsn)) {
            (Err(Error::Truncated { from, to }), _)
                if self.model.may_be_void(lsn) && from.as_u64() <= lsn && lsn < to.as_u64() =>
            {
                Ok(())
            }
            (Ok(()), _) if self.model.is_void(lsn, oldest) => Err(format!("{lsn} was cut")),
            (Ok(()), Some(true) | None) if wal.durable_end().as_u64() > lsn => Ok(()),
            (Err(Error::NotAppended { end, .. }), Some(false) | None) if end.as_u64() <= lsn => {
                Ok(())
            }
            (other, _) => wrong(&other),
        }
    }

    fn read(&mut self, place: Place) -> Checked {
        let (wal, lsn) = (self.wal(), self.lsn(place));
        let records = &self.model.records;
        let expected = records.binary_search_by_key(&lsn, |r| r.0).ok().map(|at| &records[at].1);
        let durable = wal.durable_end().as_u64();
        match (wal.read(Lsn::new(lsn)), expected) {
            (Ok(record), Some(payload)) if record.payload == *payload => Ok(()),
            (Err(Error::Pruned { oldest }), _) if oldest.as_u64() > lsn => Ok(()),
            // The record may have become durable since.
            (Err(Error::NotDurable { durable_end, .. }), _)
                if lsn >= durable && durable_end.as_u64() <= lsn =>
            {
                Ok(())
            }
            (Err(Error::NotAppended { .. }), None) if self.surely_appended(lsn) != Some(true) => {
                Ok(())
            }
            (Err(Error::Truncated { .. }), None) if self.model.may_be_void(lsn) => Ok(()),
            (Err(Error::NoRecord { .. }), None) if !self.model.is_void(lsn, 0) => Ok(()),
            (other, _) => Err(format!("{lsn}: got {other:?}")),
        }
    }

    pub(crate) fn read_from(&mut self, from: u64) -> Checked {
        let wal = self.wal();
        let before = wal.durable_end().as_u64();
        let mut found = Vec::new();
        for record in wal.reader(Lsn::new(from)) {
            match record {
                Ok(record) => found.push((record.lsn.as_u64(), record.payload)),
                Err(Error::Pruned { oldest }) if from != 0 && oldest.as_u64() > from => {
                    return if found.is_empty() {
                        Ok(())
                    } else {
                        Err("pruned in the middle".into())
                    };
                }
                Err(Error::NotAppended { end, .. })
                    if from > end.as_u64() && self.surely_appended(from) != Some(true) =>
                {
                    return Ok(());
                }
                Err(e) => return Err(e.to_string()),
            }
        }
        if self.surely_appended(from) == Some(false) {
            return Err("read from a place behind the end".into());
        }
        // A reader ends at the durable end of its creation, which is at least the durable end
        // before it.
        let end = found.last().map_or(before, |(lsn, _)| before.max(lsn + 1));
        let oldest = if from == 0 { wal.oldest_lsn().as_u64() } else { from };
        self.model.compare(&found, from, oldest, end)
    }

    fn read_back(&mut self, before: u64) -> Checked {
        let wal = self.wal();
        let end = wal.durable_end().as_u64().min(before);
        let mut found = Vec::new();
        for record in wal.reader_back(Lsn::new(before)) {
            match record {
                Ok(record) => found.push((record.lsn.as_u64(), record.payload)),
                Err(Error::Pruned { oldest })
                    if found.is_empty() && (1..oldest.as_u64()).contains(&before) =>
                {
                    return Ok(());
                }
                Err(e) => return Err(format!("{e:?}")),
            }
        }
        found.reverse();
        if found.last().is_some_and(|(lsn, _)| *lsn >= before) {
            return Err(format!("{} is not below {before}", found.len()));
        }
        // Records that became durable after the check may be there too.
        let end = found.last().map_or(end, |(lsn, _)| end.max(lsn + 1));
        self.model.compare(&found, 0, wal.oldest_lsn().as_u64(), end)
    }
}
