//! Edits a log's files: fields, blocks, whole groups and names.

use super::base::Base;
use super::forge::forge;
use super::input::{Edit, number};
use super::life::names;
use super::memory::{Content, Files};
use super::repair::{
    BLOCK, behind, is_group, link, log_id, put, seal_group_records, seal_header, seal_segment, set,
    u32_at, u64_at,
};
use crate::format::stamp;

/// Bytes of the longest file.
const LONGEST: u64 = 4 << 20;
/// Number of files at most.
const FILES: usize = 10;

/// Offset and size of each field of a group header, a segment header and a record header, in bytes.
const GROUP: [(usize, usize); 15] = [
    (8, 8),
    (16, 8),
    (32, 8),
    (40, 8),
    (48, 8),
    (56, 8),
    (64, 8),
    (72, 4),
    (76, 4),
    (80, 8),
    (88, 8),
    (96, 8),
    (104, 4),
    (108, 4),
    (120, 8),
];
const SEGMENT: [(usize, usize); 14] = [
    (0, 8),
    (8, 2),
    (10, 1),
    (11, 1),
    (16, 4),
    (20, 4),
    (24, 4),
    (28, 4),
    (32, 8),
    (48, 8),
    (56, 8),
    (64, 4),
    (68, 4),
    (80, 8),
];
const RECORD: [(usize, usize); 6] = [(0, 4), (4, 4), (8, 1), (9, 1), (10, 2), (12, 4)];

struct Piece {
    name: String,
    bytes: Vec<u8>,
    /// Length of the file in bytes, if it differs from that of `bytes`.
    len: Option<u64>,
}

pub(super) struct Image<'a> {
    base: &'a Base,
    pieces: Vec<Piece>,
}

impl<'a> Image<'a> {
    pub(super) fn new(base: &'a Base) -> Self {
        let piece = |(name, content): (&String, &Content)| {
            let mut bytes = content.bytes.to_vec();
            bytes.resize(content.len as usize, 0);
            Piece { name: name.clone(), bytes, len: None }
        };
        Image { base, pieces: base.files.iter().map(piece).collect() }
    }

    pub(super) fn files(self) -> Files {
        let content = |piece: Piece| {
            let mut content = Content::new(piece.bytes);
            content.len = piece.len.unwrap_or(content.len).max(content.len);
            (piece.name, content)
        };
        self.pieces.into_iter().map(content).collect()
    }

    pub(super) fn apply(&mut self, edit: &Edit) {
        match edit.kind % 26 {
            20 => return self.add_file(edit),
            21 => return self.shift(edit),
            22 => return self.link(),
            23 => return self.seal(edit.value & 1 != 0),
            _ => {}
        }
        if self.pieces.is_empty() {
            return;
        }
        let n = edit.file % self.pieces.len();
        let source = self.source(edit);
        let piece = &mut self.pieces[n];
        let b = &mut piece.bytes;
        let blocks = (b.len() / BLOCK).max(1);
        let at = edit.low % blocks * BLOCK;
        let base = u64_at(b, 56);
        match edit.kind % 26 {
            0..=2 => {
                let (field, size) = GROUP[edit.high % GROUP.len()];
                let old = u64_at(b, at + field);
                let new = number(edit.value, old, base.wrapping_add(at as u64), base);
                set(b, at + field, size, new);
                if edit.kind % 26 != 2 {
                    let whole = at.min(b.len());
                    seal_header(&mut b[whole..]);
                }
            }
            3 => {
                let (field, size) = SEGMENT[edit.high % SEGMENT.len()];
                let new = number(edit.value, u64_at(b, field), base, base);
                set(b, field, size, new);
                seal_segment(b);
            }
            4..=6 => edit_record(b, at, edit),
            7 => set(b, at + (edit.value >> 16) as usize % BLOCK, 1, u64::from(edit.value)),
            8 => {
                // Sectors of another file or an earlier time, at their own place or elsewhere.
                let len = 512 << (edit.high % 5);
                let from = edit.value as usize % (source.len() / 512).max(1) * 512;
                put(b, at, source.get(from..).map_or(&[], |s| &s[..s.len().min(len)]));
            }
            9 => {
                let from = at.min(source.len());
                put(b, at, &source[from..]);
            }
            10 => relocate(b, at, &source, edit),
            11 => {
                let other = edit.high % blocks * BLOCK;
                let (x, y) = (at.min(other), at.max(other));
                if x < y && y + BLOCK <= b.len() {
                    let (low, high) = b.split_at_mut(y);
                    low[x..x + BLOCK].swap_with_slice(&mut high[..BLOCK]);
                }
            }
            12 => {
                let to = (at + (edit.high + 1) * 512).min(b.len());
                b[at.min(to)..to].fill(0);
            }
            13 => b.truncate(at + edit.value as usize % (BLOCK + 1)),
            14 => piece.len = Some(u64::from(edit.value) % LONGEST),
            15 => {
                // The header states the length, and the file has it.
                let size =
                    number(edit.value, b.len() as u64, BLOCK as u64, 0) % LONGEST / 4096 * 4096;
                set(b, 48, 8, size);
                seal_segment(b);
                b.truncate(size as usize);
                piece.len = Some(size);
            }
            16 => {
                self.pieces.remove(n);
            }
            17 => piece.name = names().segment(number(edit.value, base, base, base)),
            18 => {
                let stamp = stamp(base.wrapping_add(at as u64), &log_id(b));
                put(b, at, &stamp);
            }
            19 => {
                let retag = edit.high % 2 == 1;
                let (end, records) = seal_group_records(b, at, retag);
                if is_group(b, at) && edit.high % 4 > 1 {
                    set(b, at + 72, 4, (end + 128) as u64);
                    set(b, at + 76, 4, records);
                    seal_header(&mut b[at..]);
                }
            }
            _ => forge(b, at, edit),
        }
    }

