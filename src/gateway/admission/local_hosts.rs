//! The hosts that requests to a gateway without keys may name: those that no web page can have chosen.
//!
//! A page may bear any name that its owner's name server knows, and that server may say that the name means this machine
//! (DNS rebinding). To the browser such a page and the gateway are one site, so it sends no header that tells them apart,
//! and lets the page read the responses. Only the name in `Host` gives the page away.

use std::net::IpAddr;

use http::uri::Authority;

use crate::settings::values::Origins;

/// Endings of names that no public name server answers for: mDNS (RFC 6762), private networks (`internal`, which ICANN
/// has reserved; `home.arpa`, RFC 8375; `lan`, which many routers use), services of Kubernetes.
const PRIVATE_ENDINGS: [&str; 5] = ["local", "internal", "home.arpa", "lan", "svc"];

/// The name that always means the machine of who uses it (RFC 6761, section 6.3).
const LOCALHOST: &str = "localhost";

/// Knows which hosts a request may name.
pub(super) struct LocalHosts {
    /// Whether each host is accepted: `CORS_ORIGINS=*`.
    is_any: bool,
    /// Names in lower case: those of this machine and of `CORS_ORIGINS`. One that begins with a dot stands for all names
    /// that end so.
    named: Vec<String>,
}

impl LocalHosts {
    /// `own` are the names under which clients reach this machine; one that begins with a dot stands for all names that
    /// end so.
    pub(super) fn new(own: &[String], origins: &Origins) -> Self {
        let listed = match origins {
            Origins::List(list) => list.as_slice(),
            Origins::Off | Origins::Any => &[],
        };
        let hosts = listed.iter().filter_map(|origin| {
            let (_, authority) = origin.split_once("://")?;
            Some(Authority::try_from(authority).ok()?.host().to_owned())
        });
        let named = own.iter().cloned().chain(hosts).map(|name| without_root(&name).to_ascii_lowercase());
        Self { is_any: *origins == Origins::Any, named: named.filter(|name| !name.is_empty()).collect() }
    }

    /// Returns whether a request may name this host: an address, a name that no public name server can give a page, one
    /// of this machine or one of `CORS_ORIGINS`.
    pub(super) fn contains(&self, host: &str) -> bool {
        if self.is_any || is_address_or_localhost(host) {
            return true;
        }
        let host = without_root(host).to_ascii_lowercase();
        // A name of one word has no public name server. Containers, services and machines of a network have such names.
        let is_word = !host.is_empty() && !host.contains('.');
        is_word
            || PRIVATE_ENDINGS.iter().any(|ending| is_below(&host, ending))
            || self.named.iter().any(|name| match name.strip_prefix('.') {
                Some(ending) => is_below(&host, ending),
                None => host == *name,
            })
    }
}

/// Returns whether a host is an address, or a name that always means this machine.
pub(super) fn is_address_or_localhost(host: &str) -> bool {
    let host = without_root(host);
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let last_label = host.rsplit('.').next().unwrap_or_default();
    last_label.eq_ignore_ascii_case(LOCALHOST) || address.parse::<IpAddr>().is_ok()
}

/// Whether a name has this ending, after at least one more label.
fn is_below(host: &str, ending: &str) -> bool {
    host.strip_suffix(ending).and_then(|rest| rest.strip_suffix('.')).is_some_and(|rest| !rest.is_empty())
}

/// Returns a name without the dot of the root at its end.
fn without_root(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::values::Value;

    fn hosts(origins: &str) -> LocalHosts {
        let own = ["box.corp.example".to_owned(), ".proxy.runpod.net".to_owned(), String::new(), ".".to_owned()];
        LocalHosts::new(&own, &Origins::parse(origins).unwrap())
    }

    #[test]
    fn names_that_no_page_can_choose_are_accepted() {
        let hosts = hosts("https://Chat.Example.org:8443, null, app://my-app");
        for host in [
            "127.0.0.1",
            "192.0.2.7",
            "[::1]",
            "[2001:db8::1]",
            "localhost",
            "LOCALHOST.",
            "app.localhost",
            "llamagate",
            "host_1",
            "my-app",
            "host.docker.internal",
            "box.local",
            "box.lan.",
            "box.home.arpa",
            "llamagate.default.svc",
            "llamagate.default.svc.cluster.local",
            "BOX.corp.example",
            "pod7-8000.proxy.runpod.net",
            "chat.example.ORG",
            "chat.example.org.",
        ] {
            assert!(hosts.contains(host), "{host}");
        }
    }

    #[test]
    fn any_other_name_may_be_that_of_a_page() {
        let hosts = hosts("https://chat.example.org");
        for host in [
            "",
            ".",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.example",
            "local.evil.example",
            ".local",
            "svc.evil.example",
            "evil-local.example",
            "xlocal.example",
            "other.example.org",
            "a.chat.example.org",
            "evilchat.example.org",
            "box.corp.example.evil.example",
            "proxy.runpod.net",
            "evilproxy.runpod.net",
            "pod.proxy.runpod.net.evil.example",
        ] {
            assert!(!hosts.contains(host), "{host}");
            assert!(LocalHosts::new(&[], &Origins::Any).contains(host), "{host}");
        }
    }
}
