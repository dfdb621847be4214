//! Named consumers: readers whose position survives, and whose records retention keeps.

use std::fmt;
use std::sync::Arc;

use crate::engine::state::LogState;
use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::positions::{Attachment, PositionFile, PositionsBefore};
use crate::read::follow::Follow;
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
        let attachment = state.consumers.attach(name, oldest)?;
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
        Ok(Consumer { state, name: name.into(), file, position, follow: None })
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

    /// Bytes of the log from the position to the durable end.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.state.durable.end().saturating_sub(self.position)
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
            _ => Follow::unpinned(Arc::clone(&self.state), self.position)?,
        };
        Ok(self.follow.insert(follow))
    }

    /// Commits the record at `lsn` and every record before it. They are not delivered again, and
    /// the log need not keep them for this consumer.
    ///
    /// The commit is durable on return. It costs one write and one sync of 4 KiB on this thread, so
    /// commit every so many records.
    ///
    /// # Errors
    ///
    /// `ConsumerBackwards` below the position, `NotDurable` for a record that is not durable yet,
    /// `Truncated` for a record that [`Wal::truncate_from`](crate::Wal::truncate_from) made void:
    /// the position is unchanged. A commit at or above a cut that is being made waits for its end.
    /// `Io` if the position cannot be stored: either position may be in the file, so attach the
    /// consumer again. `Closed`, `Poisoned`, `WouldDeadlock`.
    pub fn commit(&mut self, lsn: Lsn) -> Result<()> {
        let position = lsn.as_u64().saturating_add(1);
        if position < self.position {
            return Err(Error::ConsumerBackwards { lsn, position: self.position() });
        }
        self.check(lsn, lsn.as_u64())?;
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

    /// Moves the position to the first record at or after `lsn`, forwards or backwards, durably.
    ///
    /// [`Lsn::ZERO`] is the oldest record.
    ///
    /// # Errors
    ///
    /// `Pruned` below the oldest, `NotDurable` above the durable end, `Truncated` inside a void
    /// range: the position is unchanged. Otherwise as [`Consumer::commit`].
    pub fn seek(&mut self, lsn: Lsn) -> Result<()> {
        let table = &self.state.view.table;
        let wanted = if lsn == Lsn::ZERO { table.oldest().max(1) } else { lsn.as_u64() };
        self.check(lsn, wanted.saturating_sub(1))?;
        // The lower position holds segments from now on. So the oldest that is read next stays.
        let before = self.begin_store(wanted)?;
        let oldest = table.oldest();
        let refused = match self.state.view.cuts.at(wanted) {
            _ if wanted < oldest && lsn != Lsn::ZERO => {
                Some(Error::Pruned { oldest: Lsn::new(oldest) })
            }
            // At the start of a cut, or at the oldest position, nothing void lies below.
            Some(cut) if cut.from.max(oldest) < wanted => {
                Some(Error::Truncated { from: Lsn::new(cut.from), to: Lsn::new(cut.to) })
            }
            _ => None,
        };
        if let Some(refused) = refused {
            self.state.consumers.withdraw_store(&self.name, before);
            return Err(refused);
        }
        self.store(wanted.max(oldest), before)?;
        self.follow = None;
        Ok(())
    }

    /// Refuses `lsn`, unless the log is running and `last` is durable.
    fn check(&self, lsn: Lsn, last: u64) -> Result<()> {
        self.state.durable.check_running()?;
        reentrancy::check_may_wait()?;
        let durable_end = Lsn::new(self.state.durable.end());
        if last >= durable_end.as_u64() {
            return Err(Error::NotDurable { lsn, durable_end });
        }
        Ok(())
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
