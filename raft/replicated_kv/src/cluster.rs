//! Nodes as child processes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::client::{Client, ClientError};

/// How long the nodes may take to answer at first.
const START: Duration = Duration::from_secs(30);

/// Why a cluster did not start.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A process cannot be started, or a directory cannot be created.
    #[error("node {id} cannot be started: {source}")]
    Start {
        /// The node.
        id: u64,
        /// The cause.
        source: io::Error,
    },
    /// A node ended.
    #[error("node {id} ended ({status}): see {output}")]
    Ended {
        /// The node.
        id: u64,
        /// How it ended.
        status: ExitStatus,
        /// What has its messages.
        output: String,
    },
    /// The nodes do not answer, or elect no leader.
    #[error("the nodes do not agree on a leader within {START:?}: {0}")]
    Late(String),
    /// No free port can be had.
    #[error("no free port can be had: {0}")]
    Ports(io::Error),
    /// A request failed.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// The nodes 1, 2, .. of a cluster, as child processes. Killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    program: PathBuf,
    dir: PathBuf,
    /// Directories that are not in `dir`.
    moved: BTreeMap<u64, PathBuf>,
    addresses: BTreeMap<u64, SocketAddr>,
    options: Vec<String>,
    /// Whether the nodes print to the terminal, not to files in `dir`.
    loud: bool,
    children: BTreeMap<u64, Child>,
}

/// Free ports of this machine.
///
/// # Errors
///
/// Those of binding a socket.
pub fn free_ports(count: usize) -> Result<Vec<u16>, ClusterError> {
    // All at once, so that no two are the same.
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listeners: io::Result<Vec<_>> = (0..count).map(bind).collect();
    let ports = listeners
        .and_then(|all| all.iter().map(|listener| Ok(listener.local_addr()?.port())).collect());
    ports.map_err(ClusterError::Ports)
}

impl Cluster {
    /// Nodes of `program` with their directories in `dir`, one for each port. `options` go to each
    /// node.
    #[must_use]
    pub fn new(program: &Path, dir: &Path, ports: &[u16], options: Vec<String>) -> Cluster {
        let address = |port: &u16| SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        Cluster {
            program: program.to_owned(),
            dir: dir.to_owned(),
            moved: BTreeMap::new(),
            addresses: (1..).zip(ports.iter().map(address)).collect(),
            options,
            loud: false,
            children: BTreeMap::new(),
        }
    }

    /// Lets the nodes print to the terminal.
    #[must_use]
    pub fn loud(mut self) -> Cluster {
        self.loud = true;
        self
    }

    /// Puts the directory of a node elsewhere.
    pub fn place(&mut self, id: u64, dir: &Path) {
        self.moved.insert(id, dir.to_owned());
    }

