//! What the log's threads ask of the system. Hints: where they are refused, nothing else changes.

/// Signals are the program's own business: its handlers must not run on the log's threads.
pub(crate) fn block_signals() {
    #[cfg(all(target_os = "linux", feature = "uring"))]
    {
        use nix::sys::signal::SigSet;
        let _ = SigSet::all().thread_block();
    }
}

/// Asks for a short time slice: the I/O thread runs for microseconds at a time, and with a short slice
/// the scheduler lets it in ahead of producers that are in the middle of a long one (since Linux
/// 6.12, for every user; earlier kernels ignore it). Policy and priority stay as they are.
pub(crate) fn ask_for_short_slices() {
    #[cfg(all(target_os = "linux", feature = "uring"))]
    {
        use nix::libc;
        const SLICE_NS: u64 = 100_000;
        const SIZE: u32 = size_of::<libc::sched_attr>() as u32;
        // SAFETY: all-zero is a valid value of this plain C structure.
        let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the structure is as large as is said, and outlives the call; 0 is this thread.
        let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, SIZE, 0) };
        if got != 0 || attr.sched_policy != libc::SCHED_OTHER as u32 {
            return;
        }
        attr.size = SIZE;
        attr.sched_runtime = SLICE_NS;
        // SAFETY: as above; the kernel only reads it. A refusal leaves the usual slice.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    }
}
