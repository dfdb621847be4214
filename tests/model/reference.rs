//! The model: the records that were appended, in order.

use std::collections::BTreeSet;

use super::subject::Pending;

/// Records: position and payload of each.
pub(crate) type Records = Vec<(u64, Vec<u8>)>;

#[derive(Debug, Default)]
pub(crate) struct Reference {
    pub(crate) records: Records,
    /// Records below were found to be removed.
    pub(crate) oldest: u64,
    pub(crate) durable_end: u64,
    appended: u64,
    /// Positions of batches' records, except the first of each.
    pub(crate) inside_batch: BTreeSet<u64>,
    /// Each cut: the requested position, the first void position, and where the log continues.
    void: Vec<(u64, u64, u64)>,
    /// Each cut that may have been made before the power failed: its first position, and where the
    /// log continues.
    perhaps_void: Vec<(u64, u64)>,
    /// Records, or zero, after which a reservation was abandoned.
    holes: BTreeSet<u64>,
}

impl Reference {
    /// The content of the next record. Any two contents differ, if they are long enough.
    pub(crate) fn payload(&mut self, len: usize) -> Vec<u8> {
        self.appended += 1;
        let number = self.appended.to_le_bytes();
        (0..len).map(|i| number[i % 8] ^ (i / 8) as u8).collect()
    }

    /// Adds a record, or a batch, that was appended at `lsn`. The records of a batch follow each
    /// other directly, each with a header of eight bytes and padded to eight.
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

    /// Removes the records that a cut made void: from `from` up to `to`, where the log continues.
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

    /// Whether `lsn` is void. The log forgets a cut that lies wholly below its oldest position.
    pub(crate) fn is_void(&self, lsn: u64, oldest: u64) -> bool {
        self.void.iter().any(|&(_, first, to)| to >= oldest && (first..to).contains(&lsn))
    }

    pub(crate) fn is_record(&self, lsn: u64) -> bool {
        self.records.binary_search_by_key(&lsn, |r| r.0).is_ok()
    }

    /// Whether a record has begun more than one byte below `lsn`, and its payload reaches there.
    pub(crate) fn is_surely_inside(&self, lsn: u64) -> bool {
        let at = self.records.partition_point(|r| r.0 < lsn);
        let before = at.checked_sub(1).map(|at| &self.records[at]);
        before.is_some_and(|(start, payload)| {
            lsn > start + 1 && lsn < start + 8 + payload.len() as u64 && *start >= self.oldest
        })
    }

    /// Notes that the log holds room without a record after the last record.
    pub(crate) fn hole(&mut self) {
        self.holes.insert(self.records.last().map_or(0, |r| r.0));
    }

    /// Whether there may be such room after `record`.
    pub(crate) fn has_hole_behind(&self, record: Option<u64>) -> bool {
        self.holes.contains(&record.unwrap_or(0))
    }

    /// Whether `lsn` may be void. Between records it depends on where groups begin.
    pub(crate) fn may_be_void(&self, lsn: u64) -> bool {
        // A batch begins before its first record.
        let certain = self.void.iter().map(|&(from, _, to)| (from, to));
        let mut all = certain.chain(self.perhaps_void.iter().copied());
        all.any(|(from, to)| (from.saturating_sub(16)..to).contains(&lsn))
    }

    /// Compares the records found after a crash, which are kept from `oldest` and durable to `end`.
    /// They must be a prefix of the records, with every durable record and whole batches. The
    /// operation in progress may have taken effect.
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
            // Every record was durable before the cut.
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

    /// Notes the current durable end, which must not decrease.
    pub(crate) fn durable(&mut self, end: u64) -> Result<(), String> {
        if end < self.durable_end {
            return Err(format!("the durable end went from {} to {end}", self.durable_end));
        }
        self.durable_end = end;
        Ok(())
    }

    /// Notes the current oldest position, which must not decrease.
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

    /// Compares the records found from `from` to `end`. With retention they may start later, but
    /// not after `oldest`.
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
