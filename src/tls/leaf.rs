//! What a certificate says of itself: its names, its lifetime, its fingerprint, and as whom it shows a client.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::bounds::{CLIENT_NAME_LENGTH, WARNED_DAYS_BEFORE, WARNED_SHARE_OF_LIFE};
use crate::hex::hex;

/// What is known of a certificate that this service shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafFacts {
    /// From when it is valid.
    pub begins: Timestamp,
    /// Until when it is valid.
    pub expires: Timestamp,
    /// The SHA-256 of its DER.
    pub fingerprint: [u8; 32],
    /// The names and addresses that it is for, as text.
    pub names: Vec<String>,
}

impl LeafFacts {
    /// Reads a certificate; `None` if it is none.
    pub(crate) fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let begins = Timestamp::from_second(parsed.validity().not_before.timestamp()).ok()?;
        let expires = Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()?;
        let fingerprint = Sha256::digest(certificate).into();
        let names = alternative_names(&parsed);
        Some(Self { begins, expires, fingerprint, names })
    }

    /// Returns whether fewer than this many days are left at `now`.
    pub(super) fn has_fewer_days(&self, days: i64, now: Timestamp) -> bool {
        self.expires.duration_since(now) < SignedDuration::from_hours(24 * days)
    }

    /// Returns the warning that it has expired, or will soon.
    pub fn expiry_warning(&self, now: Timestamp) -> Option<String> {
        let day = self.expiry_day();
        if self.has_fewer_days(0, now) {
            return Some(format!("the TLS certificate has expired on {day}: clients refuse it"));
        }
        // One that lives for a few days is always about to expire: it is replaced in its last third.
        let life = self.expires.duration_since(self.begins);
        let is_late = self.expires.duration_since(now) < life / WARNED_SHARE_OF_LIFE;
        let is_soon = is_late && self.has_fewer_days(WARNED_DAYS_BEFORE, now);
        is_soon.then(|| format!("the TLS certificate expires on {day}: a new one is needed"))
    }

    /// Returns the fingerprint as `openssl x509 -fingerprint -sha256` writes it.
    pub fn shown_fingerprint(&self) -> String {
        let pairs: Vec<String> = self.fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
        pairs.join(":")
    }

    /// Returns the day until which it is valid.
    pub fn expiry_day(&self) -> String {
        self.expires.strftime("%Y-%m-%d").to_string()
    }
}

/// Returns as whom a certificate shows a client: the common name of its subject, else its first alternative name, else the
/// start of its fingerprint. Characters that no log should hold are replaced.
pub fn client_name(certificate: &CertificateDer<'_>) -> String {
    let parsed = X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed);
    let common = parsed.as_ref().and_then(|parsed| {
        let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
        (!name.is_empty()).then(|| name.to_owned())
    });
    let name = common.or_else(|| alternative_names(parsed.as_ref()?).into_iter().next());
    let name = name.unwrap_or_else(|| format!("sha256:{}", hex(&Sha256::digest(certificate)[..8])));
    let mut shown = String::new();
    for letter in name.chars().map(|letter| if letter.is_control() { '_' } else { letter }) {
        if shown.len() + letter.len_utf8() > CLIENT_NAME_LENGTH {
            break;
        }
        shown.push(letter);
    }
    shown
}

/// Returns the names of the extension `subjectAltName` (RFC 5280, section 4.2.1.6).
fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    names.iter().filter_map(text_of).collect()
}

fn text_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let address: Option<IpAddr> = match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from),
            };
            address.map(|address| address.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};

    fn certificate(common: Option<&str>, names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        params.not_after = date_time_ymd(2031, 2, 3);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_tells_its_names_its_expiry_and_its_fingerprint() {
        let der = certificate(None, &["llm.example.org", "192.0.2.1", "::1"]);
        let facts = LeafFacts::read(&der).unwrap();
        assert_eq!(facts.names, ["llm.example.org", "192.0.2.1", "::1"]);
        assert_eq!(facts.expiry_day(), "2031-02-03");
        let (before, after) = ("2031-01-15T00:00:00Z".parse().unwrap(), "2031-01-25T00:00:00Z".parse().unwrap());
        assert!(!facts.has_fewer_days(14, before) && facts.has_fewer_days(14, after));
        let shown = facts.shown_fingerprint();
        assert_eq!((shown.len(), shown.matches(':').count()), (95, 31));
        assert_eq!(LeafFacts::read(&CertificateDer::from(vec![1, 2, 3])), None);
    }

    #[test]
    fn a_certificate_is_warned_about_in_the_last_quarter_of_its_life_and_not_before_its_last_14_days() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        for (begins, now, is_warned) in [
            ("2026-01-01T00:00:00Z", "2026-03-17T00:00:00Z", false),
            ("2026-01-01T00:00:00Z", "2026-03-19T00:00:00Z", true),
            // Of a week, of a day.
            ("2026-03-25T00:00:00Z", "2026-03-29T00:00:00Z", false),
            ("2026-03-25T00:00:00Z", "2026-03-31T00:00:00Z", true),
            ("2026-03-31T00:00:00Z", "2026-03-31T17:00:00Z", false),
            ("2026-03-31T00:00:00Z", "2026-03-31T19:00:00Z", true),
        ] {
            let leaf = LeafFacts {
                begins: at(begins),
                expires: at("2026-04-01T00:00:00Z"),
                fingerprint: [0; 32],
                names: Vec::new(),
            };
            assert_eq!(leaf.expiry_warning(at(now)).is_some(), is_warned, "{begins} {now}");
        }
    }

    #[test]
    fn a_client_is_called_by_its_common_name_else_by_another_one_within_a_bound() {
        assert_eq!(client_name(&certificate(Some("alice"), &["host.example.org"])), "alice");
        assert_eq!(client_name(&certificate(None, &["host.example.org"])), "host.example.org");
        assert!(client_name(&certificate(None, &[])).starts_with("sha256:"));
        assert_eq!(client_name(&certificate(Some("a\nb"), &[])), "a_b");
        let long = "\u{e9}".repeat(200);
        assert_eq!(client_name(&certificate(Some(&long), &[])).len(), CLIENT_NAME_LENGTH);
    }
}
