//! A piece of the log in memory.

/// A piece of the log in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByteWindow<'b> {
    /// Address of the first byte.
    pub(crate) start: u64,
    pub(crate) bytes: &'b [u8],
}

impl<'b> ByteWindow<'b> {
    /// The `len` bytes at an address, and their index, if the window holds all of them.
    #[inline]
    pub(crate) fn at(self, lsn: u64, len: usize) -> Option<(usize, &'b [u8])> {
        let from = usize::try_from(lsn.checked_sub(self.start)?).ok()?;
        Some((from, self.sub(from, len)?))
    }

    /// The `len` bytes at an index, if the window holds all of them.
    #[inline]
    pub(crate) fn sub(self, from: usize, len: usize) -> Option<&'b [u8]> {
        self.bytes.get(from..from.checked_add(len)?)
    }
}
