//! Compares a survey and a repair with opening, on a directory with arbitrary content.
//!
//! 1. A survey finds no damage if and only if the log opens and is read to its end. Then both have
//!    the same records.
//! 2. A repaired log opens, is read to its end, and holds the records that the plan counts.

use std::sync::Arc;

use super::life::names;
use super::look::{Seen, look};
use super::memory::{Content, Files, Memory};
use super::witness::Witness;
use crate::error::Error;
use crate::inspect::judged::{plan, survey};
use crate::inspect::{Keep, Survey};
use crate::io::fs::{Access, Dir, read_full};
use crate::options::Options;

pub(super) fn check(files: &Files, options: &Options, opened: &Result<Seen, Error>) {
    let dir: Arc<dyn Dir> = Memory::new(files);
    let found = match survey(&dir, &names()) {
        Ok(found) => found,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            assert!(opened.as_ref().is_ok_and(|seen| seen.records.is_empty()), "no segment");
            return;
        }
        Err(Error::Unsupported { .. }) => return assert!(opened.is_err(), "of a newer version"),
        Err(e) => panic!("a survey says: {e}"),
    };
    match opened {
        Err(Error::NoSpace) => return,
        Ok(seen) if seen.error.is_none() => {
            let damage = &found.survey.damage;
            assert!(found.survey.damaged_places == 0, "it opens and is read: {damage:#?}");
            assert!(found.records == seen.records, "other records than are read");
            return;
        }
        _ => {}
    }
    let why = || match opened {
        Ok(seen) => format!("reading says: {:?}", seen.error),
        Err(e) => format!("opening says: {e}"),
    };
    assert!(found.survey.damaged_places > 0, "called sound, and {}", why());
    for keep in [Keep::Before, Keep::After] {
        repaired(&dir, options, &found.survey, keep);
    }
}

fn repaired(dir: &Arc<dyn Dir>, options: &Options, found: &Survey, keep: Keep) {
    let (left, judged, front_was_taken) = match plan(dir, &names(), found, keep) {
        Ok(planned) => planned,
        // The repair can keep nothing.
        Err(Error::Corruption { reason, .. }) => {
            assert!(!reason.contains("would open"), "no plan ends: {:#?}", found.damage);
            return;
        }
        Err(e) => panic!("a plan says: {e}"),
    };
    let options = Options { front_was_taken, ..options.clone() };
    let left = carried_out(&*left);
    match look(&Memory::new(&left), &options) {
        Ok(seen) => {
            assert!(seen.error.is_none(), "repaired, {keep:?}: {:?}", seen.error);
            assert!(seen.records == judged.records, "repaired, {keep:?}: other records");
            let witness = Witness::new(&left);
            seen.records.iter().for_each(|(lsn, payload)| witness.check(*lsn, payload));
        }
        Err(Error::NoSpace) => {}
        Err(e) => panic!("repaired, {keep:?}, and: {e}; it was {:#?}", found.damage),
    }
}

/// The files that a plan leaves.
fn carried_out(left: &dyn Dir) -> Files {
    let content = |name: &str, len: u64| {
        let file = left.open(name, Access::Read).expect("it is listed");
        let mut bytes = vec![0; len as usize];
        let n = read_full(&*file, &mut bytes, 0).expect("nothing fails in memory");
        assert_eq!(n as u64, len, "{name}");
        Content::new(bytes)
    };
    let entries = left.list().expect("nothing fails in memory");
    entries.into_iter().map(|e| (e.name.clone(), content(&e.name, e.len))).collect()
}
