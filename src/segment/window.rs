//! A piece of the log that is in memory.

#[derive(Debug, Clone, Copy)]
pub(crate) struct ByteWindow<'b> {
    /// Address of the first byte.
    pub(crate) start: u64,
    pub(crate) bytes: &'b [u8],
}

impl<'b> ByteWindow<'b> {
    /// The bytes at an address and where among those held they begin, if all of them are.
    #[inline]
    pub(crate) fn at(self, lsn: u64, len: usize) -> Option<(usize, &'b [u8])> {
        let from = usize::try_from(lsn.checked_sub(self.start)?).ok()?;
        Some((from, self.sub(from, len)?))
    }

    #[inline]
    pub(crate) fn sub(self, from: usize, len: usize) -> Option<&'b [u8]> {
        self.bytes.get(from..from.checked_add(len)?)
    }
}
