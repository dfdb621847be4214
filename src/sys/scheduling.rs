//! What the log's threads ask of the system.

/// Signals are the program's own business: its handlers must not run on the log's threads.
pub(crate) fn block_signals() {
    #[cfg(linux_calls)]
    {
        use nix::sys::signal::SigSet;
        let _ = SigSet::all().thread_block();
    }
}
