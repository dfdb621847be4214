//! Reads an input as fixed-size words: a mutated byte changes one number, an inserted word adds one
//! edit.

/// Bytes of one edit.
pub(super) const EDIT: usize = 8;
/// Number of edits read at most. More make an input slow and reach nothing new.
const MOST: usize = 48;

/// One change, as read from the input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edit {
    pub(super) kind: u8,
    pub(super) file: usize,
    /// The place: usually a block (`low`) and a field (`high`).
    pub(super) low: usize,
    pub(super) high: usize,
    pub(super) value: u32,
}

/// Splits off the bytes before the edits. They are zero where the input is shorter.
pub(super) fn head<const N: usize>(input: &[u8]) -> ([u8; N], &[u8]) {
    let mut head = [0; N];
    let n = input.len().min(N);
    head[..n].copy_from_slice(&input[..n]);
    (head, &input[n..])
}

pub(super) fn edits(input: &[u8]) -> impl Iterator<Item = Edit> {
    input.as_chunks::<EDIT>().0.iter().take(MOST).map(|b| Edit {
        kind: b[0],
        file: usize::from(b[1]),
        low: usize::from(b[2]),
        high: usize::from(b[3]),
        value: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
    })
}

/// Turns 32 bits of input into a value for a field: small, near the old value, near the places that
/// matter, or at the ends of the range.
pub(super) fn number(value: u32, old: u64, here: u64, base: u64) -> u64 {
    let low = u64::from(value & 0x0FFF_FFFF);
    let blocks = (low & 0xFF) * 4096;
    match value >> 28 {
        0 | 1 => low,
        2 => old.wrapping_add(low & 0xFFFF),
        3 => old.wrapping_sub(low & 0xFFFF),
        4 => old ^ 1 << (low & 63),
        5 => u64::MAX - (low & 0xFFFF),
        6 => here.wrapping_add(blocks),
        7 => here.wrapping_sub(blocks),
        8 => (1 << (low & 63)) + (low >> 6 & 0xFF),
        9 => base.wrapping_add(low & 0xFFFF),
        10 => base.wrapping_sub(low & 0xFFFF),
        11 => old.wrapping_add(blocks),
        12 => old.wrapping_sub(blocks),
        13 => (1 << 62) - (low & 0xFF) * 4096,
        14 => u64::from(u32::MAX) - (low & 0xFF),
        _ => low << 36 | low,
    }
}
