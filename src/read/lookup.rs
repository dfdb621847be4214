//! Lookups of one position: the record at it, or the place of a cut.

use std::sync::Arc;

use super::Reader;
use super::cursor::Cursor;
use super::record::Record;
use crate::engine::log_view::LogView;
use crate::error::{Error, Result};
use crate::format::{
    BATCH_HEADER, GROUP_HEADER, ITEM_HEADER, KIND_DATA, Seed, SegmentHeader, decode_record,
    locate_item, stored_size,
};
use crate::io::fs::{Access, File, read_full};
use crate::lsn::Lsn;
use crate::recovery::Walker;
use crate::segment::Pinning;

/// Bytes of the first read of a record.
const FIRST_READ_BYTES: u64 = 4096;

/// The record at exactly `lsn`, which lies below the durable end.
pub(crate) fn read_one(view: &Arc<LogView>, lsn: u64, durable_end: u64) -> Result<Record> {
    view.cuts.check(lsn)?;
    find_one(view, lsn, durable_end).map_err(|e| view.explain(e, lsn))
}

fn find_one(view: &Arc<LogView>, lsn: u64, durable_end: u64) -> Result<Record> {
    let segment = view.table.segment(lsn, Pinning::Pinned);
    let segment = segment.map_err(|absent| absent.into_error(lsn))?;
    let header = segment.header;
    let file = view
        .table
        .reader(header.base, || view.dir.open(&view.names.segment(header.base), Access::Read))
        .map_err(|e| view.segment_error("open", header.base, e))?;
    let used_end = used_end(view, &header, durable_end)?;
    if lsn >= header.first_group() && lsn < used_end && lsn.is_multiple_of(8) {
        let seed = Seed::new(&header.log_id);
        let found = read_record_at(&*file, &header, used_end, lsn, &seed);
        let found = found.map_err(|e| view.segment_error("read", header.base, e))?;
        if let Some(record) = found {
            return Ok(record);
        }
    }
    // The record is damaged, or none starts here. Verifying its group decides which.
    let mut reader = Reader::new(Arc::clone(view), lsn, durable_end);
    match reader.next() {
        Some(Ok(record)) if record.lsn.as_u64() == lsn => Ok(record),
        Some(Err(e)) => Err(e),
        _ => Err(Error::NoRecord { lsn: Lsn::new(lsn) }),
    }
}

/// The address where a cut at `from` begins. `None`: nothing durable lies at or above it.
///
/// A cut begins at a record, at a batch, or between groups with records.
pub(crate) fn cut_point(view: &Arc<LogView>, from: u64, durable_end: u64) -> Result<Option<u64>> {
    // An earlier cut ends at the group that states it.
    let from = view.cuts.at(from).map_or(from, |cut| cut.to);
    let mut cursor = Cursor::new(Arc::clone(view), from, durable_end, Pinning::Pinned);
    let found = cursor.advance()?;
    let Some(segment) = cursor.segment() else { return Ok(None) };
    let group = segment.link.map_or(from, |link| link.lsn);
    let between = (segment.skipped_to..=group + u64::from(GROUP_HEADER)).contains(&from);
    let no_record = Err(Error::NoRecord { lsn: Lsn::new(from) });
    match found {
        None if from >= segment.skipped_to => return Ok(None),
        Some(span) if span.lsn == from => {}
        Some(_) if between => return Ok(Some(from.max(group))),
        _ => return no_record,
    }
    // After an item the cursor is still in its batch, or at the batch's end.
    let is_item = segment.group.at <= segment.group.batch_end;
    let head = segment.window().at(from, ITEM_HEADER).and_then(|(_, head)| head.first_chunk());
    let back = match head {
        Some(head) if is_item => locate_item(head),
        _ => return Ok(Some(from)),
    };
    let batch = from.saturating_sub(back);
    let first = batch + BATCH_HEADER as u64;
    if first != from {
        return Err(Error::InsideBatch { lsn: Lsn::new(from), first: Lsn::new(first) });
    }
    Ok(Some(batch))
}

