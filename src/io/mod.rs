//! Bytes on their way to the disk: files of one directory (`fs`), and the operations of the commit
//! path (`backend`). Each has a simulated form beside the real one.

pub(crate) mod backend;
pub(crate) mod fs;
