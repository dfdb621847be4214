//! Manifests: a line of JSON, and a line with its CRC-32.
//!
//! 1. A segment is archived if and only if its manifest is valid. A prefix of a manifest is not.
//! 2. A manifest comes from a store, so every number is checked before it is used.

use std::time::{SystemTime, UNIX_EPOCH};

use ringwal::inspect::SealedContent;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::layout;

const FORMAT: u32 = 1;
/// The largest segment of the log's format, in bytes.
const MAX_SEGMENT: u64 = 1 << 40;
/// The largest part of an object, in bytes: restoring holds some of them in memory.
pub(crate) const MAX_PART: u64 = 256 << 20;
/// The largest manifest in bytes: of a segment of 1 TiB in small parts.
pub(crate) const MAX_MANIFEST: u64 = 16 << 20;

/// Which log an archive is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) format: u32,
    pub(crate) log_id: String,
}

/// Where a pruned archive begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Floor {
    pub(crate) format: u32,
    pub(crate) log_id: String,
    /// The first position that belongs to the archive.
    pub(crate) from: u64,
}

/// An archived segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    pub(crate) log_id: String,
    pub(crate) application_version: u32,
    /// The segment: its first position and its bytes.
    pub(crate) base: u64,
    pub(crate) size: u64,
    pub(crate) groups_end: u64,
    pub(crate) first_ordinal: u64,
    pub(crate) records: u64,
    pub(crate) first_written: u64,
    pub(crate) last_written: u64,
    pub(crate) latest_written: u64,
    pub(crate) chain_hash: String,
    /// The `chain_hash` of the segment before. Manifests of older versions lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) previous_hash: Option<String>,
    /// The object with the segment's first bytes, up to the end of the last group.
    pub(crate) object: String,
    pub(crate) bytes: u64,
    pub(crate) crc32: String,
    pub(crate) part_bytes: u64,
    pub(crate) parts: Vec<String>,
}

/// Why an object is no manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// A part of it is missing or changed.
    Torn,
    /// A newer version wrote it.
    Version(u32),
    /// Its checksum is right, and its content is not.
    Fields,
}

#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    let crc = crc32fast::hash(&text);
    text.extend_from_slice(format!("{crc:08x}\n").as_bytes());
    text
}

fn decode<T: DeserializeOwned>(text: &[u8]) -> Result<T, Invalid> {
    // The last line has eight digits and a line break.
    let at = text.len().checked_sub(9).ok_or(Invalid::Torn)?;
    let (body, crc) = text.split_at(at);
    if crc != format!("{:08x}\n", crc32fast::hash(body)).as_bytes() || !body.ends_with(b"\n") {
        return Err(Invalid::Torn);
    }
    let versioned: Versioned = serde_json::from_slice(body).map_err(|_| Invalid::Fields)?;
    if versioned.format != FORMAT {
        return Err(Invalid::Version(versioned.format));
    }
    serde_json::from_slice(body).map_err(|_| Invalid::Fields)
}

