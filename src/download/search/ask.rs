//! Asks the hub for models, once and within a time: a person waits for the answer.
//!
//! Answers of some MiB are read on the thread that waits for them, which should serve no requests meanwhile.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use tokio::time::timeout;
use url::Url;

use super::answers::{DescribedRepository, SearchResult};
use super::details::RepositoryDetails;
use crate::download::bounds::{HEADER_TIME, LONGEST_HEADER_SOON, REPOSITORY_ANSWER, SEARCH_ANSWER, SEARCH_TIME};
use crate::download::downloader::Downloader;
use crate::download::error::{DownloadError, TryError};
use crate::download::hub::{Hub, host_of};
use crate::download::remote_header::RemoteHeader;
use crate::models::{RemoteName, RepositoryId};

/// What is asked of the hub about each repository that it finds.
const ASKED: [&str; 5] = ["downloads", "likes", "lastModified", "gated", "gguf"];

/// A search for repositories with GGUF files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubQuery {
    /// Words of their names; empty for those that are downloaded most.
    pub words: String,
    /// Most repositories that are returned.
    pub most: usize,
}

impl Downloader {
    /// Searches the hub, those that are downloaded most first.
    ///
    /// # Errors
    /// The hub does not answer in time, or not as it should.
    pub async fn search(&self, query: &HubQuery) -> Result<SearchResult, DownloadError> {
        let mut address = self.hub.address("api/models")?;
        {
            let mut pairs = address.query_pairs_mut();
            if !query.words.is_empty() {
                pairs.append_pair("search", &query.words);
            }
            let limit = (query.most + 1).to_string();
            pairs.extend_pairs([("filter", "gguf"), ("sort", "downloads"), ("direction", "-1"), ("limit", &limit)]);
            pairs.extend_pairs(ASKED.map(|member| ("expand[]", member)));
        }
        let text = self.in_time(SEARCH_TIME, self.hub.ask(&address, None, SEARCH_ANSWER)).await?;
        SearchResult::parse(&host_of(&address), &text, query.most)
    }

    /// Asks which models a repository has.
    ///
    /// # Errors
    /// There is no such repository, or the hub does not answer in time, or not as it should.
    pub async fn describe(&self, repository: &RepositoryId) -> Result<RepositoryDetails, DownloadError> {
        let path = format!("api/models/{}/{}/revision/{}", repository.org, repository.name, repository.revision);
        let mut address = self.hub.address(&path)?;
        address.query_pairs_mut().append_pair("blobs", "true");
        let text = self.in_time(SEARCH_TIME, self.hub.ask(&address, Some(repository), REPOSITORY_ANSWER)).await?;
        let host = host_of(&address);
        RepositoryDetails::of(&host, &DescribedRepository::parse(&host, &text)?)
    }

    /// Reads the header of a model for a client that waits for it.
    ///
    /// # Errors
    /// See [`DownloadError`].
    pub async fn read_header_soon(&self, name: &RemoteName) -> Result<RemoteHeader, DownloadError> {
        // Another try would come too late.
        let once = self.once();
        match timeout(HEADER_TIME, once.read_header_within(name, LONGEST_HEADER_SOON)).await {
            Ok(Err(DownloadError::GivenUp { reason, .. })) => Err(DownloadError::Unanswered { reason }),
            Ok(read) => read,
            Err(_) => Err(late(&self.hub.host(), HEADER_TIME)),
        }
    }

    fn once(&self) -> Self {
        let mut once = self.clone();
        once.limits.retries = 0;
        once
    }

    async fn in_time<T>(
        &self,
        time: Duration,
        asking: impl Future<Output = Result<T, TryError>>,
    ) -> Result<T, DownloadError> {
        match timeout(time, asking).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(TryError::Final(error))) => Err(error),
            Ok(Err(TryError::Again { reason, .. })) => Err(DownloadError::Unanswered { reason }),
            Err(_) => Err(late(&self.hub.host(), time)),
        }
    }
}

impl Hub {
    /// Asks for a text of at most `limit` bytes.
    async fn ask(&self, address: &Url, repository: Option<&RepositoryId>, limit: usize) -> Result<Bytes, TryError> {
        let (response, address) = self.send(Method::GET, address, HeaderMap::new()).await?;
        let host = host_of(&address);
        if response.status() == StatusCode::UNAUTHORIZED && repository.is_none() && self.has_token() {
            return Err(DownloadError::BadToken { host }.into());
        }
        let response = self.check(response, &address, repository).await?;
        let text = response.read_all(limit).await;
        text.map_err(|error| TryError::Again { reason: error.explain(&host), wait: None })
    }
}

fn late(host: &str, time: Duration) -> DownloadError {
    DownloadError::Unanswered { reason: format!("{host} gave no answer in {} s", time.as_secs()) }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::download::transfer::DownloadLimits;

    #[tokio::test(start_paused = true)]
    async fn a_hub_that_never_answers_is_given_up() {
        let hub = Hub::new(Url::parse("https://hub.example").unwrap(), None).unwrap();
        let limits = DownloadLimits { connections: 1, retries: 5, max_rate: None };
        let downloader = Downloader { hub, cache: "/nowhere".into(), models_dir: "/nowhere".into(), limits };
        let outcome: Result<(), _> = downloader.in_time(SEARCH_TIME, pending()).await;
        assert_eq!(outcome.unwrap_err().to_string(), "hub.example gave no answer in 20 s");
    }
}
