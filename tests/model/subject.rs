//! The real log beside the model, and what each operation must do to both.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use ringwal::{Error, Follow, Lsn, RecoveryCase, Wal};

use super::operations::{Config, Op, Place};
use super::reference::Reference;

type Checked = Result<(), String>;

pub(crate) struct Subject {
    dir: PathBuf,
    uring: bool,
    config: Option<Config>,
    wal: Option<Wal>,
    clones: Vec<Wal>,
    model: Reference,
    /// The highest position that this handle was asked to truncate before.
    truncate_to: u64,
    follower: Option<Following>,
}

struct Following {
    follow: Follow,
    /// The next record's index in the model.
    next: usize,
    /// Where it began.
    from: u64,
    /// The last record that it delivered, and whether that was cut since.
    last: Option<u64>,
    cut: bool,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn wrong<T: std::fmt::Debug>(got: &T) -> Checked {
    Err(format!("got {got:?}"))
}

impl Subject {
    pub(crate) fn new(dir: &Path, uring: bool) -> Result<Self, String> {
        Ok(Subject {
            dir: dir.into(),
            uring,
            config: None,
            wal: None,
            clones: Vec::new(),
            model: Reference::default(),
            truncate_to: 0,
            follower: None,
        })
    }

    fn wal(&self) -> Wal {
        // Any of the handles does as well as any other.
        let handles = self.clones.iter().chain(&self.wal);
        handles.last().cloned().expect("sequences begin with an opening")
    }

    fn lsn(&self, place: Place) -> u64 {
        let records = &self.model.records;
        let record = |n: u32| records.get(n as usize % records.len().max(1)).map_or(0, |r| r.0);
        match place {
            Place::Record(n) => record(n),
            Place::Inside(n, offset) => record(n) + u64::from(offset),
            Place::Zero => 0,
            Place::DurableEnd => self.model.durable_end,
            Place::Beyond => 1 << 40,
        }
    }

    /// The log's end is not told; what lies behind the last record by less than this may or may not
    /// be behind it.
    fn surely_appended(&self, lsn: u64) -> Option<bool> {
        let last = self.model.records.last().map_or(0, |r| r.0);
        if lsn <= last || lsn < self.model.durable_end {
            Some(true)
        } else {
            (lsn > last + (1 << 20)).then_some(false)
        }
    }

    pub(crate) fn step(&mut self, op: &Op) -> Checked {
        match op {
            Op::Reopen(config) => return self.reopen(*config, true),
            Op::DropAndOpen(config) => return self.reopen(*config, false),
            _ => {}
        }
        if self.wal.is_none() {
            // A shortened sequence that lost its first opening.
            return Ok(());
        }
        self.act(op)?;
        let wal = self.wal();
        self.model.durable(wal.durable_end().as_u64())?;
        self.model.kept_from(wal.oldest_lsn().as_u64())
    }

