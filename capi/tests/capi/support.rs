//! Finds the compilers and the library of this build, and runs programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// What a program needs beside the static library: `rustc --print native-static-libs`.
pub(crate) const SYSTEM_LIBRARIES: &[&str] =
    &["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"];

/// A directory of its own, removed when the test is over.
pub(crate) struct Temp(pub(crate) PathBuf);

impl Temp {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringwal-capi-{}-{n}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Temp(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A path in this package.
pub(crate) fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The static library, which cargo built together with this test.
pub(crate) fn archive() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let archive = program.with_file_name("libringwal_capi.a");
    assert!(archive.exists(), "{} was not built", archive.display());
    archive
}

/// Whether a program can be started. If not, says what is skipped.
pub(crate) fn has(program: &str, skipped: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    // An error is an answer too: `go` has no such option.
    let there = command.status().is_ok();
    if !there {
        eprintln!("skipped: {skipped}: there is no {program}");
    }
    there
}

/// Runs a command, and fails the test with its output if it fails. Returns what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    assert!(done.status.success(), "{command:?}: {}\n{out}\n{err}", done.status);
    out
}

/// Compiles a program in C or C++ against the static library.
pub(crate) fn compile(source: &str, temp: &Temp, flags: &[&str]) -> PathBuf {
    let cpp = source.ends_with(".cpp");
    let program = temp.join(Path::new(source).file_stem().unwrap().to_str().unwrap());
    let (compiler, standard) = if cpp { ("c++", "-std=c++17") } else { ("cc", "-std=c11") };
    let mut command = Command::new(compiler);
    command.args([standard, "-g", "-Wall", "-Wextra", "-Werror", "-pedantic"]).args(flags);
    command.arg("-I").arg(here("include")).arg(here(source)).arg(archive());
    run(command.args(SYSTEM_LIBRARIES).arg("-o").arg(&program));
    program
}
