//! The command: a node, a cluster of three nodes, a load, and single requests.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use replicated_kv::client::Client;
use replicated_kv::cluster::{Cluster, free_ports};
use replicated_kv::load::{self, HEADING, Kind, Rounds, quantile};
use replicated_kv::node::{self, NodeOptions, Tuning};

/// A key-value store that three processes keep: ringwal's log under openraft.
#[derive(Debug, Parser)]
#[command(name = "replicated_kv", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, clap::Args)]
struct Nodes {
    /// The addresses of the nodes
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "127.0.0.1:21001,127.0.0.1:21002,127.0.0.1:21003"
    )]
    nodes: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node
    Node(NodeOptions),
    /// Run three nodes on this machine, and start again those that end
    Cluster {
        /// The directory of the nodes' directories; by default in the directory for temporary files
        #[arg(long)]
        dir: Option<PathBuf>,
        /// The port of each node
        #[arg(long, value_delimiter = ',', default_value = "21001,21002,21003")]
        ports: Vec<u16>,
        #[command(flatten)]
        tuning: Tuning,
    },
    /// Send requests to a cluster, and print a table of rates and times
    Drive {
        #[command(flatten)]
        nodes: Nodes,
        /// The numbers of clients
        #[arg(long, value_delimiter = ',', default_value = "1,64,256")]
        clients: Vec<usize>,
        /// Seconds for each row
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// Bytes of a value
        #[arg(long, default_value_t = 100)]
        value_bytes: usize,
    },
    /// Measure a cluster of its own: rates, times beside those of a log, and the time of a failover
    Measure {
        /// A directory on the disk to measure
        #[arg(long)]
        dir: PathBuf,
        /// Rounds; each has every measurement once
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds for each rate
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
        #[command(flatten)]
        tuning: Tuning,
    },
    /// Print the newest value of a key
    Get {
        #[command(flatten)]
        nodes: Nodes,
        /// The key
        key: String,
    },
    /// Set a key
    Put {
        #[command(flatten)]
        nodes: Nodes,
        /// The key
        key: String,
        /// Its new value
        value: String,
    },
    /// Remove a key
    Delete {
        #[command(flatten)]
        nodes: Nodes,
        /// The key
        key: String,
    },
    /// List the nodes, or change them
    Members {
        #[command(flatten)]
        nodes: Nodes,
        #[command(subcommand)]
        change: Option<MembersChange>,
    },
}

#[derive(Debug, Subcommand)]
enum MembersChange {
    /// Add a node without a vote, and wait until it has the log
    AddLearner {
        /// The id of the new node
        id: u64,
        /// Its address
        address: String,
    },
    /// Set the voters; a node that is no voter any more leaves the cluster
    SetVoters {
        /// The ids of all voters
        #[arg(required = true)]
        ids: Vec<u64>,
    },
}

type Outcome = Result<(), Box<dyn Error>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Node(options) => node::run(options).await.map_err(Box::from),
        Command::Cluster { dir, ports, tuning } => cluster(dir, &ports, &tuning).await,
        Command::Drive { nodes, clients, seconds, value_bytes } => {
            drive(nodes, &clients, Duration::from_secs_f64(seconds), value_bytes).await
        }
        Command::Measure { dir, rounds, seconds, tuning } => {
            measure(&dir, rounds, Duration::from_secs_f64(seconds), &tuning).await
        }
        Command::Get { nodes, key } => get(nodes, &key).await,
        Command::Put { nodes, key, value } => put(nodes, &key, &value).await,
        Command::Delete { nodes, key } => delete(nodes, &key).await,
        Command::Members { nodes, change } => members(nodes, change).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn client(nodes: Nodes) -> Result<Client, Box<dyn Error>> {
    Ok(Client::new(nodes.nodes, Duration::from_secs(30), Duration::from_secs(5))?)
}

async fn get(nodes: Nodes, key: &str) -> Outcome {
    let value = client(nodes)?.get(key).await?;
    println!("{}", value.ok_or_else(|| format!("there is no key {key:?}"))?);
    Ok(())
}

async fn put(nodes: Nodes, key: &str, value: &str) -> Outcome {
    let written = client(nodes)?.put(key, value).await?;
    println!("entry {}, committed in {} us", written.index, written.commit_micros);
    Ok(())
}

async fn delete(nodes: Nodes, key: &str) -> Outcome {
    let written = client(nodes)?.delete(key).await?;
    let what = if written.existed { "removed" } else { "the key was not there" };
    println!("entry {}: {what}", written.index);
    Ok(())
}