/// Nanoseconds since 1970, as groups state the time.
pub(crate) fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// 32 hexadecimal digits.
pub(crate) fn hex(id: &[u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Identity {
    pub(crate) fn of(log_id: &[u8; 16]) -> Self {
        Identity { format: FORMAT, log_id: hex(log_id) }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(crate) fn decode(text: &[u8]) -> Result<Self, Invalid> {
        decode(text)
    }
}

impl Floor {
    pub(crate) fn of(log_id: &str, from: u64) -> Self {
        Floor { format: FORMAT, log_id: log_id.into(), from }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(crate) fn decode(text: &[u8]) -> Result<Self, Invalid> {
        decode(text)
    }
}

impl Manifest {
    /// The manifest of a segment whose object has these parts.
    pub(crate) fn of(content: &SealedContent, part_bytes: u64, parts: &[u32]) -> Self {
        let base = content.file.base.as_u64();
        let bytes = content.groups_end.as_u64() - base;
        Manifest {
            format: FORMAT,
            log_id: hex(&content.log_id),
            application_version: content.application_version,
            base,
            size: content.file.size,
            groups_end: content.groups_end.as_u64(),
            first_ordinal: content.first_ordinal,
            records: content.records,
            first_written: content.first_written,
            last_written: content.last_written,
            latest_written: content.latest_written,
            chain_hash: format!("{:016x}", content.chain_hash),
            previous_hash: Some(format!("{:016x}", content.previous_hash)),
            object: layout::segment(base, content.chain_hash),
            bytes,
            crc32: format!("{:08x}", combined(parts, part_bytes, bytes)),
            part_bytes,
            parts: parts.iter().map(|crc| format!("{crc:08x}")).collect(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Decodes the manifest of the segment that begins at `base`.
    pub(crate) fn decode(text: &[u8], base: u64) -> Result<Self, Invalid> {
        let manifest: Manifest = decode(text)?;
        if manifest.is_valid(base) { Ok(manifest) } else { Err(Invalid::Fields) }
    }

    fn is_valid(&self, base: u64) -> bool {
        let Some(hash) = number(&self.chain_hash, 16) else { return false };
        let Some(crcs) = self.crcs() else { return false };
        let end = self.base.checked_add(self.size);
        self.base == base
            && self.size <= MAX_SEGMENT
            && end.is_some_and(|end| (self.base + 1..=end).contains(&self.groups_end))
            && self.bytes == self.groups_end - self.base
            && (1..=MAX_PART).contains(&self.part_bytes)
            && crcs.len() as u64 == self.bytes.div_ceil(self.part_bytes)
            && self.object == layout::segment(base, hash)
            && self.previous_hash.as_ref().is_none_or(|text| number(text, 16).is_some())
            && number(&self.crc32, 8) == Some(combined(&crcs, self.part_bytes, self.bytes).into())
            && self.first_ordinal.checked_add(self.records).is_some()
    }

    /// The first position after the segment.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.size
    }

    /// The checksums of the parts.
    pub(crate) fn crcs(&self) -> Option<Vec<u32>> {
        let crc = |text: &String| number(text, 8).and_then(|crc| u32::try_from(crc).ok());
        self.parts.iter().map(crc).collect()
    }

    /// The parts of the object: each with its place in it.
    pub(crate) fn ranges(&self) -> Vec<std::ops::Range<u64>> {
        ranges(self.bytes, self.part_bytes)
    }

    /// Whether this segment continues one before it, as far as both manifests tell. Behind a gap
    /// nothing tells.
    pub(crate) fn continues(&self, before: &Manifest) -> bool {
        before.end() < self.base
            || before.end() == self.base
                && self.previous_hash.as_ref().is_none_or(|hash| *hash == before.chain_hash)
    }

    /// Whether both are of one history of one log.
    pub(crate) fn is_of_one_history(&self, other: &SealedContent) -> bool {
        self.log_id == hex(&other.log_id)
            && self.size == other.file.size
            && self.groups_end == other.groups_end.as_u64()
            && number(&self.chain_hash, 16) == Some(other.chain_hash)
    }
}

/// Cuts an object into parts.
pub(crate) fn ranges(bytes: u64, part: u64) -> Vec<std::ops::Range<u64>> {
    let count = bytes.div_ceil(part);
    (0..count).map(|n| n * part..((n + 1) * part).min(bytes)).collect()
}

/// A number of exactly so many hexadecimal digits.
fn number(text: &str, digits: usize) -> Option<u64> {
    let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if plain { u64::from_str_radix(text, 16).ok() } else { None }
}

/// The checksum of an object, from those of its parts.
fn combined(parts: &[u32], part_bytes: u64, bytes: u64) -> u32 {
    let mut all = crc32fast::Hasher::new();
    for (crc, range) in parts.iter().zip(ranges(bytes, part_bytes)) {
        let part = crc32fast::Hasher::new_with_initial_len(*crc, range.end - range.start);
        all.combine(&part);
    }
    all.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let bytes: Vec<u8> = (0..10_000_u32).map(|n| n as u8).collect();
        let crcs: Vec<u32> = bytes.chunks(4096).map(crc32fast::hash).collect();
        Manifest {
            format: 1,
            log_id: "07".repeat(16),
            application_version: 0,
            base: 65536,
            size: 65536,
            groups_end: 75536,
            first_ordinal: 3,
            records: 5,
            first_written: 1,
            last_written: 2,
            latest_written: 2,
            chain_hash: "00000000000000ff".into(),
            previous_hash: Some("00000000000000fe".into()),
            object: layout::segment(65536, 255),
            bytes: 10_000,
            crc32: format!("{:08x}", crc32fast::hash(&bytes)),
            part_bytes: 4096,
            parts: crcs.iter().map(|crc| format!("{crc:08x}")).collect(),
        }
    }

    #[test]
    fn a_manifest_survives_encoding_and_no_prefix_of_it_is_valid() {
        let text = sample().encode();
        assert_eq!(Manifest::decode(&text, 65536), Ok(sample()));
        for len in 0..text.len() {
            assert_eq!(Manifest::decode(&text[..len], 65536), Err(Invalid::Torn), "{len}");
        }
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            assert!(Manifest::decode(&changed, 65536).is_err(), "{at}");
        }
    }

    #[test]
    fn a_manifest_of_an_older_version_lacks_the_hash_before_and_continues_any_segment() {
        let old = Manifest { previous_hash: None, ..sample() };
        assert!(!String::from_utf8_lossy(&old.encode()).contains("previous_hash"));
        assert_eq!(Manifest::decode(&old.encode(), 65536), Ok(old.clone()));
        let before = Manifest { base: 0, chain_hash: "00000000000000fe".into(), ..sample() };
        let other = Manifest { chain_hash: "00000000000000fd".into(), ..before.clone() };
        assert!(sample().continues(&before) && old.continues(&before) && old.continues(&other));
        assert!(!sample().continues(&other), "another history");
        let overlapping = Manifest { size: 65537, ..before.clone() };
        let apart = Manifest { size: 65535, ..other };
        assert!(!sample().continues(&overlapping) && sample().continues(&apart));
    }

    #[test]
    fn a_manifest_with_wrong_fields_is_refused_behind_a_right_checksum() {
        let break_it: [fn(&mut Manifest); 15] = [
            |m| m.base = 0,
            |m| m.size = u64::MAX,
            |m| m.size = 100,
            |m| m.groups_end = 0,
            |m| m.groups_end = u64::MAX,
            |m| m.bytes = 9_999,
            |m| m.part_bytes = 0,
            |m| m.part_bytes = u64::MAX,
            |m| m.parts.truncate(2),
            |m| m.parts[0] = "+0000001".into(),
            |m| m.object = "../elsewhere".into(),
            |m| m.chain_hash = "0000000000000100".into(),
            |m| m.previous_hash = Some("fe".into()),
            |m| m.crc32 = "00000000".into(),
            |m| m.records = u64::MAX,
        ];
        for (case, change) in break_it.iter().enumerate() {
            let mut manifest = sample();
            change(&mut manifest);
            let decoded = Manifest::decode(&manifest.encode(), 65536);
            assert_eq!(decoded, Err(Invalid::Fields), "case {case}");
        }
        let newer = Manifest { format: 2, ..sample() };
        assert_eq!(Manifest::decode(&newer.encode(), 65536), Err(Invalid::Version(2)));
        assert_eq!(Identity::decode(b"{}\n"), Err(Invalid::Torn));
    }
}
