//! The programs in `examples/` keep their promises, also when they are killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use crate::support::Temp;

/// Path of the example as `cargo test` built it. Builds it if this test runs alone.
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

pub(crate) fn run(name: &str, arguments: &[&str]) -> String {
    let out = Command::new(example(name)).args(arguments).output().unwrap();
    assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn key_value_store_keeps_its_answers_over_kills() {
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
        // Kill the store after so many answers. Every answer until its death is a promise.
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
fn work_queue_gives_every_job_to_every_queue_at_least_once() {
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
            // Exactly the jobs that were not committed at the kill come again.
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
    // A worker killed late leaves no job, or only jobs that it had not committed.
    match rest.first() {
        Some(first) => {
            assert!(jobs[done.len() - 1..].iter().take(2).any(|job| job == first), "{rest:?}");
            assert_eq!(rest.last(), Some(&"job 199"));
        }
        None => assert_eq!(done.len(), jobs.len()),
    }
    // The other worker has a position of its own.
    assert!(run("work_queue", &[dir, "work", "two"]).lines().eq(jobs.iter().map(String::as_str)));
    // The workers of one queue share its jobs.
    let shared = run("work_queue", &[dir, "work", "three", "4"]);
    let (mut shared, mut expected): (Vec<_>, Vec<_>) = (shared.lines().collect(), Vec::new());
    expected.extend(jobs.iter().map(String::as_str));
    shared.sort_unstable();
    expected.sort_unstable();
    assert_eq!(shared, expected);
    let lag = run("work_queue", &[dir, "lag"]);
    assert!(lag.lines().count() == 3 && lag.contains("three is 0 bytes behind"), "{lag}");
}

#[test]
fn raft_store_keeps_vote_entries_and_purge_mark() {
    let said = run("raft_log", &[]);
    assert!(said.ends_with("the vote, 9 entries and the purge mark are there\n"), "{said}");
}

#[test]
fn bank_keeps_every_answer_and_all_money() {
    let said = run("crash_test", &["20"]);
    assert!(said.ends_with("every answer and all money kept\n"), "{said}");
}

/// Sends one request. Returns the status and the body.
fn ask(address: &str, request: &str, body: &[u8]) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    let length = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    )?;
    stream.write_all(body)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    match (status, body) {
        (Some(status), Some(body)) => Ok((status, body)),
        _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A child process that is killed on drop, so that it does not outlive a failed test.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the service. Returns it, its address, and the rest of its output.
fn ingest(dir: &str) -> (Service, String, impl Iterator<Item = String>) {
    let child = Command::new(example("http_ingest"))
        .args([dir, "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut service = Service(child);
    let out = service.0.stdout.take().unwrap();
    let mut lines = BufReader::new(out).lines().map_while(Result::ok);
    let said = lines.find(|line| line.starts_with("listening on ")).unwrap();
    (service, said.replace("listening on ", ""), lines)
}

#[test]
fn http_service_answers_after_durability_and_publishes_its_metrics() {
    let temp = Temp::new();
    let dir = temp.path().to_str().unwrap();
    let (mut service, address, _said) = ingest(dir);
    assert_eq!(ask(&address, "GET /health", b"").unwrap(), (200, "ok\n".into()));
    let (status, too_large) = ask(&address, "POST /events", &vec![b'x'; 70 << 10]).unwrap();
    assert_eq!(status, 413, "{too_large}");

    // Kill the service while several clients send. Every answered request must be there.
    let answered = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (address, answered) = (&address, &answered);
            scope.spawn(move || {
                for n in 0.. {
                    let event = format!("event {n} of {client}");
                    match ask(address, "POST /events", event.as_bytes()) {
                        Ok((201, lsn)) => {
                            answered.lock().unwrap().push((lsn.trim().to_owned(), event));
                        }
                        Ok(other) => panic!("{other:?}"),
                        Err(_) => break,
                    }
                }
            });
        }
        while answered.lock().unwrap().len() < 200 {
            std::thread::sleep(Duration::from_millis(1));
        }
        service.0.kill().unwrap();
        service.0.wait().unwrap();
    });

    let (mut service, address, mut said) = ingest(dir);
    let answered = answered.into_inner().unwrap();
    for (lsn, event) in &answered {
        let found = ask(&address, &format!("GET /events/{lsn}"), b"").unwrap();
        assert_eq!(found, (200, event.clone()));
    }
    let (lsn, event) = &answered[answered.len() / 2];
    let list = ask(&address, &format!("GET /events?from={lsn}&limit=1"), b"").unwrap();
    assert_eq!(list, (200, format!("{lsn}\t{event}\n")));
    assert_eq!(ask(&address, "GET /events/3", b"").unwrap().0, 404);
    ask(&address, "POST /events", b"one more").unwrap();
    let (_, metrics) = ask(&address, "GET /metrics", b"").unwrap();
    assert!(metrics.contains("ringwal_records_total{log=\"events\"} 1\n"), "{metrics}");

    // The dashboard queries only metrics that the service publishes.
    let dashboard = include_str!("../../examples/grafana/ringwal.json");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            for name in query.split(|c: char| !c.is_alphanumeric() && c != '_') {
                if name.starts_with("ringwal_") && !name.starts_with("ringwal_consumer") {
                    assert!(metrics.contains(&format!("\n{name}{{")), "{name} is not told");
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 15, "{asked}");
    let stopped = Command::new("kill").arg(service.0.id().to_string()).status();
    assert!(stopped.unwrap().success());
    assert!(service.0.wait().unwrap().success(), "SIGTERM ends it cleanly");
    assert_eq!(said.next().unwrap(), "closed");
}
