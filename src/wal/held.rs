//! What keeps retention from removing segments.

use crate::lsn::Lsn;
use crate::wal::Wal;

/// What keeps retention, and [`Wal::truncate_before`], from removing segments. From
/// [`Wal::held_by`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeldBy {
    /// A consumer, attached or not: it has not committed the records from `position` on.
    /// [`Consumer::commit`](crate::Consumer::commit) moves the position,
    /// [`Wal::remove_consumer`] ends it.
    Consumer {
        /// The consumer's name.
        name: String,
        /// The consumer's position.
        position: Lsn,
    },
    /// A reader or a follower of this process. It ends when it is dropped, or leaves the segment.
    Reader {
        /// The start of the segment that the reader is in.
        position: Lsn,
    },
    /// A stream: it has not released the records from `floor` on. [`Wal::release_tag`] moves the
    /// floor, [`Wal::remove_tag_floor`] ends it.
    Tag {
        /// The tag with the lowest floor.
        tag: u64,
        /// Its floor.
        floor: Lsn,
    },
    /// The hook on sealed segments: it has not finished with the segments from `position` on.
    SealedHook {
        /// Where the hook is.
        position: Lsn,
    },
}

impl HeldBy {
    /// The position from which on segments are kept.
    #[must_use]
    pub fn position(&self) -> Lsn {
        match self {
            HeldBy::Consumer { position, .. }
            | HeldBy::Reader { position }
            | HeldBy::Tag { floor: position, .. }
            | HeldBy::SealedHook { position } => *position,
        }
    }
}

impl Wal {
    /// What keeps the most segments, with its position. `None` if nothing keeps any: then
    /// [`Wal::truncate_before`] and retention remove every segment but the newest durable one.
    ///
    /// A consumer that lags by more than
    /// [`consumer_limit`](crate::WalBuilder::consumer_limit) keeps nothing. Costs three
    /// short locks. In a child of `fork()`: `None`.
    ///
    /// ```
    /// use ringwal::{HeldBy, Wal};
    /// # let dir = std::env::temp_dir().join(format!("ringwal-doc-held-{}", std::process::id()));
    /// let wal = Wal::open(&dir)?;
    /// let mail = wal.consumer("mail")?;
    /// assert!(matches!(wal.held_by(), Some(HeldBy::Consumer { name, .. }) if name == "mail"));
    /// # drop(mail); wal.close()?; std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), ringwal::Error>(())
    /// ```
    #[must_use]
    pub fn held_by(&self) -> Option<HeldBy> {
        let state = &self.appender().state;
        if state.durable.is_forked() {
            return None;
        }
        let consumer = state
            .consumers
            .slowest(state.durable.end())
            .map(|(name, position)| HeldBy::Consumer { name, position: Lsn::new(position) });
        let pin = state.view.table.oldest_pin();
        let reader = pin.map(|pin| HeldBy::Reader { position: Lsn::new(pin) });
        let hook = state
            .hook
            .is_set()
            .then(|| HeldBy::SealedHook { position: Lsn::new(state.hook.released()) });
        let floor = state.tag_floors.lowest();
        let tag = floor.map(|(floor, tag)| HeldBy::Tag { tag, floor: Lsn::new(floor) });
        [consumer, reader, tag, hook].into_iter().flatten().min_by_key(HeldBy::position)
    }
}
