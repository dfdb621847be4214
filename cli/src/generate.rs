//! Completion scripts and manual pages, from the command line's own description.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::{Error, Result};

pub(crate) fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ringwal", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}

pub(crate) fn man(directory: Option<&Path>) -> Result<()> {
    let command = Cli::command();
    let Some(directory) = directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return Ok(std::io::stdout().write_all(&page)?);
    };
    let wrong = |source| Error::File { op: "write into", path: directory.into(), source };
    std::fs::create_dir_all(directory).map_err(wrong)?;
    clap_mangen::generate_to(command, directory).map_err(wrong)
}
