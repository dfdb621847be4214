//! What the fuzz targets in `fuzz/` and the property tests run: bytes in, a panic if a promise is broken.
//!
//! Only with `--cfg fuzzing` or in the unit tests; no part of the library. The format is written down
//! a second time here (`repair`, `witness`, the predicates in `parts`), so that the engine is not held
//! against itself.

mod base;
mod directory;
mod edit;
mod forge;
mod input;
mod judged;
mod life;
mod memory;
mod parts;
mod repair;
#[cfg(test)]
mod tests;
mod witness;

/// Bytes as the records of a group.
pub fn record(input: &[u8]) {
    parts::record(input);
}

/// Bytes as a group header.
pub fn group(input: &[u8]) {
    parts::group(input);
}

/// Bytes as a segment header.
pub fn segment(input: &[u8]) {
    parts::segment(input);
}

/// Bytes as the file that remembers the commit method.
#[cfg(linux_calls)]
pub fn memo(input: &[u8]) {
    parts::memo(input);
}

/// Bytes as edits of a log's directory, which is opened and read. `largest_allocation` says how many
/// bytes were allocated at once, at most, since it was last asked.
pub fn directory(input: &[u8], largest_allocation: impl Fn() -> usize) {
    directory::run(input, largest_allocation);
}
