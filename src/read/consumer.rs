//! Named consumers: readers whose position survives, and whose records retention keeps.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::engine::state::LogState;
use crate::error::{Error, Result};
use crate::format::TagFilter;
use crate::lsn::Lsn;
use crate::positions::{Attachment, PositionFile, PositionsBefore};
use crate::read::follow::Follow;
use crate::read::lag::lag;
use crate::read::places::{position_at, read_ordinal};
use crate::read::tag_search::TagSearch;
use crate::read::{is_inside_record, read_one};
use crate::segment::{Names, is_consumer_name};
use crate::sys::reentrancy;

/// Reads a log from a position that survives, from [`Wal::consumer`](crate::Wal::consumer).
///
/// It delivers every record at least once. When it is attached again, by this process or a later
/// one, it delivers the records after the last [`Consumer::commit`] again. The log keeps every
/// record that it has not committed, attached or not, up to
/// [`WalBuilder::consumer_limit`](crate::WalBuilder::consumer_limit). Dropping it releases its
/// name; its position stays.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("ringwal-doc-consumer-{}", std::process::id()));
/// # let wal = ringwal::Wal::open(&dir)?;
/// wal.append_batch(&["one", "two"])?;
/// wal.sync()?;
/// let mut mailer = wal.consumer("mailer")?;
/// let lsn = mailer.records()?.next_ref()?.expect("there are two").lsn;
/// mailer.commit(lsn)?; // durable: "one" is done
/// drop(mailer);
/// let mut mailer = wal.consumer("mailer")?; // in this process, or after a restart
/// assert_eq!(mailer.records()?.next_ref()?.unwrap().payload, b"two");
/// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
/// # Ok::<(), ringwal::Error>(())
/// ```
pub struct Consumer {
    state: Arc<LogState>,
    name: String,
    file: PositionFile,
    position: u64,
    follow: Option<Follow>,
    /// With a filter: where the next record of its tags is.
    tag_search: Option<TagSearch>,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = self.position;
        f.debug_struct("Consumer").field("name", &self.name).field("position", &position).finish()
    }
}

fn check_name(names: &Names, name: &str) -> Result<()> {
    let longest = names.longest_consumer();
    match is_consumer_name(name) {
        false => Err(Error::ConsumerName { name: name.into() }),
        true if name.len() > longest => {
            Err(Error::ConsumerNameTooLong { name: name.into(), longest })
        }
        true => Ok(()),
    }
}

/// Undoes an attachment when it is dropped, unless it is disarmed.
#[must_use]
struct AttachGuard<'a> {
    state: &'a LogState,
    name: &'a str,
    undo: Option<Attachment>,
}

impl AttachGuard<'_> {
    fn disarm(mut self) {
        self.undo = None;
    }
}

impl Drop for AttachGuard<'_> {
    fn drop(&mut self) {
        match self.undo {
            None => {}
            Some(Attachment::Created) => self.state.consumers.forget(self.name),
            Some(Attachment::Existing) => self.state.consumers.detach(self.name),
        }
    }
}

impl Consumer {
    pub(crate) fn attach(state: &Arc<LogState>, log_id: [u8; 16], name: &str) -> Result<Self> {
        check_name(&state.view.names, name)?;
        state.durable.check_running()?;
        reentrancy::check_may_wait()?;
        let view = &state.view;
        // Position 0 would begin at any later oldest record, and not say which ones are missing.
        let oldest = view.table.oldest().max(1);
        let file_of = |name: &str| view.dir.path_of(&view.names.consumer(name));
        let attachment = state.consumers.attach(name, oldest, file_of)?;
        let guard = AttachGuard { state, name, undo: Some(attachment) };
        let path = view.names.consumer(name);
        let (file, position) = state.consumers.change(|| {
            if attachment == Attachment::Existing {
                let (file, position) = PositionFile::open(&*view.dir, &path, log_id)?;
                // An earlier store that failed may have written it.
                state.consumers.set(name, position);
                return Ok((file, position));
            }
            // The entry holds segments from now on. So the oldest that is read next stays.
            let oldest = view.table.oldest().max(1);
            state.consumers.set(name, oldest);
            let temporary = view.names.consumer_temporary(name);
            Ok((PositionFile::create(&*view.dir, &path, &temporary, log_id, oldest)?, oldest))
        })?;
        guard.disarm();
        let state = Arc::clone(state);
        Ok(Consumer { state, name: name.into(), file, position, follow: None, tag_search: None })
    }

