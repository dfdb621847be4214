//! GroupRecords: the parts of a group.
//!
//! ```text
//!  0 length 4 | 4 CRC 4 | 8 kind 1 | 9 flags 1 | 10 epoch tag 2 | 12 payload | zeros to 8
//! ```
//!
//! CRC: log id, payload, then LSN 8, length 4, kind 1, flags 1, epoch tag 2. Valid if and only if:
//! kind known or skippable, flags zero or `TAGGED`, epoch tag as expected, end inside the group,
//! CRC, padding zero, and the tag block right.
//!
//! A batch's payload: `count` 4, then `count` items at multiples of 8, each `length` 4, distance
//! back to the batch's LSN 4, payload, zeros to 8. The items tile the payload.
//!
//! With `TAGGED`, a data record's payload, or that of each item, stands after its tag block:
//! `check` 4, `tag` 8, which the length counts. The check covers log id, tag, LSN and the eight
//! header bytes other than the CRC, so a record is skipped by its tag without its payload. The CRC
//! of a data record covers the tag, and not the check.

use super::checksum::extend;
use super::{put, u16_at, u32_at, u64_at};

/// Bytes before a record's payload.
pub(crate) const RECORD_HEADER: usize = 12;
/// Bytes before a batch item's payload.
pub(crate) const ITEM_HEADER: usize = 8;
/// Bytes of a batch record before its first item.
pub(crate) const BATCH_HEADER: usize = RECORD_HEADER + 4;

pub(crate) const KIND_DATA: u8 = 0x01;
pub(crate) const KIND_BATCH: u8 = 0x02;
pub(crate) const KIND_ABORT: u8 = 0x83;
const SKIPPABLE: u8 = 0x80;

/// The flag of a data record with a tag, and of a batch whose items have tags.
pub(crate) const FLAG_TAGGED: u8 = 2;
/// Bytes of a tag with its check, before the payload.
pub(crate) const TAG_BLOCK: usize = 12;

const _: () = assert!(BATCH_HEADER.is_multiple_of(8), "items are aligned as records are");

/// Bytes that a record with this payload takes in its group. The result has 64 bits, so that a
/// length from a file, which has 32, wraps on no platform; nor does the length of a slice.
pub(crate) const fn stored_size(payload: usize) -> u64 {
    (RECORD_HEADER as u64 + payload as u64 + 7) & !7
}

/// Bytes that an item with this payload takes in its batch: see [`stored_size`].
pub(crate) const fn item_size(payload: usize) -> u64 {
    (ITEM_HEADER as u64 + payload as u64 + 7) & !7
}

/// The first `len` bytes, if there are that many.
#[inline]
fn first(b: &[u8], len: u64) -> Option<&[u8]> {
    b.get(..usize::try_from(len).ok()?)
}

/// The start of the checksum. It sums the log id and detects the processor's features once, not for
/// each record.
#[derive(Debug, Clone)]
pub(crate) struct Seed(crc32fast::Hasher);

/// A checksum over log id and payload. The position is still to be added.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PayloadSum {
    crc: u32,
    /// Bytes after the record's header, without padding.
    length: u32,
    flags: u8,
}

impl Seed {
    pub(crate) fn new(log_id: &[u8; 16]) -> Self {
        // A new hasher is created: the old one also counts the summed bytes.
        Seed(crc32fast::Hasher::new_with_initial(crc32fast::hash(log_id)))
    }

    /// Sums a payload before its place in the log is known. `payload` has at most `MAX_GROUP`
    /// bytes.
    #[inline]
    pub(crate) fn sum(&self, payload: &[u8]) -> PayloadSum {
        let mut sum = self.0.clone();
        sum.update(payload);
        PayloadSum { crc: sum.finalize(), length: payload.len() as u32, flags: 0 }
    }

    /// Sums the payload of a data record with a tag. Both have at most `MAX_GROUP` bytes.
    pub(crate) fn sum_tagged(&self, tag: u64, payload: &[u8]) -> PayloadSum {
        let mut sum = self.0.clone();
        sum.update(&tag.to_le_bytes());
        sum.update(payload);
        let length = (TAG_BLOCK + payload.len()) as u32;
        PayloadSum { crc: sum.finalize(), length, flags: FLAG_TAGGED }
    }

