//! Ctrl-C and SIGTERM: what runs is asked to end, and says what it has done until then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static ASKED: AtomicBool = AtomicBool::new(false);

/// How long a command that only reads may take to end by itself: it may wait for whoever reads its output.
const PATIENCE: Duration = Duration::from_millis(500);

/// Without a handler the signal ends the process at once, which every command survives too: so an error is none.
pub(crate) fn listen(only_reads: bool) {
    let _ = ctrlc::set_handler(move || {
        let again = ASKED.swap(true, Ordering::SeqCst);
        if only_reads || again {
            std::thread::sleep(if again { Duration::ZERO } else { PATIENCE });
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
