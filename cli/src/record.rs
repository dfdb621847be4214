//! Records as text and bytes, out and in.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use ringwal::Lsn;

use crate::args::{Format, Framing};
use crate::error::{Error, Result};

/// The largest record of any log.
const LARGEST: usize = 256 << 20;

/// A record to be written.
#[derive(Clone, Copy)]
pub(crate) struct Written<'a> {
    pub(crate) lsn: Lsn,
    pub(crate) tag: Option<u64>,
    pub(crate) payload: &'a [u8],
}

/// A record that was read from a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) tag: Option<u64>,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn write(out: &mut impl Write, format: Format, record: Written<'_>) -> Result<()> {
    let Written { lsn, payload, .. } = record;
    match format {
        Format::Raw => out.write_all(payload)?,
        Format::Lines => writeln!(out, "{lsn}\t{}", escaped(payload))?,
        Format::Json => writeln!(out, "{}", object(record))?,
        Format::Hex => {
            writeln!(out, "{lsn}  {} bytes", payload.len())?;
            for (row, bytes) in payload.chunks(16).enumerate() {
                out.write_all(hex_row(row * 16, bytes).as_bytes())?;
            }
        }
    }
    Ok(())
}

pub(crate) fn write_framed(
    out: &mut impl Write,
    framing: Framing,
    record: Written<'_>,
) -> Result<()> {
    match framing {
        Framing::Jsonl => write(out, Format::Json, record),
        Framing::LengthPrefixed => {
            let payload = record.payload;
            out.write_all(&(payload.len() as u32).to_le_bytes())?;
            Ok(out.write_all(payload)?)
        }
    }
}

fn object(record: Written<'_>) -> Value {
    let lsn = record.lsn.as_u64();
    let mut object = match std::str::from_utf8(record.payload) {
        Ok(text) => json!({ "lsn": lsn, "text": text }),
        Err(_) => json!({ "lsn": lsn, "base64": STANDARD.encode(record.payload) }),
    };
    if let Some(tag) = record.tag {
        object["tag"] = tag.into();
    }
    object
}

/// Formats a record as one line, with control characters escaped.
fn escaped(payload: &[u8]) -> String {
    let mut line = String::with_capacity(payload.len());
    for chunk in payload.utf8_chunks() {
        let mut rest = chunk.valid();
        // Found byte by byte: by characters, `dump` took 2.7 times as long in a small build.
        while let Some(at) = rest.bytes().position(may_begin_an_escaped_character) {
            line.push_str(&rest[..at]);
            let mut characters = rest[at..].chars();
            match characters.next() {
                Some('\\') => line.push_str("\\\\"),
                Some(c) if c.is_control() => line.extend(c.escape_default()),
                other => line.extend(other),
            }
            rest = characters.as_str();
        }
        line.push_str(rest);
        for byte in chunk.invalid() {
            let _ = write!(line, "\\x{byte:02x}");
        }
    }
    line
}

/// Control characters are below U+0020, or from U+007F to U+009F, which begin with 0xC2 in UTF-8
/// from U+0080 on.
fn may_begin_an_escaped_character(byte: u8) -> bool {
    matches!(byte, ..0x20 | 0x7F | b'\\' | 0xC2)
}

fn hex_row(offset: usize, bytes: &[u8]) -> String {
    let mut row = format!("  {offset:08x} ");
    for at in 0..16 {
        let gap = if at == 8 { " " } else { "" };
        match bytes.get(at) {
            Some(byte) => drop(write!(row, "{gap} {byte:02x}")),
            None => drop(write!(row, "{gap}   ")),
        }
    }
    row.push_str("  |");
    let shown = |byte: &u8| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '.' };
    row.extend(bytes.iter().map(shown));
    row.push_str("|\n");
    row
}