    /// The check of the tag of the record or item at `lsn`. `words`: the length, and the four bytes
    /// of the header that are no CRC.
    fn tag_check(&self, tag: u64, lsn: u64, words: [u8; 8]) -> u32 {
        let mut place = [0; 24];
        place[..8].copy_from_slice(&tag.to_le_bytes());
        place[8..16].copy_from_slice(&lsn.to_le_bytes());
        place[16..].copy_from_slice(&words);
        let mut sum = self.0.clone();
        sum.update(&place);
        sum.finalize()
    }

    /// The tag in the block at the start of `body`, and the payload after it. `None`: the block is
    /// short or damaged.
    pub(super) fn split_tag<'a>(
        &self,
        body: &'a [u8],
        lsn: u64,
        words: [u8; 8],
    ) -> Option<(u64, &'a [u8])> {
        let (block, payload) = body.split_at_checked(TAG_BLOCK)?;
        let tag = u64_at(block, 4);
        (u32_at(block, 0) == self.tag_check(tag, lsn, words)).then_some((tag, payload))
    }
}

/// The bytes of a record's header that the check of its tag covers.
pub(super) fn record_words(head: &[u8]) -> [u8; 8] {
    [head[0], head[1], head[2], head[3], head[8], head[9], head[10], head[11]]
}

fn put_tag(block: &mut [u8], check: u32, tag: u64) {
    put(block, 0, &check.to_le_bytes());
    put(block, 4, &tag.to_le_bytes());
}

impl PayloadSum {
    /// The record's checksum: the position stands behind the payload.
    #[inline]
    fn finish(self, lsn: u64, kind: u8, epoch_tag: u16) -> u32 {
        let kind_and_flags = u128::from(kind) | u128::from(self.flags) << 8;
        let place = u128::from(lsn)
            | u128::from(self.length) << 64
            | kind_and_flags << 96
            | u128::from(epoch_tag) << 112;
        extend(self.crc, place)
    }

    /// Writes the header of the record that stands at `lsn`.
    #[inline]
    pub(crate) fn write_header(self, out: &mut [u8], lsn: u64, kind: u8, epoch_tag: u16) {
        let (length, flags) = (self.length, self.flags);
        let crc = self.finish(lsn, kind, epoch_tag);
        let mut head = [0; RECORD_HEADER];
        head[..4].copy_from_slice(&length.to_le_bytes());
        head[4..8].copy_from_slice(&crc.to_le_bytes());
        head[8] = kind;
        head[9] = flags;
        head[10..].copy_from_slice(&epoch_tag.to_le_bytes());
        out[..RECORD_HEADER].copy_from_slice(&head);
    }

    /// The sum of a batch whose items have tags.
    pub(crate) fn of_tagged_items(self) -> Self {
        PayloadSum { flags: FLAG_TAGGED, ..self }
    }
}

/// Writes the header and the tag block of the data record that stands at `lsn`. `sum` is that of
/// this tag and the payload.
pub(crate) fn write_tagged_header(
    out: &mut [u8],
    lsn: u64,
    epoch_tag: u16,
    seed: &Seed,
    tag: u64,
    sum: PayloadSum,
) {
    sum.write_header(out, lsn, KIND_DATA, epoch_tag);
    let check = seed.tag_check(tag, lsn, record_words(out));
    put_tag(&mut out[RECORD_HEADER..], check, tag);
}

/// Turns all these bytes into a record that readers skip.
pub(crate) fn write_abort(record: &mut [u8], lsn: u64, seed: &Seed, tag: u16) {
    record.fill(0);
    let sum = seed.sum(&record[RECORD_HEADER..]);
    sum.write_header(record, lsn, KIND_ABORT, tag);
}

/// Writes one item of a batch at `at` in the batch's record. Returns where the next item goes.
/// Writes the padding too. The caller must have computed the record's length with [`item_size`].
pub(crate) fn write_item(record: &mut [u8], at: usize, payload: &[u8]) -> usize {
    let end = at + ((ITEM_HEADER + payload.len() + 7) & !7);
    let item = &mut record[at..end];
    put(item, 0, &(payload.len() as u32).to_le_bytes());
    put(item, 4, &(at as u32).to_le_bytes());
    put(item, ITEM_HEADER, payload);
    item[ITEM_HEADER + payload.len()..].fill(0);
    end
}

