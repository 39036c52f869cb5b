//! What is wrong with the certificate of this service, or with a file that belongs to it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::bounds::{CHAIN_LENGTH, CLIENT_AUTHORITIES, PEM_SIZE};
use crate::settings::SettingProblem;

/// Why a file of the certificate cannot be used. Holds no part of a key.
#[derive(Debug, Error)]
#[error("{setting}={:?}: {fault}", path.display().to_string())]
pub struct CertificateError {
    /// The setting that names the file.
    pub(super) setting: &'static str,
    pub(super) path: PathBuf,
    pub(super) fault: CertificateFault,
}

/// What is wrong with a file.
#[derive(Debug, Error)]
pub(super) enum CertificateFault {
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("the certificate that is kept cannot be read: {0}")]
    KeptUnreadable(io::Error),
    #[error("it cannot be written: {0}")]
    Unwritable(io::Error),
    #[error("it has more than {PEM_SIZE} bytes")]
    TooLarge,
    #[error("it holds no certificate in PEM")]
    NoCertificate,
    #[error("it holds more than {CHAIN_LENGTH} certificates")]
    LongChain,
    #[error("it holds more than {CLIENT_AUTHORITIES} certificates")]
    ManyAuthorities,
    #[error("one of its certificates cannot be read")]
    BrokenCertificate,
    #[error("it holds no private key in PEM")]
    NoKey,
    #[error("its private key is encrypted")]
    EncryptedKey,
    #[error("its private key is of no kind that can be used")]
    UnusableKey,
    #[error("its private key belongs to another certificate")]
    OtherKey,
    #[error("it is for other names, of another service with this DATA_DIR: {0}")]
    OtherNames(String),
    #[error("no certificate can be made: {0}")]
    NotMade(String),
    #[error("it cannot be used: {0}")]
    Unusable(rustls::Error),
}

impl CertificateError {
    pub(super) fn new(setting: &'static str, path: &Path, fault: CertificateFault) -> Self {
        Self { setting, path: path.to_owned(), fault }
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> &'static str {
        match self.fault {
            CertificateFault::Unreadable(_) => "the user that runs the service must be able to read it",
            CertificateFault::KeptUnreadable(_) => {
                "let the user that runs the service read it, or remove it from DATA_DIR: a new one is made, which clients must trust"
            }
            CertificateFault::Unwritable(_) => "DATA_DIR must be writable, or set TLS_CERT and TLS_KEY",
            CertificateFault::NoKey | CertificateFault::UnusableKey => {
                "PKCS#8, PKCS#1 and SEC1 are read: RSA, ECDSA with P-256 or P-384, Ed25519"
            }
            CertificateFault::EncryptedKey => "write it without a password: openssl pkey -in FILE -out NEW_FILE",
            CertificateFault::OtherKey => "TLS_CERT must begin with the certificate that TLS_KEY belongs to",
            CertificateFault::OtherNames(_) => "give each service with names of its own a DATA_DIR of its own",
            CertificateFault::NotMade(_) => "set TLS_CERT and TLS_KEY to a certificate of your own",
            CertificateFault::TooLarge
            | CertificateFault::NoCertificate
            | CertificateFault::LongChain
            | CertificateFault::ManyAuthorities
            | CertificateFault::BrokenCertificate
            | CertificateFault::Unusable(_) => "openssl x509 -in FILE -noout -text shows what is in it",
        }
    }

    /// Whether there is no such file.
    pub(super) fn is_missing_file(&self) -> bool {
        matches!(&self.fault, CertificateFault::Unreadable(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Returns a sentence without the path, for those who may not see where files lie.
    pub(super) fn without_path(&self) -> String {
        format!("{} is not taken, and the TLS certificate of before stays in use: {}", self.setting, self.fault)
    }

    /// Returns the problem with the setting that names the file.
    pub fn problem(&self) -> SettingProblem {
        SettingProblem {
            subject: format!("{}={:?}", self.setting, self.path.display().to_string()),
            fault: self.fault.to_string(),
            hint: Some(self.hint().to_owned()),
        }
    }
}
