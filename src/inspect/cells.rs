//! Reads the cells, also of a log that is damaged, and beside a writer.

use super::files::list;
use super::survey::log_id;
use super::view::View;
use crate::cells::ReadCells;
use crate::error::Result;

/// The cells as their file holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredCells {
    /// The name of the file.
    pub file: String,
    /// Names and values, in ascending order of the names. `None`: the file is damaged, or of
    /// another log.
    pub cells: Option<Vec<(String, Vec<u8>)>>,
    /// The bytes of the file, of one moment: a copy of the log needs them.
    pub bytes: Vec<u8>,
}

/// Reads the cells. `None`: there is no file of them.
pub(super) fn stored(view: &View) -> Result<Option<StoredCells>> {
    let Some(read) = ReadCells::read(&*view.dir, &view.names)? else { return Ok(None) };
    let cells = log_id(&list(view)?).and_then(|id| read.cells(&id));
    let owned = |cells: crate::cells::CellMap| {
        cells.into_iter().map(|(name, value)| (name.to_string(), value.to_vec())).collect()
    };
    let (file, bytes) = (view.names.cells(), read.into_content());
    Ok(Some(StoredCells { file, cells: cells.map(owned), bytes }))
}
