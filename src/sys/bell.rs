//! A bell that calls for the next step of a part of a log.

use std::sync::OnceLock;

#[cfg(ringwal_loom)]
use crate::sys::sync::Futex;

/// What a ring does: has the part stepped.
type Ringer = Box<dyn Fn() + Send + Sync>;

/// A ring before the bell is connected is lost: the first step looks at everything.
pub(crate) struct StepBell {
    ringer: OnceLock<Ringer>,
    /// In the models a thread of its own waits.
    #[cfg(ringwal_loom)]
    word: Futex,
}

impl std::fmt::Debug for StepBell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let connected = self.ringer.get().is_some();
        f.debug_struct("StepBell").field("connected", &connected).finish_non_exhaustive()
    }
}

impl StepBell {
    pub(crate) fn new() -> Self {
        StepBell {
            ringer: OnceLock::new(),
            #[cfg(ringwal_loom)]
            word: Futex::new(0),
        }
    }

    /// Connects the bell, once.
    pub(crate) fn connect(&self, ringer: Ringer) {
        let _ = self.ringer.set(ringer);
    }

    pub(crate) fn ring(&self) {
        #[cfg(ringwal_loom)]
        {
            self.word.bump();
            self.word.wake_all();
        }
        if let Some(ringer) = self.ringer.get() {
            ringer();
        }
    }

    /// The futex of a model's thread.
    #[cfg(all(test, ringwal_loom))]
    pub(crate) fn word(&self) -> &Futex {
        &self.word
    }
}
