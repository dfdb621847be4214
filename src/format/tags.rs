//! Choosing records by their tags, without the payloads of the others.
//!
//! 1. A record is skipped only on the word of a checksum: the check of its tag, of each of its
//!    items if it is a batch. Whatever has no tag, or no sound one, is decoded in full.
//! 2. So damage hides no wanted record: it is found, or lies in bytes that no reader was to get.
//! 3. A batch with one wanted record is decoded in full.

use std::sync::Arc;

use super::record::{
    FLAG_TAGGED, KIND_BATCH, KIND_DATA, RECORD_HEADER, RecordInvalid, Seed, decode_record,
    item_tags, record_words, stored_size,
};
use super::u32_at;

/// The tags of the records that a reader returns. A record without a tag passes no filter.
#[derive(Debug, Clone)]
pub(crate) struct TagFilter {
    /// Ascending, without duplicates.
    tags: Arc<[u64]>,
}

impl TagFilter {
    pub(crate) fn new(tags: impl IntoIterator<Item = u64>) -> Self {
        let mut tags: Vec<u64> = tags.into_iter().collect();
        tags.sort_unstable();
        tags.dedup();
        TagFilter { tags: tags.into() }
    }

    #[inline]
    fn has(&self, tag: u64) -> bool {
        match &*self.tags {
            [one] => *one == tag,
            tags => tags.binary_search(&tag).is_ok(),
        }
    }

    #[inline]
    pub(crate) fn passes(&self, tag: Option<u64>) -> bool {
        tag.is_some_and(|tag| self.has(tag))
    }

    /// The tags that `earlier` passes too.
    pub(crate) fn within(self, earlier: Option<&TagFilter>) -> Self {
        match earlier {
            None => self,
            Some(earlier) => {
                TagFilter::new(self.tags.iter().copied().filter(|&tag| earlier.has(tag)))
            }
        }
    }
}

/// The bytes and the number of records of the record at the start of `b`, if a checksum shows that
/// it holds nothing that `wanted` passes.
fn skipped(
    b: &[u8],
    lsn: u64,
    seed: &Seed,
    epoch_tag: u16,
    wanted: &TagFilter,
) -> Option<(usize, u64)> {
    let (head, rest) = b.split_at_checked(RECORD_HEADER)?;
    let (kind, flags) = (head[8], head[9]);
    if flags != FLAG_TAGGED || head[10..] != epoch_tag.to_le_bytes() {
        return None;
    }
    let length = u32_at(head, 0) as usize;
    let body = rest.get(..length)?;
    let stored = usize::try_from(stored_size(length)).ok().filter(|&stored| stored <= b.len())?;
    match kind {
        KIND_DATA => {
            let (tag, _) = seed.split_tag(body, lsn, record_words(head))?;
            (!wanted.has(tag)).then_some((stored, 1))
        }
        KIND_BATCH => {
            let mut items = 0;
            for tag in item_tags(body, lsn, seed) {
                if wanted.has(tag.ok()?) {
                    return None;
                }
                items += 1;
            }
            Some((stored, items))
        }
        _ => None,
    }
}