async fn members(nodes: Nodes, change: Option<MembersChange>) -> Outcome {
    let addresses = nodes.nodes.clone();
    let client = client(nodes)?;
    match change {
        Some(MembersChange::AddLearner { id, address }) => client.add_learner(id, &address).await?,
        Some(MembersChange::SetVoters { ids }) => {
            client.set_voters(&ids.into_iter().collect::<BTreeSet<_>>()).await?;
        }
        None => {}
    }
    println!(
        "| node | address | state | voter | term | last entry | applied | snapshot | purged |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let of = |index: Option<u64>| index.map_or("-".to_owned(), |index| index.to_string());
    for address in addresses {
        let Ok(one) = client.status(&address).await else {
            println!("| ? | {address} | does not answer | | | | | | |");
            continue;
        };
        let voter = if one.voters.contains(&one.id) { "yes" } else { "no" };
        println!(
            "| {} | {address} | {} | {voter} | {} | {} | {} | {} | {} |",
            one.id,
            one.state,
            one.term,
            of(one.last_log),
            of(one.applied),
            of(one.snapshot),
            of(one.purged),
        );
    }
    Ok(())
}

/// The options that hand the settings to the processes of the nodes.
fn options_of(tuning: &Tuning) -> Vec<String> {
    let mut options = vec![
        format!("--heartbeat-ms={}", tuning.heartbeat_ms),
        format!("--election-ms={}", tuning.election_ms),
        format!("--snapshot-every={}", tuning.snapshot_every),
        format!("--keep-entries={}", tuning.keep_entries),
        format!("--segment-bytes={}", tuning.segment_bytes),
    ];
    if tuning.fault_injection {
        options.push("--fault-injection".into());
    }
    options
}

async fn cluster(dir: Option<PathBuf>, ports: &[u16], tuning: &Tuning) -> Outcome {
    let dir = dir.unwrap_or_else(|| std::env::temp_dir().join("replicated_kv"));
    let program = std::env::current_exe()?;
    let mut cluster = Cluster::new(&program, &dir, ports, options_of(tuning)).loud();
    cluster.begin().await?;
    println!("ready: replicated_kv put KEY VALUE, get KEY, members, drive; ctrl-c ends the nodes");
    let mut ended = Box::pin(node::signalled());
    loop {
        tokio::select! {
            () = &mut ended => break,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        for (id, status) in cluster.ended() {
            println!("node {id} ended ({status}); it starts again");
            cluster.start(id)?;
        }
    }
    // The terminal sent the signal to the nodes too. Those that it did not reach are killed.
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("ended; the data stay in {}", dir.display());
    Ok(())
}

async fn drive(nodes: Nodes, clients: &[usize], time: Duration, value_bytes: usize) -> Outcome {
    let client = Arc::new(client(nodes)?);
    // A first request, so that a cluster that is not there is one error and no table.
    client.put("load-0", "first").await?;
    println!("{HEADING}");
    let mut failure = None;
    for kind in [Kind::Put, Kind::Get] {
        for count in clients {
            let run = load::run(&client, kind, *count, time, value_bytes).await;
            println!("{}", load::row(kind, *count, &run));
            failure = run.failure.or(failure);
        }
    }
    failure.map_or(Ok(()), |e| Err(format!("some requests failed, the last one: {e}").into()))
}

async fn measure(dir: &Path, rounds: usize, time: Duration, tuning: &Tuning) -> Outcome {
    const NAMES: [&str; 8] = [
        "durable append to a log, p50 us",
        "commit on three nodes, p50 us, 1 client",
        "put, p50 us, 1 client",
        "puts/s, 1 client",
        "puts/s, 64 clients",
        "puts/s, 256 clients",
        "gets/s, 64 clients",
        "failover, ms",
    ];
    let work = dir.join(format!("replicated_kv-{}", std::process::id()));
    let program = std::env::current_exe()?;
    let mut cluster = Cluster::new(&program, &work, &free_ports(3)?, options_of(tuning));
    cluster.begin().await?;
    let client = cluster.client(Duration::from_secs(5), Duration::from_secs(10))?;
    let client = Arc::new(client);
    let mut figures = vec![Rounds::default(); NAMES.len()];
    let mut ratio = Rounds::default();
    for _ in 0..rounds {
        let local_dir = work.join("local");
        let local = tokio::task::block_in_place(|| load::local_appends(&local_dir, time, 120))?;
        let one = load::run(&client, Kind::Put, 1, time, 100).await;
        let some = load::run(&client, Kind::Put, 64, time, 100).await;
        let many = load::run(&client, Kind::Put, 256, time, 100).await;
        let reads = load::run(&client, Kind::Get, 64, time, 100).await;
        let failover = load::failover(&mut cluster).await?;
        let local = quantile(&local, 0.5) as f64;
        let commit = quantile(&one.commit_micros, 0.5) as f64;
        ratio.0.push(commit / local.max(1.0));
        let round = [
            local,
            commit,
            quantile(&one.micros, 0.5) as f64,
            one.rate(),
            some.rate(),
            many.rate(),
            reads.rate(),
            failover.as_secs_f64() * 1000.0,
        ];
        for (figure, value) in figures.iter_mut().zip(round) {
            figure.0.push(value);
        }
    }
    println!("| median of {rounds} rounds (least - greatest) | |\n|---|---|");
    for (name, figure) in NAMES.iter().zip(&figures) {
        println!("| {name} | {figure} |");
    }
    println!("| commit on three nodes / durable append | {ratio} |");
    drop(cluster);
    std::fs::remove_dir_all(&work)?;
    Ok(())
}
