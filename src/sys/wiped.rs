//! A word that a child of `fork()` sees as zero, at no cost for each look.
//!
//! The first of these means that the system has:
//!
//! 1. The word has a page of its own, which the kernel wipes in children. It shows every fork, also
//!    one that passes by the C library. Linux since 4.14.
//! 2. The word is one of a list. A handler that the C library calls in the child wipes them all.
//!    Older kernels, and emulated ones.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::{NonNull, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use super::c;
use super::pages::{page, whole_pages, wipe_in_children};

/// A word that starts as zero, and is zero again in each child of `fork()`.
#[derive(Debug)]
pub(crate) struct WipedWord {
    at: NonNull<AtomicU32>,
    place: Place,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Page(Layout),
    List(&'static Listed),
}

/// A word of the list. It is never freed: the next log gets the word of one that is gone.
#[derive(Debug)]
struct Listed {
    word: AtomicU32,
    is_used: AtomicBool,
    /// The word that was the newest before this one.
    next: *const Listed,
}

/// The newest word of the list.
static NEWEST: AtomicPtr<Listed> = AtomicPtr::new(null_mut());

// SAFETY: an atomic word, which may be used from every thread, and the means to free it.
unsafe impl Send for WipedWord {}
// SAFETY: as above.
unsafe impl Sync for WipedWord {}

impl WipedWord {
    pub(crate) fn new() -> Self {
        WipedWord::in_a_page().unwrap_or_else(WipedWord::in_the_list)
    }

    fn in_a_page() -> Option<Self> {
        let layout = whole_pages(1, page())?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let word = WipedWord { at: start.cast(), place: Place::Page(layout) };
        // SAFETY: the range is one page, whole and aligned, which is used for nothing else.
        unsafe { wipe_in_children(start, layout.size()) }.then_some(word)
    }

    fn in_the_list() -> Self {
        wipe_the_list_in_children();
        let free = listed().find(|listed| !listed.is_used.swap(true, Ordering::AcqRel));
        let listed = free.unwrap_or_else(longer_list);
        WipedWord { at: NonNull::from(&listed.word), place: Place::List(listed) }
    }

    #[inline]
    pub(crate) fn get(&self) -> &AtomicU32 {
        // SAFETY: aligned, initialised as zero, and freed only in drop, or never.
        unsafe { self.at.as_ref() }
    }
}

impl Drop for WipedWord {
    fn drop(&mut self) {
        match self.place {
            // SAFETY: the page of in_a_page, allocated with this layout, and this is its last user.
            // The allocator's next user of the page must find it as any other in a child.
            Place::Page(layout) => unsafe {
                c::madvise(self.at.as_ptr().cast(), layout.size(), c::MADV_KEEPONFORK);
                dealloc(self.at.as_ptr().cast(), layout);
            },
            Place::List(listed) => {
                listed.word.store(0, Ordering::SeqCst);
                listed.is_used.store(false, Ordering::Release);
            }
        }
    }
}

fn listed() -> impl Iterator<Item = &'static Listed> {
    let mut next = NEWEST.load(Ordering::Acquire).cast_const();
    std::iter::from_fn(move || {
        // SAFETY: null, or a word of the list, which is never freed and does not change its `next`.
        // The load above pairs with the exchange that put the newest word there.
        let listed = unsafe { next.as_ref() }?;
        next = listed.next;
        Some(listed)
    })
}

/// Puts a new word into the list, in use.
fn longer_list() -> &'static Listed {
    let mut newest = NEWEST.load(Ordering::Acquire);
    let new = Box::leak(Box::new(Listed {
        word: AtomicU32::new(0),
        is_used: AtomicBool::new(true),
        next: newest,
    }));
    let at = std::ptr::from_mut(new);
    loop {
        // Release, for the load in `listed`: a reader of the list sees the whole word.
        match NEWEST.compare_exchange(newest, at, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: from now on nothing changes it but through its atomics.
            Ok(_) => return unsafe { &*at },
            Err(other) => {
                newest = other;
                // SAFETY: the word is not in the list yet, so this thread alone has it.
                unsafe { (*at).next = newest };
            }
        }
    }
}

/// Has the list wiped in every later child. Where the C library refuses, which it does without
/// memory alone, only the check for fork is lost.
fn wipe_the_list_in_children() {
    /// Runs in the child, on its only thread.
    unsafe extern "C" fn in_the_child() {
        listed().for_each(|listed| listed.word.store(0, Ordering::SeqCst));
    }
    static HANDLER: OnceLock<()> = OnceLock::new();
    HANDLER.get_or_init(|| {
        // SAFETY: the handler is a function of this program. It reads and stores atomics, which is
        // allowed in a child of a process with threads. The list is whole at every moment.
        unsafe { c::pthread_atfork(None, None, Some(in_the_child)) };
    });
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;

    /// Whether a child of `fork()` sees what `look` says.
    fn child_sees(look: impl Fn() -> bool) -> bool {
        // SAFETY: the child takes no lock and ends at once.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(i32::from(!look())) };
        }
        assert!(pid > 0);
        let mut status = 0;
        // SAFETY: waits for our own child; the status is a local.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }

    #[test]
    fn word_is_zero_in_a_child_by_each_means() {
        for word in [WipedWord::in_a_page(), Some(WipedWord::in_the_list())] {
            let Some(word) = word else { continue };
            assert_eq!(word.get().load(Ordering::SeqCst), 0);
            word.get().store(7, Ordering::SeqCst);
            assert!(child_sees(|| word.get().load(Ordering::SeqCst) == 0), "{word:?}");
            assert_eq!(word.get().load(Ordering::SeqCst), 7, "{word:?}");
        }
    }

    #[test]
    fn word_of_the_list_is_given_again_as_zero() {
        let words: Vec<_> = (0..3).map(|_| WipedWord::in_the_list()).collect();
        assert!(words[0].at != words[1].at && words[1].at != words[2].at);
        let places: Vec<_> = words.iter().map(|word| word.at).collect();
        words.iter().for_each(|word| word.get().store(7, Ordering::SeqCst));
        drop(words);
        // Tests beside this one may take some of them.
        let again: Vec<_> = (0..8).map(|_| WipedWord::in_the_list()).collect();
        assert!(again.iter().all(|word| word.get().load(Ordering::SeqCst) == 0));
        assert!(
            listed().filter(|listed| places.contains(&NonNull::from(&listed.word))).count() == 3
        );
    }
}
