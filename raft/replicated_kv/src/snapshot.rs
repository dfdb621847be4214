//! The file of a node's snapshot.
//!
//! The file is written under another name, made durable, and renamed. So there is one whole
//! snapshot at any time: the old one or the new one.
//!
//! | bytes | part |
//! |---|---|
//! | 8 | `RKVSNAP1` |
//! | 4 | CRC-32 of everything that follows |
//! | 4 | length of the description |
//! | .. | the description: last entry, membership, id |
//! | .. | the data of the state machine |

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::types::SnapshotMeta;

const MAGIC: &[u8; 8] = b"RKVSNAP1";
const NAME: &str = "snapshot";
const NEW_NAME: &str = "snapshot.new";

/// Why a snapshot cannot be saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file system refused a call.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The content is none that this program wrote.
    #[error(
        "{path} is damaged or of another program: restore it from a backup, or remove this node from \
         the cluster, empty its directory, and add it again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// Replaces the snapshot in `dir`. Durable when it returns. Blocks.
///
/// # Errors
///
/// `Io`: the snapshot that was there before is still there.
pub fn save(dir: &Path, meta: &SnapshotMeta, data: &[u8]) -> Result<(), SnapshotError> {
    let new = dir.join(NEW_NAME);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SnapshotError::Io { path, source }
    };
    let description = postcard::to_stdvec(meta).map_err(io::Error::other).map_err(failed(&new))?;
    let mut content = Vec::with_capacity(4 + description.len() + data.len());
    content.extend_from_slice(&(description.len() as u32).to_le_bytes());
    content.extend_from_slice(&description);
    content.extend_from_slice(data);

    let mut file = File::create(&new).map_err(failed(&new))?;
    file.write_all(MAGIC).map_err(failed(&new))?;
    file.write_all(&crc32fast::hash(&content).to_le_bytes()).map_err(failed(&new))?;
    file.write_all(&content).map_err(failed(&new))?;
    file.sync_all().map_err(failed(&new))?;
    fs::rename(&new, dir.join(NAME)).map_err(failed(&new))?;
    // The rename itself is durable once the directory is.
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir))
}

/// Loads the snapshot of `dir`: its description and data. `None` if there is none. Blocks.
///
/// # Errors
///
/// `Io` and `Damaged`. Nothing is deleted.
pub fn load(dir: &Path) -> Result<Option<(SnapshotMeta, Vec<u8>)>, SnapshotError> {
    let path = dir.join(NAME);
    let mut bytes = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|source| SnapshotError::Io { path: path.clone(), source })?,
    };
    let whole = parse(&bytes).map(|(meta, data)| (meta, bytes.len() - data.len()));
    let (meta, data_at) = whole.ok_or(SnapshotError::Damaged { path })?;
    bytes.drain(..data_at);
    Ok(Some((meta, bytes)))
}

fn parse(bytes: &[u8]) -> Option<(SnapshotMeta, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (crc, content) = rest.split_first_chunk()?;
    if u32::from_le_bytes(*crc) != crc32fast::hash(content) {
        return None;
    }
    let (len, rest) = content.split_first_chunk()?;
    let (description, data) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    Some((postcard::from_bytes(description).ok()?, data))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn meta(id: &str) -> SnapshotMeta {
        SnapshotMeta { snapshot_id: id.to_owned(), ..SnapshotMeta::default() }
    }

    #[test]
    fn damaged_snapshot_is_refused_and_a_torn_new_one_is_ignored() {
        let dir = std::env::temp_dir().join(format!("replicated-kv-snap-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        assert!(load(&dir).unwrap().is_none());
        save(&dir, &meta("first"), b"one").unwrap();
        save(&dir, &meta("second"), b"two").unwrap();
        // The power fails while a third one is written.
        fs::write(dir.join(NEW_NAME), b"RKVSN").unwrap();
        assert_eq!(load(&dir).unwrap().unwrap(), (meta("second"), b"two".to_vec()));

        let whole = fs::read(dir.join(NAME)).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            assert!(parse(&flipped).is_none(), "byte {at}");
            assert!(parse(&whole[..at]).is_none(), "length {at}");
        }
        fs::write(dir.join(NAME), &whole[..whole.len() - 1]).unwrap();
        let refused = load(&dir).unwrap_err().to_string();
        assert!(refused.contains("restore it from a backup"), "{refused}");
        assert_eq!(fs::read(dir.join(NAME)).unwrap().len(), whole.len() - 1);
        fs::remove_dir_all(&dir).unwrap();
    }
}
