//! A worker's address, and the API key and the model name that it expects.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{AUTHORIZATION, InvalidHeaderValue};
use http::uri::{self, Authority, InvalidUri, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use thiserror::Error;

use super::open_connections::OpenConnections;
use crate::settings::catalogue::RemoteSettings;

/// The path below which the routes of OpenAI's API are.
const API_VERSION: &str = "/v1";

/// Where requests to a worker go, and what is set in each of them.
#[derive(Debug, Clone)]
pub struct DialTarget {
    /// Which process or backend this is; clones have the same.
    pub id: TargetId,
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host and port.
    pub authority: Authority,
    /// Where a process on this machine listens; `None` for a remote backend.
    pub local_address: Option<SocketAddr>,
    /// The value of `Host`.
    pub host: HeaderValue,
    /// What the worker has in place of the `/v1` of a path; empty, or without a slash at its end.
    pub api_path: String,
    /// Put before any other path: `api_path` without a version at its end.
    pub root_path: String,
    /// The value of `Authorization`, if the worker expects one. Marked sensitive, so debug output does not show it.
    pub authorization: Option<HeaderValue>,
    /// Other headers that are set in each request. Marked sensitive like the key.
    pub headers: HeaderMap,
    /// Names and JSON values of fields that are added to requests that lack them.
    pub fields: Vec<(String, String)>,
    /// The model's name on the worker, if it differs from the gateway's.
    pub model: Option<String>,
    /// Whether this is a remote backend rather than a process of this gateway.
    pub is_remote: bool,
    /// Its open connections.
    pub connections: OpenConnections,
    /// Whether it serves many connections at once. One that may not would wait for an idle connection, and serve no other.
    pub has_many_connections: bool,
}

/// Tells the processes and backends apart that requests are sent to, also those that had the same address one after the
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TargetId(u64);

impl TargetId {
    fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// Why no process on this machine can be reached at an address. Does not happen for an IP address and a port.
#[derive(Debug, Error)]
pub enum BadLocal {
    /// The address makes no valid URI authority.
    #[error("the address is no host of a URI: {0}")]
    Authority(#[from] InvalidUri),
    /// The address is no valid header value.
    #[error("the address is no value of Host: {0}")]
    Host(#[from] InvalidHeaderValue),
}

/// Why no request can be sent to a remote backend: mistakes in its settings. Holds no part of the key.
#[derive(Debug, Error)]
pub enum BadRemote {
    /// `api_base` is not a URI.
    #[error("api_base is not an address: {0}")]
    Base(#[from] http::Error),
    /// `api_base` has another scheme, or none.
    #[error("api_base must begin with http:// or https://")]
    Scheme,
    /// `api_base` holds a user name; its password would show in logs.
    #[error("api_base must hold no user name; the key goes into api_key")]
    UserName,
    /// `api_base` has a query.
    #[error("api_base must end with its path")]
    Query,
    /// `health` is not a path.
    #[error("health must be a path, such as /health")]
    Health,
    /// `api_key` is not a valid header value.
    #[error("api_key holds characters that a header cannot carry")]
    Key,
    /// `extra_headers` is not made of valid headers.
    #[error("extra_headers holds a name or a value that no header can have")]
    Header,
    /// The HTTP client that sends probes cannot be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(#[from] io::Error),
}

impl DialTarget {
    /// Returns the target of a process on this machine that has one slot.
    ///
    /// # Errors
    ///
    /// [`BadLocal`], which does not happen for an IP address and a port.
    pub fn local(address: SocketAddr, authorization: Option<HeaderValue>) -> Result<Self, BadLocal> {
        let authority = Authority::try_from(address.to_string())?;
        Ok(Self {
            id: TargetId::next(),
            host: host_value(&Scheme::HTTP, &authority)?,
            scheme: Scheme::HTTP,
            authority,
            local_address: Some(address),
            api_path: API_VERSION.to_owned(),
            root_path: String::new(),
            authorization,
            headers: HeaderMap::new(),
            fields: Vec::new(),
            model: None,
            is_remote: false,
            connections: OpenConnections::for_slots(1),
            has_many_connections: true,
        })
    }

    /// Returns the target of a remote backend with these settings.
    ///
    /// # Errors
    ///
    /// [`BadRemote`] says which setting is wrong.
    pub fn remote(remote: &RemoteSettings) -> Result<Self, BadRemote> {
        let uri = Uri::try_from(&remote.api_base).map_err(http::Error::from)?;
        let parts = uri.into_parts();
        let scheme = parts.scheme.filter(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme));
        let (Some(scheme), Some(authority)) = (scheme, parts.authority) else {
            return Err(BadRemote::Scheme);
        };
        if authority.as_str().contains('@') {
            return Err(BadRemote::UserName);
        }
        let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        if path.query().is_some() {
            return Err(BadRemote::Query);
        }
        let bearer = match &remote.api_key {
            None => None,
            Some(key) => Some(sensitive(&format!("Bearer {}", key.0)).ok_or(BadRemote::Key)?),
        };
        let api_path = path.path().trim_end_matches('/').to_owned();
        let mut headers = HeaderMap::new();
        for (name, value) in &remote.headers {
            let name = HeaderName::try_from(name).map_err(|_| BadRemote::Header)?;
            headers.insert(name, sensitive(&value.0).ok_or(BadRemote::Header)?);
        }
        // A header of the entry replaces the key, as it does in OpenAI's client.
        let authorization = headers.remove(AUTHORIZATION).or(bearer);
        Ok(Self {
            id: TargetId::next(),
            host: host_value(&scheme, &authority).map_err(http::Error::from)?,
            scheme,
            authority,
            local_address: None,
            root_path: without_version(&api_path).to_owned(),
            api_path,
            authorization,
            headers,
            fields: remote.fields.clone(),
            model: remote.model.clone(),
            is_remote: true,
            connections: OpenConnections::at_most(remote.slots),
            has_many_connections: true,
        })
    }

    /// Returns the path and query at the worker for this path and query of a request. A path below `/v1` is one of the
    /// API.
    ///
    /// # Errors
    ///
    /// The worker's path and this one do not make a valid path together.
    pub fn path(&self, path: PathAndQuery) -> Result<PathAndQuery, http::Error> {
        let below_api = path.as_str().strip_prefix(API_VERSION).filter(|rest| rest.starts_with('/'));
        Ok(match below_api {
            Some(_) if self.api_path == API_VERSION => path,
            None if self.root_path.is_empty() => path,
            Some(rest) => PathAndQuery::try_from(format!("{}{rest}", self.api_path))?,
            None => PathAndQuery::try_from(format!("{}{path}", self.root_path))?,
        })
    }

    /// Returns the full URI of a request for this path and query; `/` without one.
    ///
    /// # Errors
    ///
    /// As [`Self::path`].
    pub fn uri(&self, path: Option<PathAndQuery>) -> Result<Uri, http::Error> {
        let path = self.path(path.unwrap_or_else(|| PathAndQuery::from_static("/")))?;
        let mut parts = uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        Ok(Uri::from_parts(parts)?)
    }
}

/// Returns the value of `Host`: without the port that the scheme has by default (RFC 9110, section 4.2.3).
fn host_value(scheme: &Scheme, authority: &Authority) -> Result<HeaderValue, InvalidHeaderValue> {
    let default = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    match authority.port_u16() {
        Some(port) if port != default => HeaderValue::try_from(format!("{}:{port}", authority.host())),
        _ => HeaderValue::try_from(authority.host()),
    }
}

/// Returns a path without the version at its end, such as `/v1`, `/v1beta` or `/v2.0`.
fn without_version(path: &str) -> &str {
    let Some((parent, last)) = path.rsplit_once('/') else { return path };
    let number = last.strip_prefix('v').unwrap_or_default();
    let is_version = number.starts_with(|first: char| first.is_ascii_digit())
        && number.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    if is_version { parent } else { path }
}

/// Returns the header value, which debug output does not show; `None` if no header can have it.
fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::values::Secret;

    fn settings(api_base: &str) -> RemoteSettings {
        RemoteSettings::at(api_base.to_owned())
    }

    fn target(api_base: &str) -> Result<DialTarget, BadRemote> {
        DialTarget::remote(&settings(api_base))
    }

    #[test]
    fn a_path_of_the_api_is_appended_to_the_base_and_any_other_to_its_root() {
        for (base, of_api, other) in [
            ("http://server1:8000/v1", "http://server1:8000/v1/models?a=b", "http://server1:8000/props"),
            ("http://server1:7997", "http://server1:7997/models?a=b", "http://server1:7997/props"),
            ("http://server1:7997/", "http://server1:7997/models?a=b", "http://server1:7997/props"),
            ("https://host/api", "https://host/api/models?a=b", "https://host/api/props"),
            ("https://host/a/b/v1/", "https://host/a/b/v1/models?a=b", "https://host/a/b/props"),
            ("https://host/api/paas/v4", "https://host/api/paas/v4/models?a=b", "https://host/api/paas/props"),
            ("https://host/v1beta/openai", "https://host/v1beta/openai/models?a=b", "https://host/v1beta/openai/props"),
            ("https://host/v2.0", "https://host/v2.0/models?a=b", "https://host/props"),
            ("https://host/vllm", "https://host/vllm/models?a=b", "https://host/vllm/props"),
            ("http://[::1]:1/v1", "http://[::1]:1/v1/models?a=b", "http://[::1]:1/props"),
        ] {
            let target = target(base).unwrap();
            let uri = |path: &'static str| target.uri(Some(PathAndQuery::from_static(path))).unwrap().to_string();
            assert_eq!((uri("/v1/models?a=b").as_str(), uri("/props").as_str()), (of_api, other), "{base}");
            assert!(uri("/v1x").ends_with("/v1x"), "{base}");
        }
        let local = DialTarget::local(SocketAddr::from(([127, 0, 0, 1], 8080)), None).unwrap();
        assert_eq!(local.uri(None).unwrap().to_string(), "http://127.0.0.1:8080/");
        assert_eq!(
            local.uri(Some(PathAndQuery::from_static("/v1/models"))).unwrap().to_string(),
            "http://127.0.0.1:8080/v1/models"
        );
        assert!(!local.is_remote);
    }

    #[test]
    fn a_bad_api_base_is_refused_with_a_reason() {
        for (base, reason) in [
            ("server1:8000", "http://"),
            ("/v1", "http://"),
            ("ftp://host", "http://"),
            ("http://user:hush@host", "user name"),
            ("http://host/?key=hush", "path"),
            ("http://ho st", "not an address"),
        ] {
            let error = target(base).unwrap_err().to_string();
            assert!(error.contains(reason), "{base}: {error}");
            assert!(!error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn the_key_is_sent_as_a_bearer_and_never_shown() {
        let key = Some(Secret("sk-hush".to_owned()));
        let target = DialTarget::remote(&RemoteSettings { api_key: key, ..settings("https://host") }).unwrap();
        assert_eq!(target.authorization.as_ref().unwrap(), "Bearer sk-hush");
        assert!(!format!("{target:?}").contains("hush"));

        let key = Some(Secret("hush\n".to_owned()));
        let error = DialTarget::remote(&RemoteSettings { api_key: key, ..settings("https://host") }).unwrap_err();
        assert!(error.to_string().contains("api_key"));
        assert!(!format!("{error} {error:?}").contains("hush"));
    }

    #[test]
    fn headers_of_the_entry_are_sent_and_never_shown_and_one_may_replace_the_key() {
        let with = |headers: &[(&str, &str)]| RemoteSettings {
            api_key: Some(Secret("sk-hush".to_owned())),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), Secret((*value).to_owned()))).collect(),
            ..settings("https://host")
        };
        let target = DialTarget::remote(&with(&[("x-gate", "hush"), ("authorization", "Basic hush")])).unwrap();
        assert_eq!(target.authorization.as_ref().unwrap(), "Basic hush");
        assert_eq!((target.headers.len(), &target.headers["x-gate"]), (1, &HeaderValue::from_static("hush")));
        assert!(!format!("{target:?}").contains("hush"));
        let error = DialTarget::remote(&with(&[("x-gate", "hush\n")])).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"));
    }
}
