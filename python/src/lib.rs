//! The Python package of ringwal.
//!
//! 1. A call that may wait for the disk, for room or for a record detaches from the interpreter
//!    first, so that other Python threads run. While it is detached it touches no Python object.
//! 2. A lock that is waited for is held for a moment: not while Python code runs, and not while a
//!    call waits. A reader, follower or consumer is locked for a whole call. That lock is tried,
//!    and a second caller gets an error.
//! 3. The log's own threads never attach, except for the callbacks `on_stall` and `on_sealed`.
//! 4. An object that is shared between Python threads is frozen; its mutable part has a lock.

mod appending;
mod arguments;
mod ending;
mod errors;
mod event_loop;
mod follower;
mod future;
mod log;
mod methods;
mod options;
mod outside;
mod reader;
mod records;
mod report;
mod signal;
mod tagged;
mod wal;

use pyo3::prelude::*;

#[pymodule(gil_used = true)]
mod _ringwal {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::event_loop::Drain;
    #[pymodule_export]
    use crate::follower::{Consumer, Follower};
    #[pymodule_export]
    use crate::future::LogFuture;
    #[pymodule_export]
    use crate::options::open;
    #[pymodule_export]
    use crate::outside::{ReadOnlyWal, open_read_only};
    #[pymodule_export]
    use crate::reader::{Reader, Runs};
    #[pymodule_export]
    use crate::records::{Record, record_of};
    #[pymodule_export]
    use crate::report::Histogram;
    #[pymodule_export]
    use crate::tagged::Tagged;
    #[pymodule_export]
    use crate::wal::{Wal, remove};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        crate::appending::add_fast_methods(module.py())?;
        crate::future::add_fast_methods(module.py())?;
        crate::errors::prepare(module.py())?;
        for class in ["Reader", "Runs", "LogFuture"] {
            crate::methods::make_generic(module.getattr(class)?.cast()?)?;
        }
        crate::ending::close_at_exit(module)
    }
}
