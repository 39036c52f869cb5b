//! `UI_HOSTS`: a list of names of hosts.

use crate::settings::values::value::{Rejected, Value};

/// Longest name that a name server knows, in characters (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;

/// Names of hosts in lower case; none by default. One that begins with a dot stands for all names that end so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostNames(Vec<String>);

impl HostNames {
    /// Returns the names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Value for HostNames {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(host_name).collect::<Option<_>>().map(Self).ok_or_else(|| {
            Rejected::new("names of hosts such as gpu.example.org, separated by commas")
                .with_hint("write no scheme, port or path; .example.org means all names that end so")
        })
    }
}

/// Returns a name in lower case, if it is one.
fn host_name(entry: &str) -> Option<String> {
    let labels = entry.strip_prefix('.').unwrap_or(entry).trim_end_matches('.');
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    (entry.len() <= MAX_NAME && labels.split('.').all(is_label)).then(|| entry.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_holds_names() {
        let hosts = HostNames::parse(" GPU.example.org, box_1 ,.lab.example.,,").unwrap();
        assert_eq!(hosts.names().collect::<Vec<_>>(), ["gpu.example.org", "box_1", ".lab.example."]);
        assert_eq!(HostNames::parse("").unwrap(), HostNames::default());
    }

    #[test]
    fn anything_else_is_an_error() {
        for bad in ["*", "*.example.org", "https://a.example", "a.example:8000", "a/b", "a b", "a..b", ".", "ü.example"]
        {
            assert!(HostNames::parse(bad).is_err(), "{bad}");
        }
    }
}
