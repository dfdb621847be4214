//! Recomputes checksums, links and tags after an edit, so that the checks after them are reached.
//!
//! Written from docs/format.md, without the engine's encoders: it seals bytes that those never
//! write.

use crate::format::GROUP_HEADER;

pub(super) const BLOCK: usize = 4096;
const HEADER: usize = GROUP_HEADER as usize;
const RECORD: usize = 12;

pub(super) fn u32_at(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

pub(super) fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from(u32_at(b, at)) | u64::from(u32_at(b, at + 4)) << 32
}

/// Writes as many of the bytes as fit.
pub(super) fn put(b: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(room) = b.get_mut(at..) {
        let n = room.len().min(bytes.len());
        room[..n].copy_from_slice(&bytes[..n]);
    }
}

/// Writes the low `size` bytes of a number.
pub(super) fn set(b: &mut [u8], at: usize, size: usize, value: u64) {
    put(b, at, &value.to_le_bytes()[..size]);
}

/// The log id of a segment header.
pub(super) fn log_id(b: &[u8]) -> [u8; 16] {
    b.get(32..48).and_then(|id| id.first_chunk()).copied().unwrap_or_default()
}

/// CRC-32 of the bytes before and after the checksum field.
fn without(b: &[u8], before: usize, behind: usize, end: usize) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&b[..before]);
    sum.update(&b[behind..end]);
    sum.finalize()
}

pub(super) fn is_group(b: &[u8], at: usize) -> bool {
    b.get(at..at + HEADER).is_some_and(|b| b.starts_with(b"RWGp"))
}

/// Seals a group header of 128 bytes.
pub(super) fn seal_header(b: &mut [u8]) {
    if b.len() >= HEADER {
        let crc = without(b, 4, 8, HEADER);
        put(b, 4, &crc.to_le_bytes());
    }
}

pub(super) fn seal_segment(b: &mut [u8]) {
    if b.len() >= 128 {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&b[..12]);
        sum.update(&[0; 4]);
        sum.update(&b[16..128]);
        let crc = sum.finalize();
        put(b, 12, &crc.to_le_bytes());
    }
}

/// The checksum of a record with this header and payload at `lsn` of this log.
pub(super) fn record_sum(log_id: &[u8], head: &[u8], payload: &[u8], lsn: u64) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(log_id);
    sum.update(payload);
    sum.update(&lsn.to_le_bytes());
    sum.update(&head[..4]);
    sum.update(&head[8..RECORD]);
    sum.finalize()
}

/// Seals the tag block at the start of `body`.
fn seal_tag(log_id: &[u8], lsn: u64, words: &[u8], body: &mut [u8]) {
    let mut sum = crc32fast::Hasher::new();
    sum.update(log_id);
    sum.update(&body[4..12]);
    sum.update(&lsn.to_le_bytes());
    sum.update(words);
    put(body, 0, &sum.finalize().to_le_bytes());
}

/// Seals the tags of the items of a batch.
fn seal_items(log_id: &[u8], lsn: u64, record: &mut [u8]) {
    let mut at = RECORD + 4;
    while at + 8 <= record.len() {
        let length = u32_at(record, at) as usize;
        let words = record[at..at + 8].to_vec();
        if let Some(body) = record.get_mut(at + 8..at + 8 + length)
            && length >= 12
        {
            seal_tag(log_id, lsn.wrapping_add(at as u64), &words, body);
        }
        at += (8 + length + 7) & !7;
    }
}

/// Walks the records by their lengths and seals each. Returns where they end, and the number of
/// application records that they state.
pub(super) fn seal_records(
    b: &mut [u8],
    lsn: u64,
    log_id: &[u8],
    tag: Option<u16>,
) -> (usize, u64) {
    let (mut at, mut records) = (0, 0_u64);
    while at + RECORD <= b.len() {
        let length = u32_at(b, at) as usize;
        let Some(whole) = b[at + RECORD..].get(..length) else { break };
        let kind = b[at + 8];
        let items = if kind == 2 { u64::from(u32_at(whole, 0)) } else { u64::from(kind == 1) };
        if let Some(tag) = tag {
            put(b, at + 10, &tag.to_le_bytes());
        }
        let here = lsn.wrapping_add(at as u64);
        let record = &mut b[at..at + RECORD + length];
        // The sum of a record with a tag begins at the tag.
        let mut from = RECORD;
        match (kind, record[9]) {
            (1, 2) if length >= 12 => {
                let words = [&record[..4], &record[8..RECORD]].concat();
                seal_tag(log_id, here, &words, &mut record[RECORD..]);
                from += 4;
            }
            (2, 2) => seal_items(log_id, here, record),
            _ => {}
        }
        let crc = record_sum(log_id, &record[..RECORD], &record[from..], here);
        put(b, at + 4, &crc.to_le_bytes());
        at += (RECORD + length + 7) & !7;
        records = records.saturating_add(items);
    }
    (at.min(b.len()), records)
}

/// Seals the records of the group at `at`, with the header's position, log id and epoch.
pub(super) fn seal_group_records(b: &mut [u8], at: usize, retag: bool) -> (usize, u64) {
    if !is_group(b, at) {
        return (0, 0);
    }
    let used = (u32_at(b, at + 72) as usize).clamp(HEADER, (b.len() - at).max(HEADER));
    let (lsn, mut log_id) = (u64_at(b, at + 8), [0; 16]);
    log_id.copy_from_slice(&b[at + 16..at + 32]);
    let tag = retag.then(|| u64_at(b, at + 32) as u16);
    let end = (at + used).min(b.len());
    seal_records(&mut b[at + HEADER..end], lsn.wrapping_add(HEADER as u64), &log_id, tag)
}

/// The link hash of docs/format.md.
pub(super) fn link_hash(header: &[u8]) -> u64 {
    let mut h = 0x9E37_79B9_7F4A_7C15_u64;
    for at in (0..HEADER).step_by(8) {
        h = (h ^ u64_at(header, at)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        h ^= h >> 32;
    }
    h
}

/// Offset in the file at which the next group would begin.
pub(super) fn behind(b: &[u8], at: usize) -> usize {
    let used = (u32_at(b, at + 72) as usize).clamp(1, 1 << 28);
    at + used.div_ceil(BLOCK) * BLOCK
}

/// Links the groups of the files, in order, into one chain. Each file's groups are those from its
/// first block on.
pub(super) fn link<'a>(segments: impl Iterator<Item = &'a mut Vec<u8>>) {
    let mut before: Option<(u64, u64, u64)> = None;
    for b in segments {
        let mut at = BLOCK;
        while is_group(b, at) {
            if let Some((lsn, hash, ordinal)) = before {
                put(b, at + 56, &lsn.to_le_bytes());
                put(b, at + 64, &hash.to_le_bytes());
                put(b, at + 80, &ordinal.to_le_bytes());
            }
            seal_header(&mut b[at..]);
            let ordinal = u64_at(b, at + 80).wrapping_add(u64::from(u32_at(b, at + 76)));
            before = Some((u64_at(b, at + 8), link_hash(&b[at..at + HEADER]), ordinal));
            at = behind(b, at);
        }
    }
}
