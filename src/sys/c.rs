//! Functions and constants of the C library that std does not offer, on unix.
//!
//! They are those of the crate libc. Without the feature `uring` the library has no dependency on
//! Linux but pure Rust, so the few declarations below take its place. Their numbers are part of the
//! kernel's and the C libraries' binary interface, which does not change.

#[cfg(not(target_os = "linux"))]
pub(crate) use libc::*;
#[cfg(linux_calls)]
pub(crate) use nix::libc::*;

#[cfg(all(target_os = "linux", not(linux_calls)))]
pub(crate) use declared::*;

#[cfg(all(target_os = "linux", not(linux_calls)))]
#[allow(non_camel_case_types, reason = "names of the C library")]
#[cfg_attr(ringwal_loom, allow(dead_code, reason = "a model forks no process"))]
mod declared {
    use std::ffi::{c_int, c_long, c_uint, c_void};

    #[cfg(ofd_locks)]
    pub(crate) use ofd::*;

    /// The architectures whose numbers differ from the others'.
    const MIPS: bool = cfg!(any(
        target_arch = "mips",
        target_arch = "mips64",
        target_arch = "mips32r6",
        target_arch = "mips64r6"
    ));
    const SPARC: bool = cfg!(any(target_arch = "sparc", target_arch = "sparc64"));
    const ARM_OR_POWER: bool = cfg!(any(
        target_arch = "arm",
        target_arch = "aarch64",
        target_arch = "powerpc",
        target_arch = "powerpc64",
        target_arch = "m68k"
    ));

    /// One of three numbers, by architecture.
    const fn by_arch(usual: c_int, mips: c_int, sparc: c_int) -> c_int {
        if MIPS {
            mips
        } else if SPARC {
            sparc
        } else {
            usual
        }
    }

    pub(crate) const MADV_DONTFORK: c_int = 10;
    pub(crate) const MADV_DOFORK: c_int = 11;
    pub(crate) const MADV_WIPEONFORK: c_int = 18;
    pub(crate) const LOCK_EX: c_int = 2;
    pub(crate) const LOCK_NB: c_int = 4;
    pub(crate) const LOCK_UN: c_int = 8;
    pub(crate) const F_GETFL: c_int = 3;
    pub(crate) const F_SETFL: c_int = 4;
    pub(crate) const O_NOFOLLOW: c_int = if ARM_OR_POWER { 0o10_0000 } else { 0o40_0000 };
    pub(crate) const O_NONBLOCK: c_int = by_arch(0o4000, 0x80, 0x4000);
    pub(crate) const O_NOCTTY: c_int = by_arch(0o400, 0x800, 0x8000);
    pub(crate) const SIG_BLOCK: c_int = by_arch(0, 1, 1);
    pub(crate) const POSIX_FADV_DONTNEED: c_int = if cfg!(target_arch = "s390x") { 6 } else { 4 };
    pub(crate) const _SC_PAGESIZE: c_int = 30;
    pub(crate) const RENAME_NOREPLACE: c_uint = 1;

    /// The number of `renameat2`, if it is known for this architecture.
    pub(crate) const SYS_RENAMEAT2: Option<c_long> = if cfg!(target_arch = "x86_64") {
        Some(if cfg!(target_pointer_width = "64") { 316 } else { 0x4000_0000 + 316 })
    } else if cfg!(target_arch = "x86") {
        Some(353)
    } else if cfg!(target_arch = "arm") {
        Some(382)
    } else if cfg!(any(
        target_arch = "aarch64",
        target_arch = "riscv32",
        target_arch = "riscv64",
        target_arch = "loongarch64"
    )) {
        Some(276)
    } else if cfg!(any(target_arch = "powerpc", target_arch = "powerpc64")) {
        Some(357)
    } else if cfg!(target_arch = "s390x") {
        Some(347)
    } else {
        None
    };

    pub(crate) const SEEK_DATA: c_int = 3;
    pub(crate) const ENXIO: c_int = 6;

    /// The locks of open file descriptions, where an offset has 64 bits.
    #[cfg(ofd_locks)]
    mod ofd {
        use std::ffi::c_int;
        pub(crate) use std::ffi::c_short;

        pub(crate) const F_OFD_GETLK: c_int = 36;
        pub(crate) const F_OFD_SETLK: c_int = 37;
        pub(crate) const F_RDLCK: c_int = 0;
        pub(crate) const F_WRLCK: c_int = 1;
        pub(crate) const F_UNLCK: c_int = 2;
        pub(crate) const SEEK_SET: c_int = 0;
        /// The number of `fcntl64` on x86 and arm, which have it beside `fcntl`.
        #[cfg(any(target_arch = "x86", target_arch = "arm"))]
        pub(crate) const SYS_FCNTL64: std::ffi::c_long = 221;

        /// A lock on a part of a file.
        #[repr(C)]
        pub(crate) struct flock {
            pub(crate) l_type: c_short,
            pub(crate) l_whence: c_short,
            pub(crate) l_start: i64,
            pub(crate) l_len: i64,
            pub(crate) l_pid: c_int,
        }
    }

    /// A set of signals: 1024 bits in every C library of Linux.
    #[repr(C)]
    pub(crate) struct sigset_t([usize; 1024 / usize::BITS as usize]);

    unsafe extern "C" {
        pub(crate) fn madvise(start: *mut c_void, len: usize, advice: c_int) -> c_int;
        pub(crate) fn sysconf(name: c_int) -> c_long;
        pub(crate) fn pthread_atfork(
            prepare: Option<unsafe extern "C" fn()>,
            parent: Option<unsafe extern "C" fn()>,
            child: Option<unsafe extern "C" fn()>,
        ) -> c_int;
        pub(crate) fn sigfillset(set: *mut sigset_t) -> c_int;
        pub(crate) fn pthread_sigmask(
            how: c_int,
            set: *const sigset_t,
            before: *mut sigset_t,
        ) -> c_int;
        pub(crate) fn flock(fd: c_int, operation: c_int) -> c_int;
        pub(crate) fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
        pub(crate) fn geteuid() -> c_uint;
        pub(crate) fn syscall(number: c_long, ...) -> c_long;
        // Offsets of 64 bits: these C libraries have a second function for them, as that of the
        // plain name may take a `long`. The others have one function.
        #[cfg_attr(any(target_env = "gnu", target_env = "uclibc"), link_name = "posix_fadvise64")]
        pub(crate) fn posix_fadvise(fd: c_int, from: i64, len: i64, advice: c_int) -> c_int;
        #[cfg_attr(not(any(target_env = "gnu", target_env = "uclibc")), link_name = "lseek")]
        pub(crate) fn lseek64(fd: c_int, offset: i64, whence: c_int) -> i64;
        #[cfg_attr(not(any(target_env = "gnu", target_env = "uclibc")), link_name = "fallocate")]
        pub(crate) fn fallocate64(fd: c_int, mode: c_int, from: i64, len: i64) -> c_int;
    }
}
