//! The owner of every file that loadgen writes. It checks each output before the run, and replaces
//! it at the end.
//!
//! 1. No output replaces an input, another output, or a file of a log, under any name. Device and
//!    inode identify files; first bytes and names identify logs. `--force` does not change that.
//! 2. A file that loadgen did not write is replaced only with `--force`.
//! 3. A regular file is written under a temporary name in its directory, then renamed. A reader
//!    sees the old file or the new one. Pipes and devices are written in place.
//! 4. A file that is created at the path of an output during the run is not replaced.

mod foreign;
mod place;
pub mod progress;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Error;
use crate::stop::Stop;

pub use foreign::Kind;
pub(crate) use foreign::{MARK, is_name_of_a_log};
use place::{Identity, Standard};

/// The outputs of a command. If one cannot be written, the others still are, so no measurement is
/// lost.
#[derive(Debug)]
pub struct Outputs {
    stop: Arc<Stop>,
    force: bool,
    /// Files that are read or written, each with its option.
    taken: Vec<(&'static str, bool, Identity)>,
    failed: Option<Error>,
}

/// The destination of the JSON.
#[derive(Debug)]
pub enum Json {
    /// No JSON was asked for.
    Nowhere,
    /// Stdout; the table goes to stderr.
    Stdout,
    /// A file.
    File(OutputFile),
}

/// A file to write at the end. If it is never written, nothing of it is left.
#[derive(Debug)]
pub struct OutputFile {
    option: &'static str,
    /// The path as given.
    path: PathBuf,
    to: Option<To>,
    stop: Arc<Stop>,
}

#[derive(Debug)]
enum To {
    /// A pipe or a device.
    Stream(File),
    /// A file under a temporary name, and the path to rename it to.
    Renamed { file: File, temporary: PathBuf, place: PathBuf, replaces: Option<Identity> },
}

impl Outputs {
    /// Creates an empty set. With `force`, outputs may replace files that loadgen did not write.
    #[must_use]
    pub fn new(stop: &Arc<Stop>, force: bool) -> Self {
        Outputs { stop: Arc::clone(stop), force, taken: Vec::new(), failed: None }
    }

    /// Registers an input file, which no output may replace.
    pub fn reads(&mut self, option: &'static str, path: Option<&Path>) {
        // A missing input cannot be replaced. Its reader reports it.
        if let Some(identity) = path.and_then(|path| Identity::of(path).ok().flatten()) {
            self.taken.push((option, true, identity));
        }
    }

    /// Opens a file to write at the end. An existing file stays until then.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a path that must not be written, [`Error::Output`] for one that cannot
    /// be. Both name the option.
    pub fn open(
        &mut self,
        option: &'static str,
        kind: Kind,
        path: Option<&PathBuf>,
    ) -> Result<Option<OutputFile>, Error> {
        path.map(|path| self.open_path(option, kind, path)).transpose()
    }

    /// Opens the output of `--json`, where `-` is stdout.
    ///
    /// # Errors
    ///
    /// Those of [`Outputs::open`].
    pub fn open_json(&mut self, path: Option<&PathBuf>) -> Result<Json, Error> {
        if path.is_some_and(|path| path.as_os_str() == "-") {
            return Ok(Json::Stdout);
        }
        Ok(self.open("--json", Kind::Json, path)?.map_or(Json::Nowhere, Json::File))
    }

    fn open_path(
        &mut self,
        option: &'static str,
        kind: Kind,
        path: &Path,
    ) -> Result<OutputFile, Error> {
        if path.as_os_str() == "-" {
            let text = format!("{option} goes to a file, not to stdout; give its name");
            return Err(Error::Usage(text));
        }
        let wrong = |source| Error::Output { option, path: path.into(), source };
        let to = match place::metadata(path).map_err(wrong)? {
            Some(found) if found.is_file() => self.replacing(option, kind, path)?,
            Some(found) if place::is_stream(&found) => {
                // Two results may share a device, but not a pipe.
                if !place::is_character_device(&found) {
                    self.take(option, path, Identity::of_metadata(&found))?;
                }
                let file = OpenOptions::new().write(true).open(path).map_err(wrong)?;
                To::Stream(file)
            }
            Some(_) => {
                let text = "it is a directory or a block device";
                return Err(wrong(io::Error::new(io::ErrorKind::InvalidInput, text)));
            }
            None => {
                let place = place::behind_links(path).map_err(wrong)?;
                let identity = Identity::of_missing(&place).map_err(wrong)?;
                self.refuse_names_of_logs(option, path, &place)?;
                self.take(option, path, identity)?;
                self.beside(&place, None).map_err(wrong)?
            }
        };
        let stop = Arc::clone(&self.stop);
        Ok(OutputFile { option, path: path.into(), to: Some(to), stop })
    }

