//! What a CA has issued, checked before it takes the place of what is in use.

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use std::time::Duration;

use super::failure::AcmeOrderError;
use super::order::IssuedText;
use super::origin::AcmeOrigin;
use super::schedule::is_for;
use crate::tls::leaf::LeafFacts;
use crate::tls::pair::{CertificatePair, parse_certificates};
use crate::tls::pem_file;

/// Checks what was issued for these names: that key, names, lifetime and chain fit. Returns the text of the file that it is
/// kept in, and what the certificate says of itself.
///
/// # Errors
/// One of them does not fit.
pub(super) fn check_issued(
    issued: &IssuedText,
    origin: &AcmeOrigin,
    domains: &[String],
    now: Timestamp,
) -> Result<(String, LeafFacts), AcmeOrderError> {
    let unusable = |fault: &dyn std::fmt::Display| AcmeOrderError::Unusable(fault.to_string());
    let chain = parse_certificates(issued.chain.as_bytes()).map_err(|fault| unusable(&fault))?;
    let mut text = pem_file::encode("PRIVATE KEY", &issued.key);
    chain.iter().for_each(|certificate| text.push_str(&pem_file::encode("CERTIFICATE", certificate)));
    let pair = CertificatePair::parse(origin.files(), text.as_bytes(), text.as_bytes());
    let configured = pair.and_then(|pair| pair.configuration(origin.files(), None));
    let (_, leaf) = configured.map_err(|error| unusable(&error.fault))?;
    if !is_for(&leaf, domains) {
        return Err(unusable(&format_args!("the certificate is for {}", leaf.names.join(", "))));
    }
    if leaf.expires <= now {
        return Err(unusable(&format_args!("the certificate has expired on {}", leaf.expiry_day())));
    }
    check_chain(&chain, domains, now.max(leaf.begins)).map_err(|fault| unusable(&fault))?;
    Ok((text, leaf))
}

/// Checks that the last certificate of a chain vouches for the first one. Whether clients trust the last one is theirs to say.
fn check_chain(chain: &[CertificateDer<'static>], domains: &[String], at: Timestamp) -> Result<(), String> {
    let ([leaf, between @ .., top], Some(name)) = (chain, domains.first()) else { return Ok(()) };
    let broken = |error: &dyn std::fmt::Display| format!("its chain does not lead to the last certificate: {error}");
    let mut roots = RootCertStore::empty();
    roots.add(top.clone()).map_err(|error| broken(&error))?;
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let verifier = verifier.map_err(|error| broken(&error))?;
    let name = ServerName::try_from(name.as_str()).map_err(|error| broken(&error))?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at.as_second().unsigned_abs()));
    verifier.verify_server_cert(leaf, between, &name, &[], at).map(drop).map_err(|error| broken(&error))
}
