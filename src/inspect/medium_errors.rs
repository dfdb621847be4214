//! A file with sectors that the disk cannot read.
//!
//! 1. An unreadable piece reads as zeros, and is recorded. Zeros form no group and no record.
//! 2. Pieces are read past the page cache where the system supports it: the cache would lose the
//!    neighbouring pages too.
//! 3. Only errors of the medium count. Any other error is returned.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::io::fs::{AlignedBuf, File, read_full};
use crate::sys::os_error;

/// Reported in place of a group or a record in such a sector.
pub(super) const UNREADABLE: &str = "the disk cannot read it";
/// What the page cache reads, and large disks write, at once.
const PIECE: u64 = 4096;

#[derive(Debug)]
pub(super) struct MediumErrors {
    file: Arc<dyn File>,
    /// The same, opened to be read past the page cache.
    direct: Arc<dyn File>,
    /// Ends of what could not be read, by beginnings.
    lost: Mutex<BTreeMap<u64, u64>>,
}

impl MediumErrors {
    pub(super) fn new(file: Arc<dyn File>, direct: Arc<dyn File>) -> Arc<Self> {
        Arc::new(MediumErrors { file, direct, lost: Mutex::default() })
    }

    /// Whether some of these bytes of the file were asked for and could not be read.
    pub(super) fn has_lost(&self, range: Range<u64>) -> bool {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.range(..range.end).next_back().is_some_and(|(_, end)| *end > range.start)
    }

    /// The first bytes of the file that were asked for and could not be read.
    pub(super) fn first_lost(&self) -> Option<Range<u64>> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.iter().next().map(|(from, end)| *from..*end)
    }

    fn lose(&self, piece: Range<u64>) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        match lost.range_mut(..=piece.start).next_back() {
            Some((_, end)) if *end >= piece.start => *end = piece.end.max(*end),
            _ => {
                lost.insert(piece.start, piece.end);
            }
        }
    }

    /// Piece by piece, as they lie on the disk.
    fn read_pieces(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut piece = AlignedBuf::new(PIECE as usize);
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let start = at / PIECE * PIECE;
            let there = match read_full(&*self.direct, &mut piece, start) {
                Ok(n) => n,
                Err(e) if is_of_the_medium(&e) => {
                    piece.fill(0);
                    self.lose(start..start + PIECE);
                    // The file may end in it.
                    self.file.len()?.saturating_sub(start).min(PIECE) as usize
                }
                Err(e) => return Err(e),
            };
            let from = ((at - start) as usize).min(there);
            let len = (there - from).min(buf.len() - done);
            buf[done..done + len].copy_from_slice(&piece[from..from + len]);
            done += len;
            if there < piece.len() {
                break;
            }
        }
        Ok(done)
    }
}

/// Returns whether the error reports an unreadable sector, a wrong checksum or a failed disk.
pub(super) fn is_of_the_medium(e: &io::Error) -> bool {
    e.raw_os_error().is_some_and(os_error::is_of_the_medium)
}

impl File for MediumErrors {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.file.read_at(buf, offset) {
            Err(e) if is_of_the_medium(&e) => self.read_pieces(buf, offset),
            read => read,
        }
    }

    fn read_cached_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_cached_at(buf, offset)
    }

    /// Errors of that one are errors: the reader then reads this one, which records them.
    fn past_the_cache(&self) -> Option<Arc<dyn File>> {
        self.direct.is_direct().then(|| Arc::clone(&self.direct))
    }

    fn allows_helper(&self) -> bool {
        self.direct.allows_helper()
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn links(&self) -> io::Result<u64> {
        self.file.links()
    }

    fn write_zeroes(&self, len: u64) -> io::Result<()> {
        self.file.write_zeroes(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn is_direct(&self) -> bool {
        self.file.is_direct()
    }

    fn raw_fd(&self) -> Option<i32> {
        self.file.raw_fd()
    }
}

#[cfg(all(test, not(ringwal_loom)))]
mod tests {
    use super::*;

    /// Reads as its own offsets, and not at all in some places.
    #[derive(Debug)]
    struct Scratched(Vec<Range<u64>>, i32);

    const LEN: u64 = 100_000;

    fn byte(at: u64) -> u8 {
        (at * 31 % 251) as u8 + 1
    }

    impl File for Scratched {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            let end = (offset + buf.len() as u64).min(LEN);
            if self.0.iter().any(|bad| bad.start < end && bad.end > offset) {
                return Err(io::Error::from_raw_os_error(self.1));
            }
            let bytes = (offset..end).map(byte);
            Ok(buf.iter_mut().zip(bytes).map(|(to, from)| *to = from).count())
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }

        fn len(&self) -> io::Result<u64> {
            Ok(LEN)
        }

        fn links(&self) -> io::Result<u64> {
            Ok(1)
        }

        fn write_zeroes(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn allocate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn is_direct(&self) -> bool {
            false
        }

        fn raw_fd(&self) -> Option<i32> {
            None
        }
    }

    #[test]
    fn only_the_pieces_with_scratches_are_zeros() {
        let bad = vec![5000..5001, 8200..8300, 40_960..53_248, 99_000..99_100];
        let scratched = Arc::new(Scratched(bad, os_error::DEVICE_FAILED));
        let file = MediumErrors::new(scratched.clone(), scratched);
        assert_eq!(file.first_lost(), None);
        for (from, len) in [(0, 100_000), (1, 99_000), (4096, 4096), (4999, 3), (50_000, 60_000)] {
            let mut buf = vec![0xee; len];
            let n = read_full(&*file, &mut buf, from).unwrap();
            assert_eq!(n as u64, (len as u64).min(LEN - from));
            for (at, found) in (from..).zip(&buf[..n]) {
                let lost = [1, 2, 10, 11, 12, 24].contains(&(at / PIECE));
                assert_eq!(*found, if lost { 0 } else { byte(at) }, "{at}");
                assert_eq!(file.has_lost(at..at + 1), lost, "{at}");
            }
        }
        assert_eq!(file.first_lost(), Some(4096..12_288));
        assert!(file.has_lost(0..4097) && !file.has_lost(0..4096));
        assert!(file.has_lost(12_287..20_000) && !file.has_lost(12_288..40_960));
    }

    #[test]
    fn other_errors_are_errors() {
        let denied = Arc::new(Scratched(std::iter::once(5000..5001).collect(), 13));
        let denied = MediumErrors::new(denied.clone(), denied);
        assert_eq!(denied.read_at(&mut [0; 9000], 0).unwrap_err().raw_os_error(), Some(13));
        assert_eq!(denied.first_lost(), None);
    }
}
