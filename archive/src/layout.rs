//! Names of objects, of which docs/archive.md has the table, and of segment files.

use object_store::path::Path;

/// The object that says which log an archive is of.
pub(crate) const IDENTITY: &str = "archive.manifest";
/// The object that says where a pruned archive begins.
pub(crate) const FLOOR: &str = "floor.manifest";
/// The folder of segments.
pub(crate) const SEGMENTS: &str = "segments";
/// The folder of manifests.
pub(crate) const MANIFESTS: &str = "manifests";

/// The segment's object. The chain hash keeps two histories of one position apart, so that no
/// upload replaces an object of another history.
pub(crate) fn segment(base: u64, chain_hash: u64) -> String {
    format!("{SEGMENTS}/{base:020}-{chain_hash:016x}.wal")
}

/// The segment's manifest.
pub(crate) fn manifest(base: u64) -> String {
    format!("{MANIFESTS}/{base:020}.manifest")
}

/// The segment's file in a log's directory.
pub(crate) fn log_file(prefix: &str, base: u64) -> String {
    format!("{prefix}.{base:020}.wal")
}

/// The base of a segment's file of a log. `None`: it is none.
pub(crate) fn base_of_log_file(prefix: &str, name: &str) -> Option<u64> {
    position(name.strip_prefix(prefix)?.strip_prefix('.')?.strip_suffix(".wal")?)
}

/// The first position that the name of a manifest states. `None`: it is none.
pub(crate) fn base_of(manifest: &Path) -> Option<u64> {
    position(manifest.filename()?.strip_suffix(".manifest")?)
}

/// The first position that the name of a segment's object states. `None`: it is none.
pub(crate) fn segment_base_of(object: &Path) -> Option<u64> {
    let (digits, hash) = object.filename()?.strip_suffix(".wal")?.split_once('-')?;
    let is_hash = hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash { position(digits) } else { None }
}

fn position(digits: &str) -> Option<u64> {
    let plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_state_the_position() {
        let at = |name: &str| base_of(&Path::from(name));
        assert_eq!(at(&manifest(8192)), Some(8192));
        assert_eq!(at(&format!("a/b/{}", manifest(u64::MAX))), Some(u64::MAX));
        for foreign in [
            "manifests/8192.manifest",
            "manifests/00000000000000008192.json",
            "manifests/0000000000000000819x.manifest",
            "manifests/99999999999999999999.manifest",
            &segment(8192, 1),
        ] {
            assert_eq!(at(foreign), None, "{foreign}");
        }
        let at = |name: &str| base_of_log_file("wal", name);
        assert_eq!(at(&log_file("wal", 8192)), Some(8192));
        for foreign in ["wal.8192.wal", "wal00000000000000008192.wal", "wal.lock", "x"] {
            assert_eq!(at(foreign), None, "{foreign}");
        }
        let at = |name: &str| segment_base_of(&Path::from(name));
        assert_eq!(at(&segment(8192, 255)), Some(8192));
        assert_eq!(at(&format!("a/b/{}", segment(u64::MAX, u64::MAX))), Some(u64::MAX));
        for foreign in [
            &manifest(8192),
            "segments/00000000000000008192.wal",
            "segments/00000000000000008192-00000000000000f.wal",
            "segments/00000000000000008192-000000000000000x.wal",
            "segments/8192-00000000000000ff.wal",
            "segments/00000000000000008192-00000000000000ff.wal.bak",
        ] {
            assert_eq!(at(foreign), None, "{foreign}");
        }
    }
}