    fn act(&mut self, op: &Op) -> Checked {
        let wal = self.wal();
        match op {
            Op::Append(len) => self.appended(&[*len], |p| wal.append(&p[0])),
            Op::TryAppend(len) => self.appended(&[*len], |p| wal.try_append(&p[0])),
            Op::AppendWith(len) => {
                let fill = |p: &[Vec<u8>]| {
                    wal.append_with(p[0].len(), |room| {
                        assert!(room.iter().all(|&b| b == 0), "not zeroed");
                        room.copy_from_slice(&p[0]);
                    })
                };
                self.appended(&[*len], fill)
            }
            Op::AppendAsync(len) => self.appended(&[*len], |p| block_on(wal.append_async(&p[0]))),
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
                    Err(_) => Ok(()),
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
                self.waited(*place, |wal, lsn| block_on(wal.when_durable(lsn)))
            }
            Op::OnDurable(place) => self.waited(*place, |wal, lsn| {
                let (send, receive) = channel();
                wal.on_durable(lsn, move |result| send.send(result).expect("waited for"));
                // A callback asks for no sync: in the modes without one somebody must.
                let _ = wal.sync();
                receive.recv().expect("called")
            }),
            Op::Sync => {
                let end = wal.sync().map_err(|e| e.to_string())?.as_u64();
                match self.model.records.last() {
                    Some((last, _)) if end <= *last => Err(format!("synced to {end} only")),
                    _ => self.model.durable(end),
                }
            }
            Op::Read(place) => self.read(*place),
            Op::ReadFrom(place) => self.read_from(self.lsn(*place)),
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
                let kept = wal.truncate_before(Lsn::new(lsn)).map_err(|e| e.to_string())?.as_u64();
                let by_retention = self.config.is_some_and(|c| c.max_segments.is_some());
                // What could not go when it was asked for goes as soon as it can.
                self.truncate_to = self.truncate_to.max(lsn);
                if kept > self.truncate_to.max(before) && !by_retention {
                    return Err(format!("kept from {kept} on, asked for {lsn}, it was {before}"));
                }
                self.read_from(kept)
            }
            Op::TruncateAfter(place) => self.truncate_after(self.lsn(*place)),
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
            Op::Reopen(_) | Op::DropAndOpen(_) => Ok(()),
        }
    }

    fn truncate_after(&mut self, lsn: u64) -> Checked {
        let wal = self.wal();
        let is_record = self.model.records.binary_search_by_key(&lsn, |r| r.0).is_ok();
        let inner = is_record && self.model.inside_batch.contains(&lsn);
        let within = self.model.records[..self.model.index(lsn)].last();
        // Of the bytes behind the payload some are padding, some lie between groups.
        let perhaps = within.is_some_and(|(at, payload)| lsn < at + 40 + payload.len() as u64);
        let within = within.is_some_and(|(at, payload)| lsn < at + 8 + payload.len() as u64);
        let appended = self.surely_appended(lsn);
        match wal.truncate_after(Lsn::new(lsn)) {
            Ok(to) if !inner && !within && appended != Some(false) => {
                self.model.cut(lsn, to.as_u64())?;
                if let Some(f) = &mut self.follower {
                    f.cut |= f.last.is_some_and(|last| last >= lsn);
                    f.next = self.model.index(f.last.map_or(f.from, |last| last + 1));
                }
                self.read_from(0)
            }
            Err(Error::InsideBatch { first, .. })
                if inner && !self.model.inside_batch.contains(&first.as_u64()) =>
            {
                Ok(())
            }
            Err(Error::NotAppended { .. }) if appended != Some(true) => Ok(()),
            Err(Error::NoRecord { .. }) if !is_record && perhaps => Ok(()),
            Err(Error::Pruned { oldest }) if lsn != 0 && oldest.as_u64() > lsn => Ok(()),
            other => Err(format!("{lsn}: got {other:?}")),
        }
    }

    fn appended(
        &mut self,
        lens: &[u16],
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
            Err(Error::RingFull) if one => Ok(()),
            other => wrong(&other),
        }
    }

    fn waited(
        &mut self,
        place: Place,
        wait: impl FnOnce(&Wal, Lsn) -> ringwal::Result<()>,
    ) -> Checked {
        let (wal, lsn) = (self.wal(), self.lsn(place));
        match (wait(&wal, Lsn::new(lsn)), self.surely_appended(lsn)) {
            (Err(Error::Truncated { from, to }), _)
                if self.model.may_be_void(lsn) && from.as_u64() <= lsn && lsn < to.as_u64() =>
            {
                Ok(())
            }
            (Ok(()), _) if self.model.is_void(lsn) => Err(format!("{lsn} was cut")),
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
            // It may have become durable since.
            (Err(Error::NotDurable { durable_end, .. }), _)
                if lsn >= durable && durable_end.as_u64() <= lsn =>
            {
                Ok(())
            }
            (Err(Error::NotAppended { .. }), None) if self.surely_appended(lsn) != Some(true) => {
                Ok(())
            }
            (Err(Error::Truncated { .. }), None) if self.model.may_be_void(lsn) => Ok(()),
            (Err(Error::NoRecord { .. }), None) if !self.model.is_void(lsn) => Ok(()),
            (other, _) => Err(format!("{lsn}: got {other:?}")),
        }
    }

    fn read_from(&mut self, from: u64) -> Checked {
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
                Err(e) => return Err(e.to_string()),
            }
        }
        // It ends at the end that was durable when it was made: not before what was durable before.
        let end = found.last().map_or(before, |(lsn, _)| before.max(lsn + 1));
        let oldest = if from == 0 { wal.oldest_lsn().as_u64() } else { from };
        self.model.compare(&found, from, oldest, end)
    }

    fn follow(&mut self, from: u64) -> Checked {
        let wal = self.wal();
        match wal.follow(Lsn::new(from)) {
            Ok(follow) => {
                // From zero on retention may have taken records by now: the first tells.
                let next = self.model.index(from);
                self.follower = Some(Following { follow, next, from, last: None, cut: false });
                if self.surely_appended(from) == Some(false) {
                    return Err("followed from a place behind the end".into());
                }
                Ok(())
            }
            Err(Error::Pruned { oldest }) if from != 0 && oldest.as_u64() > from => Ok(()),
            Err(Error::NotAppended { .. }) if self.surely_appended(from) != Some(true) => Ok(()),
            Err(e) => Err(e.to_string()),
        }
    }

    fn take(&mut self) -> Checked {
        let Some(following) = &mut self.follower else { return Ok(()) };
        let durable = self.wal.as_ref().map_or(0, |w| w.durable_end().as_u64());
        let mut fresh = following.next;
        if following.cut {
            let taken = following.follow.try_next().map(|r| r.map(|r| r.lsn));
            self.follower = None;
            return match taken {
                Err(Error::Truncated { .. }) => Ok(()),
                other => wrong(&other),
            };
        }
        while let Some(record) =
            following.follow.try_next().map_err(|e| format!("follower: {e}"))?
        {
            let lsn = record.lsn.as_u64();
            if fresh == following.next && self.model.records.get(fresh).is_some_and(|r| r.0 < lsn) {
                // Removed before it began.
                let at = self.model.index(lsn);
                let left_out = self.model.records[fresh..at].iter();
                if left_out.clone().any(|(lsn, _)| *lsn >= self.model.oldest) {
                    return Err(format!("the follower left out what lies before {lsn}"));
                }
                fresh = at;
            }
            match self.model.records.get(fresh) {
                Some((at, payload)) if *at == lsn && payload == record.payload => {
                    fresh += 1;
                    following.last = Some(lsn);
                }
                other => {
                    let at = other.map(|r| r.0);
                    return Err(format!("the follower has {lsn} instead of {at:?}"));
                }
            }
        }
        following.next = fresh;
        match self.model.records.get(fresh) {
            Some((lsn, _)) if *lsn < durable => Err(format!("the follower stops before {lsn}")),
            _ => Ok(()),
        }
    }

    fn shut(&mut self, close: bool) -> Checked {
        let Some(wal) = self.wal.take() else { return Ok(()) };
        if close {
            wal.close().map_err(|e| e.to_string())?;
            self.model.durable(wal.durable_end().as_u64())?;
            for refused in [wal.append(b"x"), wal.append_durable(b"x"), wal.append_batch(&[b"x"])] {
                if !matches!(refused, Err(Error::Closed)) {
                    return Err(format!("after close: {refused:?}"));
                }
            }
            self.wal = Some(wal);
            self.take()?;
            self.read_from(0)?;
            if let Some(f) = &mut self.follower
                && let Some(more) = f.follow.next()
            {
                return Err(format!("the follower of a closed log has {more:?}"));
            }
        }
        self.follower = None;
        self.clones.clear();
        self.wal = None;
        Ok(())
    }

    fn reopen(&mut self, config: Config, close: bool) -> Checked {
        let first = self.wal.is_none();
        self.shut(close)?;
        let until = Instant::now() + Duration::from_secs(30);
        let wal = loop {
            match config.apply(Wal::builder(&self.dir), self.uring).open() {
                // The last handle's drop closes in its own time.
                Err(Error::Locked { .. }) if !close && Instant::now() < until => {
                    std::thread::yield_now();
                }
                Err(e) => return Err(format!("{e:?}")),
                Ok(wal) => break wal,
            }
        };
        let report = wal.recovery();
        let case = if first { RecoveryCase::New } else { RecoveryCase::Marked };
        if report.case != case || report.discarded_bytes != 0 {
            return Err(format!("closed, and found {report:?}"));
        }
        self.config = Some(config);
        self.truncate_to = 0;
        self.model.durable(wal.durable_end().as_u64())?;
        self.model.kept_from(wal.oldest_lsn().as_u64())?;
        self.wal = Some(wal);
        self.read_from(0)
    }

    /// Closes and opens once more: everything is there.
    pub(crate) fn end(&mut self) -> Checked {
        match self.config {
            Some(config) => {
                self.reopen(config, true)?;
                self.shut(true)
            }
            None => Ok(()),
        }
    }
}
