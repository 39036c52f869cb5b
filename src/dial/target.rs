//! Where a worker is reached: the address that its requests go to, the key that it asks for, the name that it knows.

use crate::settings::catalogue::RemoteSettings;
use http::uri::{self, Authority, InvalidUri, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use std::io;
use std::net::SocketAddr;
use thiserror::Error;

/// Where requests to a worker go, and what they say there.
#[derive(Debug, Clone)]
pub struct DialTarget {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host and port.
    pub authority: Authority,
    /// What comes before the path of each request; empty, or without a slash at its end.
    pub base_path: String,
    /// The value of `Authorization` that it takes, if it asks for one; marked sensitive, so it never shows in debug output.
    pub authorization: Option<HeaderValue>,
    /// The name that it knows the model by, where that differs.
    pub model: Option<String>,
    /// Whether somebody else runs it.
    pub is_remote: bool,
}

/// Why a remote backend cannot be asked at all. Holds nothing of the key.
#[derive(Debug, Error)]
pub enum BadRemote {
    /// No address.
    #[error("api_base is no address: {0}")]
    Base(#[from] http::Error),
    /// Neither `http://` nor `https://`.
    #[error("api_base must begin with http:// or https://")]
    Scheme,
    /// A password in the address would show in logs.
    #[error("api_base must hold no user name; the key goes into api_key")]
    UserName,
    /// Anything behind the path.
    #[error("api_base must end with its path")]
    Query,
    /// The path to probe is none.
    #[error("health must be a path, such as /health")]
    Health,
    /// The key is no text of a header.
    #[error("api_key holds characters that no request can carry")]
    Key,
    /// The client that sends its probes cannot be set up.
    #[error("no HTTP client: {0}")]
    Client(#[from] io::Error),
}

impl DialTarget {
    /// On this machine.
    pub fn local(address: SocketAddr, authorization: Option<HeaderValue>) -> Result<Self, InvalidUri> {
        Ok(Self {
            scheme: Scheme::HTTP,
            authority: Authority::try_from(address.to_string())?,
            base_path: String::new(),
            authorization,
            model: None,
            is_remote: false,
        })
    }

    /// Where these settings say.
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
        let authorization = match &remote.api_key {
            None => None,
            Some(key) => {
                let mut value = HeaderValue::try_from(format!("Bearer {}", key.0)).map_err(|_| BadRemote::Key)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self {
            scheme,
            authority,
            base_path: path.path().trim_end_matches('/').to_owned(),
            authorization,
            model: remote.model.clone(),
            is_remote: true,
        })
    }

    /// The address of what a request there is for.
    pub fn uri(&self, path: Option<PathAndQuery>) -> Result<Uri, http::Error> {
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let path =
            if self.base_path.is_empty() { path } else { PathAndQuery::try_from(format!("{}{path}", self.base_path))? };
        let mut parts = uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        Ok(Uri::from_parts(parts)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::values::Secret;

    fn settings(api_base: &str) -> RemoteSettings {
        RemoteSettings {
            api_base: api_base.to_owned(),
            api_key: None,
            model: None,
            rpm: None,
            tpm: None,
            slots: 1,
            health: "/health".to_owned(),
            weight: 1.0,
            priority: 0,
        }
    }

    fn target(api_base: &str) -> Result<DialTarget, BadRemote> {
        DialTarget::remote(&settings(api_base))
    }

    #[test]
    fn a_path_goes_behind_the_base_with_its_query() {
        for (base, expected) in [
            ("http://server1:8000", "http://server1:8000/v1/models?a=b"),
            ("http://server1:8000/", "http://server1:8000/v1/models?a=b"),
            ("https://host/api", "https://host/api/v1/models?a=b"),
            ("https://host/a/b/", "https://host/a/b/v1/models?a=b"),
            ("http://[::1]:1", "http://[::1]:1/v1/models?a=b"),
        ] {
            let uri = target(base).unwrap().uri(Some(PathAndQuery::from_static("/v1/models?a=b"))).unwrap();
            assert_eq!(uri.to_string(), expected);
        }
        let local = DialTarget::local(SocketAddr::from(([127, 0, 0, 1], 8080)), None).unwrap();
        assert_eq!(local.uri(None).unwrap().to_string(), "http://127.0.0.1:8080/");
        assert!(!local.is_remote);
    }

    #[test]
    fn what_is_no_base_is_refused_with_a_reason() {
        for (base, reason) in [
            ("server1:8000", "http://"),
            ("/v1", "http://"),
            ("ftp://host", "http://"),
            ("http://user:hush@host", "user name"),
            ("http://host/?key=hush", "path"),
            ("http://ho st", "no address"),
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
}
