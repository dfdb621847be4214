//! Named consumers: readers whose position survives, and for whom retention waits.

use std::fmt;
use std::sync::Arc;

use crate::engine::state::LogState;
use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::positions::PositionFile;
use crate::read::follow::Follow;
use crate::segment::{Names, is_consumer_name};
use crate::sys::reentrancy;

/// Reads a log from where it was left off, from [`Wal::consumer`](crate::Wal::consumer).
///
/// It delivers every record at least once: those behind the last [`Consumer::commit`] come again when it is
/// attached again, by this process or a later one. What it has not committed stays in the log, whether
/// it is attached or not, up to [`WalBuilder::consumer_limit`](crate::WalBuilder::consumer_limit).
/// Dropping it lets go of its name; its position stays.
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
    slots: PositionFile,
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

/// Takes a name back if the consumer does not come about.
struct Attached<'a> {
    state: &'a LogState,
    name: &'a str,
    new: bool,
    kept: bool,
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        match (self.kept, self.new) {
            (true, _) => {}
            (false, true) => self.state.consumers.forget(self.name),
            (false, false) => self.state.consumers.detach(self.name),
        }
    }
}

impl Consumer {
    pub(crate) fn attach(state: &Arc<LogState>, log_id: [u8; 16], name: &str) -> Result<Self> {
        check_name(&state.view.names, name)?;
        state.durable.check_running()?;
        reentrancy::check_may_wait()?;
        let view = &state.view;
        // Position 0 would mean whatever is the oldest, without saying what is missing.
        let oldest = view.table.oldest().max(1);
        let new = state.consumers.attach(name, oldest)?;
        let mut attached = Attached { state, name, new, kept: false };
        let file = view.names.consumer(name);
        let (slots, position) = state.consumers.change(|| {
            if !new {
                return PositionFile::open(&*view.dir, &file, log_id);
            }
            // Entered first, looked second: what is the oldest now is held.
            let oldest = view.table.oldest().max(1);
            state.consumers.set(name, oldest);
            let temporary = view.names.consumer_temporary(name);
            Ok((PositionFile::create(&*view.dir, &file, &temporary, log_id, oldest)?, oldest))
        })?;
        attached.kept = true;
        let state = Arc::clone(state);
        Ok(Consumer { state, name: name.into(), slots, position, follow: None })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// It has done with everything below.
    #[must_use]
    pub fn position(&self) -> Lsn {
        Lsn::new(self.position)
    }

    /// Bytes of the log from the position to the durable end.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.state.durable.end().saturating_sub(self.position)
    }

    /// The records: at first from the position on, and then on from what was delivered. Wait for them as
    /// for any follower's.
    ///
    /// After an error in reading it begins at the position again: behind what
    /// [`Wal::truncate_from`](crate::Wal::truncate_from) has cut after it was delivered (`Truncated`), what was not committed comes again.
    ///
    /// # Errors
    ///
    /// `Pruned`, here or from the follower, if retention has removed what comes next, because the consumer lagged by
    /// more than `consumer_limit`: [`Consumer::seek`] goes on elsewhere.
    pub fn records(&mut self) -> Result<&mut Follow> {
        let follow = match self.follow.take() {
            Some(follow) if !follow.has_failed() => follow,
            _ => Follow::unheld(Arc::clone(&self.state), self.position)?,
        };
        Ok(self.follow.insert(follow))
    }

    /// The record at `lsn` and all before it are done: they are not delivered again, and need not be kept for this
    /// consumer. Durable when it returns: one write and one sync of 4 KiB on this
    /// thread. Commit now and then rather than for each record.
    ///
    /// # Errors
    ///
    /// `ConsumerBackwards` below the position, `NotDurable` for what is not durable yet: nothing was
    /// stored. `Io` if the position cannot be stored: it is not known which of the two is; attach the
    /// consumer again. `Closed`, `Poisoned`, `WouldDeadlock`.
    pub fn commit(&mut self, lsn: Lsn) -> Result<()> {
        let position = lsn.as_u64().saturating_add(1);
        if position < self.position {
            return Err(Error::ConsumerBackwards { lsn, position: self.position() });
        }
        self.check(lsn, lsn.as_u64())?;
        self.store(position)?;
        self.state.consumers.set(&self.name, position);
        self.state.keeper.ring();
        if self.follow.as_ref().is_some_and(|follow| follow.delivered() < lsn.as_u64()) {
            // Ahead of what was delivered: what lies between may go, and is not wanted.
            self.follow = None;
        }
        Ok(())
    }

    /// Goes on at the first record at or after `lsn`, forwards or backwards, durably. [`Lsn::ZERO`] is the
    /// oldest that is kept.
    ///
    /// # Errors
    ///
    /// `Pruned` below the oldest, `NotDurable` above the durable end: nothing was changed. Otherwise as
    /// [`Consumer::commit`].
    pub fn seek(&mut self, lsn: Lsn) -> Result<()> {
        let table = &self.state.view.table;
        let wanted = if lsn == Lsn::ZERO { table.oldest().max(1) } else { lsn.as_u64() };
        self.check(lsn, wanted.saturating_sub(1))?;
        // Held first, looked second: what is there now stays.
        self.state.consumers.set(&self.name, wanted.min(self.position));
        let oldest = table.oldest();
        let stored = match wanted < oldest {
            true if lsn != Lsn::ZERO => Err(Error::Pruned { oldest: Lsn::new(oldest) }),
            _ => self.store(wanted.max(oldest)),
        };
        self.state.consumers.set(&self.name, self.position);
        self.state.keeper.ring();
        stored?;
        self.follow = None;
        Ok(())
    }

    /// `last`: what must be durable for it.
    fn check(&self, lsn: Lsn, last: u64) -> Result<()> {
        self.state.durable.check_running()?;
        reentrancy::check_may_wait()?;
        let durable_end = Lsn::new(self.state.durable.end());
        if last >= durable_end.as_u64() {
            return Err(Error::NotDurable { lsn, durable_end });
        }
        Ok(())
    }

    fn store(&mut self, position: u64) -> Result<()> {
        if position == self.position {
            return Ok(());
        }
        let view = &self.state.view;
        let path = || view.dir.path_of(&view.names.consumer(&self.name));
        let slots = &mut self.slots;
        self.state.consumers.change(|| {
            slots.store(position).map_err(|e| Error::io("store a position in", path(), e))
        })?;
        self.position = position;
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

/// Gives a consumer up: its position is forgotten, and nothing is kept for it.
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
