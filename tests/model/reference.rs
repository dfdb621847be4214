//! The model: the records that were appended, in order.

use std::collections::BTreeSet;

use super::subject::Pending;

/// Position and payload of each.
pub(crate) type Records = Vec<(u64, Vec<u8>)>;

#[derive(Debug, Default)]
pub(crate) struct Reference {
    pub(crate) records: Records,
    /// What lies below was seen to be gone.
    pub(crate) oldest: u64,
    pub(crate) durable_end: u64,
    appended: u64,
    /// Records of batches but their first.
    pub(crate) inside_batch: BTreeSet<u64>,
    /// What was cut out: from where it was asked for, its first record, and where the log goes on.
    void: Vec<(u64, u64, u64)>,
    /// A cut that may have been made before the power went: from where to where the log goes on.
    perhaps_void: Vec<(u64, u64)>,
    /// Records, or zero, behind which a reservation was given up.
    holes: BTreeSet<u64>,
}

impl Reference {
    /// The content of the next record: no two are alike that are long enough to differ.
    pub(crate) fn payload(&mut self, len: usize) -> Vec<u8> {
        self.appended += 1;
        let number = self.appended.to_le_bytes();
        (0..len).map(|i| number[i % 8] ^ (i / 8) as u8).collect()
    }

    /// A record, or a batch of them, was appended at `lsn`. The others of a batch follow its first
    /// directly, each with eight bytes and padded to eight.
    pub(crate) fn append(&mut self, lsn: u64, payloads: Vec<Vec<u8>>) -> Result<(), String> {
        let last = self.records.last().map(|(lsn, _)| *lsn);
        if last.is_some_and(|last| lsn <= last) || lsn < self.durable_end {
            return Err(format!("at {lsn}, behind {last:?}, durable to {}", self.durable_end));
        }
        let mut at = lsn;
        for payload in payloads {
            if at > lsn {
                self.inside_batch.insert(at);
            }
            let next = at + 8 + (payload.len() as u64).next_multiple_of(8);
            self.records.push((at, payload));
            at = next;
        }
        Ok(())
    }

    /// Everything from `from` on was cut, up to `to`, where the log goes on.
    pub(crate) fn cut(&mut self, from: u64, to: u64) -> Result<(), String> {
        let at = self.index(from);
        if self.records.last().is_some_and(|(last, _)| *last >= from && *last >= to) {
            return Err(format!("cut from {from} to {to} only"));
        }
        if let Some((first, _)) = self.records.get(at) {
            self.void.push((from, *first, to));
        }
        self.records.truncate(at);
        Ok(())
    }

    /// The log forgets a cut that is altogether below the oldest it keeps.
    pub(crate) fn is_void(&self, lsn: u64, oldest: u64) -> bool {
        self.void.iter().any(|&(_, first, to)| to >= oldest && (first..to).contains(&lsn))
    }

    /// Something is stored behind the last record that is no record.
    pub(crate) fn hole(&mut self) {
        self.holes.insert(self.records.last().map_or(0, |r| r.0));
    }

    /// Whether there may be something that is no record where the next one is awaited.
    pub(crate) fn has_hole_behind(&self, record: Option<u64>) -> bool {
        self.holes.contains(&record.unwrap_or(0))
    }

    /// Between records it depends on where groups begin.
    pub(crate) fn may_be_void(&self, lsn: u64) -> bool {
        // A batch begins before its first record.
        let certain = self.void.iter().map(|&(from, _, to)| (from, to));
        let mut all = certain.chain(self.perhaps_void.iter().copied());
        all.any(|(from, to)| (from.saturating_sub(16)..to).contains(&lsn))
    }

    /// What is `found` after a crash, kept from `oldest` on and durable to `end`: some first part of the records that
    /// has all that were durable, no batch in part, and perhaps what was being done.
    pub(crate) fn survived(
        &mut self,
        found: &[(u64, Vec<u8>)],
        oldest: u64,
        end: u64,
        pending: Option<Pending>,
    ) -> Result<(), String> {
        let mut made = false;
        match pending {
            Some(Pending::Append(payloads)) => {
                let known = self.records.len();
                if let Some((at, _)) =
                    found.iter().find(|(lsn, _)| self.records.last().is_none_or(|r| *lsn > r.0))
                    && self.append(*at, payloads).is_ok()
                {
                    made = self.records.len() > known;
                }
            }
            // All of it was durable before the cut.
            Some(Pending::Cut(from)) => {
                if found.last().is_none_or(|(last, _)| *last < from) && self.durable_end > from {
                    self.records.truncate(self.index(from));
                }
                self.perhaps_void.push((from, end));
            }
            None => {}
        }
        let last = found.last().map_or(oldest, |(lsn, _)| lsn + 1);
        let upto = self.index(last);
        if let Some((lost, _)) = self.records[upto..].first() {
            if *lost < self.durable_end {
                return Err(format!("{lost} was durable, to {}, and is lost", self.durable_end));
            }
            if self.inside_batch.contains(lost) {
                return Err(format!("the batch of {lost} is there in part"));
            }
        }
        self.compare(found, 0, oldest, last).map_err(|e| format!("{e} (the last made: {made})"))?;
        self.durable(end)?;
        self.records.truncate(upto);
        let kept = self.records.last().map_or(0, |r| r.0);
        self.inside_batch.retain(|lsn| *lsn <= kept);
        Ok(())
    }

    /// The durable end as it is now: it never goes back.
    pub(crate) fn durable(&mut self, end: u64) -> Result<(), String> {
        if end < self.durable_end {
            return Err(format!("the durable end went from {} to {end}", self.durable_end));
        }
        self.durable_end = end;
        Ok(())
    }

    /// The oldest position as it is now: it never goes back.
    pub(crate) fn kept_from(&mut self, oldest: u64) -> Result<(), String> {
        if oldest < self.oldest {
            return Err(format!("the oldest went from {} to {oldest}", self.oldest));
        }
        self.oldest = oldest;
        Ok(())
    }

    pub(crate) fn index(&self, from: u64) -> usize {
        self.records.partition_point(|(lsn, _)| *lsn < from)
    }

    /// What must be found from `from` on to `end`. With retention at work it may begin later, but not
    /// behind `oldest`.
    pub(crate) fn compare(
        &self,
        found: &[(u64, Vec<u8>)],
        from: u64,
        oldest: u64,
        end: u64,
    ) -> Result<(), String> {
        let expected = &self.records[self.index(from)..self.index(end).max(self.index(from))];
        let begin = found
            .first()
            .map_or(expected.len(), |(first, _)| expected.partition_point(|(lsn, _)| lsn < first));
        if let Some((left_out, _)) = expected[..begin].iter().find(|(lsn, _)| *lsn >= oldest) {
            return Err(format!("the record at {left_out} is not found; kept from {oldest} on"));
        }
        let kept = &expected[begin..];
        match kept.iter().zip(found).find(|(a, b)| a != b) {
            Some((a, b)) => return Err(format!("at {} instead of {}, or other bytes", b.0, a.0)),
            None if kept.len() != found.len() => {
                return Err(format!("{} records instead of {}", found.len(), kept.len()));
            }
            None => {}
        }
        Ok(())
    }
}
