//! Ctrl-C and SIGTERM: what runs is asked to end, and says what it has done until then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static ASKED: AtomicBool = AtomicBool::new(false);

/// How a command ends after a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// It changes files: only a second signal ends it at once.
    ByItself,
    /// It only reads, and is ended after this time: it may wait for the reader of its output.
    Within(Duration),
}

/// Without a handler the signal ends the process at once, which every command survives too: so an error is none.
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