/// Checks that records tile the bytes of a group, that their number is `count`, and that those
/// that `wanted` passes are valid. `b`: the used bytes after the group's header, which stand at
/// `lsn`. The error has the place and the reason.
pub(crate) fn verify_wanted(
    b: &[u8],
    lsn: u64,
    seed: &Seed,
    epoch_tag: u16,
    count: u32,
    wanted: &TagFilter,
) -> Result<(), (u64, RecordInvalid)> {
    let (mut rest, mut at, mut found) = (b, lsn, 0_u64);
    while !rest.is_empty() {
        let stored = match skipped(rest, at, seed, epoch_tag, wanted) {
            Some((stored, records)) => {
                found += records;
                stored
            }
            None => {
                let record = decode_record(rest, at, seed, Some(epoch_tag)).map_err(|e| (at, e))?;
                for item in record.items() {
                    item.map_err(|e| (at, e))?;
                    found += 1;
                }
                record.stored
            }
        };
        rest = &rest[stored..];
        at += stored as u64;
    }
    if found == u64::from(count) { Ok(()) } else { Err((lsn, RecordInvalid::Fields)) }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::super::record::KIND_ABORT;
    use super::*;
    use crate::format::{
        BATCH_HEADER, GroupRecords, TAG_BLOCK, item_size, put, write_tagged_header,
        write_tagged_item,
    };

    const ID: [u8; 16] = [3; 16];
    const LSN: u64 = 4224;
    const EPOCH: u16 = 9;

    fn data(tag: u64, payload: &[u8], lsn: u64) -> Vec<u8> {
        let mut b = vec![0; stored_size(TAG_BLOCK + payload.len()) as usize];
        put(&mut b, RECORD_HEADER + TAG_BLOCK, payload);
        let seed = Seed::new(&ID);
        write_tagged_header(&mut b, lsn, EPOCH, &seed, tag, seed.sum_tagged(tag, payload));
        b
    }

    fn plain(payload: &[u8], lsn: u64, kind: u8) -> Vec<u8> {
        let mut b = vec![0; stored_size(payload.len()) as usize];
        put(&mut b, RECORD_HEADER, payload);
        Seed::new(&ID).sum(payload).write_header(&mut b, lsn, kind, EPOCH);
        b
    }

    fn batch(items: &[(u64, &[u8])], lsn: u64) -> Vec<u8> {
        let len = items.iter().map(|(_, i)| item_size(TAG_BLOCK + i.len())).sum::<u64>();
        let mut b = vec![0; BATCH_HEADER + len as usize];
        put(&mut b, RECORD_HEADER, &(items.len() as u32).to_le_bytes());
        let (mut at, seed) = (BATCH_HEADER, Seed::new(&ID));
        for item in items {
            at = write_tagged_item(&mut b, lsn, at, &seed, *item);
        }
        let sum = seed.sum(&b[RECORD_HEADER..]).of_tagged_items();
        sum.write_header(&mut b, lsn, KIND_BATCH, EPOCH);
        b
    }

    /// A group of 7 records, 4 of them with the tag 7.
    fn group() -> Vec<u8> {
        let mut b = data(7, b"first", LSN);
        for next in 0..5 {
            let lsn = LSN + b.len() as u64;
            b.extend(match next {
                0 => data(8, b"another's, which is skipped", lsn),
                1 => plain(b"without a tag", lsn, KIND_DATA),
                2 => batch(&[(7, b"one"), (9, b""), (7, b"three")], lsn),
                3 => plain(&[0; 20], lsn, KIND_ABORT),
                _ => data(7, &[], lsn),
            });
        }
        b
    }

    fn verify(b: &[u8], tags: &[u64]) -> Result<(), (u64, RecordInvalid)> {
        let wanted = TagFilter::new(tags.iter().copied());
        verify_wanted(b, LSN, &Seed::new(&ID), EPOCH, 7, &wanted)
    }

    /// The records with a tag that `tags` has, as a reader takes them from a verified group.
    fn taken(b: &[u8], tags: &[u64]) -> Vec<(u64, Vec<u8>)> {
        let wanted = TagFilter::new(tags.iter().copied());
        let mut found = Vec::new();
        let mut at = 0;
        while at < b.len() {
            let (flags, kind, len) = (b[at + 9], b[at + 8], u32_at(b, at) as usize);
            let body = &b[at + RECORD_HEADER..at + RECORD_HEADER + len];
            if flags == FLAG_TAGGED && kind == KIND_DATA {
                let tag = super::super::u64_at(body, 4);
                if wanted.has(tag) {
                    found.push((tag, body[TAG_BLOCK..].to_vec()));
                }
            }
            at += stored_size(len) as usize;
        }
        found
    }

    #[test]
    fn tagged_records_of_every_small_length_survive_and_no_flipped_bit_passes() {
        let seed = Seed::new(&ID);
        for len in 0..24_usize {
            let payload: Vec<u8> = (0..len as u8).map(|i| i.wrapping_mul(37) ^ 0x5A).collect();
            let mut b = data(u64::MAX - len as u64, &payload, LSN);
            let decoded = decode_record(&b, LSN, &seed, Some(EPOCH)).unwrap();
            assert_eq!((decoded.payload, decoded.stored), (&payload[..], b.len()));
            assert_eq!(decoded.tag, Some(u64::MAX - len as u64));
            for bit in 0..b.len() * 8 {
                b[bit / 8] ^= 1 << (bit % 8);
                let found = decode_record(&b, LSN, &seed, Some(EPOCH));
                assert!(found.is_err(), "length {len}, bit {bit}");
                b[bit / 8] ^= 1 << (bit % 8);
            }
            assert!(decode_record(&b, LSN + 8, &seed, Some(EPOCH)).is_err());
            assert!(decode_record(&b, LSN, &Seed::new(&[4; 16]), Some(EPOCH)).is_err());
        }
    }

    #[test]
    fn tagged_batch_yields_its_items_with_their_tags_and_no_flipped_bit_passes() {
        let seed = Seed::new(&ID);
        let mut b = batch(&[(1, b"one"), (u64::MAX, b""), (1, b"three is longer")], LSN);
        let decoded = decode_record(&b, LSN, &seed, Some(EPOCH)).unwrap();
        let items: Vec<_> = decoded.items().map(|item| item.unwrap()).collect();
        let tags: Vec<_> = items.iter().map(|item| item.tag).collect();
        assert_eq!(tags, [Some(1), Some(u64::MAX), Some(1)]);
        assert_eq!(items[2].payload, b"three is longer");
        assert_eq!(items[1].lsn, LSN + 16 + item_size(TAG_BLOCK + 3));
        for bit in 0..b.len() * 8 {
            b[bit / 8] ^= 1 << (bit % 8);
            let decoded = decode_record(&b, LSN, &seed, Some(EPOCH));
            let sound = decoded.is_ok_and(|record| record.items().all(|item| item.is_ok()));
            assert!(!sound, "bit {bit}");
            b[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn tag_check_that_is_wrong_behind_a_right_checksum_is_an_error() {
        let seed = Seed::new(&ID);
        let mut b = data(7, b"payload", LSN);
        b[RECORD_HEADER] ^= 1;
        assert_eq!(decode_record(&b, LSN, &seed, None).unwrap_err(), RecordInvalid::Tag);
        let mut b = batch(&[(7, b"one"), (8, b"two")], LSN);
        b[BATCH_HEADER + 8] ^= 1;
        let sum = seed.sum(&b[RECORD_HEADER..]).of_tagged_items();
        sum.write_header(&mut b, LSN, KIND_BATCH, EPOCH);
        assert_eq!(decode_record(&b, LSN, &seed, None).unwrap_err(), RecordInvalid::Tag);
        // No room for a tag, with every checksum right.
        for kind in [KIND_DATA, KIND_BATCH] {
            let body = [1, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0];
            let body = if kind == KIND_DATA { &body[..11] } else { &body[..] };
            let mut b = plain(body, LSN, kind);
            seed.sum(body).of_tagged_items().write_header(&mut b, LSN, kind, EPOCH);
            assert_eq!(decode_record(&b, LSN, &seed, None).unwrap_err(), RecordInvalid::Tag);
        }
    }

    #[test]
    fn flags_other_than_tagged_and_tagged_records_of_other_kinds_are_rejected() {
        let seed = Seed::new(&ID);
        for (kind, flags) in [(KIND_DATA, 1), (KIND_DATA, 3), (KIND_BATCH, 4), (0xF0, 2)] {
            let mut b = plain(&[0; 20], LSN, kind);
            b[9] = flags;
            assert_eq!(decode_record(&b, LSN, &seed, None).unwrap_err(), RecordInvalid::Fields);
        }
    }

    #[test]
    fn filtered_group_with_any_flipped_bit_is_rejected_or_holds_the_same_wanted_records() {
        let sound = group();
        assert_eq!(GroupRecords::new(&sound, LSN, &Seed::new(&ID), EPOCH).verify(7), Ok(()));
        for tags in [&[7][..], &[8], &[9], &[7, 8], &[1000], &[]] {
            assert_eq!(verify(&sound, tags), Ok(()));
            let (before, mut passed) = (taken(&sound, tags), 0);
            let mut b = sound.clone();
            for bit in 0..b.len() * 8 {
                b[bit / 8] ^= 1 << (bit % 8);
                if verify(&b, tags).is_ok() {
                    passed += 1;
                    assert_eq!(taken(&b, tags), before, "{tags:?}, bit {bit}");
                }
                b[bit / 8] ^= 1 << (bit % 8);
            }
            // Payloads of others are not summed.
            assert!(passed >= 27 * 8 || tags.contains(&8), "{tags:?}: {passed}");
        }
    }

    #[test]
    fn filter_narrows_another_and_passes_no_record_without_a_tag() {
        let filter = TagFilter::new([3, 1, 3, u64::MAX]);
        assert!(filter.passes(Some(1)) && filter.passes(Some(u64::MAX)));
        assert!(!filter.passes(Some(2)) && !filter.passes(None));
        let narrow = TagFilter::new([2, 3]).within(Some(&filter));
        assert!(narrow.passes(Some(3)) && !narrow.passes(Some(2)) && !narrow.passes(Some(1)));
        assert!(!TagFilter::new([]).passes(Some(0)));
    }
}
