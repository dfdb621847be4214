//! The decoders alone: of a group's records, of headers, of the remembered commit method.
//!
//! Each decoder is compared with the conditions of docs/format.md, written here a second time, and
//! with its own encoder: accepted bytes encode to the same bytes.

use super::input::head;
use super::repair::{put, seal_header, seal_records, seal_segment, u32_at, u64_at};
use crate::format::{
    BATCH_HEADER, Decoded, GROUP_HEADER, GroupHeader, GroupRecords, HeaderInvalid, KIND_BATCH,
    KIND_DATA, RECORD_HEADER, SEGMENT_HEADER, Seed, SegmentHeader, TAG_BLOCK, TagFilter,
    stored_size, verify_wanted, write_item, write_tagged_header, write_tagged_item,
};

const LOG_ID: [u8; 16] = *b"a log of its own";

/// Chooses a position by one byte: low, in the middle or at the end of the address space.
fn somewhere(choice: u8) -> u64 {
    match choice >> 6 {
        0 => u64::from(choice) << 20,
        1 => 1 << 40 | u64::from(choice) << 16,
        2 => (1 << 61) + (u64::from(choice) << 16),
        _ => (1 << 62) - (u64::from(choice & 63) + 1) * (1 << 20),
    }
}

/// Reads the bytes as the records of a group.
pub(super) fn record(input: &[u8]) {
    let ([place, flags, count], body) = head(input);
    let lsn = (somewhere(place) + u64::from(GROUP_HEADER)) & !7;
    let tag = u16::from(flags >> 4);
    let mut body = body.to_vec();
    let mut count = u64::from(count);
    if flags & 1 != 0 {
        let retag = (flags & 2 != 0).then_some(tag);
        let (end, records) = seal_records(&mut body, lsn, &LOG_ID, retag);
        if flags & 4 != 0 {
            body.truncate(end);
        }
        if flags & 8 != 0 {
            count = records;
        }
    }
    let seed = Seed::new(&LOG_ID);
    let records = || GroupRecords::new(&body, lsn, &seed, tag);
    let verdict = records().verify(u32::try_from(count).unwrap_or(u32::MAX));

    let (mut at, mut found, mut sound) = (0_usize, 0_u64, true);
    for record in records() {
        let Ok(record) = record else {
            sound = false;
            break;
        };
        assert_eq!(record.lsn, lsn + at as u64);
        let written = encoded(&record, &seed, tag, body[at + 9]);
        assert!(written == body[at..at + record.stored], "a record that encodes otherwise");
        let mut batch = vec![0; record.payload.len() + RECORD_HEADER];
        let (mut items, mut to) = (0, BATCH_HEADER);
        for item in record.items() {
            let Ok(item) = item else {
                sound = false;
                break;
            };
            items += 1;
            if record.kind == KIND_BATCH {
                assert_eq!(item.lsn, record.lsn + to as u64);
                to = match item.tag {
                    None => write_item(&mut batch, to, item.payload),
                    Some(tag) => {
                        let item = (tag, item.payload);
                        write_tagged_item(&mut batch, record.lsn, to, &seed, item)
                    }
                };
            } else {
                assert!(record.kind == KIND_DATA && item.payload == record.payload);
            }
        }
        if record.kind == KIND_BATCH && sound {
            put(&mut batch, RECORD_HEADER, &(items as u32).to_le_bytes());
            assert!(batch[RECORD_HEADER..] == *record.payload, "a batch that encodes otherwise");
        }
        found += items;
        at += record.stored;
        if !sound {
            break;
        }
    }
    let right = sound && at == body.len() && found == count;
    if right {
        // A filter may overlook damage in what it skips, and never refuses what is sound.
        let wanted = TagFilter::new([0, u64::from(flags)]);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        assert_eq!(verify_wanted(&body, lsn, &seed, tag, count, &wanted), Ok(()));
    }
    assert_eq!(verdict.is_ok(), right, "{verdict:?} of {found} in {at} of {} bytes", body.len());
    if sound {
        let other = u32::try_from(found + 1).unwrap_or(0);
        assert!(records().verify(other).is_err(), "a count that is wrong");
    }
}