/// Writes one item with a tag, as [`write_item`] does. The batch stands at `lsn`, and the caller
/// has counted [`TAG_BLOCK`] as bytes of the payload.
pub(crate) fn write_tagged_item(
    record: &mut [u8],
    lsn: u64,
    at: usize,
    seed: &Seed,
    (tag, payload): (u64, &[u8]),
) -> usize {
    let length = TAG_BLOCK + payload.len();
    let end = at + ((ITEM_HEADER + length + 7) & !7);
    let item = &mut record[at..end];
    let mut words = [0; ITEM_HEADER];
    put(&mut words, 0, &(length as u32).to_le_bytes());
    put(&mut words, 4, &(at as u32).to_le_bytes());
    put(item, 0, &words);
    let check = seed.tag_check(tag, lsn + at as u64, words);
    put_tag(&mut item[ITEM_HEADER..], check, tag);
    put(item, ITEM_HEADER + TAG_BLOCK, payload);
    item[ITEM_HEADER + length..].fill(0);
    end
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordInvalid {
    /// The bytes end before the record ends.
    Length,
    Kind(u8),
    Fields,
    Checksum,
    Padding,
    Batch,
    /// The tag's check is wrong, or there is no room for a tag.
    Tag,
}

impl RecordInvalid {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            RecordInvalid::Length => "record length",
            RecordInvalid::Kind(_) => "record kind",
            RecordInvalid::Fields => "record fields",
            RecordInvalid::Checksum => "record checksum",
            RecordInvalid::Padding => "record padding",
            RecordInvalid::Batch => "batch items",
            RecordInvalid::Tag => "record tag",
        }
    }
}

/// A record that passed every check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoded<'a> {
    pub(crate) lsn: u64,
    pub(crate) kind: u8,
    /// Of a data record.
    pub(crate) tag: Option<u64>,
    /// Of a batch: its items have tags.
    has_tagged_items: bool,
    pub(crate) payload: &'a [u8],
    /// Bytes to the next record.
    pub(crate) stored: usize,
}

/// Decodes the record at the start of `b`. The record stands at `lsn` and must end before its
/// group. `epoch_tag`: the epoch tag that the record must carry; `None` accepts any.
#[inline]
pub(crate) fn decode_record<'a>(
    b: &'a [u8],
    lsn: u64,
    seed: &Seed,
    epoch_tag: Option<u16>,
) -> Result<Decoded<'a>, RecordInvalid> {
    let Some((head, rest)) = b.split_at_checked(RECORD_HEADER) else {
        return Err(RecordInvalid::Length);
    };
    let length = u32_at(head, 0) as usize;
    let (kind, flags) = (head[8], head[9]);
    let found_epoch_tag = u16_at(head, 10);
    if !matches!(kind, KIND_DATA | KIND_BATCH) && kind & SKIPPABLE == 0 {
        return Err(RecordInvalid::Kind(kind));
    }
    let is_tagged = flags == FLAG_TAGGED && kind & SKIPPABLE == 0;
    if (flags != 0 && !is_tagged) || epoch_tag.is_some_and(|t| t != found_epoch_tag) {
        return Err(RecordInvalid::Fields);
    }
    let Some((body, rest)) = rest.split_at_checked(length) else {
        return Err(RecordInvalid::Length);
    };
    // The payload and the end of its padding are in memory, or the record is rejected.
    let stored = stored_size(length);
    let Some(padding) = first(rest, stored - (RECORD_HEADER + length) as u64) else {
        return Err(RecordInvalid::Length);
    };
    let (mut tag, mut payload) = (None, body);
    let sum = match is_tagged {
        false => seed.sum(body),
        true if kind == KIND_BATCH => seed.sum(body).of_tagged_items(),
        true => {
            let split = seed.split_tag(body, lsn, record_words(head));
            let (found, rest) = split.ok_or(RecordInvalid::Tag)?;
            (tag, payload) = (Some(found), rest);
            seed.sum_tagged(found, rest)
        }
    };
    if sum.finish(lsn, kind, found_epoch_tag) != u32_at(head, 4) {
        return Err(RecordInvalid::Checksum);
    }
    if padding.iter().any(|&x| x != 0) {
        return Err(RecordInvalid::Padding);
    }
    let has_tagged_items = is_tagged && kind == KIND_BATCH;
    if has_tagged_items && !tags_are_sound(body, lsn, seed) {
        return Err(RecordInvalid::Tag);
    }
    let stored = RECORD_HEADER + length + padding.len();
    Ok(Decoded { lsn, kind, tag, has_tagged_items, payload, stored })
}

