//! Single places: a record by its position, the place of a cut.

use std::sync::Arc;

use super::Reader;
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
use crate::segment::Found;

/// The record at exactly `lsn`, which lies below the durable end.
pub(crate) fn read_one(view: &Arc<LogView>, lsn: u64, durable_end: u64) -> Result<Record> {
    view.cuts.check(lsn)?;
    find_one(view, lsn, durable_end).map_err(|e| view.explain(e, lsn))
}

fn find_one(view: &Arc<LogView>, lsn: u64, durable_end: u64) -> Result<Record> {
    let pin = match view.table.pin(lsn) {
        Ok(pin) => pin,
        Err(Found::Pruned(oldest)) => return Err(Error::Pruned { oldest: Lsn::new(oldest) }),
        Err(_) => return Err(Error::NoRecord { lsn: Lsn::new(lsn) }),
    };
    let header = pin.header;
    let name = view.names.segment(header.base);
    let io = |op, e| Error::io(op, view.dir.path_of(&name), e);
    let file = view
        .table
        .reader(header.base, || view.dir.open(&name, Access::Read))
        .map_err(|e| io("open", e))?;
    let used_end = used_end(view, &header, durable_end)?;
    if lsn >= header.first_group() && lsn < used_end && lsn.is_multiple_of(8) {
        let seed = Seed::new(&header.log_id);
        let found = read_record_at(&*file, &header, used_end, lsn, &seed);
        if let Some(record) = found.map_err(|e| io("read", e))? {
            return Ok(record);
        }
    }
    // Not a sound record: damaged, or not a record's position. The group that it lies in tells.
    let mut reader = Reader::new(Arc::clone(view), lsn, durable_end);
    match reader.next() {
        Some(Ok(record)) if record.lsn.as_u64() == lsn => Ok(record),
        Some(Err(e)) => Err(e),
        _ => Err(Error::NoRecord { lsn: Lsn::new(lsn) }),
    }
}

/// Where a cut at `from` has to begin: at a record, a batch, or between groups that hold some. `None`: nothing
/// durable lies at or above it.
pub(crate) fn cut_point(view: &Arc<LogView>, from: u64, durable_end: u64) -> Result<Option<u64>> {
    // What is void already ends with the group that made it so.
    let from = view.cuts.at(from).map_or(from, |cut| cut.to);
    let mut reader = Reader::new(Arc::clone(view), from, durable_end);
    let found = reader.advance()?;
    let Some(place) = &reader.place else { return Ok(None) };
    let group = place.link.map_or(from, |link| link.lsn);
    let between = (place.passed..=group + u64::from(GROUP_HEADER)).contains(&from);
    let no_record = Err(Error::NoRecord { lsn: Lsn::new(from) });
    match found {
        None if from >= place.passed => return Ok(None),
        Some(span) if span.lsn == from => {}
        Some(_) if between => return Ok(Some(from.max(group))),
        _ => return no_record,
    }
    // Behind an item the cursor is still in its batch, or at its end.
    let is_item = place.cursor.at <= place.cursor.batch_end;
    let head = place.held().at(from, ITEM_HEADER).and_then(|(_, head)| head.first_chunk());
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

/// Where the groups of a segment end: what lies behind may be older than the log's last cut.
fn used_end(view: &LogView, header: &SegmentHeader, durable_end: u64) -> Result<u64> {
    let found = view.table.used_end(header.base, durable_end, |next| {
        let name = view.names.segment(next.base);
        let io = |e| Error::io("read", view.dir.path_of(&name), e);
        let open = |h: &SegmentHeader| {
            view.dir.open(&view.names.segment(h.base), Access::Read).map_err(io)
        };
        let damaged = |h: &SegmentHeader, lsn: u64| Error::Corruption {
            segment: view.names.segment(h.base),
            offset: lsn - h.base,
            lsn: Lsn::new(lsn),
            reason: "no group header",
        };
        let first = Walker::new(open(&next)?, next)
            .group(next.first_group())
            .map_err(io)?
            .map_err(|_| damaged(&next, next.first_group()))?;
        if !(header.first_group()..header.end()).contains(&first.prev) {
            return Err(damaged(&next, next.first_group()));
        }
        let last = Walker::new(open(header)?, *header)
            .group(first.prev)
            .map_err(io)?
            .map_err(|_| damaged(header, first.prev))?;
        Ok(last.padded_end(header.block))
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
        return Ok(is_data.then_some(Record { lsn: Lsn::new(lsn), payload }));
    }
    let Some(back) = bytes.first_chunk().map(locate_item) else { return Ok(None) };
    let Some(start) = lsn.checked_sub(back).filter(|&s| s >= header.first_group() && s < lsn)
    else {
        return Ok(None);
    };
    let bytes = read_bytes(file, header, end, start)?;
    let Ok(batch) = decode_record(&bytes, start, seed, None) else { return Ok(None) };
    let item = batch.items().flatten().find(|item| item.lsn == lsn);
    Ok(item.map(|item| Record { lsn: Lsn::new(lsn), payload: item.payload.to_vec() }))
}

/// The bytes from `lsn` on, as many as the record that may start there says it has, within `end`.
fn read_bytes(
    file: &dyn File,
    header: &SegmentHeader,
    end: u64,
    lsn: u64,
) -> std::io::Result<Vec<u8>> {
    const FIRST: u64 = 4096;
    let room = end - lsn;
    let offset = lsn - header.base;
    let mut bytes = vec![0; room.min(FIRST) as usize];
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
