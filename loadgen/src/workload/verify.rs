//! Reopens a log and compares a replay with the acknowledged records.

use std::sync::atomic::{AtomicU32, Ordering};

use ringwal::{Lsn, WalBuilder};

use crate::error::Error;
use crate::workload::ledger::{Ledger, Verified};

/// Opens the closed log and compares every record from `from` on with the ledger. `done` counts the
/// thousandths of the log that are read.
///
/// # Errors
///
/// [`Error::Verify`] if a record differs, or the log cannot be opened or read.
pub fn verify(
    builder: WalBuilder,
    from: Lsn,
    ledger: Ledger,
    done: &AtomicU32,
) -> Result<Verified, Error> {
    let refused = |what: &str| {
        let what = what.to_string();
        move |e: ringwal::Error| Error::Verify(format!("{what}: {e}"))
    };
    let wal = builder.open().map_err(refused("the log cannot be opened again"))?;
    let oldest = wal.oldest_lsn();
    let (begin, end) = (from.max(oldest), wal.durable_end());
    let all = end.as_u64().saturating_sub(begin.as_u64()).max(1);
    let (mut reader, mut records) = (wal.reader(begin), 0_u64);
    let mut check = ledger.check();
    while let Some(record) = reader.next_ref().map_err(refused("the replay failed"))? {
        check.see(record.lsn, record.payload).map_err(Error::Verify)?;
        records += 1;
        if records.is_multiple_of(4096) {
            let read = record.lsn.as_u64().saturating_sub(begin.as_u64());
            let share = u128::from(read) * 1000 / u128::from(all);
            done.store(share as u32, Ordering::Relaxed);
        }
    }
    drop(reader);
    let verified = check.finish(oldest).map_err(Error::Verify)?;
    wal.close().map_err(refused("the log cannot be closed again"))?;
    Ok(verified)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::ledger::Stretches;
    use ringwal::Wal;

    #[test]
    fn unacknowledged_or_missing_record_fails_the_verification() {
        let dir = std::env::temp_dir().join(format!("loadgen-verify-{}", std::process::id()));
        let builder = Wal::builder(&dir).segment_size(1 << 20);
        let wal = builder.clone().open().unwrap();
        wal.append_durable(b"somebody else's").unwrap();
        let from = wal.durable_end();
        let all = Stretches { from: from.as_u64(), origin: 0, len: u64::MAX, kept: usize::MAX };
        let mut ledger = Ledger::new(all);
        for payload in [&b"one"[..], b"", b"three"] {
            ledger.enter(wal.append_durable(payload).unwrap(), payload);
        }
        wal.close().unwrap();
        let verify = |builder: &WalBuilder, ledger| {
            verify(builder.clone(), from, ledger, &AtomicU32::new(0))
        };
        let verified = verify(&builder, ledger.clone()).unwrap();
        assert_eq!((verified.records, verified.removed), (3, 0));
        let mut more = ledger.clone();
        more.enter(Lsn::new(from.as_u64() + 1), b"never written");
        assert!(matches!(verify(&builder, more), Err(Error::Verify(_))));
        let wal = builder.clone().open().unwrap();
        wal.append_durable(b"unexpected").unwrap();
        wal.close().unwrap();
        assert!(matches!(verify(&builder, ledger), Err(Error::Verify(_))));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
