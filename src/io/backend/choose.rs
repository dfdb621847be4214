//! Which backend runs, and why.

use std::sync::Arc;

use super::std_fs::StdBackend;
use super::{Backend, BackendInfo, BackendKind, ChosenMethod, Hold, Method, MethodReason};
use crate::error::{Error, Result};
use crate::io::fs::Dir;
use crate::options::{BackendChoice, CommitMethod};
use crate::ring::Memory;

/// What the choice depends on.
#[derive(Debug)]
pub(crate) struct BackendRequest<'a> {
    pub(crate) dir: &'a dyn Dir,
    /// Name of a file to probe with; it does not exist, and does not afterwards.
    pub(crate) probe: &'a str,
    pub(crate) choice: BackendChoice,
    pub(crate) method: CommitMethod,
    /// What `CommitMethod::Auto` means at first.
    pub(crate) auto: ChosenMethod,
    pub(crate) depth: usize,
    pub(crate) buffers: usize,
    pub(crate) buffer: usize,
    /// The writer's lock.
    pub(crate) lock: Hold,
    /// Whether the active segment is open for direct I/O.
    pub(crate) direct_io: bool,
}

pub(crate) struct StartedBackend {
    pub(crate) backend: Box<dyn Backend>,
    /// The caller that is asked fills in its commit method: it may change.
    pub(crate) info: BackendInfo,
    /// How groups that are durable by themselves are written, at first.
    pub(crate) method: ChosenMethod,
}

/// Makes the backend, for the thread that calls this.
pub(crate) fn choose(ask: &BackendRequest<'_>, memory: Arc<Memory>) -> Result<StartedBackend> {
    if ask.choice == BackendChoice::Std {
        return Ok(portable(ask, "chosen by option".into()));
    }
    #[cfg(feature = "discard")]
    if ask.choice == BackendChoice::Discard {
        let started = portable(ask, String::new());
        let info = info(ask, BackendKind::Discard, "chosen by option: nothing is written".into());
        let backend = Box::new(super::discard::DiscardBackend::new());
        return Ok(StartedBackend { backend, info, ..started });
    }
    match linux::uring(ask, memory) {
        Ok(started) => Ok(started),
        Err(reason) if ask.choice == BackendChoice::IoUring => {
            Err(Error::BackendUnavailable { backend: "io_uring", reason })
        }
        Err(reason) => {
            tracing::warn!(%reason, "io_uring cannot be used here; the std backend runs instead");
            Ok(portable(ask, format!("io_uring cannot be used here: {reason}")))
        }
    }
}

fn info(ask: &BackendRequest<'_>, kind: BackendKind, reason: String) -> BackendInfo {
    BackendInfo {
        kind,
        reason,
        commit_method: "",
        commit_method_reason: MethodReason::default(),
        commit_method_detail: String::new(),
        direct_io: ask.direct_io,
        registered_buffers: false,
        block_size: ask.dir.block_size(),
        depth: ask.depth,
        ring_bytes: ask.buffers * ask.buffer,
        volatility: ask.dir.volatility(),
    }
}

fn portable(ask: &BackendRequest<'_>, reason: String) -> StartedBackend {
    let info = BackendInfo { depth: 1, ..info(ask, BackendKind::Std, reason) };
    let method = ChosenMethod {
        method: Method::Linked,
        alone: Method::Linked,
        reason: MethodReason::OnlyOne,
        parallel: false,
        detail: "of this backend".into(),
    };
    StartedBackend { backend: Box::new(StdBackend::new()), info, method }
}

#[cfg(not(linux_calls))]
mod linux {
    use super::{Arc, BackendRequest, Memory, StartedBackend};

    pub(super) fn uring(
        ask: &BackendRequest<'_>,
        _: Arc<Memory>,
    ) -> Result<StartedBackend, String> {
        let _ = (ask.method, &ask.auto, ask.probe, ask.buffers, ask.buffer, &ask.lock);
        Err("compiled without it; build on Linux with the feature `uring`".into())
    }
}

#[cfg(linux_calls)]
mod linux {
    use std::io;
    use std::time::{Duration, Instant};

    use nix::libc;

    use super::super::uring::{LockNotRegistered, UringBackend};
    use super::super::{Completion, Part, WriteRequest};
    use super::*;
    use crate::io::fs::{Access, AlignedBuf};

