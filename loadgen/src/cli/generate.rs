//! Completion scripts and manual pages, from the command line's own description.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Args;
use crate::error::Error;

/// The script for a shell.
#[must_use]
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "loadgen", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The manual page of the command.
///
/// # Errors
///
/// Those of formatting, which none is known for.
pub fn page() -> Result<String, Error> {
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(Args::command()).render(&mut page);
    rendered.map_err(|source| Error::System { what: "write the manual page", source })?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// The manual pages of the command and of all below it, as files of a directory.
///
/// # Errors
///
/// [`Error::Directory`], also for a page that is there and that this did not write.
pub fn pages(directory: &Path) -> Result<(), Error> {
    let wrong = |e| Error::directory(directory, e);
    std::fs::create_dir_all(directory).map_err(wrong)?;
    let mut names = vec!["loadgen.1".to_owned()];
    let commands = Args::command();
    names.extend(commands.get_subcommands().map(|c| format!("loadgen-{}.1", c.get_name())));
    for name in names {
        let path = directory.join(name);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::directory(&path, e)),
        };
        if !text.contains(".TH loadgen") {
            let why = "it is no manual page of loadgen; give another directory";
            return Err(Error::directory(&path, why));
        }
    }
    clap_mangen::generate_to(commands, directory).map_err(wrong)
}
