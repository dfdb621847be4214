//! Which of the processes that `fork()` made of one process this is.
//!
//! A child of `fork()` has the memory of its parent and none of the parent's other threads. A lock
//! that one of them held stays held for ever. In a child, no value made before the fork may wait
//! for a lock.
//!
//! The first of these means that the system has tells a child from its parent:
//!
//! 1. A page that a child sees as zeros. It shows every fork, also one that passes by the C
//!    library. Linux since 4.14, Android, FreeBSD.
//! 2. A handler that the C library calls in the child: `pthread_atfork`. Every other unix.
//! 3. The process id, at the cost of a system call for each look.
//!
//! Windows has no `fork()`.

#[cfg(all(unix, not(ringwal_loom)))]
pub(crate) use of_unix::generation;

#[cfg(all(unix, not(ringwal_loom)))]
mod of_unix {
    use std::alloc::alloc_zeroed;
    use std::ptr::NonNull;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use crate::sys::c;
    use crate::sys::pages::{page, whole_pages, wipe_in_children};

    /// The number given last. A child goes on counting where its parent was, and so never has the
    /// number of an ancestor.
    static LAST: AtomicU32 = AtomicU32::new(1);
    static MEANS: OnceLock<Means> = OnceLock::new();

    #[derive(Debug, Clone, Copy)]
    pub(super) enum Means {
        /// The word reads as 0 in a child, until the child has given itself a number.
        Page(&'static AtomicU32),
        Handler,
        ProcessId,
    }

    /// The number of this process among its ancestors and children by `fork()`. It is not 0.
    #[inline]
    pub(crate) fn generation() -> u32 {
        number(*MEANS.get_or_init(|| in_a_page().unwrap_or_else(by_handler)))
    }

    pub(super) fn number(means: Means) -> u32 {
        match means {
            Means::Page(word) => match word.load(Ordering::SeqCst) {
                0 => first_look(word),
                number => number,
            },
            Means::Handler => LAST.load(Ordering::SeqCst),
            Means::ProcessId => std::process::id(),
        }
    }

    /// Gives this process the next number.
    #[cold]
    fn first_look(word: &AtomicU32) -> u32 {
        let next = LAST.fetch_add(1, Ordering::SeqCst).wrapping_add(1).max(1);
        // Another thread of this process may have been first.
        match word.compare_exchange(0, next, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => next,
            Err(number) => number,
        }
    }

    pub(super) fn in_a_page() -> Option<Means> {
        let layout = whole_pages(1, page())?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        // SAFETY: the range is one page, whole and aligned, which is used for nothing else.
        if !unsafe { wipe_in_children(start, layout.size()) } {
            // SAFETY: allocated above with this layout, and used nowhere.
            unsafe { std::alloc::dealloc(start.as_ptr(), layout) };
            return None;
        }
        // SAFETY: aligned, initialised as zeros, and never freed.
        Some(Means::Page(unsafe { start.cast::<AtomicU32>().as_ref() }))
    }

    pub(super) fn by_handler() -> Means {
        /// Runs in the child, on its only thread.
        unsafe extern "C" fn in_the_child() {
            LAST.fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: the handler is a function of this program, and does one atomic addition, which is
        // allowed in a child of a process with threads.
        match unsafe { c::pthread_atfork(None, None, Some(in_the_child)) } {
            0 => Means::Handler,
            _ => Means::ProcessId,
        }
    }
}

/// A system without `fork()`, or a model, which runs in one process and whose atomics do not
/// outlive it.
#[cfg(not(all(unix, not(ringwal_loom))))]
pub(crate) fn generation() -> u32 {
    1
}

#[cfg(all(test, target_os = "linux", not(ringwal_loom)))]
mod tests {
    use nix::libc;

    use super::of_unix::{Means, by_handler, generation, in_a_page, number};

    /// Forks with `fork`, and returns whether the child's number differs from that of its parent.
    fn child_differs(means: Means, fork: impl Fn() -> i32) -> bool {
        let here = number(means);
        assert_eq!(number(means), here);
        let pid = fork();
        if pid == 0 {
            let differs = number(means) != here && number(means) == number(means);
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(i32::from(!differs)) };
        }
        assert!(pid > 0);
        let mut status = 0;
        // SAFETY: waits for our own child; the status is a local.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(number(means), here);
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }

    fn fork() -> i32 {
        // SAFETY: the child takes no lock and ends at once.
        unsafe { libc::fork() }
    }

    /// One test for all: the means share the number given last, and tests run beside each other.
    #[test]
    fn each_means_tells_a_child_from_its_parent() {
        // This process has its number: other tests give it none while this one runs.
        generation();
        assert!(child_differs(by_handler(), fork));
        assert!(child_differs(Means::ProcessId, fork));
        let Some(page) = in_a_page() else { return };
        assert!(child_differs(page, fork));
        // Passing by the C library.
        // SAFETY: a clone without flags is a fork; the child takes no lock and ends at once.
        let raw = || unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as i32 };
        assert!(child_differs(page, raw));
    }
}