/// A decoded record as a writer encodes it, with these flags.
fn encoded(record: &Decoded<'_>, seed: &Seed, epoch_tag: u16, flags: u8) -> Vec<u8> {
    let start = RECORD_HEADER + record.tag.map_or(0, |_| TAG_BLOCK);
    let body = start - RECORD_HEADER + record.payload.len();
    let mut written = vec![0; stored_size(body) as usize];
    assert_eq!(written.len(), record.stored);
    put(&mut written, start, record.payload);
    if let Some(tag) = record.tag {
        let sum = seed.sum_tagged(tag, record.payload);
        write_tagged_header(&mut written, record.lsn, epoch_tag, seed, tag, sum);
        return written;
    }
    let sum = seed.sum(record.payload);
    let sum = if flags == 0 { sum } else { sum.of_tagged_items() };
    sum.write_header(&mut written, record.lsn, record.kind, epoch_tag);
    written
}

/// Reads the bytes as a group header, in a segment that the first bytes choose.
pub(super) fn group(input: &[u8]) {
    let ([place, flags, block, size, at, longest], rest) = head(input);
    let block = 4096_u32 << (block % 5);
    let segment = SegmentHeader {
        log_id: LOG_ID,
        block,
        size: u64::from(block) * (2 + u64::from(size)),
        base: somewhere(place) / 65536 * 65536,
        max_group: block * (1 + u32::from(longest)),
        created_at: 0,
        app_version: 0,
    };
    let room = segment.size / u64::from(block);
    let lsn = segment.base + u64::from(block) * (u64::from(at) % room);
    let (mut b, _) = head::<{ GROUP_HEADER as usize }>(rest);
    if flags & 1 != 0 {
        put(&mut b, 0, b"RWGp");
        put(&mut b, 16, &LOG_ID);
    }
    if flags & 2 != 0 {
        put(&mut b, 8, &lsn.to_le_bytes());
    }
    // Makes fields relative to the position, because a mutator does not hit those by chance.
    for (bit, field) in [(4, 48), (8, 56), (16, 96)] {
        if flags & bit != 0 {
            let moved = u64_at(&b, field).wrapping_add(lsn);
            put(&mut b, field, &moved.to_le_bytes());
        }
    }
    if flags & 32 != 0 {
        b[108..112].fill(0);
        // A header has both fields of a cut, or neither.
        if flags & 128 == 0 {
            b[112..].fill(0);
        } else {
            for field in [112, 120] {
                let below = u64_at(&b, field) % (lsn + 2);
                put(&mut b, field, &below.to_le_bytes());
            }
        }
    }
    if flags & 64 != 0 {
        seal_header(&mut b);
    }
    let mut sealed = b;
    seal_header(&mut sealed);
    let (prev, prev_hash) = (u64_at(&b, 56), u64_at(&b, 64));
    let (used, records, flag) = (u64::from(u32_at(&b, 72)), u32_at(&b, 76), u32_at(&b, 104));
    let (last_cut, cut_from) = (u64_at(&b, 112), u64_at(&b, 120));
    let cuts = flag & 16 != 0;
    let padded = used.div_ceil(u64::from(block)) * u64::from(block);
    let valid = b.starts_with(b"RWGp")
        && sealed == b
        && u64_at(&b, 8) == lsn
        && b[16..32] == LOG_ID
        && flag < 32
        && b[108..112] == [0; 4]
        && (last_cut == 0 || last_cut < lsn)
        && if cuts { 0 < cut_from && cut_from < lsn } else { cut_from == 0 }
        && (128..=u64::from(segment.max_group)).contains(&used)
        && lsn + padded <= segment.base + segment.size
        && u64_at(&b, 48) <= lsn
        && u64_at(&b, 96) <= lsn
        && (prev < lsn && prev != 0 || prev == 0 && prev_hash == 0 && lsn > 0)
        && (flag & 15 == 0 || used == 128 && records == 0)
        && u64_at(&b, 80).checked_add(u64::from(records)).is_some();
    let decoded = GroupHeader::decode(&b, lsn, &segment);
    assert_eq!(decoded.is_ok(), valid, "{decoded:?}");
    let Ok(header) = decoded else { return };
    let mut encoded = [0; GROUP_HEADER as usize];
    header.encode(&mut encoded);
    assert!(encoded == b, "a header that encodes otherwise");
    assert_eq!(header.padded_end(block), lsn + padded);
    assert!(!header.follows(&header.link()), "it follows itself");
    assert!(GroupHeader::decode(&b, lsn + u64::from(block), &segment).is_err());
    assert!(GroupHeader::decode(&b[..127], lsn, &segment).is_err());
}

