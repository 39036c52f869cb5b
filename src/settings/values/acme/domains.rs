//! `TLS_ACME_DOMAINS`: the names that a CA vouches for.

use std::net::IpAddr;

use crate::settings::bounds::MOST_ACME_DOMAINS;
use crate::settings::values::value::{Rejected, Value};

/// Longest name that a name server knows, in characters (RFC 1035, section 2.3.4).
const LONGEST_NAME: usize = 253;

/// Longest part of a name between two dots, in characters (RFC 1035, section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// DNS names in lower case; none by default, which means no ACME.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AcmeDomains(Vec<String>);

impl AcmeDomains {
    /// Returns the names, in the order of the setting.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Value for AcmeDomains {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let rejected = |hint: String| {
            Rejected::new("DNS names such as llm.example.org, separated by commas, each once").with_hint(hint)
        };
        let mut names: Vec<String> = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let name = domain(entry).map_err(|fault| rejected(format!("{entry:?} {fault}")))?;
            if names.contains(&name) {
                return Err(rejected(format!("{entry:?} is there twice")));
            }
            names.push(name);
        }
        if names.len() > MOST_ACME_DOMAINS {
            return Err(Rejected::new(format!("at most {MOST_ACME_DOMAINS} names, and there are {}", names.len())));
        }
        Ok(Self(names))
    }
}

/// Returns a name in lower case, or what is wrong with it.
fn domain(entry: &str) -> Result<String, &'static str> {
    if entry.contains('*') {
        return Err(
            "is a wildcard: a CA issues one only by a record of the name server (DNS-01), which is not spoken here",
        );
    }
    let is_address = entry.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    if is_address {
        return Err("is an address: only DNS names are ordered; TLS_SELF_SIGNED=true is for addresses");
    }
    if entry.len() > LONGEST_NAME {
        return Err("has more than 253 characters");
    }
    let is_label = |label: &str| {
        (1..=LONGEST_LABEL).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    // A name whose last part is a number is read as an address by browsers.
    let is_number = entry.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if !entry.split('.').all(is_label) || is_number {
        return Err("is no DNS name: write no scheme, port or path, and other letters than a to z in ASCII (xn--)");
    }
    Ok(entry.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_holds_each_name_once_in_lower_case() {
        let domains = AcmeDomains::parse(" LLM.example.org, www.example.org ,,xn--bcher-kva.example").unwrap();
        assert_eq!(domains.names(), ["llm.example.org", "www.example.org", "xn--bcher-kva.example"]);
        assert!(AcmeDomains::parse("").unwrap().is_empty());
    }

    #[test]
    fn what_no_ca_issues_by_tls_alpn_01_is_refused_by_name() {
        let long = format!("{}.example.org", "a".repeat(64));
        let longer = format!("{}org", "abcdefgh.".repeat(30));
        let many = (0..=MOST_ACME_DOMAINS).map(|nth| format!("n{nth}.example.org")).collect::<Vec<_>>().join(",");
        for (bad, hint) in [
            ("*.example.org", "\"*.example.org\" is a wildcard"),
            ("a.example.org,192.0.2.1", "\"192.0.2.1\" is an address"),
            ("[2001:db8::1]", "is an address"),
            ("a.example.org,A.example.org", "\"A.example.org\" is there twice"),
            ("https://a.example.org", "is no DNS name"),
            ("a.example.org:443", "is no DNS name"),
            ("a..b", "is no DNS name"),
            ("a.example.org.", "is no DNS name"),
            ("-a.example.org", "is no DNS name"),
            ("a_b.example.org", "is no DNS name"),
            ("b\u{fc}cher.example", "is no DNS name"),
            ("1.2.3", "is no DNS name"),
            (&long, "is no DNS name"),
            (&longer, "more than 253 characters"),
        ] {
            let rejected = AcmeDomains::parse(bad).unwrap_err();
            assert!(rejected.hint.as_ref().is_some_and(|text| text.contains(hint)), "{bad}: {rejected:?}");
        }
        assert!(AcmeDomains::parse(&many).unwrap_err().allowed.contains("at most"));
    }
}
