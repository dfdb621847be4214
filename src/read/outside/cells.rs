//! The cells of a log that another process may be writing.

use super::{ReadOnlyWal, snapshot};
use crate::cells::{CellMap, ReadCells, check_cell_name};
use crate::error::{Error, Result};
use crate::sys::sync::lock;

impl ReadOnlyWal {
    /// The value of a [`Cell`](crate::Cell), which is durable. `None`: the cell is empty.
    ///
    /// Reads the file of the cells, 128 KiB, and makes it durable: a value that the writer is just
    /// storing may be returned, and then survives power loss.
    ///
    /// # Errors
    ///
    /// `CellName`, `CellsDamaged`, `Io`, `Forked`.
    pub fn load_cell(&self, name: &str) -> Result<Option<Vec<u8>>> {
        check_cell_name(name)?;
        Ok(self.read_cells()?.get(name).map(|value| value.to_vec()))
    }

    /// The names of the cells that hold a value, in ascending order: see
    /// [`ReadOnlyWal::load_cell`].
    ///
    /// # Errors
    ///
    /// `CellsDamaged`, `Io`, `Forked`.
    pub fn cells(&self) -> Result<Vec<String>> {
        Ok(self.read_cells()?.keys().map(|name| name.to_string()).collect())
    }

    fn read_cells(&self) -> Result<CellMap> {
        let view = &self.log.view;
        view.check_not_forked()?;
        let log_id = snapshot::log_id(&lock(&self.log.snapshot));
        let Some(read) = ReadCells::read(&*view.dir, &view.names)? else {
            return Ok(CellMap::new());
        };
        let file = || view.dir.path_of(&view.names.cells());
        let cells = read.cells(&log_id).ok_or_else(|| Error::CellsDamaged { file: file() })?;
        read.sync(&*view.dir, &view.names)?;
        Ok(cells)
    }
}
