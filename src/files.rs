//! What reading needs of a log: its segments, where they lie, and which records were cut out.

use std::sync::Arc;

use crate::cuts::Cuts;
use crate::segment::{Names, Table};
use crate::storage::Dir;
use crate::tail::Tail;

#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) table: Arc<Table>,
    pub(crate) dir: Arc<dyn Dir>,
    pub(crate) names: Names,
    /// Copies of the newest groups.
    pub(crate) tail: Arc<Tail>,
    pub(crate) cuts: Cuts,
}
