//! The history of the clients' operations, and its check for linearizability, key by key.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History as Actions};
use todc_utils::specifications::Specification;

/// A value, by its number. `None`: there is no such key.
pub(crate) type Value = Option<u64>;

/// What an operation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Set the key, or removed it.
    Write(Value),
    /// Returned this value.
    Read(Value),
}

/// An operation with its place in time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    /// When it was called: the place in the order of all calls and returns.
    pub(crate) called: u64,
    /// When it returned. `None`: its outcome is unknown, so that it may take effect at any later
    /// time, or never.
    pub(crate) returned: Option<u64>,
    pub(crate) operation: Operation,
}

/// A key is one register: the value that was written last.
struct Register;

impl Specification for Register {
    type State = Value;
    type Operation = Operation;

    fn init() -> Value {
        None
    }

    fn apply(operation: &Operation, state: &Value) -> (bool, Value) {
        match operation {
            Operation::Write(value) => (true, *value),
            Operation::Read(value) => (value == state, *state),
        }
    }
}

/// What all clients did. Operations that certainly changed nothing are left out.
#[derive(Debug, Default)]
pub(crate) struct History {
    clock: AtomicU64,
    keys: Mutex<BTreeMap<String, Vec<Event>>>,
}

impl History {
    /// The place in the order for a call or a return now.
    pub(crate) fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn record(&self, key: &str, event: Event) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.entry(key.to_owned()).or_default().push(event);
    }

    /// Counts all operations, and those with an unknown outcome.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let events = keys.values().flatten();
        let unknown = events.clone().filter(|event| event.returned.is_none()).count();
        (events.count(), unknown)
    }

    /// Fails with the operations of each key that has no order of its operations.
    pub(crate) fn check(&self) {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong: Vec<_> = keys.iter().filter(|(_, events)| !is_linearizable(events)).collect();
        for (key, events) in &wrong {
            let mut events = (*events).clone();
            events.sort_unstable_by_key(|event| event.called);
            eprintln!("{key}:");
            for Event { called, returned, operation } in events {
                let returned = returned.map_or("?".into(), |returned| returned.to_string());
                eprintln!("  {called:>7} - {returned:>7} {operation:?}");
            }
        }
        let names: Vec<_> = wrong.iter().map(|(key, _)| key.as_str()).collect();
        assert!(wrong.is_empty(), "the histories of {} are not linearizable", names.join(", "));
    }
}

/// Whether the operations of one key took effect one after the other, each between its call and its
/// return.
pub(crate) fn is_linearizable(events: &[Event]) -> bool {
    // An unknown operation returns after all others: then it may be the last one, without effect.
    let end = |event: &Event| event.returned.unwrap_or(u64::MAX);
    let mut actions: Vec<(u64, usize, Action<Operation>)> = Vec::new();
    for (process, event) in events.iter().enumerate() {
        actions.push((event.called, process, Action::Call(event.operation)));
        actions.push((end(event), process, Action::Response(event.operation)));
    }
    actions.sort_by_key(|(time, ..)| *time);
    let actions = actions.into_iter().map(|(_, process, action)| (process, action)).collect();
    events.is_empty() || WGLChecker::<Register>::is_linearizable(Actions::from_actions(actions))
}

fn event(called: u64, returned: impl Into<Option<u64>>, operation: Operation) -> Event {
    Event { called, returned: returned.into(), operation }
}

#[test]
fn checker_rejects_a_stale_read_and_a_lost_write() {
    use Operation::{Read, Write};
    let written = [event(0, 1, Write(Some(1))), event(2, 3, Write(Some(2)))];
    let with = |last: Event| is_linearizable(&[written[0], written[1], last]);
    assert!(with(event(4, 5, Read(Some(2)))));
    assert!(!with(event(4, 5, Read(Some(1)))), "stale");
    assert!(!with(event(4, 5, Read(None))), "lost");
    assert!(!with(event(4, 5, Read(Some(3)))), "never written");
    let meanwhile = [event(0, 9, Write(Some(1))), event(1, 2, Read(Some(1)))];
    assert!(is_linearizable(&meanwhile));
    assert!(!is_linearizable(&[meanwhile[0], meanwhile[1], event(3, 4, Read(None))]), "undone");
}

#[test]
fn checker_lets_an_unknown_write_take_effect_late_or_never() {
    use Operation::{Read, Write};
    let unknown = event(0, None, Write(Some(1)));
    let other = event(1, 2, Write(Some(2)));
    assert!(is_linearizable(&[unknown, other, event(3, 4, Read(Some(2)))]), "never");
    let late = [unknown, other, event(3, 4, Read(Some(2))), event(5, 6, Read(Some(1)))];
    assert!(is_linearizable(&late), "late");
    let twice = [late[0], late[1], late[2], late[3], event(7, 8, Read(Some(2)))];
    assert!(!is_linearizable(&twice), "undone");
}