    /// Delivers only records with this tag from now on, as [`Consumer::only_tags`] does.
    #[must_use = "a filter is part of the consumer that is returned"]
    pub fn only_tag(self, tag: u64) -> Self {
        self.only_tags([tag])
    }

    /// Delivers only records with one of these tags from now on, and begins at the position again:
    /// see [`Reader::only_tags`](crate::Reader::only_tags).
    ///
    /// The filter is not stored: it belongs to this `Consumer`, and not to the name. Every commit
    /// moves the position over the skipped records before it too, whatever their tags. With a
    /// filter [`Consumer::lag`] is 0, and [`Consumer::is_caught_up`] true, if no durable record of
    /// its tags lies at or above the position. A consumer that gets nothing to commit holds the log
    /// at its position; [`Consumer::commit_skipped`] moves it.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-ctag-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// let mut worker = wal.consumer("worker")?.only_tag(7);
    /// let mine = wal.append_tagged(7, b"for the worker")?;
    /// wal.append_tagged(8, b"for others")?;
    /// wal.sync()?;
    /// assert_eq!(worker.records()?.next_ref()?.unwrap().lsn(), mine);
    /// worker.commit(mine)?;
    /// assert!(worker.is_caught_up());
    /// // The log need not keep tag 8 for it.
    /// assert!(worker.commit_skipped()? > mine);
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    #[must_use = "a filter is part of the consumer that is returned"]
    pub fn only_tags(mut self, tags: impl IntoIterator<Item = u64>) -> Self {
        let earlier = self.tag_search.as_ref().map(TagSearch::wanted);
        self.tag_search = Some(TagSearch::new(TagFilter::new(tags).within(earlier)));
        self.follow = None;
        self
    }

    pub(crate) fn state(&self) -> &Arc<LogState> {
        &self.state
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its position: every record below is committed.
    #[must_use]
    pub fn position(&self) -> Lsn {
        Lsn::new(self.position)
    }

    /// Bytes of the log from the position to the durable end. 0 once every durable record is
    /// committed.
    ///
    /// Costs two atomic loads; a consumer in the newest group reads that group, once.
    ///
    /// With a filter, it is 0 if no durable record of its tags lies at or above the position. To
    /// find the next one, the call reads the log from the position, each part once.
    #[must_use]
    pub fn lag(&self) -> u64 {
        match &self.tag_search {
            None => lag(&self.state, self.position, self.position),
            Some(search) => search.lag(&self.state, self.position, self.position),
        }
    }

    /// Whether every durable record is committed; with a filter, every one of its tags.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-up-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// let mut worker = wal.consumer("worker")?;
    /// let job = wal.append_durable(b"job")?;
    /// assert!(!worker.is_caught_up());
    /// worker.commit(job)?;
    /// assert!(worker.is_caught_up() && worker.lag() == 0);
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.lag() == 0
    }

    /// The follower that delivers the records, from the position on.
    ///
    /// Later calls go on after the last record delivered. After a failed read the follower begins
    /// at the position again: if [`Wal::truncate_from`](crate::Wal::truncate_from) has cut
    /// delivered records (`Truncated`), every record that was not committed is delivered again.
    ///
    /// # Errors
    ///
    /// `Pruned`, here or from the follower, if the consumer lagged by more than `consumer_limit`
    /// and retention has removed its next record: [`Consumer::seek`] goes on elsewhere.
    pub fn records(&mut self) -> Result<&mut Follow> {
        let follow = match self.follow.take() {
            Some(follow) if !follow.has_failed() => follow,
            _ => {
                let mut follow = Follow::unpinned(Arc::clone(&self.state), self.position)?;
                if let Some(search) = &self.tag_search {
                    follow.want(search.wanted().clone());
                }
                follow
            }
        };
        Ok(self.follow.insert(follow))
    }

