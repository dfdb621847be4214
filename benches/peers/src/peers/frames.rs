//! The format of the baselines: length, CRC-32, payload, one record after the other, then zeros.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::peer::{Replayed, Result, Tally};

const HEADER: usize = 8;
const CHUNK: usize = 1 << 20;
/// Bytes of the largest record. A frame that states more is no record.
const LARGEST: usize = 64 << 20;

/// Adds a record.
pub(super) fn push(buffer: &mut Vec<u8>, payload: &[u8]) -> Result<()> {
    let length = u32::try_from(payload.len())?;
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    buffer.extend_from_slice(payload);
    Ok(())
}

/// Counts the records of a file up to the first invalid one.
pub(super) fn replay(path: &Path) -> Result<Replayed> {
    Ok((scan(path)?, Box::new(())))
}

fn scan(path: &Path) -> Result<Tally> {
    let mut file = File::open(path)?;
    let (mut tally, mut buffer, mut filled) = (Tally::default(), vec![0; CHUNK], 0);
    loop {
        let read = file.read(buffer.get_mut(filled..).unwrap_or_default())?;
        filled += read;
        let mut rest = buffer.get(..filled).unwrap_or_default();
        let needed = loop {
            match parse(rest) {
                Parsed::Record(payload, after) => {
                    tally.count(payload);
                    rest = after;
                }
                Parsed::Needs(bytes) => break bytes,
                Parsed::End => return Ok(tally),
            }
        };
        if read == 0 {
            return Ok(tally);
        }
        let (start, kept) = (filled - rest.len(), rest.len());
        buffer.copy_within(start..filled, 0);
        filled = kept;
        buffer.resize(buffer.len().max(needed + CHUNK), 0);
    }
}

enum Parsed<'a> {
    Record(&'a [u8], &'a [u8]),
    Needs(usize),
    End,
}

fn parse(bytes: &[u8]) -> Parsed<'_> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Parsed::Needs(HEADER);
    };
    let [a, b, c, d, e, f, g, h] = *header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length == 0 || length > LARGEST {
        return Parsed::End;
    }
    match rest.split_at_checked(length) {
        None => Parsed::Needs(HEADER + length),
        Some((payload, after)) if crc32fast::hash(payload) == u32::from_le_bytes([e, f, g, h]) => {
            Parsed::Record(payload, after)
        }
        Some(_) => Parsed::End,
    }
}
