//! Reads what the hub answers to a search, and of one repository: pure.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::download::answers::bad_answer;
use crate::download::error::DownloadError;
use crate::models::RemoteName;

/// A repository with models as GGUF files.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FoundRepository {
    /// `ORG/NAME`
    pub id: String,
    /// Downloads in the last month.
    pub downloads: Option<u64>,
    /// Likes.
    pub likes: Option<u64>,
    /// When it was changed last.
    pub updated_at: Option<Timestamp>,
    /// Whether its owner gives it only to some users.
    pub gated: bool,
    /// The number of weights of its model.
    pub parameters: Option<u64>,
    /// The architecture of its model.
    pub architecture: Option<String>,
    /// The context that its model was trained for, in tokens.
    pub context_length: Option<u64>,
}

/// What a search has found.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchResult {
    /// The repositories, in the order of the hub.
    pub repositories: Vec<FoundRepository>,
    /// Whether there are more.
    pub has_more: bool,
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct FileAnswer {
    #[serde(rename = "rfilename")]
    pub(super) path: String,
    size: Option<u64>,
    lfs: Option<LargeFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct LargeFile {
    size: Option<u64>,
}

/// A repository in an answer. What the hub, or a mirror of it, does not say is not known.
#[derive(Debug, Deserialize)]
pub(super) struct DescribedRepository {
    #[serde(alias = "modelId")]
    id: String,
    #[serde(default, deserialize_with = "or_none")]
    downloads: Option<u64>,
    #[serde(default, deserialize_with = "or_none")]
    likes: Option<u64>,
    #[serde(default, rename = "lastModified", deserialize_with = "or_none")]
    updated_at: Option<Timestamp>,
    /// `false`, or who decides: `auto` or `manual`.
    #[serde(default)]
    gated: Value,
    #[serde(default, deserialize_with = "or_none")]
    gguf: Option<GgufAnswer>,
    #[serde(default)]
    pub(super) siblings: Vec<FileAnswer>,
}

#[derive(Debug, Default, Deserialize)]
struct GgufAnswer {
    total: Option<u64>,
    architecture: Option<String>,
    context_length: Option<u64>,
}

impl FileAnswer {
    /// Returns its size in bytes.
    pub(super) fn size(&self) -> Option<u64> {
        self.lfs.as_ref().and_then(|lfs| lfs.size).or(self.size)
    }
}

impl DescribedRepository {
    /// Reads the description of one repository.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn parse(host: &str, text: &[u8]) -> Result<Self, DownloadError> {
        serde_json::from_slice(text).map_err(|_| unreadable(host, "its description of the repository"))
    }

    /// Returns what is known of the repository; `None` if its name is none that a download takes.
    pub(super) fn found(&self) -> Option<FoundRepository> {
        let is_name = matches!(RemoteName::parse(&self.id), Ok(RemoteName::Model { quant: None, .. }));
        let gguf = self.gguf.as_ref();
        is_name.then(|| FoundRepository {
            id: self.id.clone(),
            downloads: self.downloads,
            likes: self.likes,
            updated_at: self.updated_at,
            gated: !matches!(self.gated, Value::Null | Value::Bool(false)),
            parameters: gguf.and_then(|gguf| gguf.total),
            architecture: gguf.and_then(|gguf| gguf.architecture.clone()),
            context_length: gguf.and_then(|gguf| gguf.context_length),
        })
    }
}

impl SearchResult {
    /// Reads the answer to a search that has asked for one more than `most`.
    ///
    /// # Errors
    /// It is no list of repositories.
    pub(super) fn parse(host: &str, text: &[u8], most: usize) -> Result<Self, DownloadError> {
        let answers: Vec<DescribedRepository> =
            serde_json::from_slice(text).map_err(|_| unreadable(host, "its list of models"))?;
        let has_more = answers.len() > most;
        let repositories = answers.iter().take(most).filter_map(DescribedRepository::found).collect();
        Ok(Self { repositories, has_more })
    }
}

fn unreadable(host: &str, what: &str) -> DownloadError {
    bad_answer(host, &format!("does not answer as the hub does: {what} is not readable"))
}

/// Reads a member that may be of another form than is known; then it says nothing.
fn or_none<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(T::deserialize(value).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_known_of_a_repository_is_read_and_the_rest_is_left_out() {
        let text = json!([
            {"id": "org/m-GGUF", "downloads": 5, "likes": 2, "lastModified": "2026-01-02T03:04:05.000Z", "gated": "manual",
             "gguf": {"total": 600_000_000, "architecture": "qwen3", "context_length": 40960, "chat_template": "x"}},
            {"modelId": "org/old", "downloads": "many", "gated": false, "lastModified": 7},
            {"id": "no name"},
            {"id": "org/over"},
        ]);
        let found = SearchResult::parse("hub", text.to_string().as_bytes(), 3).unwrap();
        let [first, second] = found.repositories.as_slice() else { panic!("{found:?}") };
        assert_eq!(
            (first.id.as_str(), first.downloads, first.likes, first.gated),
            ("org/m-GGUF", Some(5), Some(2), true)
        );
        assert_eq!((first.parameters, first.architecture.as_deref()), (Some(600_000_000), Some("qwen3")));
        assert_eq!(first.updated_at.unwrap().to_string(), "2026-01-02T03:04:05Z");
        assert_eq!(
            (second.id.as_str(), second.downloads, second.gated, second.updated_at),
            ("org/old", None, false, None)
        );
        assert!(found.has_more);
        for text in ["", "{}", "<html>", "[{}]", "[1]"] {
            assert!(SearchResult::parse("hub", text.as_bytes(), 3).is_err(), "{text}");
        }
    }
}
