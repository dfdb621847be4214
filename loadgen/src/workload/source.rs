//! The source of records: generated, or read from a file that all producers share.

use std::sync::{Arc, Mutex};

use crate::error::Error;
use crate::stop::lock;
use crate::workload::input::Lines;
use crate::workload::payload::{Generator, Pool};

/// The source of records.
#[derive(Debug, Clone)]
pub enum Source {
    /// Generated from a pool, without end.
    Generated(Arc<Pool>),
    /// The lines of a file, once and in order. All producers share them.
    Lines(Arc<Mutex<Lines>>),
}

impl Source {
    /// Returns the size of the largest record, if it is known in advance.
    #[must_use]
    pub fn largest(&self) -> Option<usize> {
        match self {
            Source::Generated(pool) => Some(pool.largest()),
            Source::Lines(_) => None,
        }
    }

    pub(super) fn producer(&self, number: usize) -> Producer {
        match self {
            Source::Generated(pool) => {
                Producer::Generated(Generator::new(Arc::clone(pool), number))
            }
            Source::Lines(lines) => Producer::Lines(Arc::clone(lines), Vec::new()),
        }
    }

    /// Rewrites an error of the log in terms of the source.
    pub(super) fn explain(&self, e: impl Into<Error>) -> Error {
        let max = match e.into() {
            Error::Log(ringwal::Error::RecordTooLarge { max, .. }) => max,
            other => return other,
        };
        let max = max as u64;
        match self {
            Source::Generated(_) => Error::TooLarge {
                what: "a record".into(),
                max,
                hint: "give smaller ones, or raise it with --max-record",
            },
            Source::Lines(lines) => Error::TooLarge {
                what: format!("line {} of the input", lock(lines).count()),
                max,
                hint: "raise it with --max-record, or split the line",
            },
        }
    }
}

/// The source, as one producer reads it.
#[derive(Debug)]
pub(super) enum Producer {
    Generated(Generator),
    Lines(Arc<Mutex<Lines>>, Vec<u8>),
}

impl Producer {
    /// Returns a payload of this many bytes; without a number, the next one.
    #[inline]
    pub(super) fn payload_of(&mut self, bytes: Option<u32>) -> Result<Option<&[u8]>, Error> {
        match (self, bytes) {
            (Producer::Generated(generator), Some(bytes)) => {
                Ok(Some(generator.payload(bytes as usize)))
            }
            (other, _) => other.next_payload(),
        }
    }

    /// Returns the next payload, or `None` at the end.
    #[inline]
    pub(super) fn next_payload(&mut self) -> Result<Option<&[u8]>, Error> {
        match self {
            Producer::Generated(generator) => Ok(Some(generator.next_payload())),
            Producer::Lines(lines, line) => {
                Ok(if lock(lines).next_line(line)? { Some(line) } else { None })
            }
        }
    }
}
