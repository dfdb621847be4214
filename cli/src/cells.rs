//! `cells`.

use std::io::Write;

use ringwal::inspect::Directory;
use serde_json::json;

use crate::args::{Cells, Cli};
use crate::error::{Error, Result};
use crate::survey::counted;

pub(crate) fn cells(cli: &Cli, args: &Cells) -> Result<()> {
    let log = Directory::open(&args.dir, &cli.prefix)?;
    // A directory without a log has no cells, and is an error.
    log.identity()?;
    let stored = match log.stored_cells()? {
        Some(stored) => {
            let file = args.dir.join(&stored.file);
            stored.cells.ok_or(ringwal::Error::CellsDamaged { file })?
        }
        None => Vec::new(),
    };
    let mut out = std::io::stdout().lock();
    if let Some(wanted) = &args.raw {
        let Some((_, value)) = stored.iter().find(|(name, _)| name == wanted) else {
            return Err(Error::Usage(format!(
                "the cell {wanted} holds nothing; `ringwal cells` lists those that hold a value"
            )));
        };
        out.write_all(value)?;
    } else if args.json {
        let rows: Vec<_> = stored
            .iter()
            .map(|(name, value)| json!({ "name": name, "bytes": value.len() }))
            .collect();
        writeln!(out, "{:#}", serde_json::Value::Array(rows))?;
    } else if stored.is_empty() {
        writeln!(out, "there is no cell")?;
    } else {
        for (name, value) in &stored {
            writeln!(out, "{name}  {}", counted(value.len() as u64, "byte", "bytes"))?;
        }
    }
    Ok(out.flush()?)
}
