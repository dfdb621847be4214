//! The "valid if and only if" lists of docs/format.md. Each condition is tested at its bounds and
//! after a correct checksum: the last accepted value and the first rejected one.

use super::*;

const ID: [u8; 16] = [7; 16];
const BASE: u64 = 1 << 20;
const LSN: u64 = BASE + 8192;

fn segment() -> SegmentHeader {
    SegmentHeader {
        log_id: ID,
        block: 4096,
        size: 1 << 20,
        base: BASE,
        max_group: 1 << 18,
        created_at: 0,
        app_version: 0,
    }
}

fn group(change: impl FnOnce(&mut GroupHeader)) -> Result<GroupHeader, GroupInvalid> {
    let mut h = GroupHeader {
        log_id: ID,
        epoch: EpochId { counter: 70_000, nonce: 99 },
        used: 5000,
        records: 3,
        prev: BASE + 4096,
        prev_hash: 5,
        ..GroupHeader::nothing(LSN)
    };
    change(&mut h);
    let mut bytes = [0; GROUP_HEADER as usize];
    h.encode(&mut bytes);
    let decoded = GroupHeader::decode(&bytes, LSN, &segment());
    assert!(decoded.is_err() || decoded == Ok(h));
    decoded
}

#[test]
fn group_headers_are_valid_up_to_their_bounds_and_no_further() {
    let passes: [fn(&mut GroupHeader); 16] = [
        |_| (),
        |h| (h.used, h.records) = (128, 0),
        |h| h.used = 1 << 18,
        |h| h.durable_end = LSN,
        |h| h.oldest = LSN,
        |h| (h.prev, h.prev_hash) = (0, 0),
        |h| h.prev_hash = 0,
        |h| h.prev = LSN - 1,
        |h| h.first_ordinal = u64::MAX - 3,
        |h| (h.used, h.records, h.flags) = (128, 0, Flags::EPOCH),
        |h| (h.used, h.records, h.flags) = (128, 0, Flags::RETENTION),
        |h| (h.used, h.records, h.flags) = (128, 0, Flags(15)),
        |h| h.last_cut = LSN - 1,
        |h| (h.flags, h.cut_from) = (Flags::CUT, 1),
        |h| (h.flags, h.cut_from) = (Flags::CUT, LSN - 1),
        |h| (h.used, h.records, h.flags, h.cut_from) = (128, 0, Flags(31), 1),
    ];
    for (n, change) in passes.into_iter().enumerate() {
        assert!(group(change).is_ok(), "case {n}");
    }
    let fails: [fn(&mut GroupHeader); 17] = [
        |h| h.used = 127,
        |h| h.used = (1 << 18) + 1,
        |h| h.durable_end = LSN + 1,
        |h| h.oldest = LSN + 1,
        |h| h.prev = 0,
        |h| h.prev = LSN,
        |h| h.first_ordinal = u64::MAX - 2,
        |h| (h.used, h.records, h.flags) = (128, 1, Flags::EPOCH),
        |h| (h.used, h.records, h.flags) = (136, 0, Flags::EPOCH),
        |h| (h.used, h.records, h.flags) = (128, 0, Flags(16)),
        |h| (h.used, h.records, h.flags) = (128, 0, Flags(32)),
        |h| (h.used, h.records, h.flags, h.cut_from) = (136, 1, Flags(17), 1),
        |h| h.last_cut = LSN,
        |h| h.cut_from = 1,
        |h| h.flags = Flags::CUT,
        |h| (h.flags, h.cut_from) = (Flags::CUT, LSN),
        |h| (h.used, h.records, h.flags) = (128, 0, Flags(1 << 31)),
    ];
    for (n, change) in fails.into_iter().enumerate() {
        assert_eq!(group(change), Err(GroupInvalid::Fields), "case {n}");
    }
    assert_eq!(group(|h| h.log_id = [8; 16]), Err(GroupInvalid::ForeignLog));
    assert_eq!(group(|h| h.lsn += 4096), Err(GroupInvalid::Misplaced));
}

#[test]
fn reserved_bytes_of_a_group_header_are_zero() {
    // After them, values larger than any position.
    for at in (104..112).chain([119]).chain(120..128) {
        let mut b = [0; GROUP_HEADER as usize];
        GroupHeader { log_id: ID, ..GroupHeader::nothing(LSN) }.encode(&mut b);
        assert!(GroupHeader::decode(&b, LSN, &segment()).is_ok());
        b[at] = 0x40;
        assert_eq!(GroupHeader::decode(&b, LSN, &segment()), Err(GroupInvalid::Checksum));
        let crc = crc32fast::hash(&[&b[..4], &b[8..]].concat());
        put(&mut b, 4, &crc.to_le_bytes());
        assert_eq!(GroupHeader::decode(&b, LSN, &segment()), Err(GroupInvalid::Fields), "{at}");
    }
}

