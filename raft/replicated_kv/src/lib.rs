//! A replicated key-value service: [openraft](https://docs.rs/openraft) over the log of
//! [`ringwal_openraft`], one process for each node.
//!
//! | module | it has |
//! |---|---|
//! | `types` | the commands of the replicated log |
//! | `snapshot` | the file of a node's snapshot, replaced atomically |
//! | `machine` | the key-value state machine |
//! | `network` | the messages between the nodes, over HTTP, and the switch that cuts them |
//! | `requests` | batches of writes, and rounds of reads |
//! | `answers` | the answers to clients, and their errors |
//! | `server` | the HTTP interface of a node |
//! | `node` | a node: opening it, running it, and closing it |
//! | `client` | a client that finds the leader |
//! | `cluster` | three nodes as child processes |
//! | `load` | the load of `drive` and `measure`, and its table |

pub mod answers;
pub mod client;
pub mod cluster;
pub mod load;
pub mod machine;
mod network;
pub mod node;
mod requests;
mod server;
pub mod snapshot;
pub mod types;
