//! Programs in C, C++ and Go, also under AddressSanitizer and valgrind.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{SYSTEM_LIBRARIES, Temp, archive, compile, has, here, run};

/// The programs: what compiles them, and what they print last.
const PROGRAMS: [(&str, &str); 5] = [
    ("tests/programs/border.c", "border: ok"),
    ("tests/programs/calls.c", "calls: ok"),
    ("tests/programs/wrapper.cpp", "wrapper: ok"),
    ("examples/append.c", "4 records"),
    ("examples/work_queue.cpp", "3 jobs done, 0 left"),
];

/// Compiles and runs every program. Returns the programs, with the folder that holds them.
fn programs(flags: &[&str]) -> Vec<(&'static str, PathBuf, Temp)> {
    let mut compiled = Vec::new();
    for (source, last) in PROGRAMS {
        let compiler = if source.ends_with(".cpp") { "c++" } else { "cc" };
        if has(compiler, source) {
            let temp = Temp::new();
            let program = compile(source, &temp, flags);
            check(source, Command::new(&program).arg(temp.join("log")), last);
            compiled.push((source, program, temp));
        }
    }
    compiled
}

fn check(source: &str, command: &mut Command, last: &str) {
    let out = run(command);
    assert_eq!(out.lines().last(), Some(last), "{source}: {out}");
}

#[test]
fn programs_in_c_and_cpp_run_also_under_valgrind() {
    let compiled = programs(&["-O1"]);
    if !has("valgrind", "memory errors and leaks") {
        return;
    }
    // The examples use the default backend: see `under_valgrind` in check.h.
    for (source, program, temp) in &compiled[..compiled.len().min(2)] {
        let mut command = Command::new("valgrind");
        command.args(["-q", "--error-exitcode=9", "--fair-sched=yes", "--leak-check=full"]);
        // A leak of this library is lost for certain; threads that end later may hold the rest.
        command.args(["--errors-for-leak-kinds=definite", "--show-leak-kinds=definite"]);
        command.arg(program).arg(temp.join("again")).env("UNDER_VALGRIND", "1");
        let last = PROGRAMS.iter().find(|(name, _)| name == source).unwrap().1;
        check(source, &mut command, last);
    }
}

/// Also finds leaks: of handles, and of memory at the border.
#[test]
fn programs_run_under_address_sanitizer() {
    let temp = Temp::new();
    let (source, program) = (temp.join("empty.c"), temp.join("empty"));
    std::fs::write(&source, "int main(void) { return 0; }\n").unwrap();
    let mut command = Command::new("cc");
    command.args(["-fsanitize=address,undefined"]).arg(&source).arg("-o").arg(&program);
    let built = command.output().is_ok_and(|done| done.status.success());
    if !built || !Command::new(&program).output().is_ok_and(|done| done.status.success()) {
        eprintln!("skipped: AddressSanitizer does not work here");
        return;
    }
    programs(&["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]);
}

#[test]
fn program_in_go_runs() {
    if !has("go", "the example in Go") || !has("cc", "the example in Go") {
        return;
    }
    let temp = Temp::new();
    let libraries = SYSTEM_LIBRARIES.join(" ");
    let mut command = Command::new("go");
    command.args(["run", "."]).arg(temp.join("log")).current_dir(here("examples/go"));
    command.env("CGO_CFLAGS", format!("-I{}", here("include").display()));
    command.env("CGO_LDFLAGS", format!("{} {libraries}", archive().display()));
    command.env("GOCACHE", temp.join("cache")).env("GOFLAGS", "-mod=mod");
    command.env("GOTOOLCHAIN", "local");
    let out = run(&mut command);
    assert_eq!(out.lines().last(), Some("1000 records"), "{out}");
}

/// The errors of the engine have the same numbers in C, and each has a name.
#[test]
fn table_of_the_readme_has_every_status() {
    let header = std::fs::read_to_string(here("include/ringwal.h")).unwrap();
    let readme = std::fs::read_to_string(here("README.md")).unwrap();
    let engine = std::fs::read_to_string(here("../src/error/code.rs")).unwrap();
    let rows = engine.lines().filter_map(|line| line.trim().strip_prefix("/// | "));
    let mut checked = 0;
    for row in rows.filter(|row| row.starts_with(|c: char| c.is_ascii_digit())) {
        let (number, name) = row.split_once(" | `").unwrap();
        let mut upper = String::new();
        for c in name.trim_end_matches("` |").chars() {
            if c.is_uppercase() && !upper.is_empty() {
                upper.push('_');
            }
            upper.push(c.to_ascii_uppercase());
        }
        let line = format!("RINGWAL_ERROR_{upper} = {number},");
        assert!(header.contains(&line), "{line}");
        checked += 1;
    }
    assert!(checked >= 36);
    let status = |line: &&str| line.trim_start().starts_with("RINGWAL_") && line.contains(" = ");
    for line in header.lines().filter(status).filter(|line| line.contains("ERROR")) {
        let (name, number) = line.trim().trim_end_matches(',').split_once(" = ").unwrap();
        assert!(readme.contains(&format!("| {number} | `{name}` |")), "{name} = {number}");
    }
}
