//! What must be found in a log: kept beside it, and compared with what is read back.

use crate::recovery::RecoveryReport;
use crate::segment::cuts::Cuts;

/// Records as the oracle keeps them: position and payload.
pub(super) type Records = Vec<(u64, Vec<u8>)>;

/// What was appended, in order, as far as it may still be there.
#[derive(Debug, Clone, Default)]
pub(super) struct Oracle {
    pub(super) records: Records,
    /// Positions at which a batch goes on: the log may not end before one of them.
    pub(super) inside_batch: Vec<u64>,
    /// Everything below was acknowledged.
    pub(super) acknowledged: u64,
    /// Retention may have removed what lies below.
    pub(super) may_be_gone: u64,
    /// A cut from here was asked for, and is not known to be durable.
    pub(super) cutting: Option<u64>,
}

impl Oracle {
    /// Whether what was found may be what is left: exact content and positions, every acknowledged
    /// record, no gap, nothing resurrected, whole batches.
    pub(super) fn compare(
        &self,
        found: &Records,
        report: &RecoveryReport,
        cuts: &Cuts,
    ) -> Result<(), String> {
        if let Some(cut) = self.cutting.and_then(|from| cuts.at(from)) {
            let mut left = Oracle { cutting: None, ..self.clone() };
            left.cut(cut.from.max(self.cutting.unwrap_or(0)), cut.to);
            return left.compare(found, report, cuts);
        }
        let oldest = report.oldest.as_u64();
        if oldest > self.may_be_gone {
            return Err(format!("removed up to {oldest}, allowed {}", self.may_be_gone));
        }
        let kept = &self.records[self.records.partition_point(|(lsn, _)| *lsn < oldest)..];
        for (i, record) in found.iter().enumerate() {
            match kept.get(i) {
                None => return Err(format!("resurrected at {}", record.0)),
                Some(expected) if expected != record => {
                    return Err(format!("record {i}: {} instead of {}", record.0, expected.0));
                }
                Some(_) => {}
            }
        }
        if let Some((lost, _)) = kept.get(found.len()) {
            if *lost < self.acknowledged {
                let end = report.durable_end;
                return Err(format!("acknowledged record {lost} lost, the log ends at {end}"));
            }
            if self.inside_batch.contains(lost) {
                return Err(format!("the batch was split at {lost}"));
            }
        }
        Ok(())
    }

    /// The same, and from here on what was found is what there is.
    pub(super) fn adopt(
        &mut self,
        found: &Records,
        report: &RecoveryReport,
        cuts: &Cuts,
    ) -> Result<(), String> {
        self.compare(found, report, cuts)?;
        if let Some(from) = self.cutting.take()
            && let Some(cut) = cuts.at(from)
        {
            self.cut(from, cut.to);
        }
        let oldest = report.oldest.as_u64();
        self.records.retain(|(lsn, _)| *lsn >= oldest);
        self.records.truncate(found.len());
        // Positions behind the cut may be given out again.
        let end = report.durable_end.as_u64();
        self.inside_batch.retain(|lsn| *lsn < end);
        Ok(())
    }

    /// The cut is durable: nothing in `[from, to)` is there any more.
    pub(super) fn cut(&mut self, from: u64, to: u64) {
        self.records.retain(|(lsn, _)| *lsn < from || *lsn >= to);
    }
}
