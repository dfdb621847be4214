//! A seccomp filter that denies `io_uring_register` alone, as some profiles do.

use nix::libc;

/// Makes the call fail with `EPERM` in this process from now on, and in every thread that it
/// starts.
///
/// # Errors
///
/// The kernel has no seccomp filters, or refuses this one.
pub(crate) fn deny_register() -> Result<(), String> {
    let step = |code: u32, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    // The filter's input starts with the number of the system call.
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_io_uring_register as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: two plain prctl calls; the program and its steps outlive them.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) == 0
    };
    if set { Ok(()) } else { Err(format!("seccomp: {}", std::io::Error::last_os_error())) }
}
