//! Ctrl-C and SIGTERM: what runs is asked to end, and says what it has done until then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static ASKED: AtomicBool = AtomicBool::new(false);

/// How a command ends after a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// The command changes files: only a second signal ends it at once.
    ByItself,
    /// The command only reads, and ends after this time at the latest: it may wait for the reader
    /// of its output.
    Within(Duration),
}

/// Every command tolerates a sudden end, so a handler that cannot be installed is no error.
pub(crate) fn listen(ends: Ends) {
    let _ = ctrlc::set_handler(move || {
        let again = ASKED.swap(true, Ordering::SeqCst);
        let patience = match ends {
            _ if again => Some(Duration::ZERO),
            Ends::ByItself => None,
            Ends::Within(patience) => Some(patience),
        };
        if let Some(patience) = patience {
            std::thread::sleep(patience);
            #[allow(
                clippy::exit,
                reason = "what waits for its reader or its input cannot be asked"
            )]
            std::process::exit(130);
        }
    });
}

pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}