    /// The bytes to copy from: of a file now, or at an earlier time.
    fn source(&self, edit: &Edit) -> Vec<u8> {
        if !matches!(edit.kind % 26, 8..=10) {
            return Vec::new();
        }
        let (own, stale) = (self.pieces.len(), &self.base.stale);
        let n = (edit.value >> 24) as usize % (own + stale.len());
        if n < own { self.pieces[n].bytes.clone() } else { stale[n - own].to_vec() }
    }

    fn add_file(&mut self, edit: &Edit) {
        if self.pieces.len() >= FILES {
            return;
        }
        let like = (!self.pieces.is_empty()).then(|| &self.pieces[edit.file % self.pieces.len()]);
        let bytes = match (like, edit.low % 3) {
            (_, 0) | (None, _) => vec![0; edit.low * 16],
            (Some(piece), _) => piece.bytes.clone(),
        };
        let base = u64_at(&bytes, 56);
        let behind = base.wrapping_add(bytes.len() as u64);
        let name = match edit.high % 6 {
            0 => names().temporary(u64::from(edit.value)),
            1 => names().commit(),
            2 => names().segment(behind),
            3 => names().probe(),
            4 => format!("wal.{:020}.wal~", edit.value),
            _ => names().segment(number(edit.value, base, behind, base)),
        };
        let mut piece = Piece { name, bytes, len: None };
        if edit.low % 3 == 2 {
            // The header states the base that the name states.
            let base =
                if edit.high % 6 == 2 { behind } else { number(edit.value, base, behind, base) };
            set(&mut piece.bytes, 56, 8, base);
            seal_segment(&mut piece.bytes);
        }
        self.pieces.push(piece);
    }

    /// Moves the whole log in the address space.
    fn shift(&mut self, edit: &Edit) {
        let first = self.pieces.iter().map(|p| u64_at(&p.bytes, 56)).min().unwrap_or(0);
        let to = number(edit.value, first, first, first) / 4096 * 4096;
        let by = to.wrapping_sub(first);
        for piece in &mut self.pieces {
            let b = &mut piece.bytes;
            let base = u64_at(b, 56).wrapping_add(by);
            set(b, 56, 8, base);
            seal_segment(b);
            piece.name = names().segment(base);
            for at in (BLOCK..b.len()).step_by(BLOCK).collect::<Vec<_>>() {
                if is_group(b, at) {
                    for field in [8, 48, 56, 96] {
                        let moved = u64_at(b, at + field).wrapping_add(by);
                        set(b, at + field, 8, moved);
                    }
                    seal_group_records(b, at, false);
                    seal_header(&mut b[at..]);
                }
            }
        }
        self.link();
    }

    fn link(&mut self) {
        self.pieces.sort_by(|a, b| a.name.cmp(&b.name));
        link(self.pieces.iter_mut().map(|p| &mut p.bytes));
    }

    /// Recomputes the checksums of every group.
    pub(super) fn seal(&mut self, records: bool) {
        for Piece { bytes: b, .. } in &mut self.pieces {
            for at in (BLOCK..b.len()).step_by(BLOCK) {
                if is_group(b, at) {
                    if records {
                        seal_group_records(b, at, false);
                    }
                    seal_header(&mut b[at..]);
                }
            }
        }
    }
}

/// Edits a field of the n-th record of a group, or one of its bytes.
fn edit_record(b: &mut [u8], at: usize, edit: &Edit) {
    if !is_group(b, at) {
        return;
    }
    let mut record = at + 128;
    for _ in 0..edit.high >> 4 {
        let next = record + ((12 + u32_at(b, record) as usize + 7) & !7);
        if next + 12 > b.len() {
            break;
        }
        record = next;
    }
    let (field, size) = RECORD[(edit.high & 15) % RECORD.len()];
    let field = if edit.high & 15 > 12 { (edit.value >> 16) as usize % 200 } else { field };
    let old = u64_at(b, record + field);
    set(b, record + field, size, number(edit.value, old, record as u64, 0));
    if edit.kind % 26 != 6 {
        seal_group_records(b, at, false);
    }
}

/// Copies a group of the source here, with the position, log id and checksums that this place
/// needs.
fn relocate(b: &mut [u8], at: usize, source: &[u8], edit: &Edit) {
    let from = edit.high % (source.len() / BLOCK).max(1) * BLOCK;
    if !is_group(source, from) || b.len() < at + 128 {
        return;
    }
    let to = behind(source, from).min(source.len());
    put(b, at, &source[from..to]);
    let (id, base) = (log_id(b), u64_at(b, 56));
    put(b, at + 16, &id);
    set(b, at + 8, 8, base.wrapping_add(at as u64));
    if edit.value & 1 != 0 {
        set(b, at + 48, 8, base.wrapping_add(at as u64));
    }
    seal_group_records(b, at, true);
    seal_header(&mut b[at..]);
}
