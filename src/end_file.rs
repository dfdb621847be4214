//! The file beside the log in which the writer says how far it is durable, for processes that only read.
//!
//! ```text
//!   0 magic 4 | 4 CRC 4 | 8 log id 16 | 24 boot id 16 | 40 durable end 8 | 48 newest cut 8 | 56 zero 8
//! ```
//!
//! 1. It is written through the page cache and never synced: it is for this boot of this machine. One of
//!    another boot, of another log, or torn says nothing.
//! 2. What it says was true when it was written, and stays true: the durable end never goes back. So
//!    whoever believes it sees durable records only.
//! 3. It may be removed at any time, and a log whose writer cannot write it goes on without.

use std::sync::Arc;

use crate::format::{put, u32_at, u64_at};
use crate::segment::Names;
use crate::storage::{Access, Dir, File, read_full, write_full};

const LEN: usize = 64;
const MAGIC: [u8; 4] = *b"RWEn";

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) log_id: [u8; 16],
    pub(crate) durable_end: u64,
    /// The newest cut group below that; 0 if there is none.
    pub(crate) newest_cut: u64,
}

#[derive(Debug)]
pub(crate) struct EndFile {
    file: Arc<dyn File>,
    boot: [u8; 16],
    log_id: [u8; 16],
    last: u64,
}

impl EndFile {
    /// For the writer. `None` where it cannot be: readers then look at the segments alone.
    pub(crate) fn create(dir: &dyn Dir, names: &Names, log_id: [u8; 16]) -> Option<Self> {
        let boot = boot_id()?;
        let opened = dir.open(&names.end(), Access::Cached);
        // Under another name it is somebody else's file too.
        let own = opened.and_then(|file| match file.links()? {
            1 => Ok(file),
            _ => Err(std::io::Error::other("the file has several links")),
        });
        match own {
            Ok(file) => Some(EndFile { file, boot, log_id, last: 0 }),
            Err(e) => {
                tracing::warn!(error = %e, "other processes will not be told how far the log is durable");
                None
            }
        }
    }

    /// False: it could not be written, and no more will be.
    pub(crate) fn say(&mut self, durable_end: u64, newest_cut: u64) -> bool {
        if durable_end == self.last {
            return true;
        }
        self.last = durable_end;
        let said = Said { log_id: self.log_id, durable_end, newest_cut };
        write_full(&*self.file, &encode(&said, &self.boot), 0).is_ok()
    }
}

/// The file as a reader has it: open, while it is the one that the writer writes to.
#[derive(Debug, Default)]
pub(crate) struct EndReader {
    boot: Option<[u8; 16]>,
    file: Option<Arc<dyn File>>,
}

impl EndReader {
    /// What the writer has said on this boot.
    pub(crate) fn read(&mut self, dir: &dyn Dir, names: &Names) -> Option<Said> {
        let boot = match self.boot {
            Some(boot) => boot,
            None => *self.boot.insert(boot_id()?),
        };
        // Removed: the next writer makes another.
        self.file.take_if(|file| !file.links().is_ok_and(|n| n > 0));
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(dir.open(&names.end(), Access::Read).ok()?),
        };
        // A write that goes on at the same moment may be seen in half.
        (0..100).find_map(|_| {
            let mut bytes = [0; LEN];
            let n = read_full(&**file, &mut bytes, 0).ok()?;
            (n == LEN).then(|| decode(&bytes, &boot)).flatten()
        })
    }

    /// Forgets which file it was: one may have been put in its place.
    pub(crate) fn forget(&mut self) {
        self.file = None;
    }
}

fn encode(said: &Said, boot: &[u8; 16]) -> [u8; LEN] {
    let mut b = [0; LEN];
    put(&mut b, 0, &MAGIC);
    put(&mut b, 8, &said.log_id);
    put(&mut b, 24, boot);
    put(&mut b, 40, &said.durable_end.to_le_bytes());
    put(&mut b, 48, &said.newest_cut.to_le_bytes());
    let crc = crc32fast::hash(&b[8..]);
    put(&mut b, 4, &crc.to_le_bytes());
    b
}

fn decode(b: &[u8; LEN], boot: &[u8; 16]) -> Option<Said> {
    let sound = b[..4] == MAGIC && u32_at(b, 4) == crc32fast::hash(&b[8..]) && b[24..40] == *boot;
    let log_id = *b[8..24].first_chunk()?;
    sound.then(|| Said { log_id, durable_end: u64_at(b, 40), newest_cut: u64_at(b, 48) })
}

/// Which boot of the machine this is.
fn boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    Some(u128::from_str_radix(&digits, 16).ok()?.to_le_bytes())
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_changed_bit_and_every_other_boot_silences_it() {
        let said = Said { log_id: [7; 16], durable_end: 1 << 40, newest_cut: 4096 };
        let mut b = encode(&said, &[3; 16]);
        assert_eq!(decode(&b, &[3; 16]), Some(said));
        assert_eq!(decode(&b, &[4; 16]), None);
        for bit in 0..LEN * 8 {
            b[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&b, &[3; 16]), None, "bit {bit}");
            b[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(decode(&[0; LEN], &[0; 16]), None);
    }
}
