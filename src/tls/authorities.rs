//! Files of authorities: those whose certificates clients must have (`TLS_CLIENT_CA`), and others.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;

use super::bounds::CLIENT_AUTHORITIES;
use super::error::{CertificateError, CertificateFault};
use super::pair::parse_certificates;

/// The setting that names those of clients.
pub(super) const SETTING: &str = "TLS_CLIENT_CA";

/// Reads the authorities from the content of the file that `setting` names.
///
/// # Errors
/// It holds none, too many, or one that cannot be read: what that one vouches for would be refused without a word.
pub(super) fn parse(setting: &'static str, path: &Path, pem: &[u8]) -> Result<Arc<RootCertStore>, CertificateError> {
    let failed = |fault| CertificateError::new(setting, path, fault);
    let certificates = parse_certificates(pem).map_err(failed)?;
    if certificates.len() > CLIENT_AUTHORITIES {
        return Err(failed(CertificateFault::ManyAuthorities));
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|_| failed(CertificateFault::BrokenCertificate))?;
    }
    Ok(Arc::new(roots))
}