#[test]
fn the_tag_is_the_low_half_of_the_counter() {
    for (counter, tag) in [(0, 0), (1, 1), (65_535, 65_535), (65_536, 0), (70_000, 4464)] {
        assert_eq!(EpochId { counter, nonce: 3 }.tag(), tag);
    }
}

#[test]
fn the_hash_is_the_one_of_the_format() {
    // Calculated independently, from docs/format.md.
    let h = GroupHeader { log_id: ID, ..GroupHeader::nothing(LSN) };
    assert_eq!(h.link().hash, 0x7B14_F6E2_80DA_A481);
}

#[test]
fn flags_are_told_from_each_other() {
    let all = [Flags::EPOCH, Flags::IDLE_SEAL, Flags::CLEAN_CLOSE, Flags::RETENTION];
    for a in all {
        assert!(!Flags::NONE.has(a));
        for b in all {
            assert_eq!(a.has(b), a == b);
        }
    }
}

fn header(
    change: impl FnOnce(&mut SegmentHeader),
    patch: &[(usize, u8)],
) -> Result<SegmentHeader, HeaderInvalid> {
    let mut h = segment();
    change(&mut h);
    let mut b = [0; SEGMENT_HEADER];
    h.encode(&mut b);
    for &(at, value) in patch {
        b[at] = value;
    }
    b[12..16].fill(0);
    let crc = crc32fast::hash(&b);
    put(&mut b, 12, &crc.to_le_bytes());
    SegmentHeader::decode(&b)
}

#[test]
fn segment_headers_are_valid_up_to_their_bounds_and_no_further() {
    let passes: [fn(&mut SegmentHeader); 7] = [
        |_| (),
        |h| h.size = 8192,
        |h| h.size = 1 << 40,
        |h| h.max_group = 4096,
        |h| h.max_group = MAX_GROUP,
        |h| h.block = MAX_BLOCK,
        |h| h.base = (1 << 62) - h.size,
    ];
    for (n, change) in passes.into_iter().enumerate() {
        assert!(header(change, &[]).is_ok(), "case {n}");
    }
    let fails: [fn(&mut SegmentHeader); 15] = [
        |h| h.size = (1 << 40) + 4096,
        |h| h.block = 0,
        |h| h.block = 2048,
        |h| h.block = 12_288,
        |h| h.block = 2 * MAX_BLOCK,
        |h| h.size = 4096,
        |h| h.size = 0,
        |h| h.size += 512,
        |h| h.base += 512,
        |h| h.max_group = 0,
        |h| h.max_group = 4096 + 512,
        |h| h.max_group = MAX_GROUP + 4096,
        |h| h.base = (1 << 62) - h.size + 4096,
        |h| h.base = u64::MAX - 4095,
        |h| (h.block, h.max_group) = (8192, 4096),
    ];
    for (n, change) in fails.into_iter().enumerate() {
        let found = header(change, &[]);
        assert!(matches!(found, Err(HeaderInvalid::Damaged(_))), "case {n}: {found:?}");
    }
    // Checksum kind, reserved bytes, header length.
    for at in [10, 11, 69, 84, 100, 127] {
        let found = header(|_| (), &[(at, 0x20)]);
        assert!(matches!(found, Err(HeaderInvalid::Damaged(_))), "byte {at}: {found:?}");
    }
    // Compatible features, the time and the application version may be anything.
    assert!(header(|_| (), &[(24, 0xFF), (72, 9), (80, 9)]).is_ok());
    let h = segment();
    assert_eq!((h.end(), h.first_group()), (2 << 20, BASE + 4096));
}

#[test]
fn unknown_features_are_all_named() {
    let found = header(|_| (), &[(16, 1), (20, 4)]);
    assert_eq!(found, Err(HeaderInvalid::Features(5)));
    let found = header(|_| (), &[(9, 1)]);
    assert_eq!(found, Err(HeaderInvalid::Version(257)));
}

/// A data record of these bytes with a correct checksum, whatever the flags and the padding are.
fn record(payload: &[u8], flags: u8, padding: u8) -> Vec<u8> {
    let mut b = vec![padding; stored_size(payload.len()) as usize];
    put(&mut b, RECORD_HEADER, payload);
    Seed::new(&ID).sum(payload).write_header(&mut b, LSN, KIND_DATA, 3);
    b[9] = flags;
    b
}

