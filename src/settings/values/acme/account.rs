//! `TLS_ACME_CONTACT` and `TLS_ACME_EAB_HMAC_KEY`: what the account at the CA is opened with.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::settings::bounds::MOST_ACME_CONTACTS;
use crate::settings::values::scalars::Secret;
use crate::settings::values::value::{Rejected, Value};

/// Longest mail address, in bytes (RFC 5321, section 4.5.3.1.3).
const LONGEST_ADDRESS: usize = 254;

/// The mail addresses of an account; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AcmeContacts(Vec<String>);

impl AcmeContacts {
    /// Returns the addresses as a CA takes them: `mailto:` URLs.
    pub fn urls(&self) -> Vec<String> {
        self.0.iter().map(|address| format!("mailto:{address}")).collect()
    }
}

impl Value for AcmeContacts {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let entries: Vec<&str> = text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
        if let Some(bad) = entries.iter().find(|entry| !is_mail_address(entry)) {
            return Err(Rejected::new("mail addresses such as ops@example.org, separated by commas")
                .with_hint(format!("{bad:?} is none")));
        }
        if entries.len() > MOST_ACME_CONTACTS {
            return Err(Rejected::new(format!("at most {MOST_ACME_CONTACTS} mail addresses")));
        }
        Ok(Self(entries.into_iter().map(str::to_owned).collect()))
    }
}

/// Whether a CA can take this as `mailto:` (RFC 8555, section 7.3: one address, and no header fields).
fn is_mail_address(entry: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-@'".contains(&byte);
    entry.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty() && !host.is_empty() && !host.contains('@') && entry.len() <= LONGEST_ADDRESS
    }) && entry.bytes().all(is_letter)
}

/// The key by which a CA knows who opens an account (external account binding). Neither `Debug` nor [`Value::masked`]
/// shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeBindingKey(Secret);

impl AcmeBindingKey {
    /// Returns the bytes of the key.
    pub fn reveal(&self) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(&self.0.0).unwrap_or_default()
    }
}

impl Value for AcmeBindingKey {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let key = text.trim().trim_end_matches('=');
        match URL_SAFE_NO_PAD.decode(key) {
            Ok(bytes) if !bytes.is_empty() => Ok(Self(Secret(key.to_owned()))),
            _ => Err(Rejected::new("the key as the CA gives it, in Base64 for URLs")),
        }
    }

    fn masked(text: &str) -> String {
        if text.is_empty() { String::new() } else { "***".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_mail_addresses() {
        let contacts = AcmeContacts::parse(" ops@example.org,a.b+c@example.net ,").unwrap();
        assert_eq!(contacts.urls(), ["mailto:ops@example.org", "mailto:a.b+c@example.net"]);
        assert!(AcmeContacts::parse("").unwrap().urls().is_empty());
        for bad in ["ops", "@example.org", "a@", "a@b@c", "a@b?cc=d@e", "mailto:a@b", "a b@c", "a@b%2Cc"] {
            assert!(AcmeContacts::parse(bad).is_err(), "{bad}");
        }
        assert!(AcmeContacts::parse(&["a@b"; MOST_ACME_CONTACTS + 1].join(",")).is_err());
    }

    #[test]
    fn the_key_of_a_binding_is_never_printed() {
        let key = AcmeBindingKey::parse("c2VjcmV0LXNlY3JldA==").unwrap();
        assert_eq!(key.reveal(), b"secret-secret");
        assert!(!format!("{key:?}").contains("c2Vj"));
        assert_eq!(AcmeBindingKey::masked("c2VjcmV0"), "***");
        for bad in ["", "a b", "c2Vj+/=="] {
            assert!(AcmeBindingKey::parse(bad).is_err(), "{bad}");
        }
    }
}
