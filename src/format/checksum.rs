//! CRC-32 over the 16 bytes that stand behind a record's payload in its checksum.
//!
//! CRC-32 is linear. Each of the 16 bytes, the first four after the checksum so far is added to
//! them, has its own table of what it adds to the result. So the bytes need no second pass of the
//! folding that `crc32fast` does for payloads: 16 look-ups, none of which waits for another.

/// `TABLES[n][b]` is what byte `b` adds to the checksum when `n` bytes follow it.
///
/// A record looks up random places in the four tables of its payload's sum, 4 KiB, and few lines of
/// the others: the high bytes of positions and lengths are zeros.
static TABLES: [[u32; 256]; 16] = tables();

/// The polynomial of CRC-32 as Ethernet and zip have it, with its bits reversed.
const POLYNOMIAL: u32 = 0xEDB8_8320;

const fn tables() -> [[u32; 256]; 16] {
    let mut tables = [[0; 256]; 16];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ POLYNOMIAL };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut after = 1;
    while after < 16 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[after - 1][byte];
            tables[after][byte] = (before >> 8) ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        after += 1;
    }
    tables
}

/// What the four bytes of `word` add when `after` bytes follow them.
#[inline(always)]
fn word(after: usize, word: u32) -> u32 {
    let [a, b, c, d] = word.to_le_bytes();
    byte(after + 3, a) ^ byte(after + 2, b) ^ byte(after + 1, c) ^ byte(after, d)
}

#[inline(always)]
fn byte(after: usize, byte: u8) -> u32 {
    TABLES[after][usize::from(byte)]
}

/// The CRC-32 of some bytes and the 16 bytes of `block`. `crc` is that of the bytes.
#[inline]
pub(super) fn extend(crc: u32, block: u128) -> u32 {
    let words = [block as u32, (block >> 32) as u32, (block >> 64) as u32, (block >> 96) as u32];
    !(word(12, words[0] ^ !crc) ^ word(8, words[1]) ^ word(4, words[2]) ^ word(0, words[3]))
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    #[test]
    fn extended_checksum_is_that_of_crc32fast_for_payloads_of_every_length_to_300() {
        let mut random = fastrand::Rng::with_seed(5);
        for len in 0..300 {
            for _ in 0..20 {
                let bytes: Vec<u8> = (0..len + 16).map(|_| random.u8(..)).collect();
                let (payload, block) = bytes.split_at(len);
                let place = u128::from_le_bytes(block.try_into().unwrap());
                let extended = extend(crc32fast::hash(payload), place);
                assert_eq!(extended, crc32fast::hash(&bytes), "{bytes:?}");
            }
        }
    }

    #[test]
    fn every_bit_of_the_block_and_of_the_sum_so_far_counts() {
        let zeros = extend(0, 0);
        let of_block = (0..128).map(|bit| extend(0, 1 << bit) ^ zeros);
        let of_sum = (0..32).map(|bit| extend(1 << bit, 0) ^ zeros);
        let mut all: Vec<u32> = of_block.chain([0]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 129, "two bits of the block do the same, or one does nothing");
        assert!(of_sum.eq((0..32).map(|bit| extend(0, 1 << bit) ^ zeros)));
    }
}