    /// Commits the record at `lsn` and every record before it. They are not delivered again, and
    /// the log need not keep them for this consumer.
    ///
    /// The commit is durable on return. It costs one write and one sync of 4 KiB on this thread, so
    /// commit every so many records. A record other than the one delivered last costs one read of
    /// that record more, which checks that it is there.
    ///
    /// # Errors
    ///
    /// `ConsumerBackwards` below the position, `NotDurable` for a record that is not durable yet,
    /// `NotAppended` above the log's end, `NoRecord` where no record starts, `Truncated` for a
    /// record that [`Wal::truncate_from`](crate::Wal::truncate_from) made void: the position is
    /// unchanged. A commit at or above a cut that is being made waits for its end. `Io` if the
    /// position cannot be stored: either position may be in the file, so attach the consumer again.
    /// `Closed`, `Poisoned`, `WouldDeadlock`.
    pub fn commit(&mut self, lsn: Lsn) -> Result<()> {
        let position = lsn.as_u64().saturating_add(1);
        if position < self.position {
            return Err(Error::ConsumerBackwards { lsn, position: self.position() });
        }
        self.check(lsn, lsn.as_u64())?;
        if position > self.position {
            self.check_record(lsn)?;
        }
        let before = self.begin_store(position)?;
        if let Err(void) = self.state.view.cuts.check(lsn.as_u64()) {
            self.state.consumers.withdraw_store(&self.name, before);
            return Err(void);
        }
        self.store(position, before)?;
        if self.follow.as_ref().is_some_and(|follow| follow.delivered() < lsn.as_u64()) {
            // The commit skips records that were not delivered, and retention may remove them.
            self.follow = None;
        }
        Ok(())
    }

    /// Commits every record below `lsn`, and not the record at `lsn`.
    ///
    /// `lsn` is the LSN of a record, its [`Lsn::next`], or a
    /// [`Wal::durable_end`](crate::Wal::durable_end). The cost is that of [`Consumer::seek`].
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-until-{}", std::process::id()));
    /// # let wal = ringwal::Wal::open(&dir)?;
    /// let mut worker = wal.consumer("worker")?;
    /// wal.append(b"done")?;
    /// let under_way = wal.append_durable(b"under way")?;
    /// worker.commit_before(under_way)?;
    /// assert_eq!(worker.records()?.next_ref()?.unwrap().lsn, under_way);
    /// # wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `NoRecord` inside a record; otherwise as [`Consumer::commit`]: the position is unchanged.
    pub fn commit_before(&mut self, lsn: Lsn) -> Result<()> {
        let position = lsn.as_u64();
        if position < self.position {
            return Err(Error::ConsumerBackwards { lsn, position: self.position() });
        }
        self.check(lsn, position.saturating_sub(1))?;
        self.check_boundary(position)?;
        let before = self.begin_store(position)?;
        if let Some(void) = self.void_below(position) {
            self.state.consumers.withdraw_store(&self.name, before);
            return Err(void);
        }
        self.store(position, before)?;
        if self.follow.as_ref().is_some_and(|follow| follow.delivered() < position) {
            // The commit may skip records that were not delivered.
            self.follow = None;
        }
        Ok(())
    }

    /// Whether only some tags are delivered.
    pub(crate) fn has_filter(&self) -> bool {
        self.tag_search.is_some()
    }

