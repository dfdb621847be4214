//! Set-up of the log's threads.

/// Blocks all signals on this thread. The program's signal handlers must not run on the log's
/// threads.
pub(crate) fn block_signals() {
    #[cfg(all(unix, not(ringwal_loom)))]
    {
        use std::mem::MaybeUninit;
        use std::ptr::null_mut;

        use super::c::{SIG_BLOCK, pthread_sigmask, sigfillset};
        let mut all = MaybeUninit::uninit();
        // SAFETY: room for a set, which outlives the call.
        if unsafe { sigfillset(all.as_mut_ptr()) } == 0 {
            // SAFETY: the call before has filled the set, which outlives this one. A mask belongs
            // to the calling thread.
            unsafe { pthread_sigmask(SIG_BLOCK, all.as_ptr(), null_mut()) };
        }
    }
}

#[cfg(all(test, target_os = "linux", not(ringwal_loom)))]
mod tests {
    use nix::sys::signal::{SigSet, Signal};

    #[test]
    fn threads_of_a_log_take_no_signals() {
        std::thread::spawn(|| {
            assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM));
            super::block_signals();
            let mask = SigSet::thread_get_mask().unwrap();
            for signal in [Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGALRM, Signal::SIGCHLD] {
                assert!(mask.contains(signal), "{signal}");
            }
        })
        .join()
        .unwrap();
    }
}
