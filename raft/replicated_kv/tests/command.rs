//! The command's answers to wrong input, and one cluster from the start to the end.
#![allow(clippy::unwrap_used)]

mod place;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use replicated_kv::cluster::{Cluster, free_ports};

const PROGRAM: &str = env!("CARGO_BIN_EXE_replicated_kv");

struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Temp {
        Temp(place::directory(name))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn directory_of_a_test_that_was_killed_is_removed_by_the_next_one() {
    let temp = Temp::new("stale");
    // No process has this number.
    let left = temp.0.join("replicated-kv-999999999-left");
    let own = temp.0.join(format!("replicated-kv-{}-own", std::process::id()));
    let others = temp.0.join("other-999999999-left");
    for dir in [&left, &own, &others] {
        std::fs::create_dir_all(dir.join(place::DISK)).unwrap();
    }
    place::remove_stale(&temp.0);
    assert_eq!([left.exists(), own.exists(), others.exists()], [false, true, true]);
}

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

/// Runs the command, which must fail with one line that contains these words.
fn refused(arguments: &[&str], words: &[&str]) {
    let output = run(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert!(said.starts_with("error: ") && said.lines().count() == 1, "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}

fn node(dir: &Path, port: u16, more: &[&str]) -> Vec<String> {
    let listen = format!("127.0.0.1:{port}");
    let dir = dir.display().to_string();
    let fixed = ["node", "--id", "1", "--listen", &listen, "--dir", &dir];
    fixed.iter().chain(more).map(|part| (*part).to_owned()).collect()
}

#[test]
fn node_that_cannot_start_says_what_to_do() {
    let temp = Temp::new("refusals");
    let port = free_ports(1).unwrap()[0];
    let words = |arguments: &[String], words: &[&str]| {
        refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), words);
    };
    words(&node(&temp.0, port, &["--election-ms=50"]), &["--election-ms must exceed"]);
    let file = temp.0.join("file");
    std::fs::write(&file, "x").unwrap();
    words(&node(&file, port, &[]), &["cannot create the directory"]);
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    words(&node(&temp.0, port, &[]), &["cannot listen on", "choose another --listen"]);
    drop(taken);

    // A log of another program, and a damaged snapshot.
    let other = temp.0.join("other");
    let wal = ringwal::Wal::open(other.join("log")).unwrap();
    wal.append_durable(b"another program's").unwrap();
    wal.close().unwrap();
    words(&node(&other, port, &[]), &["the log in", "version"]);
    let damaged = temp.0.join("damaged");
    std::fs::create_dir_all(&damaged).unwrap();
    std::fs::write(damaged.join("snapshot"), "RKVSNAP1 and something else").unwrap();
    words(&node(&damaged, port, &[]), &["damaged", "restore it from a backup"]);
    assert!(damaged.join("snapshot").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_put_get_and_delete_through_any_node() {
    let temp = Temp::new("commands");
    let ports = free_ports(4).unwrap();
    let nodes = format!("--nodes=127.0.0.1:{}", ports[3]);
    refused(&["get", &nodes, "a"], &["no node took the request", "refused"]);

    let options = vec!["--election-ms=600".to_owned(), "--segment-bytes=1048576".to_owned()];
    let mut cluster = Cluster::new(Path::new(PROGRAM), &temp.0, &ports[..3], options);
    cluster.begin().await.unwrap();
    for (at, address) in cluster.addresses().iter().enumerate() {
        let nodes = format!("--nodes={address}");
        let value = format!("value {at}");
        let said = run(&["put", &nodes, "a key/with: all?", &value]);
        assert!(said.status.success(), "{said:?}");
        assert!(String::from_utf8(said.stdout).unwrap().starts_with("entry "));
        assert_eq!(
            run(&["get", &nodes, "a key/with: all?"]).stdout,
            format!("{value}\n").as_bytes()
        );
        refused(&["get", &nodes, "none"], &["there is no key \"none\""]);
        refused(&["put", &nodes, "", "x"], &["cannot be a key"]);
        refused(&["put", &nodes, "big", &"x".repeat(65537)], &["at most 65536 are allowed"]);
        refused(&["members", &nodes, "set-voters", "1", "2", "9"], &["cannot change"]);
        let said = run(&["delete", &nodes, "a key/with: all?"]);
        assert!(String::from_utf8(said.stdout).unwrap().ends_with("removed\n"));
    }
    let listed = run(&["members", &format!("--nodes={}", cluster.addresses().join(","))]).stdout;
    let listed = String::from_utf8(listed).unwrap();
    assert_eq!(listed.matches("| yes |").count(), 3, "{listed}");
    assert_eq!(listed.matches("| Leader |").count(), 1, "{listed}");

    // Two drives at once would only measure each other: a short one says that the table is there.
    let all = format!("--nodes={}", cluster.addresses().join(","));
    let driven = run(&["drive", &all, "--clients", "1,8", "--seconds", "0.2"]);
    let table = String::from_utf8(driven.stdout).unwrap();
    assert!(driven.status.success() && table.lines().count() == 6, "{table}");

    let client = reqwest::Client::new();
    for address in cluster.addresses() {
        let text = client.get(format!("http://{address}/metrics")).send().await.unwrap();
        let text = text.text().await.unwrap();
        for name in ["replicated_kv_term", "replicated_kv_applied_index", "ringwal_"] {
            assert!(text.contains(name), "{name} is not in {text}");
        }
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        for line in lines {
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
