//! The hub: what a repository holds, and where the bytes of a file are.
//!
//! Owns the hub's API and its errors, the token, and redirects. The token goes to the hub's own host and to no other. What
//! is written to the disk is decided elsewhere.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use url::Url;

use super::answers::{Description, Listing, X_ERROR_CODE, asked_pause, bad_answer, check_range, header, words_of};
use super::bounds::{
    ANSWER_TIMEOUT, CONNECT_TIMEOUT, ERROR_ANSWER, MOST_REDIRECTS, REPOSITORY_ANSWER, SHORTEST_SECRET,
};
use super::error::{DownloadError, TryError};
use crate::dial::Trust;
use crate::http_client::{ClientOptions, HttpClient, Response};
use crate::models::{RepositoryId, sha256_of};

/// A token of the hub. Its `Debug` form does not show it.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl Token {
    /// Returns the token in a text, without the white space around it; `None` if there is none that a header can hold.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut value = HeaderValue::from_str(&format!("Bearer {text}")).ok().filter(|_| !text.is_empty())?;
        value.set_sensitive(true);
        Some(Self(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The hub at one address.
#[derive(Debug, Clone)]
pub struct Hub {
    client: HttpClient,
    endpoint: Url,
    token: Option<Token>,
}

/// A file and where it is.
#[derive(Debug, Clone)]
pub(super) struct LocatedFile {
    /// The address that is asked for ranges. It may redirect.
    pub(super) address: Url,
    /// What messages call the file.
    pub(super) label: String,
    pub(super) size: u64,
    /// The name of its blob in the cache.
    pub(super) etag: String,
    /// The hash of its bytes, if it is known before.
    pub(super) sha256: Option<String>,
}

/// The answer to a request for a range.
pub(super) struct RangeAnswer {
    pub(super) response: Response,
    /// The address that has answered, after all redirects.
    pub(super) address: Url,
    /// Whether the answer is the range that was asked for; else it is the whole file.
    pub(super) is_range: bool,
}

impl Hub {
    /// Creates the client of the hub at this address, such as `https://huggingface.co`.
    ///
    /// # Errors
    /// TLS or the name resolver cannot be set up.
    pub fn new(endpoint: Url, token: Option<Token>) -> std::io::Result<Self> {
        let options = ClientOptions {
            connect_timeout: CONNECT_TIMEOUT,
            keep_idle: Some(ANSWER_TIMEOUT),
            follow_redirects: false,
            use_proxy: true,
        };
        // An endpoint without TLS, such as a mirror in the same network, may redirect to hosts with it.
        Ok(Self { client: HttpClient::new(&Trust::Machine, &options)?, endpoint, token })
    }

    /// Returns the hub's host, for messages.
    pub(super) fn host(&self) -> String {
        host_of(&self.endpoint)
    }

    /// Returns whether requests to the hub carry a token.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Asks which files a repository has.
    pub(super) async fn list(&self, repository: &RepositoryId) -> Result<Listing, TryError> {
        let path = format!("api/models/{}/{}/revision/{}", repository.org, repository.name, repository.revision);
        let address = self.address(&path)?;
        let (response, address) = self.send(Method::GET, &address, HeaderMap::new()).await?;
        let response = self.check(response, &address, Some(repository)).await?;
        let host = host_of(&address);
        let text = response.read_all(REPOSITORY_ANSWER).await.map_err(|error| again(error.explain(&host)))?;
        Ok(Listing::parse(&host, &text)?)
    }

    /// Asks where a file of a repository is, how large it is and which hash it has.
    pub(super) async fn locate(
        &self,
        repository: &RepositoryId,
        commit: &str,
        file: &str,
    ) -> Result<LocatedFile, TryError> {
        let address = self.address(&format!("{}/{}/resolve/{commit}/{file}", repository.org, repository.name))?;
        let label = format!("{repository}/{file}");
        self.describe(address, label, Some(repository), None).await
    }

    /// Asks how large the file at an address is.
    pub(super) async fn locate_address(&self, address: &Url, sha256: &str) -> Result<LocatedFile, TryError> {
        let last = address.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
        self.describe(address.clone(), last.to_owned(), None, Some(sha256)).await
    }

    async fn describe(
        &self,
        first: Url,
        label: String,
        repository: Option<&RepositoryId>,
        sha256: Option<&str>,
    ) -> Result<LocatedFile, TryError> {
        let mut address = first.clone();
        for _ in 0..=MOST_REDIRECTS {
            let is_hub = repository.is_some() && address.origin() == self.endpoint.origin();
            let response = self.send_description(&address, is_hub).await?;
            let next = redirect(&response, &address)?;
            let described = Description::of(response.headers());
            // The hub describes the file in the redirect to the host that has it.
            if let (Some(next), false) = (&next, described.is_of_hub) {
                address = next.clone();
                continue;
            }
            let host = host_of(&address);
            if next.is_none() {
                self.check(response, &address, repository).await?;
            }
            let size = described.size.ok_or_else(|| bad_answer(&host, "does not say how large the file is"))?;
            let etag = match sha256 {
                Some(sha256) => sha256.to_owned(),
                None => described.etag.ok_or_else(|| bad_answer(&host, "names no hash of the file"))?,
            };
            let sha256 = sha256_of(&etag);
            return Ok(LocatedFile { address: first, label, size, etag, sha256 });
        }
        Err(bad_answer(&host_of(&first), "redirects in a circle").into())
    }

    /// Asks what is at an address. Addresses that are signed for reading refuse `HEAD`, and so do some hosts: those are asked
    /// for one byte.
    async fn send_description(&self, address: &Url, is_hub: bool) -> Result<Response, TryError> {
        let response = self.send_once(Method::HEAD, address, HeaderMap::new()).await?;
        let refuses = [StatusCode::FORBIDDEN, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
        // The hub answers 403 for a gated repository.
        if is_hub || !refuses.contains(&response.status()) {
            return Ok(response);
        }
        let headers = HeaderMap::from_iter([(RANGE, HeaderValue::from_static("bytes=0-0"))]);
        self.send_once(Method::GET, address, headers).await
    }

    /// Asks for a range of a file at an address, which may redirect; for the whole file if the range is `None`.
    pub(super) async fn range(
        &self,
        address: &Url,
        size: u64,
        range: Option<&Range<u64>>,
    ) -> Result<RangeAnswer, TryError> {
        let mut headers = HeaderMap::new();
        if let Some(range) = range {
            let value = HeaderValue::from_str(&format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
            headers.extend(value.ok().map(|value| (RANGE, value)));
        }
        let (response, address) = self.send(Method::GET, address, headers).await?;
        let response = self.check(response, &address, None).await?;
        let host = host_of(&address);
        if header(response.headers(), &CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html")) {
            return Err(again(format!("{host} answers with a page in place of the file")));
        }
        let is_range = response.status() == StatusCode::PARTIAL_CONTENT;
        check_range(&host, response.headers(), is_range, range, size)?;
        Ok(RangeAnswer { response, address, is_range })
    }

    pub(super) fn address(&self, path: &str) -> Result<Url, DownloadError> {
        let mut address = self.endpoint.clone();
        match address.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().extend(path.split('/')),
            Err(()) => return Err(bad_answer("HF_ENDPOINT", "is no address of a hub")),
        };
        Ok(address)
    }

    /// Sends a request and follows redirects. Returns the response and the address that gave it.
    pub(super) async fn send(
        &self,
        method: Method,
        first: &Url,
        headers: HeaderMap,
    ) -> Result<(Response, Url), TryError> {
        let mut address = first.clone();
        for _ in 0..=MOST_REDIRECTS {
            let response = self.send_once(method.clone(), &address, headers.clone()).await?;
            match redirect(&response, &address)? {
                Some(next) => address = next,
                None => return Ok((response, address)),
            }
        }
        Err(bad_answer(&host_of(first), "redirects in a circle").into())
    }

    async fn send_once(&self, method: Method, address: &Url, headers: HeaderMap) -> Result<Response, TryError> {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = method;
        *request.uri_mut() = address
            .as_str()
            .parse()
            .map_err(|_| bad_answer(&host_of(address), "redirects to an address that is none"))?;
        *request.headers_mut() = headers;
        if let Some(Token(token)) = self.token.as_ref().filter(|_| address.origin() == self.endpoint.origin()) {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        self.client.send(request, ANSWER_TIMEOUT).await.map_err(|error| again(error.explain(&host_of(address))))
    }

    /// Returns a successful response, or what its error means.
    pub(super) async fn check(
        &self,
        response: Response,
        address: &Url,
        repository: Option<&RepositoryId>,
    ) -> Result<Response, TryError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let host = host_of(address);
        let code = header(response.headers(), &X_ERROR_CODE).unwrap_or_default().to_owned();
        let wait = asked_pause(response.headers());
        let mut start = Vec::new();
        // The words are only for the message.
        let _ = response.read_start(ERROR_ANSWER, &mut start).await;
        let words = words_of(&start).filter(|words| !self.has_secret(words, address));
        let is_hub = address.origin() == self.endpoint.origin();
        let error = match (status, repository.filter(|_| is_hub)) {
            (StatusCode::TOO_MANY_REQUESTS, _) => {
                return Err(TryError::Again { reason: format!("{host} limits how often it is asked"), wait });
            }
            (StatusCode::UNAUTHORIZED, Some(_))
                if self.token.is_some() && code != "RepoNotFound" && code != "GatedRepo" =>
            {
                DownloadError::BadToken { host }
            }
            (StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED, Some(repository))
                if code == "GatedRepo" || status == StatusCode::FORBIDDEN =>
            {
                DownloadError::Gated { repository: repository.to_string(), page: self.page_of(repository) }
            }
            (StatusCode::NOT_FOUND, Some(repository)) if code == "RevisionNotFound" => {
                DownloadError::NoRevision { repository: repository.to_string(), revision: repository.revision.clone() }
            }
            (StatusCode::NOT_FOUND, Some(repository)) if code == "EntryNotFound" => {
                DownloadError::NoFile { repository: repository.to_string(), reason: words.unwrap_or_default() }
            }
            (StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED, Some(repository)) => {
                DownloadError::NoRepository { host, repository: repository.to_string() }
            }
            // These do not change by themselves; a 403 may be a signed address that has ended.
            (
                StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE,
                _,
            ) => {
                let said = words.map(|words| format!(": {words}")).unwrap_or_default();
                bad_answer(&host, &format!("answers {}{said}", status.as_u16()))
            }
            (status, _) => {
                let said = words.map(|words| format!(": {words}")).unwrap_or_default();
                let reason = format!("{host} answers {}{said}", status.as_u16());
                return Err(TryError::Again { reason, wait });
            }
        };
        Err(error.into())
    }

    /// Returns whether the words of a host show the token, or a value of the address that was asked, which may be signed.
    fn has_secret(&self, words: &str, address: &Url) -> bool {
        let token = self.token.as_ref().and_then(|Token(header)| header.to_str().ok()?.strip_prefix("Bearer "));
        let is_shown = |secret: &str| secret.len() >= SHORTEST_SECRET && words.contains(secret);
        let written =
            address.query().into_iter().flat_map(|query| query.split('&')).filter_map(|pair| pair.split_once('='));
        token.is_some_and(is_shown)
            || written.map(|(_, value)| value).any(is_shown)
            || address.query_pairs().any(|(_, value)| is_shown(&value))
    }

    fn page_of(&self, repository: &RepositoryId) -> String {
        self.address(&repository.to_string()).map(|address| address.to_string()).unwrap_or_default()
    }
}

/// Returns where a response redirects to; `None` if it does not.
fn redirect(response: &Response, from: &Url) -> Result<Option<Url>, TryError> {
    let status = response.status();
    if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
        return Ok(None);
    }
    let host = host_of(from);
    let next = header(response.headers(), &LOCATION).and_then(|location| from.join(location).ok());
    let next = next.ok_or_else(|| bad_answer(&host, "redirects to nowhere"))?;
    let is_safe = next.scheme() == "https" || (next.scheme() == "http" && from.scheme() == "http");
    if !is_safe || !next.has_host() {
        return Err(bad_answer(&host, "redirects to an address without TLS").into());
    }
    Ok(Some(next))
}

/// Returns host and port of an address. Never the rest, which may be signed.
pub(super) fn host_of(address: &Url) -> String {
    let host = address.host_str().unwrap_or("the host");
    address.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn again(reason: String) -> TryError {
    TryError::Again { reason, wait: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_not_shown() {
        let token = Token::new(" hf_secret\n").unwrap();
        assert!(!format!("{token:?}").contains("secret"));
        assert!(Token::new("  ").is_none() && Token::new("a\nb").is_none());
    }
}
