//! Reads the header of a model on the network, without its weights: ranges from the beginning, each as long as all before
//! it, until the header is whole.
//!
//! What has come is read from its beginning after each range. Because each doubles it, all these readings together take less
//! than three times the bytes of the header.

use std::ops::Range;
use std::path::PathBuf;

use super::bounds::{FIRST_HEADER_RANGE, LONGEST_HEADER};
use super::downloader::Downloader;
use super::error::{DownloadError, TryError};
use super::hub::{LocatedFile, host_of};
use super::progress::Progress;
use super::retry::with_retries;
use crate::models::gguf::{self, GgufError, Metadata};
use crate::models::split::parts_of;
use crate::models::{RemoteName, RepositoryId};

/// What is known of a model on the network without its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteHeader {
    /// The metadata of its file; of a split model, of the first part.
    pub metadata: Metadata,
    /// Bytes of all its files.
    pub size_bytes: u64,
    /// Bytes of its projector, if it has one.
    pub projector_bytes: u64,
    /// Bytes that came over the network.
    pub fetched: u64,
}

impl Downloader {
    /// Reads the header of a model. Writes nothing to the disk.
    ///
    /// # Errors
    /// See [`DownloadError`].
    pub async fn read_header(&self, name: &RemoteName) -> Result<RemoteHeader, DownloadError> {
        self.read_header_within(name, LONGEST_HEADER).await
    }

    /// Reads the header of a model that has at most `longest` bytes. Writes nothing to the disk.
    ///
    /// # Errors
    /// See [`DownloadError`].
    pub(super) async fn read_header_within(
        &self,
        name: &RemoteName,
        longest: u64,
    ) -> Result<RemoteHeader, DownloadError> {
        let (files, parts) = match name {
            RemoteName::Address { address, sha256 } => {
                let locate = || self.hub.locate_address(address, sha256);
                (vec![with_retries(self.limits.retries, &host_of(address), locate).await?], 1)
            }
            RemoteName::Model { repository, .. } | RemoteName::File { repository, .. } => {
                let (commit, names) = self.files_of(name, repository, &Progress::default()).await?;
                let first = names.first().map(PathBuf::from).unwrap_or_default();
                (self.locate_all(repository, &commit, &names).await?, parts_of(&first).len())
            }
        };
        let (parts, projectors) = files.split_at(parts.min(files.len()));
        let sum = |files: &[LocatedFile]| files.iter().map(|file| file.size).fold(0, u64::saturating_add);
        let first = parts.first().ok_or_else(|| DownloadError::NotGguf { file: "the model".to_owned() })?;
        let (metadata, fetched) = self.fetch_header(first, longest).await?;
        Ok(RemoteHeader { metadata, size_bytes: sum(parts), projector_bytes: sum(projectors), fetched })
    }

    async fn locate_all(
        &self,
        repository: &RepositoryId,
        commit: &str,
        names: &[String],
    ) -> Result<Vec<LocatedFile>, DownloadError> {
        let mut files = Vec::with_capacity(names.len());
        for name in names {
            let locate = || self.hub.locate(repository, commit, name);
            files.push(with_retries(self.limits.retries, &self.hub.host(), locate).await?);
        }
        Ok(files)
    }

    async fn fetch_header(&self, file: &LocatedFile, longest: u64) -> Result<(Metadata, u64), DownloadError> {
        let (mut start, mut fetched, mut end) = (Vec::new(), 0, FIRST_HEADER_RANGE.min(file.size));
        loop {
            let range = start.len() as u64..end;
            let ask = async || self.fetch_range(file, &range).await;
            let (bytes, is_range) = with_retries(self.limits.retries, &host_of(&file.address), ask).await?;
            fetched += bytes.len() as u64;
            if !is_range {
                // A host without ranges sends everything again.
                start.clear();
            }
            // No more than that: it may be some MiB.
            start.reserve_exact(bytes.len());
            start.extend(bytes);
            match gguf::parse(start.as_slice(), Some(file.size)) {
                Ok(metadata) => return Ok((metadata, fetched)),
                Err(GgufError::TruncatedHeader { .. }) if end < file.size.min(longest) => {
                    end = longer(end, file.size.min(longest));
                }
                Err(GgufError::TruncatedHeader { .. }) if end < file.size => {
                    let fault = format!("has {} with a header of more than {} MiB", file.label, longest >> 20);
                    return Err(DownloadError::BadAnswer { host: host_of(&file.address), fault });
                }
                Err(_) => return Err(DownloadError::NotGguf { file: file.label.clone() }),
            }
        }
    }

    /// Fetches a range. Returns whether it is one: else it is all from the beginning to the end of the range.
    async fn fetch_range(&self, file: &LocatedFile, range: &Range<u64>) -> Result<(Vec<u8>, bool), TryError> {
        let answer = self.hub.range(&file.address, file.size, Some(range)).await?;
        let first = if answer.is_range { range.start } else { 0 };
        let length = usize::try_from(range.end - first).unwrap_or(usize::MAX);
        let (host, mut bytes) = (host_of(&answer.address), Vec::with_capacity(length));
        let again = |reason| TryError::Again { reason, wait: None };
        answer.response.read_start(length, &mut bytes).await.map_err(|error| again(error.explain(&host)))?;
        match bytes.len() == length {
            true => Ok((bytes, answer.is_range)),
            false => Err(again(format!("{host} ended before all had come"))),
        }
    }
}

/// Returns the end of the range after the one that ends here.
fn longer(end: u64, most: u64) -> u64 {
    (end * 2).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_readings_of_a_header_take_less_than_three_times_its_bytes() {
        for most in [FIRST_HEADER_RANGE, FIRST_HEADER_RANGE + 1, 3 << 20, (32 << 20) - 1, LONGEST_HEADER] {
            let (mut end, mut read) = (FIRST_HEADER_RANGE, FIRST_HEADER_RANGE);
            let mut readings = 1;
            while end < most {
                end = longer(end, most);
                (read, readings) = (read + end, readings + 1);
            }
            assert_eq!(end, most);
            // The last range may be cut short by the bound.
            assert!(read < 3 * most && read - end < 2 * most && readings <= 7, "{readings} readings of {read} bytes");
        }
    }
}