    /// Commits the records that the filter skips directly after the position: up to the next record
    /// of its tags, or to the durable end. Returns the position. Without a filter, nothing is
    /// skipped.
    ///
    /// Call it now and then while no record comes, so that the log need not keep what other tags
    /// append. It passes no record of the filter's tags, delivered or not. Reads the log as
    /// [`Consumer::lag`] does, and costs a commit if the position moves.
    ///
    /// # Errors
    ///
    /// `Corruption`, `Pruned`, `Io`, and as [`Consumer::commit`]: the position is unchanged.
    pub fn commit_skipped(&mut self) -> Result<Lsn> {
        self.state.durable.check_running()?;
        reentrancy::check_may_wait()?;
        let Some(search) = &self.tag_search else { return Ok(self.position()) };
        let (next, _) = search.next(&self.state, self.position)?;
        if next <= self.position {
            return Ok(self.position());
        }
        let before = self.begin_store(next)?;
        if let Some(void) = self.void_below(next) {
            self.state.consumers.withdraw_store(&self.name, before);
            return Err(void);
        }
        self.store(next, before)?;
        if self.follow.as_ref().is_some_and(|follow| follow.delivered() < next) {
            // Retention may remove the segment in which the follower is.
            self.follow = None;
        }
        Ok(self.position())
    }

    /// Moves the position to the first record at or after `lsn`, forwards or backwards, durably.
    ///
    /// [`Lsn::ZERO`] is the oldest record. Costs a commit and a read of the record at `lsn` or
    /// directly before. If no record starts there, it reads the headers of the segment's groups.
    ///
    /// # Errors
    ///
    /// `Pruned` below the oldest, `NotDurable` above the durable end, `NotAppended` above the log's
    /// end, `NoRecord` inside a record, `Truncated` inside a void range: the position is unchanged.
    /// Otherwise as [`Consumer::commit`].
    pub fn seek(&mut self, lsn: Lsn) -> Result<()> {
        let table = &self.state.view.table;
        let wanted = if lsn == Lsn::ZERO { table.oldest().max(1) } else { lsn.as_u64() };
        self.check(lsn, wanted.saturating_sub(1))?;
        if lsn != Lsn::ZERO {
            self.check_boundary(wanted)?;
        }
        // The lower position holds segments from now on. So the oldest that is read next stays.
        let before = self.begin_store(wanted)?;
        let oldest = table.oldest();
        let refused = match wanted < oldest && lsn != Lsn::ZERO {
            true => Some(Error::Pruned { oldest: Lsn::new(oldest) }),
            false => self.void_below(wanted),
        };
        if let Some(refused) = refused {
            self.state.consumers.withdraw_store(&self.name, before);
            return Err(refused);
        }
        self.store(wanted.max(oldest), before)?;
        self.follow = None;
        Ok(())
    }

    /// Moves the position to the record with this ordinal, durably: see [`Consumer::seek`] and
    /// [`RecordRef::ordinal`](crate::RecordRef::ordinal).
    ///
    /// # Errors
    ///
    /// As [`Wal::read_ordinal`](crate::Wal::read_ordinal) and [`Consumer::seek`]: the position is
    /// unchanged.
    pub fn seek_ordinal(&mut self, ordinal: u64) -> Result<()> {
        self.state.durable.check_running()?;
        let record = read_ordinal(&self.state.view, self.state.durable.end(), ordinal)?;
        self.seek(record.lsn)
    }

    /// Moves the position to where [`Wal::reader_from_time`](crate::Wal::reader_from_time) begins,
    /// durably. If every record is older, that is the durable end.
    ///
    /// # Errors
    ///
    /// As there, and as [`Consumer::seek`]: the position is unchanged.
    pub fn seek_time(&mut self, time: SystemTime) -> Result<()> {
        self.state.durable.check_running()?;
        let position = position_at(&self.state.view, self.state.durable.end(), time)?;
        self.seek(Lsn::new(position))
    }

