//! The bodies of the fuzz targets in `fuzz/` and of the property tests: bytes in, a panic if a
//! promise is broken.
//!
//! Compiled with `--cfg fuzzing` or for unit tests, never into the library. The format is written a
//! second time here (`repair`, `witness`, the predicates in `parts`): the engine is not compared
//! with itself.

mod base;
mod directory;
mod edit;
mod forge;
mod input;
mod judged;
mod life;
mod look;
mod memory;
mod parts;
mod repair;
#[cfg(test)]
mod tests;
mod witness;

/// Reads the bytes as the records of a group.
pub fn record(input: &[u8]) {
    parts::record(input);
}

/// Reads the bytes as a group header.
pub fn group(input: &[u8]) {
    parts::group(input);
}

/// Reads the bytes as a segment header.
pub fn segment(input: &[u8]) {
    parts::segment(input);
}

/// Reads the bytes as the file that remembers the commit method.
#[cfg(linux_calls)]
pub fn memo(input: &[u8]) {
    parts::memo(input);
}

/// Reads the bytes as edits of a log's directory, which is then opened and read.
/// `largest_allocation` returns the largest allocation, in bytes, since its last call.
pub fn directory(input: &[u8], largest_allocation: impl Fn() -> usize) {
    directory::run(input, largest_allocation);
}
