//! The programs in `examples/` do what they say, also when they are killed.

mod support;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use support::Temp;

/// The program as `cargo test` has built it, or built now if this test runs alone.
fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let path = path.join("examples").join(name);
    if !path.exists() {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--example", name, "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .status();
        assert!(built.unwrap().success());
    }
    path
}

fn run(name: &str, arguments: &[&str]) -> String {
    let out = Command::new(example(name)).args(arguments).output().unwrap();
    assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn the_key_value_store_keeps_what_it_has_answered_over_kills() {
    let temp = Temp::new();
    let dir = temp.path().to_str().unwrap();
    run("key_value", &[dir, "put", "first", "1"]);
    run("key_value", &[dir, "put", "second", "2"]);
    run("key_value", &[dir, "delete", "first"]);
    assert_eq!(run("key_value", &[dir, "list"]), "second 2\n");
    run("key_value", &[dir, "delete", "second"]);
    let mut answered = 0;
    for round in 0..8 {
        let mut child = Command::new(example("key_value"))
            .args([dir, "fill", "100000"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Killed after so many answers; what it had answered by then, and until it died, is a promise.
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        for (seen, line) in lines.enumerate() {
            answered = line.parse::<usize>().unwrap() + 1;
            if seen == 20 + 37 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let list = run("key_value", &[dir, "list"]);
        let keys: Vec<_> = list.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
        assert!(keys.len() >= answered, "{} of {answered} after kill {round}", keys.len());
        assert!(keys.iter().enumerate().all(|(n, key)| key.parse::<usize>().unwrap() == n));
        answered = keys.len();
    }
    assert!(answered > 500, "snapshots were made too: {answered}");
    let before = run("key_value", &[dir, "list"]);
    run("key_value", &[dir, "snapshot"]);
    assert!(run("key_value", &[dir, "list"]) == before);
}

#[test]
fn the_work_queue_gives_every_job_to_every_worker_at_least_once() {
    let temp = Temp::new();
    let dir = temp.path().to_str().unwrap();
    let jobs: Vec<String> = (0..200).map(|n| format!("job {n}")).collect();
    let mut push = vec![dir, "push"];
    push.extend(jobs.iter().map(String::as_str));
    run("work_queue", &push);
    let mut done: Vec<String> = Vec::new();
    for round in 0..5 {
        let mut child = Command::new(example("work_queue"))
            .args([dir, "work", "one"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut first = true;
        for (seen, line) in lines.enumerate() {
            // What was not committed when it was killed comes again, and only that.
            if !std::mem::take(&mut first) || done.last() != Some(&line) {
                done.push(line);
            }
            if seen == 10 + round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
    }
    assert!(done.len() >= 60 && done == jobs[..done.len()], "{done:?}");
    let rest = run("work_queue", &[dir, "work", "one"]);
    let rest: Vec<_> = rest.lines().collect();
    assert_eq!(rest.last(), Some(&"job 199"));
    assert!(rest[0] == jobs[done.len()] || rest[0] == jobs[done.len() - 1]);
    // The other worker has a position of its own.
    assert!(run("work_queue", &[dir, "work", "two"]).lines().eq(jobs.iter().map(String::as_str)));
    assert_eq!(run("work_queue", &[dir, "lag"]).lines().count(), 2);
}

#[test]
fn the_bank_keeps_every_answer_and_all_money() {
    let said = run("crash_test", &["20"]);
    assert!(said.ends_with("every answer and all money kept\n"), "{said}");
}