/// The caller adds the line of the file; the line in `e` counts within the record.
fn bad_json(e: &serde_json::Error) -> String {
    let why = e.to_string();
    let why = why.rsplit_once(" at line ").map_or(why.as_str(), |(why, _)| why);
    format!("bad JSON at column {}: {why}", e.column())
}

/// The records of an import, one by one.
pub(crate) struct Source<R> {
    input: BufReader<R>,
    framing: Framing,
    name: String,
    /// Records, or lines, so far.
    count: u64,
    buffer: Vec<u8>,
}

impl<R: Read> Source<R> {
    pub(crate) fn new(input: R, framing: Framing, name: String) -> Self {
        let input = BufReader::with_capacity(1 << 20, input);
        Source { input, framing, name, count: 0, buffer: Vec::new() }
    }

    /// Reads the next record. An error names its line or record.
    pub(crate) fn next(&mut self) -> Result<Option<Input>> {
        self.count += 1;
        match self.framing {
            Framing::Jsonl => self.line(),
            Framing::LengthPrefixed => self.prefixed(),
        }
    }

    /// Returns whether the next record is buffered already.
    pub(crate) fn has_next(&self) -> bool {
        let read = self.input.buffer();
        match self.framing {
            Framing::Jsonl => read.contains(&b'\n'),
            Framing::LengthPrefixed => read
                .split_first_chunk()
                .is_some_and(|(length, rest)| rest.len() >= u32::from_le_bytes(*length) as usize),
        }
    }

    fn wrong(&self, what: &str, why: impl Into<String>) -> Error {
        Error::Input { place: format!("{}, {what} {}", self.name, self.count), why: why.into() }
    }

    fn line(&mut self) -> Result<Option<Input>> {
        loop {
            self.buffer.clear();
            let most = LARGEST as u64 * 2;
            let read = self.input.by_ref().take(most).read_until(b'\n', &mut self.buffer);
            let n = read.map_err(|e| self.wrong("line", e.to_string()))?;
            if n == 0 {
                return Ok(None);
            }
            if !self.buffer.trim_ascii().is_empty() {
                break;
            }
            self.count += 1;
        }
        let value: Value =
            serde_json::from_slice(&self.buffer).map_err(|e| self.wrong("line", bad_json(&e)))?;
        let payload = match (&value["text"], &value["base64"]) {
            (Value::String(text), Value::Null) => text.clone().into_bytes(),
            (Value::Null, Value::String(coded)) => {
                let bytes = STANDARD.decode(coded);
                bytes.map_err(|e| self.wrong("line", format!("base64: {e}")))?
            }
            _ => {
                let why = "an object with either \"text\" or \"base64\" is wanted";
                return Err(self.wrong("line", why));
            }
        };
        let tag = match &value["tag"] {
            Value::Null => None,
            tag => Some(tag.as_u64().ok_or_else(|| {
                self.wrong("line", "a \"tag\" is a whole number of at most 64 bits")
            })?),
        };
        Ok(Some(Input { tag, payload }))
    }

