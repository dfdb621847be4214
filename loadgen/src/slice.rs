//! A short time slice for the thread that takes latencies: it must not wait for a tick behind a
//! producer that keeps a processor busy, or the scheduler is measured and not the log.

/// Asks for it, for the calling thread. A hint: Linux since 6.12 heeds it.
pub(crate) fn shorten() {
    #[cfg(target_os = "linux")]
    {
        use nix::libc;
        const SLICE_NS: u64 = 100_000;
        const SIZE: u32 = size_of::<libc::sched_attr>() as u32;
        // SAFETY: all-zero is a valid value of this plain C structure.
        let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the structure is as large as is said, and outlives the call; 0 is this thread.
        let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, SIZE, 0) };
        if got == 0 && attr.sched_policy == libc::SCHED_OTHER as u32 {
            attr.size = SIZE;
            attr.sched_runtime = SLICE_NS;
            // SAFETY: as above; the kernel only reads it. A refusal leaves the usual slice.
            unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
        }
    }
}