/// Whether `lsn` lies inside a record: neither at the start of one, nor directly after that, nor
/// between records. `lsn` lies at or below the durable end.
///
/// Costs a read of the record at `lsn` or directly before. If there is none, it reads the headers
/// of the segment's groups up to `lsn`.
pub(crate) fn is_inside_record(view: &Arc<LogView>, lsn: u64, durable_end: u64) -> Result<bool> {
    let start = lsn & !7;
    // Records start at multiples of 8, and `Lsn::next` adds 1.
    if lsn - start > 1 {
        return Ok(true);
    }
    if start >= durable_end {
        return Ok(false);
    }
    match read_one(view, start, durable_end) {
        Ok(_) | Err(Error::Truncated { .. }) => return Ok(false),
        Err(Error::NoRecord { .. }) => {}
        Err(e) => return Err(e),
    }
    let mut cursor = Cursor::new(Arc::clone(view), lsn, durable_end, Pinning::Pinned);
    cursor.advance()?;
    Ok(cursor.segment().is_some_and(|segment| segment.skipped_to > lsn))
}

/// The end of the segment's groups. Bytes after it may be older than the log's last cut.
fn used_end(view: &LogView, header: &SegmentHeader, durable_end: u64) -> Result<u64> {
    let group = |header: SegmentHeader, lsn: u64| {
        let file = view.open_segment(header.base, Access::Read)?;
        let read = Walker::new(file, header).group(lsn);
        let found = read.map_err(|e| view.segment_error("read", header.base, e))?;
        found.map_err(|_| view.names.corruption(header.base, lsn, "no group header"))
    };
    let found = view.table.used_end(header.base, durable_end, |next| {
        let first = group(next, next.first_group())?;
        if !(header.first_group()..header.end()).contains(&first.prev) {
            return Err(view.names.corruption(next.base, next.first_group(), "no group header"));
        }
        Ok(group(*header, first.prev)?.padded_end(header.block))
    })?;
    Ok(found.unwrap_or(header.end()).min(durable_end))
}

fn read_record_at(
    file: &dyn File,
    header: &SegmentHeader,
    end: u64,
    lsn: u64,
    seed: &Seed,
) -> std::io::Result<Option<Record>> {
    let bytes = read_bytes(file, header, end, lsn)?;
    if let Ok(record) = decode_record(&bytes, lsn, seed, None) {
        let payload = record.payload.to_vec();
        let is_data = record.kind == KIND_DATA;
        return Ok(is_data.then(|| Record::alone(lsn, record.tag, payload)));
    }
    let Some(back) = bytes.first_chunk().map(locate_item) else { return Ok(None) };
    let Some(start) = lsn.checked_sub(back).filter(|&s| s >= header.first_group() && s < lsn)
    else {
        return Ok(None);
    };
    let bytes = read_bytes(file, header, end, start)?;
    let Ok(batch) = decode_record(&bytes, start, seed, None) else { return Ok(None) };
    let item = batch.items().flatten().find(|item| item.lsn == lsn);
    Ok(item.map(|item| Record::alone(lsn, item.tag, item.payload.to_vec())))
}

/// The bytes from `lsn` on: as many as the length at `lsn` states, but none at or above `end`.
fn read_bytes(
    file: &dyn File,
    header: &SegmentHeader,
    end: u64,
    lsn: u64,
) -> std::io::Result<Vec<u8>> {
    let room = end - lsn;
    let offset = lsn - header.base;
    let mut bytes = vec![0; room.min(FIRST_READ_BYTES) as usize];
    let n = read_full(file, &mut bytes, offset)?;
    bytes.truncate(n);
    let len = bytes.first_chunk().map_or(0, |b| u32::from_le_bytes(*b) as usize);
    let whole = stored_size(len);
    let have = bytes.len();
    if whole > have as u64 && whole <= room && whole <= u64::from(header.max_group) {
        bytes.resize(whole as usize, 0);
        let n = read_full(file, &mut bytes[have..], offset + have as u64)?;
        bytes.truncate(have + n);
    }
    Ok(bytes)
}
