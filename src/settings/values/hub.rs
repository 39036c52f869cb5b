//! `HF_ENDPOINT`, `HF_TOKEN` and `DOWNLOAD_CONNECTIONS`: which hub is asked, and how.

use url::Url;

use super::clients::is_placeholder;
use super::scalars::Secret;
use super::value::{Rejected, Value};
use crate::settings::bounds::MOST_DOWNLOAD_CONNECTIONS;

/// The address of the hub or of a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubEndpoint(pub Url);

impl Value for HubEndpoint {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let rejected = || Rejected::new("an address such as https://huggingface.co, without a query and a password");
        let address = Url::parse(text.trim()).map_err(|_| rejected())?;
        let is_http = matches!(address.scheme(), "http" | "https") && address.has_host();
        let is_bare = address.query().is_none() && address.fragment().is_none();
        let has_user = !address.username().is_empty() || address.password().is_some();
        if is_http && is_bare && !has_user { Ok(Self(address)) } else { Err(rejected()) }
    }
}

/// A token of the hub. Neither `Debug` nor [`Value::masked`] shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubToken(Secret);

impl HubToken {
    /// Returns the token itself; `None` for the placeholder of an example, which is no token.
    pub fn reveal(&self) -> Option<&str> {
        let token = self.0.0.as_str();
        (!is_placeholder(token)).then_some(token)
    }
}

impl Value for HubToken {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let token = text.trim();
        let is_visible = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        if is_visible { Ok(Self(Secret(token.to_owned()))) } else { Err(Rejected::new("visible ASCII characters")) }
    }

    fn masked(text: &str) -> String {
        if text.is_empty() { String::new() } else { "***".to_owned() }
    }
}

/// Over how many connections one file comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownloadConnections(pub usize);

impl Value for DownloadConnections {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let count = text.trim().parse().ok().filter(|count| (1..=MOST_DOWNLOAD_CONNECTIONS).contains(count));
        count.map(Self).ok_or_else(|| Rejected::new(format!("a number from 1 to {MOST_DOWNLOAD_CONNECTIONS}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_without_secrets() {
        for good in ["https://huggingface.co", " http://127.0.0.1:8080/mirror/ "] {
            assert!(HubEndpoint::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "huggingface.co", "ftp://x", "https://u:p@x", "https://x?token=y", "https://x#y"] {
            assert!(HubEndpoint::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_never_printed_and_a_placeholder_is_none() {
        let token = HubToken::parse("hf_8Qn2mylongtokenZ\n").unwrap();
        assert_eq!(token.reveal(), Some("hf_8Qn2mylongtokenZ"));
        assert!(!format!("{token:?}").contains("8Qn2"));
        assert_eq!(HubToken::parse("your-huggingface-token-here").unwrap().reveal(), None);
        assert!(HubToken::parse("a b").is_err());
    }
}
