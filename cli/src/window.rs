//! Converts `--since` and `--until` to positions.

use std::time::SystemTime;

use ringwal::inspect::Directory;

use crate::args::{Cli, Window};
use crate::error::{Error, Result};

/// Refuses a range that ends before it begins.
pub(crate) fn check(from: u64, to: Option<u64>, window: &Window) -> Result<()> {
    if let Some(to) = to.filter(|to| *to < from) {
        return Err(Error::Usage(format!("--to {to} lies before --from {from}; exchange them")));
    }
    match (window.since, window.until) {
        (Some(since), Some(until)) if until < since => {
            Err(Error::Usage("--until lies before --since; exchange them".into()))
        }
        _ => Ok(()),
    }
}

/// The part of the range from `from` to `to` that lies in the window.
pub(crate) fn positions(
    cli: &Cli,
    dir: &std::path::Path,
    window: &Window,
    from: u64,
    to: Option<u64>,
) -> Result<(u64, Option<u64>)> {
    if window.since.is_none() && window.until.is_none() {
        return Ok((from, to));
    }
    let log = Directory::open(dir, &cli.prefix)?;
    let at = |time: SystemTime| log.position_at(time).map(ringwal::Lsn::as_u64);
    let since = window.since.map(at).transpose()?;
    let until = window.until.map(at).transpose()?;
    let to = [to, until].into_iter().flatten().min();
    Ok((from.max(since.unwrap_or(0)), to))
}
