//! Files that are written at the end, but tried before the run.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::stop::Stop;

/// A file to be written at the end. If it never is, and was not there before, it goes again.
#[derive(Debug)]
pub struct OutputFile {
    option: &'static str,
    path: PathBuf,
    file: Option<File>,
    existed: bool,
    stop: Arc<Stop>,
}

impl OutputFile {
    /// Opens the file; what is in it stays until something is written.
    ///
    /// # Errors
    ///
    /// [`Error::Output`], named after the option.
    pub fn open(option: &'static str, path: &Path, stop: &Arc<Stop>) -> Result<Self, Error> {
        if path.as_os_str() == "-" {
            let text = format!("{option} goes to a file, not to stdout; give its name");
            return Err(Error::Usage(text));
        }
        let existed = path.exists();
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let wrong = |source| Error::Output { option, path: path.into(), source };
        let file = opened.map_err(wrong)?;
        if !existed {
            stop.doom(path.into());
        }
        let stop = Arc::clone(stop);
        Ok(OutputFile { option, path: path.into(), file: Some(file), existed, stop })
    }

    /// Writes the whole content. A new file that could not be written whole goes again, at an error and at a second
    /// signal: half a report looks like one.
    ///
    /// # Errors
    ///
    /// [`Error::Output`].
    pub fn write(mut self, content: &str) -> Result<(), Error> {
        let written = self.file.take().map_or(Ok(()), |mut file| {
            // Pipes and devices have no length.
            if file.metadata()?.is_file() {
                file.set_len(0)?;
            }
            file.write_all(content.as_bytes())
        });
        if written.is_err() {
            self.remove();
        }
        self.stop.spare(&self.path);
        let (option, path) = (self.option, self.path.clone());
        written.map_err(|source| Error::Output { option, path, source })
    }

    fn remove(&self) {
        if !self.existed {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            self.remove();
            self.stop.spare(&self.path);
        }
    }
}

/// Writes to stdout or stderr. A reader that has gone away is no error.
///
/// # Errors
///
/// [`Error::System`].
pub fn print(mut stream: impl Write, text: &str) -> Result<(), Error> {
    match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::System { what: "write the result", source: e })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_only_when_written() {
        let path = std::env::temp_dir().join(format!("loadgen-out-{}", std::process::id()));
        let open = || OutputFile::open("--json", &path, &Arc::new(Stop::default()));
        drop(open().unwrap());
        assert!(!path.exists());
        std::fs::write(&path, "a longer text").unwrap();
        drop(open().unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a longer text");
        open().unwrap().write("new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_second_signal_takes_what_is_not_written_and_nothing_else() {
        let path = |name: &str| {
            std::env::temp_dir().join(format!("loadgen-out-{name}-{}", std::process::id()))
        };
        std::fs::write(path("theirs"), "precious").unwrap();
        let stop = Arc::new(Stop::default());
        let open = |name| OutputFile::open("--json", &path(name), &stop).unwrap();
        let (written, _waiting, _theirs) = (open("written"), open("waiting"), open("theirs"));
        written.write("whole").unwrap();
        assert!(stop.signal().is_none() && path("waiting").exists());
        assert!(stop.signal().is_some());
        assert!(!path("waiting").exists());
        assert_eq!(std::fs::read_to_string(path("written")).unwrap(), "whole");
        assert_eq!(std::fs::read_to_string(path("theirs")).unwrap(), "precious");
        std::fs::remove_file(path("written")).unwrap();
        std::fs::remove_file(path("theirs")).unwrap();
    }

    #[test]
    fn half_a_report_goes_again_and_what_was_there_stays() {
        let path = std::env::temp_dir().join(format!("loadgen-half-{}", std::process::id()));
        for existed in [false, true] {
            std::fs::write(&path, "half").unwrap();
            let (option, stop) = ("--json", Arc::default());
            // As a full disk would, this refuses what is written.
            let file = Some(File::open(&path).unwrap());
            let output = OutputFile { option, path: path.clone(), file, existed, stop };
            assert!(matches!(output.write("whole"), Err(Error::Output { .. })));
            assert_eq!(path.exists(), existed);
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_path_that_cannot_be_written_is_named_with_its_option() {
        let e =
            OutputFile::open("--hgrm", Path::new("/no/such/dir/x"), &Arc::default()).unwrap_err();
        assert!(e.to_string().contains("--hgrm /no/such/dir/x"), "{e}");
        assert_eq!(e.exit_status(), 2);
        let e = OutputFile::open("--html", Path::new("-"), &Arc::default()).unwrap_err();
        assert!(e.to_string().contains("--html goes to a file"), "{e}");
    }
}
