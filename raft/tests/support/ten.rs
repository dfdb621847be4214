//! The types and the state machine of the tests, for openraft 0.10.

use std::io::{self, Cursor};
use std::sync::{Arc, Mutex};

use futures_util::{Stream, StreamExt};
use openraft10::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft10::type_config::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft10::{EntryPayload, OptionalSend};
use serde::{Deserialize, Serialize};

use super::Put;

openraft10::declare_raft_types!(pub Types: D = Put, R = ());

// One leader in a term: its encoding of log ids and votes is another one.
openraft10::declare_raft_types!(
    pub StdTypes:
        D = Put,
        R = (),
        LeaderId = openraft10::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

type Data = Cursor<Vec<u8>>;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Applied {
    last: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
    values: std::collections::BTreeMap<u64, String>,
}

#[derive(Debug, Clone, Default)]
pub struct Machine {
    applied: Arc<Mutex<Applied>>,
    snapshot: Arc<Mutex<Option<SnapshotOf<Types, Data>>>>,
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = Data;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, Data>> {
        let applied = self.applied.lock().unwrap().clone();
        let snapshot = SnapshotOf::<Types, Data> {
            meta: SnapshotMetaOf::<Types> {
                last_log_id: applied.last,
                last_membership: applied.membership.clone(),
            },
            snapshot: Cursor::new(serde_json::to_vec(&applied).unwrap()),
        };
        *self.snapshot.lock().unwrap() = Some(snapshot.clone());
        Ok(snapshot)
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Data;
    type SnapshotBuilder = Machine;

    async fn applied_state(
        &mut self,
    ) -> io::Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>)> {
        let applied = self.applied.lock().unwrap();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let mut applied = self.applied.lock().unwrap();
            applied.last = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(put) => {
                    applied.values.insert(put.key, put.value);
                }
                EntryPayload::Membership(membership) => {
                    let id = Some(entry.log_id);
                    applied.membership = StoredMembershipOf::<Types>::new(id, membership);
                }
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Types>,
        snapshot: Data,
    ) -> io::Result<()> {
        *self.applied.lock().unwrap() = serde_json::from_slice(snapshot.get_ref())?;
        let snapshot = SnapshotOf::<Types, Data> { meta: meta.clone(), snapshot };
        *self.snapshot.lock().unwrap() = Some(snapshot);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, Data>>> {
        Ok(self.snapshot.lock().unwrap().clone())
    }
}
