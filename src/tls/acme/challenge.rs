//! What is shown to a CA that looks whether a name leads here: a certificate for that name alone, with the digest that the
//! CA expects (TLS-ALPN-01, RFC 8737).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The protocol of such a connection (RFC 8737, section 6.2).
const PROTOCOL: &[u8] = b"acme-tls/1";

/// Bytes of a digest.
const DIGEST_LENGTH: usize = 32;

/// The challenges of the orders in progress.
#[derive(Debug)]
pub(in crate::tls) struct Challenges {
    shown: Arc<ShownChallenges>,
    config: Arc<ServerConfig>,
}

/// The certificates of challenges, by the name that each is for.
#[derive(Debug, Default)]
struct ShownChallenges(RwLock<BTreeMap<String, Arc<CertifiedKey>>>);

/// A challenge that is shown until this is dropped.
pub(super) struct ShownChallenge {
    name: String,
    shown: Arc<ShownChallenges>,
}

impl Challenges {
    /// Creates an empty set.
    ///
    /// # Errors
    /// The built-in cryptography supports no version of TLS.
    pub(in crate::tls) fn new() -> Result<Self, rustls::Error> {
        let shown = Arc::new(ShownChallenges::default());
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        let mut config = builder.with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.send_tls13_tickets = 0;
        Ok(Self { shown, config: Arc::new(config) })
    }

    /// Returns the configuration of the handshake with a CA that looks at a challenge; `None` for any other client. A name
    /// without a challenge is refused in the handshake.
    pub(in crate::tls) fn config_for(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        // It offers this protocol and no other one (RFC 8737, section 3).
        let is_validation = hello.alpn().is_some_and(|offered| offered.eq([PROTOCOL]));
        is_validation.then(|| Arc::clone(&self.config))
    }

    /// Shows the certificate of a challenge for this name.
    ///
    /// # Errors
    /// None can be made.
    pub(super) fn show(&self, name: &str, digest: &[u8]) -> Result<ShownChallenge, String> {
        let certified = certify(name, digest)?;
        let mut shown = self.shown.0.write().unwrap_or_else(PoisonError::into_inner);
        shown.insert(name.to_owned(), Arc::new(certified));
        Ok(ShownChallenge { name: name.to_owned(), shown: Arc::clone(&self.shown) })
    }
}

impl Drop for ShownChallenge {
    fn drop(&mut self) {
        self.shown.0.write().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

impl ResolvesServerCert for ShownChallenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned()
    }
}

fn certify(name: &str, digest: &[u8]) -> Result<CertifiedKey, String> {
    if digest.len() != DIGEST_LENGTH {
        return Err("the digest of a challenge has another length".to_owned());
    }
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let mut params = CertificateParams::new([name.to_owned()]).map_err(|error| error.to_string())?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key).map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let key = ring::default_provider().key_provider.load_private_key(key).map_err(|error| error.to_string())?;
    // Not `from_der`: it would look into the certificate, whose extension is critical and unknown to it.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}
