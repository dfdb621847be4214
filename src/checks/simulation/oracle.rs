//! The oracle: knows which records a log must have, and compares them with those that are read.

use std::collections::BTreeMap;

use crate::recovery::RecoveryReport;
use crate::segment::cuts::Cuts;

/// Records as the oracle keeps them: position and payload.
pub(super) type Records = Vec<(u64, Vec<u8>)>;

/// The appended records, in order, that the log may still have.
#[derive(Debug, Clone, Default)]
pub(super) struct Oracle {
    pub(super) records: Records,
    /// The tags of those that have one, by position.
    pub(super) tags: BTreeMap<u64, u64>,
    /// Positions of a batch's records after its first: the log must not end at one of them.
    pub(super) inside_batch: Vec<u64>,
    /// Everything below was acknowledged.
    pub(super) acknowledged: u64,
    /// Retention may have removed records below this position.
    pub(super) may_be_gone: u64,
    /// The start of a cut that was requested and is not known to be durable.
    pub(super) cutting: Option<u64>,
}

impl Oracle {
    /// Notes the tag of the record that was appended at `lsn`. A crash may have voided an earlier
    /// one there.
    pub(super) fn set_tag(&mut self, lsn: u64, tag: Option<u64>) {
        match tag {
            Some(tag) => drop(self.tags.insert(lsn, tag)),
            None => drop(self.tags.remove(&lsn)),
        }
    }

    /// Checks that the log may have these records: exact content and positions, every acknowledged
    /// record, no gap, no resurrected record, whole batches.
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

    /// Compares, then takes the records found as those of the log.
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
        // Positions at or above the end may be assigned again.
        let end = report.durable_end.as_u64();
        self.inside_batch.retain(|lsn| *lsn < end);
        Ok(())
    }

    /// Makes the records in `[from, to)` void: the cut is durable.
    pub(super) fn cut(&mut self, from: u64, to: u64) {
        self.records.retain(|(lsn, _)| *lsn < from || *lsn >= to);
    }
}
