//! Addresses that llama-swap passes requests on to.

use url::{Host, Url};

use crate::import::section::PORT;

/// Where requests for a model go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProxyTarget {
    /// To this machine, at this port if it is a fixed one.
    Here {
        /// The port.
        port: Option<u16>,
        /// Whether the address has a path.
        has_path: bool,
    },
    /// To another machine; the address of its API.
    Elsewhere(String),
}

/// Reads the address of a server; without one it is on this machine.
pub(super) fn proxy_target(text: &str) -> ProxyTarget {
    let is_own_port = text.contains(PORT);
    // A port that any address may have stands for the one that is chosen later.
    let address = text.replace(PORT, "1");
    let Ok(url) = Url::parse(&address) else {
        return if text.is_empty() { ProxyTarget::Here { port: None, has_path: false } } else { elsewhere(text) };
    };
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_unspecified(),
        Some(Host::Ipv6(address)) => address.is_loopback() || address.is_unspecified(),
        None => false,
    };
    if !is_here {
        return elsewhere(text);
    }
    let port = url.port_or_known_default().filter(|_| !is_own_port);
    ProxyTarget::Here { port, has_path: !matches!(url.path(), "" | "/") }
}

fn elsewhere(text: &str) -> ProxyTarget {
    ProxyTarget::Elsewhere(api_base(text))
}

/// Returns the address of the API of a server: llama-swap adds the path of each request, such as `/v1/models`, to its
/// address.
pub(super) fn api_base(proxy: &str) -> String {
    format!("{}/v1", proxy.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_other_machines_are_remote() {
        let here = |port, has_path| ProxyTarget::Here { port, has_path };
        for (text, target) in [
            ("", here(None, false)),
            ("http://localhost:{port}", here(None, false)),
            ("http://127.0.0.1:8999/", here(Some(8999), false)),
            ("http://[::1]:9/x", here(Some(9), true)),
            ("http://h:8000", ProxyTarget::Elsewhere("http://h:8000/v1".to_owned())),
            ("https://openrouter.ai/api/", ProxyTarget::Elsewhere("https://openrouter.ai/api/v1".to_owned())),
        ] {
            assert_eq!(proxy_target(text), target, "{text}");
        }
    }
}
