//! Forges groups that no writer wrote, with valid checksums.

use super::input::Edit;
use super::repair::{
    BLOCK, behind, is_group, link_hash, log_id, put, seal_group_records, seal_header, set, u32_at,
    u64_at,
};
use crate::format::{item_size, write_item};

/// Writes a new group: a control group, or some records and a batch. It follows the last group
/// before this place in the file, if there is one.
pub(super) fn forge(b: &mut [u8], at: usize, edit: &Edit) {
    let mut before = BLOCK;
    while is_group(b, before) && behind(b, before) < at {
        before = behind(b, before);
    }
    let place = if edit.high & 1 != 0 && is_group(b, before) { behind(b, before) } else { at };
    let (id, base) = (log_id(b), u64_at(b, 56));
    let lsn = base.wrapping_add(place as u64);
    let mut group = vec![0; 128];
    put(&mut group, 0, b"RWGp");
    if is_group(b, before) && before < place {
        let old = b[before..before + 128].to_vec();
        put(&mut group, 32, &old[32..48]);
        put(&mut group, 96, &old[96..104]);
        put(&mut group, 56, &old[8..16]);
        put(&mut group, 64, &link_hash(&old).to_le_bytes());
        let ordinal = u64_at(&old, 80).wrapping_add(u64::from(u32_at(&old, 76)));
        put(&mut group, 80, &ordinal.to_le_bytes());
    }
    put(&mut group, 8, &lsn.to_le_bytes());
    put(&mut group, 16, &id);
    put(&mut group, 48, &lsn.to_le_bytes());
    match edit.high >> 1 & 7 {
        0 => set(&mut group, 104, 4, u64::from(edit.value & 15)),
        1 => {
            let counter = u64_at(&group, 32).wrapping_add(u64::from(edit.value & 3));
            set(&mut group, 32, 8, counter);
            set(&mut group, 104, 4, 1);
        }
        kinds => {
            for n in 0..1 + edit.value as usize % 5 {
                let len = (edit.value as usize >> (3 * n)) % 700;
                let batch = kinds >> (n % 3) & 1 != 0;
                let payload = vec![edit.low as u8; len];
                let body = if batch { batch_of(&payload, 1 + n) } else { payload };
                let start = group.len();
                group.resize(start + ((12 + body.len() + 7) & !7), 0);
                put(&mut group, start, &(body.len() as u32).to_le_bytes());
                put(&mut group, start + 8, &[if batch { 2 } else { 1 }]);
                put(&mut group, start + 12, &body);
            }
        }
    }
    let used = group.len();
    set(&mut group, 72, 4, used as u64);
    group.resize(used.div_ceil(BLOCK) * BLOCK, 0);
    let (_, records) = seal_group_records(&mut group, 0, true);
    set(&mut group, 76, 4, records);
    seal_header(&mut group);
    put(b, place, &group);
}

/// The payload of a batch of `count` items.
pub(super) fn batch_of(item: &[u8], count: usize) -> Vec<u8> {
    let mut record = vec![0; 16 + count * item_size(item.len()) as usize];
    put(&mut record, 12, &(count as u32).to_le_bytes());
    let mut at = 16;
    for _ in 0..count {
        at = write_item(&mut record, at, item);
    }
    record.split_off(12)
}