    pub(super) fn uring(
        ask: &BackendRequest<'_>,
        memory: Arc<Memory>,
    ) -> Result<StartedBackend, String> {
        let lock = Some(ask.lock.clone());
        let mut backend = UringBackend::new(ask.depth, memory, ask.buffers, ask.buffer, lock)
            .map_err(|e| explain(&e))?;
        let pinned = |method| ChosenMethod {
            method,
            alone: method,
            reason: MethodReason::Pinned,
            parallel: true,
            detail: "not measured".into(),
        };
        let method = match ask.method {
            CommitMethod::Dsync => pinned(Method::Dsync),
            CommitMethod::LinkedFsync => pinned(Method::Linked),
            CommitMethod::Auto => ask.auto.clone(),
        };
        probe(&mut backend, ask, method.method).map_err(|e| explain(&e))?;
        let reason = match ask.choice {
            BackendChoice::IoUring => "chosen by option",
            _ => "a write and a sync through it succeeded in the log's directory",
        };
        let info = BackendInfo {
            registered_buffers: backend.registered_buffers(),
            ..info(ask, BackendKind::IoUring, reason.into())
        };
        Ok(StartedBackend { backend: Box::new(backend), info, method })
    }

    /// A real write and a real sync in the log's directory: whatever refuses them, a sandbox, the
    /// filesystem or the kernel, is found before the log depends on them.
    fn probe(
        backend: &mut UringBackend,
        ask: &BackendRequest<'_>,
        method: Method,
    ) -> io::Result<()> {
        let _ = ask.dir.remove(ask.probe);
        let file = ask.dir.open(ask.probe, Access::Create)?;
        let probed = probe_file(backend, &file, ask, method);
        backend.detach(0);
        drop(file);
        let _ = ask.dir.remove(ask.probe);
        match probed {
            // A full disk says nothing about io_uring; the log itself reports it, typed.
            Err(e) if crate::io::fs::is_no_space(&e) => Ok(()),
            other => other,
        }
    }

    fn probe_file(
        backend: &mut UringBackend,
        file: &Arc<dyn crate::io::fs::File>,
        ask: &BackendRequest<'_>,
        method: Method,
    ) -> io::Result<()> {
        let block = AlignedBuf::new(ask.dir.block_size() as usize);
        backend.attach(0, file)?;
        // SAFETY: the block lives, unchanged, until both completions are reaped below; on the early
        // returns it is leaked.
        unsafe { backend.write_plain(0, &block, method) };
        let mut expected = if method == Method::Linked { 2 } else { 1 };
        let mut result = Ok(());
        let deadline = Instant::now() + Duration::from_secs(60);
        while expected > 0 {
            let waited = backend.wait(Some(Duration::from_secs(1)));
            while let Some(Completion { part, result: r, .. }) = backend.reap() {
                expected -= 1;
                match r {
                    Ok(n) if part == Part::Write && n as usize != block.len() => {
                        result = Err(io::Error::other("a short write"));
                    }
                    Ok(_) => {}
                    // The sync's cancellation only follows from the write's own error.
                    Err(e) if result.is_ok() => result = Err(e),
                    Err(_) => {}
                }
            }
            let late = Instant::now() > deadline;
            if expected > 0 && (waited.is_err() || late) {
                std::mem::forget(block);
                return waited.and(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        result
    }

    impl UringBackend {
        /// Writes memory that is not the ring's.
        ///
        /// # Safety
        ///
        /// As for `Backend::write`, of `bytes`.
        unsafe fn write_plain(&mut self, slot: usize, bytes: &[u8], method: Method) {
            let write = WriteRequest {
                token: 0,
                slot,
                offset: 0,
                start: bytes.as_ptr(),
                len: bytes.len() as u32,
                buffer: usize::MAX,
                method,
            };
            // SAFETY: passed on to the caller.
            unsafe { self.write(write) };
        }
    }

    fn explain(e: &io::Error) -> String {
        if let Some(unregistered) = e.get_ref().filter(|inner| inner.is::<LockNotRegistered>()) {
            return unregistered.to_string();
        }
        let hint = match e.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                "io_uring is forbidden here: allow io_uring_setup, io_uring_enter and \
                 io_uring_register in the seccomp profile, or set the sysctl \
                 kernel.io_uring_disabled to 0"
            }
            Some(libc::ENOSYS) => {
                "this kernel has no io_uring, or a sandbox hides it: use Linux 5.11 or newer and \
                 allow its three system calls in the seccomp profile"
            }
            Some(libc::ENOMEM) => {
                "the limit on locked memory is too low for a ring: raise RLIMIT_MEMLOCK"
            }
            Some(libc::EMFILE | libc::ENFILE) => "too many open files: raise RLIMIT_NOFILE",
            _ => "a write and sync through io_uring did not succeed in this directory",
        };
        format!("{hint} ({e})")
    }
}
