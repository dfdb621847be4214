//! The on-disk format: encode and decode, nothing else. No I/O, no clock, no allocation.
//!
//! Byte diagrams and the "valid if and only if" lists are in `docs/format.md`; each file repeats
//! the part that it implements.
//!
//! 1. All-zero bytes are never valid.
//! 2. A length is bounded by what surrounds it before it is used.
//! 3. Decoding never panics and never reads outside the slice that it was given.

#[cfg(all(test, not(ringwal_loom)))]
mod bounds_tests;
mod cells;
mod checksum;
mod end_file;
mod group;
mod position;
mod record;
mod segment;
mod stamp;
mod tag_floors;
mod tags;

pub(crate) use cells::{
    CELLS_HEADER, CELLS_SLOT, CellsSlot, MAX_CELL_VALUE, MAX_PLAIN_NAME, cell_size, encode_cells,
    is_plain_name,
};
pub(crate) use end_file::{END_FILE, EVERY_BOOT, StatedEnd, UNKNOWN_BOOT};
pub(crate) use group::{EpochId, Flags, GROUP_HEADER, GroupHeader, GroupInvalid, Link};
pub(crate) use position::StoredPosition;
#[cfg(all(any(test, fuzzing), not(ringwal_loom)))]
pub(crate) use record::Decoded;
pub(crate) use record::{
    BATCH_HEADER, FLAG_TAGGED, GroupRecords, ITEM_HEADER, KIND_BATCH, KIND_DATA, PayloadSum,
    RECORD_HEADER, RecordInvalid, Seed, TAG_BLOCK, decode_record, item_size, locate_item,
    stored_size, write_abort, write_item, write_tagged_header, write_tagged_item,
};
pub(crate) use segment::{HeaderInvalid, SEGMENT_HEADER, SegmentHeader};
pub(crate) use stamp::{STAMP, is_stamp, stamp};
pub(crate) use tag_floors::{MAX_TAG_FLOORS, StoredFloors};
pub(crate) use tags::{TagFilter, verify_wanted};

/// The largest group, and so the largest ring buffer, in bytes. It has 28 bits, so that the bytes
/// of one extent and the number of its records each fit in half of the extent's completion counter.
pub(crate) const MAX_GROUP: u32 = 256 << 20;

/// The largest segment in bytes. It bounds how much opening may have to read.
pub(crate) const MAX_SEGMENT: u64 = 1 << 40;

/// The end of the address space.
pub(crate) const ADDRESS_SPACE: u64 = 1 << 62;

/// The smallest block in bytes. Groups start on a multiple of the block.
pub(crate) const MIN_BLOCK: u32 = 4096;
/// The largest block in bytes.
pub(crate) const MAX_BLOCK: u32 = 65536;

const _: () = assert!(MIN_BLOCK.is_power_of_two() && MAX_BLOCK.is_power_of_two());
const _: () = assert!(GROUP_HEADER <= 512, "a group header lies within one sector");
const _: () = assert!(SEGMENT_HEADER as u32 <= MIN_BLOCK);

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

pub(crate) fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

pub(crate) fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from(u32_at(b, at)) | u64::from(u32_at(b, at + 4)) << 32
}

pub(crate) fn put(b: &mut [u8], at: usize, bytes: &[u8]) {
    b[at..at + bytes.len()].copy_from_slice(bytes);
}