    /// Opens an output whose regular file exists.
    fn replacing(&mut self, option: &'static str, kind: Kind, path: &Path) -> Result<To, Error> {
        let wrong = |source| Error::Output { option, path: path.into(), source };
        let identity = Identity::of(path).map_err(wrong)?.ok_or_else(|| {
            wrong(io::Error::new(io::ErrorKind::NotFound, "it was removed meanwhile"))
        })?;
        match identity.standard() {
            Some(Standard::Input) => return Err(taken(option, path, "stdin", true)),
            // An append-only stream is not truncated.
            Some(Standard::Output) => {
                let file = OpenOptions::new().append(true).open(path).map_err(wrong)?;
                return Ok(To::Stream(file));
            }
            None => {}
        }
        let place = std::fs::canonicalize(path).map_err(wrong)?;
        self.refuse_names_of_logs(option, path, &place)?;
        self.take(option, path, identity.clone())?;
        let found = foreign::look(&place, kind).map_err(wrong)?;
        let refused = match found {
            foreign::Found::Own | foreign::Found::Empty => None,
            foreign::Found::Log => {
                Some("it is a file of a log, which is never replaced; give another name")
            }
            foreign::Found::Other if self.force => None,
            foreign::Found::Other => Some(
                "it exists and is no earlier result of this option; give --force to replace it, or another name",
            ),
        };
        if let Some(why) = refused {
            return Err(Error::Usage(format!("cannot write {option} {}: {why}", path.display())));
        }
        // The mode of the file must permit writing, not only that of its directory.
        OpenOptions::new().write(true).open(&place).map_err(wrong)?;
        self.beside(&place, Some(identity)).map_err(wrong)
    }

    fn refuse_names_of_logs(
        &self,
        option: &'static str,
        given: &Path,
        place: &Path,
    ) -> Result<(), Error> {
        if !foreign::is_name_of_a_log(place) {
            return Ok(());
        }
        let text = format!(
            "cannot write {option} {}: a log gives its own files such names; give another name",
            given.display()
        );
        Err(Error::Usage(text))
    }

    fn take(&mut self, option: &'static str, path: &Path, identity: Identity) -> Result<(), Error> {
        if let Some((other, read, _)) = self.taken.iter().find(|(.., known)| *known == identity) {
            return Err(taken(option, path, other, *read));
        }
        self.taken.push((option, false, identity));
        Ok(())
    }

    /// Creates a new file in the same directory. A second signal removes it.
    fn beside(&self, place: &Path, replaces: Option<Identity>) -> io::Result<To> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!(".loadgen-{}-{n}.tmp", std::process::id());
        let temporary = place.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        self.stop.doom(temporary.clone());
        Ok(To::Renamed { file, temporary, place: place.into(), replaces })
    }

    /// Prints the table to stdout, or to stderr if the JSON uses stdout; then the JSON.
    pub fn show(&mut self, quiet: bool, to: Json, table: &str, json: &str) {
        let on_stdout = matches!(to, Json::Stdout);
        let shown = match (quiet, on_stdout) {
            (true, _) => Ok(()),
            (false, true) => print(io::stderr(), table),
            (false, false) => print(io::stdout(), table),
        };
        self.note(shown);
        match to {
            Json::Nowhere => {}
            Json::Stdout => self.note(print(io::stdout(), json)),
            Json::File(file) => self.note(file.write(json)),
        }
    }

    /// Writes a file that was asked for. [`Outputs::result`] returns a failure.
    pub fn write(
        &mut self,
        file: Option<OutputFile>,
        content: impl FnOnce() -> Result<String, Error>,
    ) {
        if let Some(file) = file {
            self.note(content().and_then(|text| file.write(&text)));
        }
    }

    fn note(&mut self, done: Result<(), Error>) {
        if let Err(e) = done {
            self.failed.get_or_insert(e);
        }
    }

    /// Returns the first failure.
    ///
    /// # Errors
    ///
    /// The failure of an output.
    pub fn result(&mut self) -> Result<(), Error> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

fn taken(option: &str, path: &Path, other: &str, read: bool) -> Error {
    Error::Usage(match (read, option == other) {
        (true, _) => format!(
            "{option} {} is the file that {other} reads, which it would destroy; give another name",
            path.display()
        ),
        (false, true) => format!("{option} is given twice for the same file"),
        (false, false) => format!("{other} and {option} name the same file; give two"),
    })
}

impl OutputFile {
    /// Writes the whole content. A partial file is removed and the old one kept, because half a
    /// report looks like a whole one.
    ///
    /// # Errors
    ///
    /// [`Error::Output`].
    pub fn write(mut self, content: &str) -> Result<(), Error> {
        let written = match self.to.take() {
            None => Ok(()),
            Some(To::Stream(mut file)) => {
                file.write_all(content.as_bytes()).and_then(|()| file.flush())
            }
            Some(To::Renamed { mut file, temporary, place, replaces }) => {
                let written = file
                    .write_all(content.as_bytes())
                    // A full disk may report the error only at this call.
                    .and_then(|()| file.sync_data())
                    .and_then(|()| place::put(&file, &temporary, &place, replaces.as_ref()));
                if written.is_err() {
                    let _ = std::fs::remove_file(&temporary);
                }
                self.stop.spare(&temporary);
                written
            }
        };
        let (option, path) = (self.option, self.path.clone());
        written.map_err(|source| Error::Output { option, path, source })
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(To::Renamed { temporary, .. }) = &self.to {
            let _ = std::fs::remove_file(temporary);
            self.stop.spare(temporary);
        }
    }
}

/// Writes to stdout or stderr. A closed pipe is not an error.
///
/// # Errors
///
/// [`Error::System`] for any other failure.
pub fn print(mut stream: impl Write, text: &str) -> Result<(), Error> {
    match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::System { what: "write the result", source: e })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