    /// Refuses `lsn`, unless the log is running and `last` is durable.
    fn check(&self, lsn: Lsn, last: u64) -> Result<()> {
        self.state.durable.check_running()?;
        reentrancy::check_may_wait()?;
        let durable_end = self.state.durable.end();
        if last < durable_end {
            return Ok(());
        }
        let end = self.state.end();
        Err(match last >= end {
            true => Error::NotAppended { lsn, end: Lsn::new(end) },
            false => Error::NotDurable { lsn, durable_end: Lsn::new(durable_end) },
        })
    }

    /// Refuses a commit of `lsn`, which is durable, if no record starts there. What cannot be read
    /// any more is not refused: a consumer may pass damage, and what retention has removed.
    fn check_record(&self, lsn: Lsn) -> Result<()> {
        let is_start = lsn.as_u64().is_multiple_of(8);
        if is_start && self.follow.as_ref().is_some_and(|f| f.delivered() == lsn.as_u64()) {
            return Ok(());
        }
        let state = &self.state;
        match read_one(&state.view, lsn.as_u64(), state.durable.end()) {
            Err(e @ (Error::NoRecord { .. } | Error::Truncated { .. })) => Err(e),
            _ => Ok(()),
        }
    }

    /// Refuses a position inside a record, as [`Consumer::check_record`] does.
    fn check_boundary(&self, position: u64) -> Result<()> {
        let view = &self.state.view;
        if position == self.position || view.cuts.at(position).is_some() {
            return Ok(());
        }
        match is_inside_record(view, position, self.state.durable.end()) {
            Ok(true) => Err(Error::NoRecord { lsn: Lsn::new(position) }),
            _ => Ok(()),
        }
    }

    /// `Truncated`, if void records lie directly below `position`. At the start of a cut, or at
    /// the oldest position, none do.
    fn void_below(&self, position: u64) -> Option<Error> {
        let cut = self.state.view.cuts.at(position)?;
        let is_void = cut.from.max(self.state.view.table.oldest()) < position;
        is_void.then(|| Error::Truncated { from: Lsn::new(cut.from), to: Lsn::new(cut.to) })
    }

    /// Enters `position` as being stored. Waits for the end of a cut below it first.
    fn begin_store(&self, position: u64) -> Result<PositionsBefore> {
        let state = &self.state;
        loop {
            let seen = state.cut.seen();
            if let Some(before) = state.consumers.begin_store(&self.name, position) {
                return Ok(before);
            }
            if !state.drive() {
                state.cut.wait(seen);
            }
            // A log that failed during the cut does not say whether the cut was made.
            state.durable.check_running()?;
        }
    }

    /// Stores the position that [`Consumer::begin_store`] entered.
    fn store(&mut self, position: u64, before: PositionsBefore) -> Result<()> {
        if position == self.position {
            self.state.consumers.withdraw_store(&self.name, before);
            return Ok(());
        }
        let view = &self.state.view;
        let path = || view.dir.path_of(&view.names.consumer(&self.name));
        let file = &mut self.file;
        self.state.consumers.change(|| {
            file.store(position).map_err(|e| Error::io("store a position in", path(), e))
        })?;
        self.position = position;
        self.state.consumers.set(&self.name, position);
        self.state.keeper.ring();
        Ok(())
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // In a child of fork() the name is the parent's.
        if !self.state.durable.is_forked() {
            self.state.consumers.detach(&self.name);
        }
    }
}

/// Removes a consumer: its position is deleted, and the log keeps nothing for it.
pub(crate) fn remove(state: &LogState, name: &str) -> Result<()> {
    check_name(&state.view.names, name)?;
    state.durable.check_running()?;
    let view = &state.view;
    let file = view.names.consumer(name);
    let io = |op, e| Error::io(op, view.dir.path_of(&file), e);
    state.consumers.change(|| {
        state.consumers.remove(name, || {
            view.dir.remove(&file).map_err(|e| io("remove", e))?;
            view.dir.sync().map_err(|e| io("sync the directory of", e))
        })
    })?;
    state.keeper.ring();
    Ok(())
}