    /// The ids of the nodes.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        self.addresses.keys().copied().collect()
    }

    /// The address of a node.
    #[must_use]
    pub fn address(&self, id: u64) -> String {
        self.addresses.get(&id).map(SocketAddr::to_string).unwrap_or_default()
    }

    /// All addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.addresses.values().map(SocketAddr::to_string).collect()
    }

    /// The directory of a node.
    #[must_use]
    pub fn node_dir(&self, id: u64) -> PathBuf {
        self.moved.get(&id).cloned().unwrap_or_else(|| self.dir.join(format!("node-{id}")))
    }

    /// The file with the messages of a node.
    #[must_use]
    pub fn output(&self, id: u64) -> PathBuf {
        self.dir.join(format!("node-{id}.txt"))
    }

    /// The process of a node.
    #[must_use]
    pub fn pid(&self, id: u64) -> Option<u32> {
        self.children.get(&id).map(Child::id)
    }

    /// A client of all nodes.
    ///
    /// # Errors
    ///
    /// Those of [`Client::new`].
    pub fn client(&self, limit: Duration, patience: Duration) -> Result<Client, ClusterError> {
        Ok(Client::new(self.addresses(), limit, patience)?)
    }

    /// Starts a node.
    ///
    /// # Errors
    ///
    /// `Start`.
    pub fn start(&mut self, id: u64) -> Result<(), ClusterError> {
        let start = || {
            std::fs::create_dir_all(&self.dir)?;
            let mut command = Command::new(&self.program);
            command.args(["node", "--id", &id.to_string(), "--listen", &self.address(id)]);
            command.arg("--dir").arg(self.node_dir(id)).args(&self.options).stdin(Stdio::null());
            if !self.loud {
                let file = File::options().create(true).append(true).open(self.output(id))?;
                command.stdout(file.try_clone()?).stderr(file);
            }
            command.spawn()
        };
        let child = start().map_err(|source| ClusterError::Start { id, source })?;
        self.children.insert(id, child);
        Ok(())
    }

    /// Kills a node by SIGKILL, and waits for its end.
    pub fn kill(&mut self, id: u64) {
        if let Some(mut child) = self.children.remove(&id) {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The nodes that ended by themselves since the last call, and how.
    pub fn ended(&mut self) -> Vec<(u64, ExitStatus)> {
        let status = |(id, child): (&u64, &mut Child)| Some((*id, child.try_wait().ok()??));
        let ended: Vec<_> = self.children.iter_mut().filter_map(status).collect();
        for (id, _) in &ended {
            self.children.remove(id);
        }
        ended
    }

    /// Starts all nodes, begins the cluster if it is new, and waits for a leader.
    ///
    /// # Errors
    ///
    /// All of [`ClusterError`].
    pub async fn begin(&mut self) -> Result<(), ClusterError> {
        for id in self.ids() {
            self.start(id)?;
        }
        let client = self.client(Duration::from_secs(2), START)?;
        let until = Instant::now() + START;
        let mut is_new = true;
        for id in self.ids() {
            is_new &= self.until_answer(&client, id, until).await?.is_empty();
        }
        if is_new {
            let address = |id| (id, self.address(id));
            client.init(&self.ids().into_iter().map(address).collect()).await?;
        }
        self.leader(&client, until).await.map(drop)
    }

    /// Waits until a node answers. Returns the voters that it knows.
    async fn until_answer(
        &mut self,
        client: &Client,
        id: u64,
        until: Instant,
    ) -> Result<Vec<u64>, ClusterError> {
        loop {
            let last = match client.status(&self.address(id)).await {
                Ok(status) => return Ok(status.voters.into_iter().collect()),
                Err(e) => e.to_string(),
            };
            if let Some((id, status)) = self.ended().into_iter().next() {
                let output = match self.loud {
                    true => "its messages above".into(),
                    false => self.output(id).display().to_string(),
                };
                return Err(ClusterError::Ended { id, status, output });
            }
            pause(until, &last).await?;
        }
    }

    /// Waits for a leader that a majority follows. Returns its id.
    ///
    /// # Errors
    ///
    /// `Late`.
    pub async fn leader(&self, client: &Client, until: Instant) -> Result<u64, ClusterError> {
        loop {
            let mut leaders: Vec<(u64, u64)> = Vec::new();
            for node in self.addresses() {
                if let Ok(status) = client.status(&node).await {
                    leaders.extend(status.leader.map(|leader| (status.term, leader)));
                }
            }
            leaders.sort_unstable();
            let newest = leaders.last().copied();
            let agree = leaders.iter().filter(|one| Some(**one) == newest).count();
            match newest {
                Some((_, leader)) if agree * 2 > self.addresses.len() => return Ok(leader),
                _ => pause(until, "no leader has a majority").await?,
            }
        }
    }
}

async fn pause(until: Instant, last: &str) -> Result<(), ClusterError> {
    if Instant::now() > until {
        return Err(ClusterError::Late(last.to_owned()));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(())
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for id in self.ids() {
            self.kill(id);
        }
    }
}