/// Reads the bytes as a segment header.
pub(super) fn segment(input: &[u8]) {
    let ([flags], rest) = head(input);
    let (mut b, _) = head::<SEGMENT_HEADER>(rest);
    if flags & 1 != 0 {
        put(&mut b, 0, b"ringwal\x1a\x01\0\x01\0");
    }
    if flags & 2 != 0 {
        b[16..24].fill(0);
        b[84..].fill(0);
    }
    if flags & 4 != 0 {
        let block = 4096_u32 << (b[28] % 6);
        put(&mut b, 28, &block.to_le_bytes());
        put(&mut b, 68, &block.to_le_bytes());
        for (field, size) in [(48, 8), (56, 8), (64, 4)] {
            let whole = u64_at(&b, field) / u64::from(block) * u64::from(block);
            put(&mut b, field, &whole.to_le_bytes()[..size]);
        }
    }
    if flags & 8 != 0 {
        seal_segment(&mut b);
    }
    let mut sealed = b;
    seal_segment(&mut sealed);
    let right = b.starts_with(b"ringwal\x1a") && sealed == b;
    let newer = b[8..10] != [1, 0] || b[16..24] != [0; 8];
    let (block, size, base) = (u64::from(u32_at(&b, 28)), u64_at(&b, 48), u64_at(&b, 56));
    let longest = u64::from(u32_at(&b, 64));
    let valid = right
        && !newer
        && b[10..12] == [1, 0]
        && b[84..] == [0; 44]
        && [4096, 8192, 16384, 32768, 65536].contains(&block)
        && [size, base, longest].iter().all(|n| n % block == 0)
        && (2 * block..=1 << 40).contains(&size)
        && u128::from(base) + u128::from(size) <= 1 << 62
        && (1..=256 << 20).contains(&longest)
        && u64::from(u32_at(&b, 68)) == block;
    let decoded = SegmentHeader::decode(&b);
    assert_eq!(decoded.is_ok(), valid, "{decoded:?}");
    let refused_as_newer =
        matches!(decoded, Err(HeaderInvalid::Version(_) | HeaderInvalid::Features(_)));
    assert_eq!(refused_as_newer, right && newer, "{decoded:?}");
    let Ok(header) = decoded else { return };
    let mut encoded = [0; SEGMENT_HEADER];
    header.encode(&mut encoded);
    // The decoder drops compatible feature bits.
    put(&mut encoded, 24, &b[24..28]);
    seal_segment(&mut encoded);
    assert!(encoded == b, "a header that encodes otherwise");
    let stamps: Vec<u64> = header.stamps_from_the_end().collect();
    assert!(stamps.len() <= 17 && stamps.windows(2).all(|w| w[1] < w[0]));
    assert!(stamps.iter().all(|&at| at >= header.first_group() && at < header.end()));
}

/// Reads the bytes as the file of the remembered commit method.
#[cfg(linux_calls)]
pub(super) fn memo(input: &[u8]) {
    use crate::engine::calibrate::memo::{TITLE, decode, encode};
    const KEY: &str = "254:0 disk; 6.1";
    let ([flags], rest) = head(input);
    let mut text = Vec::new();
    if flags & 1 != 0 {
        text.extend(format!("{TITLE}\n{KEY}\n").into_bytes());
    }
    if flags & 2 != 0 {
        let method: [&[u8]; 2] = [b"dsync\n", b"linked-fsync\n"];
        let pace: [&[u8]; 2] = [b"serial\n", b"parallel\n"];
        text.extend(method[usize::from(flags >> 2 & 1)]);
        text.extend(pace[usize::from(flags >> 3 & 1)]);
    }
    text.extend(rest);
    if flags & 16 != 0 {
        let sum = crc32fast::hash(&text);
        text.extend(format!("{sum:08x}\n").into_bytes());
    }
    if flags & 32 != 0 {
        text.resize(text.len().max(4096), 0);
    }
    let Some(mut chosen) = decode(&text, KEY) else { return };
    assert!(decode(&text, "254:1 other; 6.1").is_none(), "of another device");
    assert!(!chosen.detail.contains('\n'));
    // A line may end in any number of carriage returns. The engine writes none.
    chosen.detail.truncate(chosen.detail.trim_end_matches('\r').len());
    let again = encode(KEY, &chosen);
    assert_eq!(decode(again.as_bytes(), KEY), Some(chosen), "kept and read again");
}
