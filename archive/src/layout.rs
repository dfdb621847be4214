//! Names of objects: docs/archive.md has the table.

use object_store::path::Path;

/// The object that says which log an archive is of.
pub(crate) const IDENTITY: &str = "archive.manifest";
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

/// The first position that the name of a manifest states. `None`: it is none.
pub(crate) fn base_of(manifest: &Path) -> Option<u64> {
    let digits = manifest.filename()?.strip_suffix(".manifest")?;
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
    }
}
