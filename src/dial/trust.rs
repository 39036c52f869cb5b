//! The trusted certificate authorities, and the TLS configuration that results from them.

use std::io;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tracing::warn;

use super::pinned::PinnedCertificate;

/// The certificate authorities that connections trust.
#[derive(Debug, Clone)]
pub enum Trust {
    /// None: connections to `https` fail. Does not read the disk.
    None,
    /// The authorities in `SSL_CERT_FILE` and `SSL_CERT_DIR`, else those of the system, else Mozilla's. Read once, at
    /// the first use.
    Machine,
    /// The authorities of this configuration, and no others.
    Only(Arc<ClientConfig>),
}

impl Trust {
    /// Returns what is needed for connections to these addresses. Plain HTTP needs no certificates, so those of the
    /// machine are not read for it.
    pub fn for_addresses<'a>(self, addresses: impl IntoIterator<Item = &'a str>) -> Self {
        let is_https = |address: &str| address.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("https:"));
        if addresses.into_iter().any(is_https) { self } else { Self::None }
    }

    /// Returns trust in the one certificate with this SHA-256, whatever names it is for.
    ///
    /// # Errors
    ///
    /// The built-in cryptography supports no version of TLS.
    pub fn of_fingerprint(fingerprint: [u8; 32]) -> Result<Self, rustls::Error> {
        Self::pinned(Some(fingerprint))
    }

    /// Returns trust in every certificate: for a question to a port of this machine, with which no secret is sent.
    ///
    /// # Errors
    ///
    /// The built-in cryptography supports no version of TLS.
    pub fn of_any_certificate() -> Result<Self, rustls::Error> {
        Self::pinned(None)
    }

    fn pinned(fingerprint: Option<[u8; 32]>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let verifier = Arc::new(PinnedCertificate { fingerprint, algorithms });
        Ok(Self::Only(Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())))
    }

    /// Returns trust in the certificates of this file in PEM, and no others.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or holds no certificate that can be used.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        let pem = std::fs::read(path)?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let mut roots = RootCertStore::empty();
        let (_, unusable) = roots.add_parsable_certificates(certificates.map_err(io::Error::other)?);
        if roots.is_empty() || unusable > 0 {
            return Err(io::Error::other("it holds no certificate in PEM, or one that cannot be read"));
        }
        client_config(roots).map(Self::Only).map_err(io::Error::other)
    }

    /// Returns the same trust for connections that also show a certificate, to servers which ask for one. Both files are in PEM,
    /// and may be the same.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or the two do not belong together. Contains the file's name, and nothing of what is in it.
    pub fn showing(self, certificate: &Path, key: &Path) -> io::Result<Self> {
        let in_file = |path: &Path, fault: &dyn std::fmt::Display| {
            io::Error::other(format!("{:?}: {fault}", path.display().to_string()))
        };
        let read = |path: &Path| std::fs::read(path).map_err(|error| in_file(path, &error));
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(certificate)?).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| in_file(certificate, &"it holds no certificate in PEM"))?;
        let private = PrivateKeyDer::from_pem_slice(&read(key)?);
        let private = private.map_err(|_| in_file(key, &"it holds no private key in PEM without a password"))?;
        let pair = CertifiedKey::from_der(chain, private, &ring::default_provider());
        let pair = pair.map_err(|error| in_file(key, &format!("it is no key of the certificate: {error}")))?;
        let mut config = ClientConfig::clone(&*self.config().map_err(io::Error::other)?);
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(pair));
        Ok(Self::Only(Arc::new(config)))
    }

    /// Returns the TLS configuration. The first call for [`Trust::Machine`] reads the disk, so make it before requests
    /// arrive.
    ///
    /// # Errors
    ///
    /// The built-in cryptography supports no version of TLS.
    pub fn config(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        static MACHINE: LazyLock<Result<Arc<ClientConfig>, rustls::Error>> =
            LazyLock::new(|| client_config(machine_roots()));
        match self {
            Self::None => client_config(RootCertStore::empty()),
            Self::Machine => MACHINE.clone(),
            Self::Only(config) => Ok(Arc::clone(config)),
        }
    }
}

/// Returns a TLS configuration that trusts these authorities.
///
/// # Errors
///
/// The built-in cryptography supports no version of TLS.
pub(super) fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    // The provider is given here, because the process-wide default of rustls may be set only once.
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn machine_roots() -> RootCertStore {
    // This call reads SSL_CERT_FILE and SSL_CERT_DIR. They are OpenSSL's variables, not settings of the gateway.
    let found = rustls_native_certs::load_native_certs();
    // Only the number of errors is used: their texts name paths.
    build_roots(found.certs, found.errors.len())
}

/// Builds the set of trusted authorities from the certificates that were found. `unread` is the number of certificates
/// or files that could not be read.
pub(super) fn build_roots(found: Vec<CertificateDer<'static>>, unread: usize) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let (_, unusable) = roots.add_parsable_certificates(found);
    let unread = unread + unusable;
    if unread > 0 {
        warn!(unread, trusted = roots.len(), "some CA certificates cannot be read and are not trusted");
    } else if roots.is_empty() {
        // A container often has no certificates. Ones that exist but cannot be read are not replaced by Mozilla's,
        // because an administrator has chosen them.
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}