/// Whether each item of a batch, up to the first that is malformed, has a sound tag.
fn tags_are_sound(payload: &[u8], lsn: u64, seed: &Seed) -> bool {
    let mut tags = item_tags(payload, lsn, seed);
    tags.all(|tag| !matches!(tag, Err(RecordInvalid::Tag)))
}

/// One application record: a data record, or an item of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item<'a> {
    pub(crate) lsn: u64,
    pub(crate) tag: Option<u64>,
    pub(crate) payload: &'a [u8],
}

/// An item of a batch as it is stored.
struct StoredItem<'a> {
    lsn: u64,
    words: [u8; ITEM_HEADER],
    /// The payload, after the tag block if the item has a tag.
    body: &'a [u8],
}

/// The items of a batch's payload. They tile the payload, or the last one is an error.
fn stored_items<'a>(
    payload: &'a [u8],
    record_lsn: u64,
) -> impl Iterator<Item = Result<StoredItem<'a>, RecordInvalid>> {
    let count = payload.first_chunk().map_or(0, |c| u32::from_le_bytes(*c));
    let mut left = count;
    let mut at = BATCH_HEADER;
    let mut failed = count == 0;
    std::iter::from_fn(move || {
        if failed {
            failed = false;
            left = 0;
            at = payload.len() + RECORD_HEADER;
            return Some(Err(RecordInvalid::Batch));
        }
        let rest = payload.get(at - RECORD_HEADER..).unwrap_or_default();
        if left == 0 {
            // The items must tile the payload; otherwise the count is wrong.
            if rest.is_empty() {
                return None;
            }
            at = payload.len() + RECORD_HEADER;
            return Some(Err(RecordInvalid::Batch));
        }
        left -= 1;
        let item = (|| {
            let words: [u8; ITEM_HEADER] = *rest.first_chunk()?;
            let length = u32_at(&words, 0) as usize;
            let whole = first(rest, item_size(length))?;
            let padded_right = whole[ITEM_HEADER + length..].iter().all(|&x| x == 0);
            if u32_at(&words, 4) as usize != at || !padded_right {
                return None;
            }
            let lsn = record_lsn + at as u64;
            at += whole.len();
            Some(StoredItem { lsn, words, body: &whole[ITEM_HEADER..ITEM_HEADER + length] })
        })();
        if item.is_none() {
            left = 0;
            at = payload.len() + RECORD_HEADER;
        }
        Some(item.ok_or(RecordInvalid::Batch))
    })
}

/// The items of a batch, with their tags if they have any. The tags were checked.
fn batch_items<'a>(
    payload: &'a [u8],
    record_lsn: u64,
    has_tags: bool,
) -> impl Iterator<Item = Result<Item<'a>, RecordInvalid>> {
    stored_items(payload, record_lsn).map(move |item| {
        let StoredItem { lsn, body, .. } = item?;
        if !has_tags {
            return Ok(Item { lsn, tag: None, payload: body });
        }
        let (block, payload) = body.split_at_checked(TAG_BLOCK).ok_or(RecordInvalid::Tag)?;
        Ok(Item { lsn, tag: Some(u64_at(block, 4)), payload })
    })
}

/// The tags of the items of a batch at `record_lsn`, each after its check.
pub(super) fn item_tags<'a>(
    payload: &'a [u8],
    record_lsn: u64,
    seed: &'a Seed,
) -> impl Iterator<Item = Result<u64, RecordInvalid>> + use<'a> {
    stored_items(payload, record_lsn).map(|item| {
        let StoredItem { lsn, words, body } = item?;
        let (tag, _) = seed.split_tag(body, lsn, words).ok_or(RecordInvalid::Tag)?;
        Ok(tag)
    })
}

