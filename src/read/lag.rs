//! How far a reader lags behind the durable end: nothing, once it has passed the newest record.

use std::sync::Arc;

use super::BackwardReader;
use crate::engine::state::LogState;
use crate::error::Result;

/// Bytes from `reached` to the durable end. 0 if no durable record starts at or above `position`.
///
/// Only a reader that has reached the newest group needs to read it, once for each such group. If
/// that fails, the lag counts the bytes.
pub(crate) fn lag(state: &LogState, reached: u64, position: u64) -> u64 {
    // The end first: whatever lies below it counts.
    let lag = state.durable.end().saturating_sub(reached);
    if lag == 0 || state.durable.is_forked() {
        return lag;
    }
    match newest_from(state, position) {
        Ok(newest) if newest < position => 0,
        _ => lag,
    }
}

/// The LSN of the newest durable record; 0 if there is none. If the newest group lies at or above
/// `position` as a whole, any address in it may stand for it.
fn newest_from(state: &LogState, position: u64) -> Result<u64> {
    let cuts = &state.view.cuts;
    let key = (state.retention.newest_record(), cuts.count());
    let group = key.0;
    let is_whole = || cuts.at(group).is_none() && cuts.next_from(group).is_none();
    if group == 0 || (position <= group && is_whole()) {
        return Ok(group);
    }
    if let Some(newest) = state.newest_record.get(key) {
        return Ok(newest);
    }
    let reader = BackwardReader::new(Arc::clone(&state.view), u64::MAX);
    let newest = reader.newest_lsn(group)?.unwrap_or(0);
    state.newest_record.set(key, newest);
    Ok(newest)
}
