//! Reads what the hub and the hosts of files answer: pure.
//!
//! Does not own what an error status means; `hub.rs` knows what was asked.

use std::ops::Range;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG};
use http::{HeaderMap, HeaderName};
use serde::Deserialize;

use super::bounds::{LONGEST_ASKED_PAUSE, QUOTED};
use super::error::DownloadError;
use crate::models::is_plain_path;
use crate::retry_after::retry_after;

/// The hash of a file that is kept in large-file storage, and so the name of its blob in the cache.
const X_LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
/// Its size.
const X_LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
/// What the hub says is wrong, as one word.
pub(super) const X_ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
/// When a limit of the hub ends: `"resolvers";r=0;t=120`.
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// What a repository holds at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) commit: String,
    /// The files whose paths can be used.
    pub(crate) files: Vec<String>,
}

impl Listing {
    /// Reads the hub's description of a repository. Files whose paths lead elsewhere are left out.
    ///
    /// # Errors
    /// It is no such description.
    pub(crate) fn parse(host: &str, text: &[u8]) -> Result<Self, DownloadError> {
        let answer: RepositoryAnswer = serde_json::from_slice(text).map_err(|_| {
            bad_answer(host, "does not answer as the hub does: its description of the repository is not readable")
        })?;
        let is_commit =
            (7..=64).contains(&answer.sha.len()) && answer.sha.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_commit {
            return Err(bad_answer(host, "names no commit of the repository"));
        }
        let files = answer.siblings.into_iter().map(|sibling| sibling.rfilename).filter(|path| is_plain_path(path));
        Ok(Self { commit: answer.sha, files: files.collect() })
    }
}

/// What the head of an answer says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    /// In bytes.
    pub(crate) size: Option<u64>,
    /// Its hash, if it can be the name of a file.
    pub(crate) etag: Option<String>,
    /// Whether it describes a file of the hub, which may be at another address.
    pub(crate) is_of_hub: bool,
}

impl Description {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let number = |text: &str| text.parse::<u64>().ok();
        let linked = header(headers, &X_LINKED_SIZE).and_then(number);
        // The size of the whole stands behind the slash of `bytes 0-0/SIZE`.
        let size = match header(headers, &CONTENT_RANGE) {
            Some(range) => range.rsplit_once('/').and_then(|(_, size)| number(size)),
            None => header(headers, &CONTENT_LENGTH).and_then(number),
        };
        let etag = header(headers, &X_LINKED_ETAG).or_else(|| header(headers, &ETAG));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
        Self { size: linked.or(size), etag: etag.filter(|etag| is_blob_name(etag)), is_of_hub: linked.is_some() }
    }
}

#[derive(Deserialize)]
struct RepositoryAnswer {
    sha: String,
    #[serde(default)]
    siblings: Vec<SiblingAnswer>,
}

#[derive(Deserialize)]
struct SiblingAnswer {
    rfilename: String,
}

/// Checks that an answer is the range of a file of `size` bytes that was asked for, or else all of it.
///
/// # Errors
/// It is another range, or of another file.
pub(crate) fn check_range(
    host: &str,
    headers: &HeaderMap,
    is_range: bool,
    asked: Option<&Range<u64>>,
    size: u64,
) -> Result<(), DownloadError> {
    match (asked, is_range) {
        (Some(range), true) => {
            let expected = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
            let found = header(headers, &CONTENT_RANGE).unwrap_or_default().trim().to_ascii_lowercase();
            if found != expected {
                let fault = format!("sends {:?} of the file, and \"{expected}\" was asked for", quoted(&found));
                return Err(bad_answer(host, &fault));
            }
        }
        (None, true) => return Err(bad_answer(host, "sends a part of the file, and all was asked for")),
        (_, false) => {
            let length = header(headers, &CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
            if length.is_some_and(|length| length != size) {
                return Err(bad_answer(host, "sends a file of another size than the hub has named"));
            }
        }
    }
    Ok(())
}

/// Returns for how long the hub asks to wait.
pub(crate) fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers, jiff::Timestamp::now(), LONGEST_ASKED_PAUSE)
        .or_else(|| rate_limit_reset(header(headers, &RATELIMIT)?))
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

pub(super) fn bad_answer(host: &str, fault: &str) -> DownloadError {
    DownloadError::BadAnswer { host: host.to_owned(), fault: fault.to_owned() }
}

/// Returns whether an etag can be the name of a file.
pub(crate) fn is_blob_name(etag: &str) -> bool {
    (8..=128).contains(&etag.len()) && etag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Returns the time until a limit ends, by the hub's header `"resolvers";r=0;t=120`.
fn rate_limit_reset(value: &str) -> Option<Duration> {
    let seconds = value.split(';').find_map(|part| part.trim().strip_prefix("t="))?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_ASKED_PAUSE))
}

/// Returns the words of an error: those of the hub's JSON, else a text that is short.
pub(crate) fn words_of(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let json: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let words = match &json {
        Some(json) => json.get("error").and_then(serde_json::Value::as_str)?,
        None if text.starts_with('<') => return None,
        None => text,
    };
    let words = quoted(words);
    let words = words.trim();
    (!words.is_empty()).then(|| words.to_owned())
}

pub(super) fn quoted(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(QUOTED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_limit_is_read() {
        assert_eq!(rate_limit_reset(r#""resolvers";r=0;t=42"#), Some(Duration::from_secs(42)));
        assert_eq!(rate_limit_reset(r#""api";r=0;t=999999"#), Some(LONGEST_ASKED_PAUSE));
        assert_eq!(rate_limit_reset("x"), None);
    }

    #[test]
    fn an_etag_that_leads_elsewhere_is_no_name() {
        assert!(is_blob_name(&"ab".repeat(32)) && is_blob_name("0123456789abcdef0123456789abcdef01234567"));
        assert!(!is_blob_name("../../etc/passwd") && !is_blob_name("") && !is_blob_name(".."));
    }

    #[test]
    fn words_of_an_error_are_short_and_without_pages() {
        assert_eq!(words_of(br#"{"error":"Invalid\ncredentials"}"#).as_deref(), Some("Invalidcredentials"));
        assert_eq!(words_of(b"<html><body>no</body></html>"), None);
        assert_eq!(words_of(b"Entry not found").as_deref(), Some("Entry not found"));
        assert_eq!(words_of(b"\xff"), None);
    }

    #[test]
    fn an_error_of_control_characters_was_quoted_as_no_words() {
        for body in ["\u{f}", "\u{1b}\u{7}\n", r#"{"error":"\u000f"}"#, r#"{"error":" \u0007 "}"#, r#"{"error":"  "}"#]
        {
            assert_eq!(words_of(body.as_bytes()), None, "{body:?}");
        }
        assert_eq!(words_of(b"\x07 gone \x0f").as_deref(), Some("gone"));
        assert_eq!(words_of(br#"{"error":"\u0007gone\n"}"#).as_deref(), Some("gone"));
    }
}
