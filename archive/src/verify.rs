//! Reads all of an archive, and compares it with its checksums.

use std::ops::ControlFlow;

use futures_util::StreamExt;
use ringwal::Lsn;

use crate::block_on::block_on;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::restore::{RestoreProgress, part};
use crate::store::{Archive, IN_FLIGHT};

/// The result of [`Archive::verify`].
#[derive(Debug)]
#[non_exhaustive]
pub struct VerifiedArchive {
    /// The id of the log, in hexadecimal.
    pub log_id: String,
    /// Archived segments, the damaged ones included.
    pub segments: u64,
    /// Records in them, void ones included.
    pub records: u64,
    /// Bytes that were read and compared.
    pub bytes: u64,
    /// What is missing ([`Error::MissingObject`]) or damaged ([`Error::DamagedObject`]), for each
    /// segment the first one, and the segments that do not continue the one before them
    /// ([`Error::AnotherHistory`]). Empty: every archived record can be restored.
    pub findings: Vec<Error>,
}

impl Archive {
    /// Reads every archived segment, and compares it with the checksums of its manifest. Continues
    /// after damage, and reports all of it. Changes nothing.
    ///
    /// Calls `progress` often. If it returns [`ControlFlow::Break`], the call ends with
    /// [`Error::Stopped`].
    ///
    /// # Errors
    ///
    /// As [`Archive::list`]; [`Error::Stopped`].
    pub fn verify(
        &self,
        mut progress: impl FnMut(RestoreProgress) -> ControlFlow<()> + Send,
    ) -> Result<VerifiedArchive> {
        block_on(async {
            let index = self.index().await?;
            let total = index.manifests.iter().map(|manifest| manifest.bytes).sum();
            let mut at = RestoreProgress { done: 0, total };
            let mut verified = VerifiedArchive {
                log_id: index.log_id,
                segments: index.manifests.len() as u64,
                records: index.manifests.iter().map(|manifest| manifest.records).sum(),
                bytes: 0,
                findings: Vec::new(),
            };
            for gap in index.gaps {
                let (object, from, to) = (gap.missing, gap.from, gap.to);
                verified.findings.push(Error::MissingObject { object, from, to });
            }
            for base in index.breaks {
                let (object, base) = (self.manifest_path(base), Lsn::new(base));
                verified.findings.push(Error::AnotherHistory { object, base });
            }
            // Any other one is in a gap.
            let end = index.manifests.last().map_or(0, Manifest::end);
            for base in index.invalid.into_iter().filter(|base| *base >= end) {
                verified.findings.push(self.damaged_manifest(base));
            }
            for manifest in &index.manifests {
                let size = self.size(&manifest.object).await?;
                // One that is missing is among the gaps.
                let Some(size) = size else { continue };
                let crcs = manifest.crcs().unwrap_or_default();
                let ranges = manifest.ranges().into_iter().filter(|range| range.end <= size);
                let parts = ranges.zip(crcs).map(|(range, crc)| async move {
                    let len = range.end - range.start;
                    part(self, manifest, crc, range).await.map(|_| len)
                });
                let mut parts = futures_util::stream::iter(parts).buffered(IN_FLIGHT);
                let mut found =
                    (size != manifest.bytes).then(|| self.of_another_size(manifest, size));
                while let Some(read) = parts.next().await {
                    match read {
                        Ok(len) => {
                            verified.bytes += len;
                            at.done += len;
                        }
                        Err(e @ (Error::DamagedObject { .. } | Error::MissingObject { .. })) => {
                            found = found.or(Some(e));
                        }
                        Err(e) => return Err(e),
                    }
                    if progress(at).is_break() {
                        return Err(Error::Stopped);
                    }
                }
                verified.findings.extend(found);
            }
            Ok(verified)
        })
    }
}
