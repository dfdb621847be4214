//! The origin of an existing file at the path of an output.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The kind of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `--json`.
    Json,
    /// `--html`.
    Html,
    /// `--hgrm`.
    Hgrm,
    /// `--hlog`.
    Hlog,
    /// `--markdown`.
    Markdown,
}

/// The content of an existing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The file is empty.
    Empty,
    /// An earlier result of the same kind.
    Own,
    /// Part of a log, or acknowledgements of one.
    Log,
    /// Other content.
    Other,
}

/// First bytes of the files of a log, and of the witness.
const LOG: [&[u8]; 6] =
    [b"ringwal\x1a", b"RWSt", b"RWGp", b"RWEn", b"RWCp", b"loadgen acknowledgements"];
/// Marks of loadgen in each of its text formats.
pub(crate) const MARK: &str = "ringwal loadgen";
/// Bytes that are read of a result at most.
const LARGEST: u64 = 256 << 20;
const HEAD: usize = 4096;

/// Reads as much of the file as the decision needs.
pub(super) fn look(path: &Path, kind: Kind) -> io::Result<Found> {
    let mut file = File::open(path)?;
    let mut head = Vec::new();
    file.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    if head.is_empty() {
        return Ok(Found::Empty);
    }
    if LOG.iter().any(|magic| head.starts_with(magic)) {
        return Ok(Found::Log);
    }
    let text = String::from_utf8_lossy(&head);
    let own = match kind {
        Kind::Json => {
            // JSON keys are sorted, so the schema may come late in the file.
            file.take(LARGEST).read_to_end(&mut head)?;
            let value: Result<serde_json::Value, _> = serde_json::from_slice(&head);
            value.is_ok_and(|value| {
                value["schema"].as_str().is_some_and(|s| s.starts_with("ringwal-loadgen/"))
            })
        }
        Kind::Html => text.starts_with("<!doctype html>") && text.contains(MARK),
        Kind::Hgrm => {
            let mut rest = head.clone();
            file.take(LARGEST).read_to_end(&mut rest)?;
            let end = rest.len().saturating_sub(HEAD);
            text.trim_start().starts_with("Value ")
                && String::from_utf8_lossy(&rest[end..]).contains(MARK)
        }
        Kind::Hlog => text.starts_with('#') && text.contains(MARK),
        Kind::Markdown => text.starts_with("<!--") && text.contains(MARK),
    };
    Ok(if own { Found::Own } else { Found::Other })
}

/// True if a log uses this name for its files: a segment, or, next to a segment, any other file.
pub(crate) fn is_name_of_a_log(place: &Path) -> bool {
    let Some(name) = place.file_name().and_then(|name| name.to_str()) else { return false };
    if numbered(name).is_some() {
        return true;
    }
    let endings = [".lock", ".end", ".commit", ".sealed", ".new"];
    let prefix = match endings.iter().find_map(|ending| name.strip_suffix(ending)) {
        Some(prefix) => prefix,
        None => match name.split_once(".consumer.") {
            Some((prefix, _)) => prefix,
            None => return false,
        },
    };
    let prefix = prefix.split(".consumer").next().unwrap_or(prefix);
    let prefix = prefix.strip_suffix(".sealed").unwrap_or(prefix);
    let directory = place.parent().filter(|parent| !parent.as_os_str().is_empty());
    let Ok(entries) = std::fs::read_dir(directory.unwrap_or(Path::new("."))) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        name.to_str().and_then(numbered).is_some_and(|other| other == prefix)
    })
}

/// Returns the prefix of `<prefix>.<20 digits>.wal` and `.tmp`.
fn numbered(name: &str) -> Option<&str> {
    let rest = name.strip_suffix(".wal").or_else(|| name.strip_suffix(".tmp"))?;
    let (prefix, digits) = rest.rsplit_once('.')?;
    let twenty = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    (twenty && !prefix.is_empty()).then_some(prefix)
}
