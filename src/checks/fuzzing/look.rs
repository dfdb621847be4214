//! Opens and reads a log, and checks what it returns.

use std::sync::Arc;

use super::life::{names, recovered};
use super::memory::{Files, Memory};
use super::witness::Witness;
use crate::engine::state::LogState;
use crate::error::Error;
use crate::format::ADDRESS_SPACE;
use crate::options::Options;
use crate::read::{Reader, read_one};
use crate::recovery::RecoveryReport;

type Records = Vec<(u64, Vec<u8>)>;

/// What opening and reading a log returned.
pub(super) struct Seen {
    pub(super) report: RecoveryReport,
    pub(super) records: Records,
    /// The error that ended the reading.
    pub(super) error: Option<Error>,
}

/// Whether the address space has no room for a few more segments.
pub(super) fn at_the_end(files: &Files) -> bool {
    let near = names().segment(ADDRESS_SPACE - (64 << 20));
    files.keys().any(|name| name.ends_with(".wal") && *name > near)
}

/// Opens and reads the log. Starts no thread.
pub(super) fn look(memory: &Arc<Memory>, options: &Options) -> Result<Seen, Error> {
    let at_the_end = at_the_end(&memory.files());
    let recovered = match recovered(memory, options, 7) {
        Ok(recovered) => recovered,
        Err(
            e @ (Error::Corruption { .. }
            | Error::Unsupported { .. }
            | Error::ForeignSegment { .. }
            | Error::Io { .. }),
        ) => return Err(e),
        Err(Error::NoSpace) if at_the_end => return Err(Error::NoSpace),
        Err(e) => panic!("opening says: {e}"),
    };
    let (records, error) = read(&recovered.state);
    let files = memory.files();
    let behind = Witness::new(&files).left_behind();
    read_single(&recovered.state, &records, &behind, error.is_none());
    Ok(Seen { report: recovered.report, records, error })
}

fn read(state: &Arc<LogState>) -> (Records, Option<Error>) {
    let end = state.durable.end();
    let mut records = Records::new();
    for record in Reader::new(Arc::clone(&state.view), 0, end) {
        match record {
            Ok(record) => {
                let lsn = record.lsn.as_u64();
                assert!(lsn < end, "{lsn} is not durable");
                assert!(records.last().is_none_or(|(last, _)| *last < lsn), "{lsn} out of order");
                records.push((lsn, record.payload));
            }
            Err(e @ (Error::Corruption { .. } | Error::Io { .. })) => return (records, Some(e)),
            Err(e) => panic!("reading says: {e}"),
        }
    }
    (records, None)
}

/// Checks `read` of every record and of positions beside it, and a reader that starts in the
/// middle.
fn read_single(state: &Arc<LogState>, records: &Records, behind: &[u64], whole: bool) {
    let end = state.durable.end();
    let unknown = |place: u64| {
        let known = records.binary_search_by_key(&place, |(lsn, _)| *lsn).is_ok();
        if place < end && !known {
            match read_one(&state.view, place, end) {
                Ok(_) => assert!(!whole, "read of {place}, where no record starts"),
                Err(
                    Error::NoRecord { .. }
                    | Error::Corruption { .. }
                    | Error::Pruned { .. }
                    | Error::Truncated { .. },
                ) => {}
                Err(e) => panic!("read of {place} says: {e}"),
            }
        }
    };
    behind.iter().for_each(|&place| unknown(place));
    for (lsn, payload) in records {
        match read_one(&state.view, *lsn, end) {
            Ok(record) => assert!(record.payload == *payload, "read of {lsn}"),
            // `read` opens the next segment to learn where this one ends.
            Err(Error::Corruption { .. }) if !whole => {}
            Err(e) => panic!("read of {lsn} says: {e}"),
        }
        for beside in [lsn + 8, lsn + 16, lsn.saturating_sub(8)] {
            unknown(beside);
        }
    }
    if let Some((middle, _)) = records.get(records.len() / 2) {
        let rest: Vec<_> = Reader::new(Arc::clone(&state.view), *middle, end)
            .map_while(|record| record.ok().map(|r| (r.lsn.as_u64(), r.payload)))
            .collect();
        assert!(rest == records[records.len() / 2..], "a reader from {middle}");
    }
}
