//! Checks independently of the engine that a record which was read is in the files. Written from
//! docs/format.md.

use super::memory::Files;
use super::repair::{BLOCK, behind, is_group, record_sum, seal_header, u32_at, u64_at};

/// The segments among the files.
pub(super) struct Witness<'a> {
    /// Base, length, log id and content of each segment.
    segments: Vec<(u64, u64, [u8; 16], &'a super::memory::Content)>,
}

impl<'a> Witness<'a> {
    pub(super) fn new(files: &'a Files) -> Self {
        let segments = files
            .iter()
            .filter(|(name, _)| name.ends_with(".wal"))
            .map(|(_, content)| {
                let header = content.read(0, 128);
                let id = header.get(32..48).and_then(|id| id.first_chunk()).copied();
                (u64_at(&header, 56), content.len, id.unwrap_or_default(), content)
            })
            .collect();
        Witness { segments }
    }

    /// Panics unless the segments could be those of a log that opens.
    pub(super) fn check_segments(&self) {
        for &(base, len, _, content) in &self.segments {
            assert_eq!(u64_at(&content.read(48, 8), 0), len, "length of the segment at {base}");
        }
        for pair in self.segments.windows(2) {
            assert_eq!(pair[0].0 + pair[0].1, pair[1].0, "a gap");
            assert_eq!(pair[0].2, pair[1].2, "two logs");
        }
    }

    /// The highest durable mark of the headers whose checksum, position and log id are right.
    pub(super) fn newest_mark(&self) -> u64 {
        let mut newest = 0;
        for &(base, _, id, content) in &self.segments {
            for at in (BLOCK..content.bytes.len()).step_by(BLOCK) {
                let Some(b) = content.bytes.get(at..at + 128) else { continue };
                let mut sealed = b.to_vec();
                seal_header(&mut sealed);
                if is_group(b, 0)
                    && sealed == b
                    && u64_at(b, 8) == base + at as u64
                    && b[16..32] == id
                {
                    newest = newest.max(u64_at(b, 48));
                }
            }
        }
        newest
    }

    /// Positions of the first records of groups that are not on the run of groups from a segment's
    /// start.
    pub(super) fn left_behind(&self) -> Vec<u64> {
        let mut found = Vec::new();
        for &(base, _, _, content) in &self.segments {
            let b = &content.bytes[..];
            let mut at = BLOCK;
            while is_group(b, at) {
                at = behind(b, at);
            }
            let blocks = (at..b.len()).step_by(BLOCK).filter(|&at| is_group(b, at));
            found.extend(blocks.map(|at| base + at as u64 + 128));
        }
        found.truncate(8);
        found
    }

    /// Panics unless a record or an item of a batch with this payload is at `lsn`, with a right
    /// checksum.
    pub(super) fn check(&self, lsn: u64, payload: &[u8]) {
        let witnessed = self.segments.iter().any(|&(base, len, ref id, content)| {
            if lsn < base || lsn - base >= len {
                return false;
            }
            let bytes = |lsn: u64, len: usize| content.read(lsn.wrapping_sub(base), len);
            let head = bytes(lsn, 12);
            let length = u32_at(&head, 0) as usize;
            if length != payload.len() || head.len() < 12 && length > 0 {
                return false;
            }
            let sound = |lsn: u64, kind: u8| {
                let head = bytes(lsn, 12);
                let body = bytes(lsn.wrapping_add(12), u32_at(&head, 0) as usize);
                let right = head.len() == 12
                    && body.len() == u32_at(&head, 0) as usize
                    && head[8] == kind
                    && record_sum(id, &head, &body, lsn) == u32_at(&head, 4);
                right.then_some(body)
            };
            if sound(lsn, 1).is_some_and(|body| body == payload) {
                return true;
            }
            let back = u64::from(u32_at(&head, 4));
            let batch = lsn.checked_sub(back).filter(|&at| at >= base);
            batch.and_then(|at| sound(at, 2)).is_some_and(|body| {
                let from = back as usize - 12 + 8;
                body.get(from..from + length).is_some_and(|item| item == payload)
            })
        });
        assert!(witnessed, "a record at {lsn} that is not in the files");
    }
}