    fn prefixed(&mut self) -> Result<Option<Input>> {
        let over = self.input.fill_buf().map(<[u8]>::is_empty);
        if over.map_err(|e| self.wrong("record", e.to_string()))? {
            return Ok(None);
        }
        let mut length = [0; 4];
        let read = self.input.read_exact(&mut length);
        read.map_err(|_| self.wrong("record", "the file ends inside a length"))?;
        let length = u32::from_le_bytes(length) as usize;
        if length > LARGEST {
            let why = format!("{length} bytes are more than any log takes; is it length-prefixed?");
            return Err(self.wrong("record", why));
        }
        // Not all of it: a length that is wrong takes no memory.
        let mut payload = Vec::with_capacity(length.min(64 << 10));
        let read = self.input.by_ref().take(length as u64).read_to_end(&mut payload);
        let n = read.map_err(|e| self.wrong("record", e.to_string()))?;
        if n < length {
            let why = format!("the file ends after {n} of its {length} bytes");
            return Err(self.wrong("record", why));
        }
        Ok(Some(Input { tag: None, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(format: Format, payload: &[u8]) -> String {
        let mut out = Vec::new();
        let record = Written { lsn: Lsn::new(7), tag: None, payload };
        write(&mut out, format, record).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_record_is_one_line_whatever_is_in_it() {
        assert_eq!(lines(Format::Lines, b"a\nb\t\x1b[31m\\"), "7\ta\\nb\\t\\u{1b}[31m\\\\\n");
        assert_eq!(lines(Format::Lines, b"\xff\xfeok"), "7\t\\xff\\xfeok\n");
        assert_eq!(lines(Format::Json, b"a\n"), "{\"lsn\":7,\"text\":\"a\\n\"}\n");
        assert_eq!(lines(Format::Json, b"\xff"), "{\"base64\":\"/w==\",\"lsn\":7}\n");
        let hex = lines(Format::Hex, b"0123456789abcdef\x00");
        assert_eq!(hex.lines().count(), 3);
        assert!(hex.contains(
            "  00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|"
        ));
    }

    #[test]
    fn control_characters_and_backslashes_alone_are_escaped() {
        for c in ('\0'..'\u{300}').chain(['\u{FFFD}', '\u{10FFFF}']) {
            let text = format!("a{c}{c}é");
            let expected = match c {
                '\\' => r"a\\\\é".to_owned(),
                c if c.is_control() => format!("a{}{}é", c.escape_default(), c.escape_default()),
                _ => text.clone(),
            };
            assert_eq!(lines(Format::Lines, text.as_bytes()), format!("7\t{expected}\n"));
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let records: [&[u8]; 4] = [b"", b"text \xe2\x82\xac", b"\xff\x00\n", &[7; 5000]];
        for framing in [Framing::Jsonl, Framing::LengthPrefixed] {
            let mut out = Vec::new();
            let tag =
                |n: usize| (framing == Framing::Jsonl && n > 1).then_some(u64::MAX - n as u64);
            for (n, payload) in records.iter().enumerate() {
                let record = Written { lsn: Lsn::new(n as u64), tag: tag(n), payload };
                write_framed(&mut out, framing, record).unwrap();
            }
            let mut source = Source::new(&out[..], framing, "file".into());
            for (n, payload) in records.iter().enumerate() {
                let read = Input { tag: tag(n), payload: payload.to_vec() };
                assert_eq!(source.next().unwrap().unwrap(), read);
            }
            assert!(source.next().unwrap().is_none());
            // Cut anywhere, it is whole records and then an error, or nothing.
            for len in 0..out.len().min(60) {
                let mut source = Source::new(&out[..len], framing, "file".into());
                for payload in records {
                    match source.next() {
                        Ok(Some(found)) => assert_eq!(found.payload, payload),
                        Ok(None) | Err(_) => break,
                    }
                }
            }
        }
    }

    #[test]
    fn bad_input_is_named_by_its_place() {
        let said = |text: &str| {
            let mut source = Source::new(text.as_bytes(), Framing::Jsonl, "f.jsonl".into());
            loop {
                match source.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => return String::new(),
                    Err(e) => return e.to_string(),
                }
            }
        };
        assert!(said("{\"text\":\"a\"}\n\n{").starts_with("f.jsonl, line 3: "));
        assert!(said("{\"text\":\"a\",\"base64\":\"\"}").contains("is wanted"));
        assert!(said("{\"base64\":\"!\"}").contains("base64"));
        for tag in ["-1", "1.5", "\"7\"", "18446744073709551616"] {
            let line = format!("{{\"text\":\"a\",\"tag\":{tag}}}");
            assert!(said(&line).contains("whole number"), "{tag}");
        }
        assert_eq!(said("\n\n"), "");
        let mut long = Source::new(&[255; 8][..], Framing::LengthPrefixed, "f".into());
        assert!(long.next().unwrap_err().to_string().contains("more than any log takes"));
    }
}
