//! Set-up of the log's threads.

/// Blocks all signals on this thread. The program's signal handlers must not run on the log's
/// threads.
pub(crate) fn block_signals() {
    #[cfg(linux_calls)]
    {
        use nix::sys::signal::SigSet;
        let _ = SigSet::all().thread_block();
    }
}