/// Returns how far before the item its batch begins, if the 8 bytes are an item's header.
pub(crate) fn locate_item(head: &[u8; ITEM_HEADER]) -> u64 {
    u64::from(u32_at(head, 4))
}

impl<'a> Decoded<'a> {
    /// Iterates over the application records in this record.
    pub(crate) fn items(&self) -> impl Iterator<Item = Result<Item<'a>, RecordInvalid>> + use<'a> {
        let single = Ok(Item { lsn: self.lsn, tag: self.tag, payload: self.payload });
        let single = (self.kind == KIND_DATA).then_some(single);
        let (payload, lsn, has_tags) = (self.payload, self.lsn, self.has_tagged_items);
        let batch = (self.kind == KIND_BATCH).then(|| batch_items(payload, lsn, has_tags));
        single.into_iter().chain(batch.into_iter().flatten())
    }
}

/// Iterates over the records of a group. `b`: the used bytes after the group's header, which stand
/// at `lsn`. After an error the iterator ends.
#[derive(Debug, Clone)]
pub(crate) struct GroupRecords<'a> {
    rest: &'a [u8],
    lsn: u64,
    seed: Seed,
    tag: u16,
}

impl<'a> GroupRecords<'a> {
    pub(crate) fn new(b: &'a [u8], lsn: u64, seed: &Seed, tag: u16) -> Self {
        GroupRecords { rest: b, lsn, seed: seed.clone(), tag }
    }

    /// Checks that the records tile the bytes and that their number is `count`. The error has the
    /// place and the reason.
    pub(crate) fn verify(self, count: u32) -> Result<(), (u64, RecordInvalid)> {
        let start = self.lsn;
        let mut found = 0_u64;
        for record in self {
            let record = record?;
            if record.kind == KIND_DATA {
                found += 1;
            } else {
                for item in record.items() {
                    item.map_err(|e| (record.lsn, e))?;
                    found += 1;
                }
            }
        }
        if found == u64::from(count) { Ok(()) } else { Err((start, RecordInvalid::Fields)) }
    }
}

