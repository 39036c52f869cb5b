//! Which CA issues the certificate, for which names, and where what it issues is kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::hex::hex;
use crate::settings::options::Tls;
use crate::settings::values::{AcmeBindingKey, AcmeDirectory};
use crate::tls::authorities;
use crate::tls::error::CertificateError;
use crate::tls::pair::PairFiles;
use crate::tls::pem_file;

/// The setting that asks for a certificate of a CA.
pub(in crate::tls) const SETTING: &str = "TLS_ACME_DOMAINS";

/// The setting that names the authorities by which the CA is trusted.
const CA_SETTING: &str = "TLS_ACME_CA";

/// Where a certificate of a CA comes from, and where it is kept. The names that are ordered now are those of the store: a
/// reload may change them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tls) struct AcmeOrigin {
    /// The names that are ordered at the start.
    pub(in crate::tls) domains: Vec<String>,
    pub(super) directory: AcmeDirectory,
    /// Addresses that the CA may write to, as URLs.
    pub(super) contacts: Vec<String>,
    pub(super) ca_file: Option<PathBuf>,
    /// The name and the key by which the CA knows who opens the account.
    pub(super) binding: Option<(String, AcmeBindingKey)>,
    /// The wait after the first order that failed.
    pub(super) retry: Duration,
    /// A folder for each CA: what a test CA has issued is not shown after the change to another one.
    folder: PathBuf,
    pair: PathBuf,
}

impl AcmeOrigin {
    /// Returns the origin that the settings ask for; `None` if they name no domain. `folder` is where certificates are kept.
    pub(in crate::tls) fn of_settings(tls: &Tls, folder: &Path) -> Option<Self> {
        if tls.tls_acme_domains.is_empty() {
            return None;
        }
        let directory = tls.tls_acme_directory.clone();
        let digest = Sha256::digest(directory.0.as_str());
        let host = directory.host().replace(['[', ']', ':'], "_");
        let folder = folder.join("acme").join(format!("{host}-{}", hex(&digest[..4])));
        Some(Self {
            domains: tls.tls_acme_domains.names().to_vec(),
            directory,
            contacts: tls.tls_acme_contact.urls(),
            ca_file: tls.tls_acme_ca.clone(),
            binding: tls.tls_acme_eab_kid.clone().zip(tls.tls_acme_eab_hmac_key.clone()),
            retry: tls.tls_acme_retry.0,
            pair: folder.join("certificate.pem"),
            folder,
        })
    }

    /// Returns the file of the key, the certificate and its chain. One file, so that it is replaced as a whole.
    pub(in crate::tls) fn pair_file(&self) -> &Path {
        &self.pair
    }

    pub(in crate::tls) fn files(&self) -> PairFiles<'_> {
        PairFiles { certificate: (SETTING, &self.pair), key: (SETTING, &self.pair) }
    }

    /// Returns the folder of this CA.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the file of the account.
    pub(super) fn account_file(&self) -> PathBuf {
        self.folder.join("account.json")
    }

    /// Returns the file that is locked by the process that orders.
    pub(super) fn lock_file(&self) -> PathBuf {
        self.folder.join("order.lock")
    }

    /// Checks the file of the authorities by which the CA is trusted, if there is one. Blocks on the disk.
    ///
    /// # Errors
    /// It cannot be used.
    pub(in crate::tls) fn check_ca_file(&self) -> Result<(), CertificateError> {
        let Some(path) = &self.ca_file else { return Ok(()) };
        let pem = pem_file::read(CA_SETTING, path)?;
        authorities::parse(CA_SETTING, path, &pem).map(drop)
    }
}
