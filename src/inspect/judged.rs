//! Survey and repair plan of any directory, for the fuzz targets.

use std::sync::Arc;

use super::repair::draft;
use super::survey::survey_of;
use super::view::View;
use super::walk::walk;
use super::{Keep, Survey, quiet};
use crate::error::Result;
use crate::io::fs::Dir;
use crate::segment::Names;

#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) survey: Survey,
    /// The intact records that are not void.
    pub(crate) records: Vec<(u64, Vec<u8>)>,
}

pub(crate) fn survey(dir: &Arc<dyn Dir>, names: &Names) -> Result<Judged> {
    let view = View { dir: Arc::clone(dir), names: names.clone() };
    let survey = survey_of(&view, None, false, &mut quiet)?;
    judged(&view, survey)
}

fn judged(view: &View, survey: Survey) -> Result<Judged> {
    let mut records = Vec::new();
    let each = &mut |lsn: crate::lsn::Lsn, payload: &[u8]| {
        records.push((lsn.as_u64(), payload.to_vec()));
        true
    };
    walk(
        view,
        &mut |record| each(record.lsn, record.payload),
        &survey.cuts,
        survey.limit,
        &mut quiet,
    )?;
    Ok(Judged { survey, records })
}

/// Returns the directory as a repair would leave it, its survey and records, and whether its front
/// counts as removed.
pub(crate) fn plan(
    dir: &Arc<dyn Dir>,
    names: &Names,
    found: &Survey,
    keep: Keep,
) -> Result<(Arc<dyn Dir>, Judged, bool)> {
    let view = View { dir: Arc::clone(dir), names: names.clone() };
    let (draft, left, survey) = draft(&view, found, keep)?;
    let judged = judged(&left, survey)?;
    Ok((left.dir, judged, draft.front_is_taken))
}