impl<'a> Iterator for GroupRecords<'a> {
    type Item = Result<Decoded<'a>, (u64, RecordInvalid)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let at = self.lsn;
        match decode_record(self.rest, at, &self.seed, Some(self.tag)) {
            Ok(record) => {
                self.rest = &self.rest[record.stored..];
                self.lsn += record.stored as u64;
                Some(Ok(record))
            }
            Err(e) => {
                self.rest = &[];
                Some(Err((at, e)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = [3; 16];

    fn data(payload: &[u8], lsn: u64, kind: u8, tag: u16) -> Vec<u8> {
        let mut b = vec![0; stored_size(payload.len()) as usize];
        b[RECORD_HEADER..RECORD_HEADER + payload.len()].copy_from_slice(payload);
        Seed::new(&ID).sum(payload).write_header(&mut b, lsn, kind, tag);
        b
    }

    fn batch(items: &[&[u8]], lsn: u64, tag: u16) -> Vec<u8> {
        let len = items.iter().map(|i| item_size(i.len())).sum::<u64>();
        let mut b = vec![0; BATCH_HEADER + len as usize];
        put(&mut b, RECORD_HEADER, &(items.len() as u32).to_le_bytes());
        let mut at = BATCH_HEADER;
        for i in items {
            at = write_item(&mut b, at, i);
        }
        let sum = Seed::new(&ID).sum(&b[RECORD_HEADER..]);
        sum.write_header(&mut b, lsn, KIND_BATCH, tag);
        b
    }

    #[test]
    fn records_of_every_small_length_survive_and_no_flipped_bit_passes() {
        for len in 0..40_usize {
            let payload: Vec<u8> = (0..len as u8).map(|i| i.wrapping_mul(37) ^ 0x5A).collect();
            let mut b = data(&payload, 4224, KIND_DATA, 9);
            let r = decode_record(&b, 4224, &Seed::new(&ID), Some(9)).unwrap();
            assert_eq!((r.payload, r.stored), (&payload[..], b.len()));
            for bit in 0..b.len() * 8 {
                b[bit / 8] ^= 1 << (bit % 8);
                let found = decode_record(&b, 4224, &Seed::new(&ID), Some(9));
                assert!(found.is_err(), "length {len}, bit {bit}");
                b[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn the_checksum_covers_position_epoch_and_log() {
        let b = data(b"hello", 4224, KIND_DATA, 9);
        assert!(decode_record(&b, 4224, &Seed::new(&ID), Some(9)).is_ok());
        assert!(decode_record(&b, 4232, &Seed::new(&ID), Some(9)).is_err());
        assert!(decode_record(&b, 4224, &Seed::new(&ID), Some(8)).is_err());
        assert!(decode_record(&b, 4224, &Seed::new(&[4; 16]), Some(9)).is_err());
    }

    #[test]
    fn zeros_short_bytes_and_huge_lengths_are_refused() {
        let seed = Seed::new(&ID);
        assert!(decode_record(&[0; 64], 0, &seed, None).is_err());
        assert!(decode_record(&[], 0, &seed, None).is_err());
        let mut b = data(b"x", 0, KIND_DATA, 0);
        b[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode_record(&b, 0, &seed, None).unwrap_err(), RecordInvalid::Length);
    }

    #[test]
    fn unknown_kinds_are_skipped_only_when_they_say_so() {
        let seed = Seed::new(&ID);
        let skippable = data(b"later", 0, 0xF0, 1);
        assert_eq!(decode_record(&skippable, 0, &seed, Some(1)).unwrap().items().count(), 0);
        let critical = data(b"later", 0, 0x70, 1);
        let found = decode_record(&critical, 0, &seed, Some(1)).unwrap_err();
        assert_eq!(found, RecordInvalid::Kind(0x70));
    }

    #[test]
    fn a_batch_yields_its_items_with_their_own_positions() {
        let b = batch(&[b"one", b"", b"three is longer"], 4224, 2);
        let r = decode_record(&b, 4224, &Seed::new(&ID), Some(2)).unwrap();
        let items: Vec<_> = r.items().map(|i| i.unwrap()).collect();
        assert_eq!(items.len(), 3);
        assert_eq!(items[0], Item { lsn: 4224 + 16, tag: None, payload: b"one" });
        assert_eq!(items[1], Item { lsn: 4224 + 32, tag: None, payload: b"" });
        assert_eq!(items[2].payload, b"three is longer");
        let head = b[16 + 16..][..8].first_chunk().unwrap();
        assert_eq!(locate_item(head), 32);
    }

    #[test]
    fn a_malformed_batch_behind_a_right_checksum_is_an_error_and_ends() {
        let good = batch(&[b"one", b"two"], 0, 2);
        for (at, value) in [(12, 0), (12, 1), (12, 3), (16, 200), (20, 99), (28, 1), (16, 1)] {
            let mut b = good.clone();
            b[at] = value;
            let sum = Seed::new(&ID).sum(&b[RECORD_HEADER..]);
            sum.write_header(&mut b, 0, KIND_BATCH, 2);
            let records = GroupRecords::new(&b, 0, &Seed::new(&ID), 2);
            assert!(records.clone().verify(2).is_err(), "byte {at} = {value}");
            let r = decode_record(&b, 0, &Seed::new(&ID), Some(2)).unwrap();
            assert!(r.items().take(10).count() < 10);
        }
    }

    #[test]
    fn a_group_must_be_tiled_and_counted() {
        let mut b = data(b"first", 4224, KIND_DATA, 1);
        let second = 4224 + b.len() as u64;
        b.extend(batch(&[b"x", b"y"], second, 1));
        b.extend(data(b"", 4224 + b.len() as u64, KIND_ABORT, 1));
        let seed = Seed::new(&ID);
        assert_eq!(GroupRecords::new(&b, 4224, &seed, 1).verify(3), Ok(()));
        assert!(GroupRecords::new(&b, 4224, &seed, 1).verify(4).is_err());
        assert!(GroupRecords::new(&b[..b.len() - 8], 4224, &seed, 1).verify(3).is_err());
        b.extend([0; 8]);
        assert!(GroupRecords::new(&b, 4224, &seed, 1).verify(3).is_err());
        assert_eq!(GroupRecords::new(&[], 4224, &seed, 1).verify(0), Ok(()));
    }
}