#[test]
fn records_are_valid_up_to_their_bounds_and_no_further() {
    let seed = Seed::new(&ID);
    for len in 0..20 {
        let payload = vec![1; len];
        let whole = record(&payload, 0, 0);
        assert_eq!(whole.len() % 8, 0);
        assert!((RECORD_HEADER + len..RECORD_HEADER + len + 8).contains(&whole.len()));
        let padded = whole.len() > RECORD_HEADER + len;
        assert!(decode_record(&whole, LSN, &seed, Some(3)).is_ok());
        for cut in 0..whole.len() {
            let found = decode_record(&whole[..cut], LSN, &seed, Some(3)).unwrap_err();
            assert_eq!(found, RecordInvalid::Length, "{cut} of {len}");
        }
        let found = decode_record(&record(&payload, 1, 0), LSN, &seed, None).unwrap_err();
        assert_eq!(found, RecordInvalid::Fields);
        let dirty = record(&payload, 0, 9);
        let found = decode_record(&dirty, LSN, &seed, Some(3)).map(|r| r.stored);
        let expected = if padded { Err(RecordInvalid::Padding) } else { Ok(dirty.len()) };
        assert_eq!(found, expected);
        // Without an expected tag, decoding takes and sums the tag of the record.
        let mut other = whole;
        assert!(decode_record(&other, LSN, &seed, None).is_ok());
        other[10] ^= 1;
        assert_eq!(decode_record(&other, LSN, &seed, None).unwrap_err(), RecordInvalid::Checksum);
    }
}

#[test]
fn no_length_that_a_file_may_state_wraps_or_reads_past_the_end() {
    for length in
        [0, 1, u32::MAX - 20, u32::MAX - 14, u32::MAX - 8, u32::MAX - 7, u32::MAX - 1, u32::MAX]
    {
        let (bytes, length) = (u64::from(length), length as usize);
        assert_eq!(item_size(length), (bytes + ITEM_HEADER as u64).next_multiple_of(8));
        assert_eq!(stored_size(length), (bytes + RECORD_HEADER as u64).next_multiple_of(8));
    }
    // As the length of the record and, with a correct checksum, as the length of an item.
    for length in [40, u32::MAX - 15, u32::MAX - 14, u32::MAX - 7, u32::MAX - 1, u32::MAX] {
        let mut b = vec![0; BATCH_HEADER + item_size(8) as usize];
        put(&mut b, RECORD_HEADER, &1_u32.to_le_bytes());
        let _ = write_item(&mut b, BATCH_HEADER, b"12345678");
        put(&mut b, BATCH_HEADER, &length.to_le_bytes());
        let sum = Seed::new(&ID).sum(&b[RECORD_HEADER..]);
        sum.write_header(&mut b, LSN, KIND_BATCH, 3);
        let found = GroupRecords::new(&b, LSN, &Seed::new(&ID), 3).verify(1).unwrap_err();
        assert_eq!(found.1, RecordInvalid::Batch, "{length}");
        put(&mut b, 0, &length.to_le_bytes());
        let found = decode_record(&b, LSN, &Seed::new(&ID), None).unwrap_err();
        assert_eq!(found, RecordInvalid::Length, "{length}");
    }
}

#[test]
fn items_are_laid_out_as_the_format_says() {
    let sizes = [0, 1, 8, 9, 16].map(item_size);
    assert_eq!(sizes, [8, 16, 16, 24, 24]);
    let sizes = [0, 4, 5, 12, 13].map(stored_size);
    assert_eq!(sizes, [16, 16, 24, 24, 32]);
    let mut b = vec![0xEE; BATCH_HEADER + (item_size(3) + item_size(8)) as usize];
    put(&mut b, RECORD_HEADER, &2_u32.to_le_bytes());
    let at = write_item(&mut b, BATCH_HEADER, b"abc");
    assert_eq!(at, BATCH_HEADER + 16);
    assert_eq!(write_item(&mut b, at, b"12345678"), b.len());
    assert_eq!(b[BATCH_HEADER..at], *b"\x03\0\0\0\x10\0\0\0abc\0\0\0\0\0");
    assert_eq!(b[at..], *b"\x08\0\0\0\x20\0\0\x0012345678");
    assert_eq!(locate_item(b[at..].first_chunk().unwrap()), at as u64);
    // An item's padding, distance and length are checked after a correct checksum.
    for change in [BATCH_HEADER + 11, BATCH_HEADER + 4, BATCH_HEADER, at + 4, at, at + 1] {
        let mut bad = b.clone();
        bad[change] ^= 1;
        let sum = Seed::new(&ID).sum(&bad[RECORD_HEADER..]);
        sum.write_header(&mut bad, LSN, KIND_BATCH, 3);
        let found = GroupRecords::new(&bad, LSN, &Seed::new(&ID), 3).verify(2);
        assert!(found.is_err(), "byte {change}");
    }
}
