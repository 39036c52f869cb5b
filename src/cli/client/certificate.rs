//! Which certificate a service must have, if it is asked over HTTPS, and which one it is shown.

use std::path::{Path, PathBuf};

use url::Url;

use super::error::CallError;
use crate::dial::Trust;
use crate::service_note::{NotedTls, ServiceNote};
use crate::settings::Environment;

pub(super) const CA_VARIABLE: &str = "LLAMAGATE_CA";

const CERT_VARIABLE: &str = "LLAMAGATE_CERT";
const CERT_KEY_VARIABLE: &str = "LLAMAGATE_CERT_KEY";

/// The certificate that a service with `TLS_CLIENT_CA` is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct ShownCertificate {
    /// The flag or variable that names it.
    source: &'static str,
    certificate: PathBuf,
    key: PathBuf,
}

impl ShownCertificate {
    /// Returns the certificate of these flags, else that of the environment.
    pub(super) fn find(
        (certificate, key): (Option<PathBuf>, Option<PathBuf>),
        environment: &Environment,
    ) -> Option<Self> {
        let Some(certificate) = certificate else { return Self::of_environment(environment) };
        let key = key.or_else(|| environment.get(CERT_KEY_VARIABLE).map(PathBuf::from));
        Some(Self { source: "--cert", key: key.unwrap_or_else(|| certificate.clone()), certificate })
    }

    /// Returns the certificate of the environment, if it names one.
    pub(in crate::cli) fn of_environment(environment: &Environment) -> Option<Self> {
        let certificate = PathBuf::from(environment.get(CERT_VARIABLE)?);
        let key = environment.get(CERT_KEY_VARIABLE).map_or_else(|| certificate.clone(), PathBuf::from);
        Some(Self { source: CERT_VARIABLE, certificate, key })
    }

    /// Adds the certificate to what connections do.
    ///
    /// # Errors
    /// [`CallError::Usage`] if a file cannot be used.
    pub(in crate::cli) fn add_to(&self, trust: Trust) -> Result<Trust, CallError> {
        let shown = trust.showing(&self.certificate, &self.key);
        shown.map_err(|error| CallError::Usage(format!("{}: {error}", self.source)))
    }

    /// Whether a flag names it, which must have an effect.
    pub(super) fn is_of_flag(&self) -> bool {
        self.source != CERT_VARIABLE
    }
}

/// Which certificate a service must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ExpectedCertificate {
    /// One of an authority that this machine trusts.
    OfMachine,
    /// One of an authority of this file, which this flag or variable names.
    OfFile { source: String, path: PathBuf },
    /// That of a service of this user on this machine, which has told it.
    Noted(NotedTls),
}

impl ExpectedCertificate {
    /// Finds out which certificate the service at this address must have. `given` is the file of authorities, and what names
    /// it.
    ///
    /// # Errors
    /// [`CallError::Usage`] if a flag names a file and the address has no TLS.
    pub(super) fn find(given: Option<(String, PathBuf)>, base: &Url, is_loopback: bool) -> Result<Self, CallError> {
        if base.scheme() != "https" {
            return match given {
                Some((source, _)) if source != CA_VARIABLE => {
                    Err(CallError::Usage(format!("{source} has no effect: the address does not begin with https://")))
                }
                _ => Ok(Self::OfMachine),
            };
        }
        if let Some((source, path)) = given {
            return Ok(Self::OfFile { source, path });
        }
        let port = base.port_or_known_default().filter(|_| is_loopback);
        let noted = port.and_then(ServiceNote::on_port).and_then(|note| note.tls);
        Ok(noted.map_or(Self::OfMachine, Self::Noted))
    }

    /// Returns what connections trust.
    ///
    /// # Errors
    /// [`CallError::Usage`] if the file cannot be used, [`CallError::Broken`] if TLS cannot be set up.
    pub(super) fn trust(&self) -> Result<Trust, CallError> {
        match self {
            Self::OfMachine => Ok(Trust::Machine),
            Self::OfFile { source, path } => Trust::of_file(path)
                .map_err(|error| CallError::Usage(format!("{source}={:?}: {error}", path.display().to_string()))),
            Self::Noted(tls) => {
                Trust::of_fingerprint(tls.fingerprint).map_err(|error| CallError::Broken(format!("no TLS: {error}")))
            }
        }
    }

    /// Returns the file that other programs must trust to ask the service; `None` if the machine trusts it.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::OfMachine => None,
            Self::OfFile { path, .. } => Some(path),
            Self::Noted(tls) => tls.certificate.as_deref(),
        }
    }

    /// Returns the name that other programs must ask for; `None` if the address that was given will do.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::OfMachine | Self::OfFile { .. } => None,
            Self::Noted(tls) => tls.name.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file with the key of a certificate of ACME was once printed as what agents must trust.
    #[test]
    fn no_program_is_told_to_trust_a_file_with_a_key() {
        let noted = |certificate: Option<&str>, name: Option<&str>| {
            let (certificate, name) = (certificate.map(PathBuf::from), name.map(str::to_owned));
            ExpectedCertificate::Noted(NotedTls { fingerprint: [1; 32], certificate, name, is_on_health_port: false })
        };
        let of_ca = noted(None, Some("llm.example.org"));
        assert_eq!((of_ca.file(), of_ca.name()), (None, Some("llm.example.org")));
        let of_file = noted(Some("/cert.pem"), None);
        assert_eq!((of_file.file(), of_file.name()), (Some(Path::new("/cert.pem")), None));
    }
}
