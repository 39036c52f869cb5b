//! The authorities whose certificates are trusted, and the TLS configuration made of them.

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use std::sync::{Arc, LazyLock};
use tracing::warn;

/// The authorities that connections trust.
#[derive(Debug, Clone)]
pub enum Trust {
    /// None: connections to `https` fail. Costs no look at the disk.
    None,
    /// Those that this machine trusts: those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, else the system's, else
    /// Mozilla's. They are read once, when they are needed for the first time.
    Machine,
    /// Those of this configuration.
    Only(Arc<ClientConfig>),
}

impl Trust {
    /// Returns the TLS configuration. The first call for [`Trust::Machine`] reads the disk, so it is better made before
    /// there are requests.
    ///
    /// # Errors
    ///
    /// The cryptography that is built in supports no version of TLS.
    pub fn config(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        static MACHINE: LazyLock<Result<Arc<ClientConfig>, rustls::Error>> =
            LazyLock::new(|| trusting(roots_of_this_machine()));
        match self {
            Self::None => trusting(RootCertStore::empty()),
            Self::Machine => MACHINE.clone(),
            Self::Only(config) => Ok(Arc::clone(config)),
        }
    }
}

/// Returns a TLS configuration that trusts these authorities.
pub(super) fn trusting(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn roots_of_this_machine() -> RootCertStore {
    // It is this function that reads the two variables: they are OpenSSL's, and no settings of ours.
    let found = rustls_native_certs::load_native_certs();
    // The errors themselves name paths.
    roots_of(found.certs, found.errors.len())
}

/// What can be made of the certificates that were found, beside some that could not be read.
pub(super) fn roots_of(found: Vec<CertificateDer<'static>>, unread: usize) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let (_, unusable) = roots.add_parsable_certificates(found);
    let unread = unread + unusable;
    if unread > 0 {
        warn!(unread, trusted = roots.len(), "some certificates of authorities cannot be read, they are not trusted");
    } else if roots.is_empty() {
        // A container often has none. Certificates that exist but cannot be read are not replaced by Mozilla's.
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}
