//! `TLS_ACME_DIRECTORY`: the address at which a CA says what it offers.

use url::{Host, Url};

use crate::settings::values::value::{Rejected, Value};

/// The address of a CA's directory: `https`, or `http` on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeDirectory(pub Url);

impl AcmeDirectory {
    /// Returns host and port, for messages.
    pub fn host(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        self.0.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

/// Returns whether an address is one of this machine.
pub fn is_of_this_machine(address: &Url) -> bool {
    match address.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

impl Value for AcmeDirectory {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let rejected =
            || Rejected::new("the https address of a directory, such as https://ca.example.org/acme/directory");
        let address = Url::parse(text.trim()).map_err(|_| rejected())?;
        let has_user = !address.username().is_empty() || address.password().is_some();
        match address.scheme() {
            _ if has_user || address.fragment().is_some() || address.query().is_some() => Err(rejected()),
            "https" if address.has_host() => Ok(Self(address)),
            "http" if is_of_this_machine(&address) => Ok(Self(address)),
            "http" => Err(rejected().with_hint("over plain http only a CA on this machine is asked")),
            _ => Err(rejected()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine() {
        for (good, host) in [
            ("https://acme-v02.api.letsencrypt.org/directory", "acme-v02.api.letsencrypt.org"),
            ("http://127.0.0.1:4001/dir", "127.0.0.1:4001"),
            ("http://[::1]:4001/dir", "[::1]:4001"),
            (" http://localhost:4001/dir ", "localhost:4001"),
        ] {
            assert_eq!(AcmeDirectory::parse(good).unwrap().host(), host);
        }
        for bad in [
            "",
            "ca.example.org",
            "http://ca.example.org/dir",
            "http://10.0.0.1/",
            "ftp://x",
            "https://u:p@x",
            "https://x?k=v",
        ] {
            assert!(AcmeDirectory::parse(bad).is_err(), "{bad}");
        }
    }
}
