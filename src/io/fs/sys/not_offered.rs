//! What only the calls of Linux offer, elsewhere: the caller does without.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::format::MIN_BLOCK;

pub(in super::super) const CAN_BE_DIRECT: bool = false;

pub(in super::super) fn write_durable_at(_: &File, _: &[u8], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(in super::super) fn read_cached_at(_: &File, _: &mut [u8], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(in super::super) fn advise_huge_pages(_: std::ptr::NonNull<u8>, _: usize) {}

pub(in super::super) fn write_zeroes(_: &File, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Why the filesystem of this file does not keep what it has synced: not known here.
pub(in super::super) fn volatility(_: &File) -> Option<&'static str> {
    None
}

pub(in super::super) fn goes_past_the_cache(_: &File) -> bool {
    false
}

pub(in super::super) fn block_size_of(_: &Path, _: &File) -> u32 {
    MIN_BLOCK
}
