//! Cases that need a process of their own: the same test binary with `RINGWAL_CASE` set.

use std::path::{Path, PathBuf};
use std::process::Command;

#[cfg(target_os = "linux")]
#[allow(unused_imports, reason = "each story needs a part")]
pub use on_linux::*;

pub const CASE: &str = "RINGWAL_CASE";
pub const DIRECTORY: &str = "RINGWAL_CASE_DIR";

/// Starts this program again. `RINGWAL_RUNNER` has the words of the emulator, where the system does
/// not start programs of this architecture by itself.
pub fn this_program() -> Command {
    let program = std::env::current_exe().unwrap();
    let Ok(runner) = std::env::var("RINGWAL_RUNNER") else { return Command::new(program) };
    let mut words = runner.split_whitespace();
    let mut command = Command::new(words.next().expect("the name of a program"));
    command.args(words).arg(program);
    command
}

/// Runs the test `case` of the calling file in a process of its own, with this case name and
/// directory.
#[track_caller]
pub fn in_a_process(case: &str, dir: &Path) {
    let file = Path::new(std::panic::Location::caller().file());
    let test = format!("{}::case", file.file_stem().unwrap().to_str().unwrap());
    let out = this_program()
        .args([&test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CASE, case)
        .env(DIRECTORY, dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{case}: {}\n{said}", out.status);
    let ran = String::from_utf8_lossy(&out.stdout).contains("running 1 test");
    assert!(ran, "{file:?} has no test `case`");
    if said.contains("skipped") {
        eprintln!("{case}: {said}");
    }
}

/// For the test `case`: the case name and the directory. `None`: [`in_a_process`] did not start
/// this process.
pub fn case_and_directory() -> Option<(String, PathBuf)> {
    let case = std::env::var(CASE).ok()?;
    Some((case, PathBuf::from(std::env::var(DIRECTORY).unwrap())))
}

/// What a process can be made to lack.
#[cfg(target_os = "linux")]
mod on_linux {
    use nix::libc;

    /// One instruction of a seccomp filter: code, jump if true, jump if false, operand.
    pub type Statement = (u32, u8, u8, u32);

    /// Loads the number of the system call.
    pub const NUMBER: Statement = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0);
    pub const ALLOW: Statement = (libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW);

    /// Continues if the loaded value equals `k`, and otherwise skips `skip` instructions.
    pub fn if_equal(k: u32, skip: u8) -> Statement {
        (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skip, k)
    }

    pub fn fail(errno: i32) -> Statement {
        (libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32)
    }

    /// Applies a seccomp filter to this thread and every thread that it starts from now on. Under
    /// an emulator, which has no such filters, ends this process: it has one case.
    #[allow(clippy::exit, reason = "nothing of the case is left to do")]
    pub fn filter_system_calls(steps: &[Statement]) {
        let mut filter: Vec<_> = steps
            .iter()
            .map(|&(code, jt, jf, k)| libc::sock_filter { code: code as u16, jt, jf, k })
            .collect();
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: plain prctl calls; the program and its filter outlive them.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            let set =
                libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program);
            let refusal = std::io::Error::last_os_error();
            if set != 0 && refusal.raw_os_error() == Some(libc::EINVAL) && is_emulated() {
                eprintln!("skipped: an emulator filters no system calls");
                std::process::exit(0);
            }
            assert_eq!(set, 0, "{refusal}");
        }
    }

    /// Whether an emulator runs this program.
    pub fn is_emulated() -> bool {
        std::env::var_os("RINGWAL_RUNNER").is_some()
    }

    /// Becomes an ordinary user. False: this process is one already.
    pub fn become_nobody() -> bool {
        let root = nix::unistd::geteuid().is_root();
        if root {
            nix::unistd::setgid(65534.into()).unwrap();
            nix::unistd::setuid(65534.into()).unwrap();
        }
        root
    }
}
