//! Self-describing records, and their acknowledgements.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::random::SplitMix;

const MAGIC: [u8; 4] = *b"LGcr";
/// Bytes before the filler.
pub(super) const HEAD: usize = 24;
/// Bytes of an acknowledgement.
pub(super) const ACK: usize = 24;

/// Identity of a record: life of the writer, thread and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) life: u64,
    pub(super) thread: u32,
    pub(super) number: u64,
}

impl Name {
    /// Creates the record of this identity with at least `size` bytes.
    pub(super) fn fill(self, size: usize, record: &mut Vec<u8>) {
        record.clear();
        record.extend_from_slice(&MAGIC);
        record.extend_from_slice(&self.thread.to_le_bytes());
        record.extend_from_slice(&self.life.to_le_bytes());
        record.extend_from_slice(&self.number.to_le_bytes());
        let mut random = SplitMix(self.life ^ u64::from(self.thread) << 48 ^ self.number);
        while record.len() < size.max(HEAD) {
            let bytes = random.next().to_le_bytes();
            let left = (size - record.len()).min(8);
            record.extend_from_slice(&bytes[..left]);
        }
    }

    /// Parses the identity of a record; `None` if the record is damaged.
    pub(super) fn of(record: &[u8]) -> Option<Name> {
        let head: &[u8; HEAD] = record.first_chunk()?;
        let name = Name {
            thread: u32::from_le_bytes(*head[4..].first_chunk()?),
            life: u64::from_le_bytes(*head[8..].first_chunk()?),
            number: u64::from_le_bytes(*head[16..].first_chunk()?),
        };
        let mut expected = Vec::with_capacity(record.len());
        name.fill(record.len(), &mut expected);
        (head[..4] == MAGIC && expected == record).then_some(name)
    }

    pub(super) fn ack(self) -> [u8; ACK] {
        let mut bytes = [0; ACK];
        bytes[..8].copy_from_slice(&self.life.to_le_bytes());
        bytes[8..16].copy_from_slice(&u64::from(self.thread).to_le_bytes());
        bytes[16..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }
}

/// Reads the next acknowledgement. `None` at the end, or at a partial one.
pub(super) fn read_ack(input: &mut impl Read) -> io::Result<Option<Name>> {
    let mut bytes = [0; ACK];
    match input.read_exact(&mut bytes) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let number = |at: usize| {
        bytes[at..].first_chunk().map_or(0, |chunk: &[u8; 8]| u64::from_le_bytes(*chunk))
    };
    Ok(Some(Name { life: number(0), thread: number(8) as u32, number: number(16) }))
}

/// The highest acknowledged number of each thread and life. A thread waits for each record, so
/// lower numbers are acknowledged too.
#[derive(Debug, Clone, Default)]
pub struct Acks(BTreeMap<(u64, u32), u64>);

impl Acks {
    pub(super) fn add(&mut self, name: Name) {
        let highest = self.0.entry((name.life, name.thread)).or_default();
        *highest = (*highest).max(name.number);
    }

    pub(super) fn merge(&mut self, other: &Acks) {
        for (&(life, thread), &number) in &other.0 {
            self.add(Name { life, thread, number });
        }
    }

    /// Number of all acknowledgements.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.values().map(|highest| highest + 1).sum()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Name> + '_ {
        self.0.iter().map(|(&(life, thread), &number)| Name { life, thread, number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn altered_record_is_detected() {
        let name = Name { life: 7 << 40, thread: 3, number: 99 };
        let mut record = Vec::new();
        for size in [0, HEAD, 25, 300] {
            name.fill(size, &mut record);
            assert_eq!(record.len(), size.max(HEAD));
            assert_eq!(Name::of(&record), Some(name));
            for at in 0..record.len() {
                record[at] ^= 1;
                assert_ne!(Name::of(&record), Some(name), "byte {at}");
                record[at] ^= 1;
            }
        }
        assert_eq!(Name::of(b"something else"), None);
    }

    #[test]
    fn partial_acknowledgement_is_ignored() {
        let names = [(1, 0, 0), (1, 0, 5), (1, 1, 2), (9, 0, 3)]
            .map(|(life, thread, number)| Name { life, thread, number });
        let bytes: Vec<u8> = names.iter().flat_map(|name| name.ack()).collect();
        let (mut input, mut acks) = (&bytes[..bytes.len() - 1], Acks::default());
        while let Some(ack) = read_ack(&mut input).unwrap() {
            acks.add(ack);
        }
        assert_eq!(acks.count(), 6 + 3);
        assert_eq!(acks.all().count(), 2);
    }
}
