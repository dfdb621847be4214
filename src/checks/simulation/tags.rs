//! Tags of records: each record has the tag that it was appended with, and a filtered reader
//! returns what an unfiltered one returns with that tag.

use std::sync::Arc;

use fastrand::Rng;

use super::oracle::Oracle;
use crate::engine::state::LogState;
use crate::error::Error;
use crate::read::{BackwardReader, Reader};

/// Number of tags in use.
pub(super) const TAGS: u64 = 4;

/// The tag of the next record, or none.
pub(super) fn some(rng: &mut Rng) -> Option<u64> {
    rng.bool().then(|| rng.u64(..TAGS))
}

/// Checks the tags of all records, and a reader of `only` in both directions.
pub(super) fn check(state: &Arc<LogState>, oracle: &Oracle, only: u64) -> Result<(), String> {
    let end = state.durable.end();
    let mut expected = Vec::new();
    for record in Reader::new(Arc::clone(&state.view), 0, end) {
        let record = match record {
            Ok(record) => record,
            Err(Error::Io { .. }) => return Ok(()),
            Err(e) => return Err(format!("tags: {e}")),
        };
        let lsn = record.lsn.as_u64();
        if record.tag() != oracle.tags.get(&lsn).copied() {
            return Err(format!("{lsn} has the tag {:?}", record.tag()));
        }
        if record.tag() == Some(only) {
            expected.push(record);
        }
    }
    let ahead = Reader::new(Arc::clone(&state.view), 0, end).only_tag(only);
    let back = BackwardReader::new(Arc::clone(&state.view), end).only_tag(only);
    let filtered: [Result<Vec<_>, _>; 2] = [ahead.collect(), back.collect()];
    for (filtered, way) in filtered.into_iter().zip(["ahead", "back"]) {
        let mut found = match filtered {
            Ok(found) => found,
            Err(Error::Io { .. }) => return Ok(()),
            Err(e) => return Err(format!("only {only}, {way}: {e}")),
        };
        if way == "back" {
            found.reverse();
        }
        if found != expected {
            return Err(format!("only {only}, {way}: {found:?} instead of {expected:?}"));
        }
    }
    Ok(())
}
