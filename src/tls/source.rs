//! Where the certificate of this service comes from: files that are kept elsewhere, the service itself, or a CA.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use tracing::warn;

use super::acme::origin::AcmeOrigin;
use super::authorities;
use super::bounds::RENEWED_DAYS_BEFORE;
use super::error::CertificateError;
use super::leaf::LeafFacts;
use super::pair::{CertificatePair, PairFiles};
use super::pem_file;
use super::self_signed::{SelfSigned, make_pair};
use crate::settings::options::Settings;

/// The folder in `DATA_DIR` in which certificates are kept.
const FOLDER: &str = "tls";

/// The bits of a mode by which others than the owner may write a file, or others than the owner and the group read it. The
/// group of a Kubernetes volume (`fsGroup`) is the service's.
const OPEN_TO_OTHERS: u32 = 0o026;

/// The names of this machine that a certificate of its own always has.
const OWN_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Where the certificate comes from, and whose certificates clients must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSource {
    origin: CertificateOrigin,
    client_authorities: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum CertificateOrigin {
    Files { certificate: PathBuf, key: PathBuf },
    SelfSigned(SelfSigned),
    Acme(Arc<AcmeOrigin>),
}

/// What the files of a source hold.
pub(super) struct FileContents {
    /// Certificate and key, unless the service makes them itself, or none has come from the CA yet.
    pair: Option<(Vec<u8>, Vec<u8>)>,
    client_authorities: Option<Vec<u8>>,
    /// Whether other users may read or write the key.
    pub(super) is_key_open: bool,
}

/// A configuration of handshakes, and the certificate that is shown in them.
pub(super) struct LoadedCertificate {
    pub(super) config: Arc<ServerConfig>,
    pub(super) leaf: LeafFacts,
    /// Whether it is shown because none has come from the CA yet.
    pub(super) is_stand_in: bool,
}

impl FileContents {
    /// Returns a digest that tells two contents apart.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let pair = self.pair.iter().flat_map(|(certificate, key)| [certificate, key]);
        for bytes in pair.chain(&self.client_authorities) {
            digest.update(bytes.len().to_le_bytes());
            digest.update(bytes);
        }
        digest.finalize().into()
    }
}

impl CertificateSource {
    /// Returns the source that the settings ask for, or `None` if they ask for no TLS. `public_address` is where clients
    /// outside reach this machine, if the platform tells.
    pub fn of_settings(settings: &Settings, public_address: Option<IpAddr>) -> Option<Self> {
        let tls = &settings.tls;
        let folder = settings.files.data_dir.join(FOLDER);
        let acme = AcmeOrigin::of_settings(tls, &folder);
        let origin = match (&tls.tls_cert, &tls.tls_key) {
            (Some(certificate), Some(key)) => {
                CertificateOrigin::Files { certificate: certificate.clone(), key: key.clone() }
            }
            _ if tls.tls_self_signed => {
                CertificateOrigin::SelfSigned(SelfSigned::new(&folder, names(settings, public_address)))
            }
            _ => CertificateOrigin::Acme(Arc::new(acme?)),
        };
        Some(Self { origin, client_authorities: tls.tls_client_ca.clone() })
    }

    /// Returns the source of these files.
    #[cfg(test)]
    pub(crate) fn of_files(certificate: PathBuf, key: PathBuf, client_authorities: Option<PathBuf>) -> Self {
        Self { origin: CertificateOrigin::Files { certificate, key }, client_authorities }
    }

    /// Returns the source that makes a certificate in this folder.
    #[cfg(test)]
    pub(crate) fn self_signed_in(folder: &Path) -> Self {
        let own = SelfSigned::new(folder, OWN_NAMES.map(str::to_owned).to_vec());
        Self { origin: CertificateOrigin::SelfSigned(own), client_authorities: None }
    }

    /// Returns the file of the certificate, for programs that are to trust it; `None` if it comes from a CA by ACME: that file
    /// has the key in it, and is trusted by its CA.
    pub fn certificate_file(&self) -> Option<&Path> {
        match &self.origin {
            CertificateOrigin::Files { certificate, .. } => Some(certificate),
            CertificateOrigin::SelfSigned(own) => Some(own.certificate_file()),
            CertificateOrigin::Acme(_) => None,
        }
    }

    /// Whether the service makes the certificate itself.
    pub fn is_self_signed(&self) -> bool {
        matches!(self.origin, CertificateOrigin::SelfSigned(_))
    }

    /// Returns the CA that the certificate comes from; `None` if it comes from none.
    pub(super) fn acme(&self) -> Option<&Arc<AcmeOrigin>> {
        match &self.origin {
            CertificateOrigin::Acme(acme) => Some(acme),
            CertificateOrigin::Files { .. } | CertificateOrigin::SelfSigned(_) => None,
        }
    }

    /// Returns what the metrics call it.
    pub(super) fn label(&self) -> &'static str {
        match &self.origin {
            CertificateOrigin::Files { .. } => "files",
            CertificateOrigin::SelfSigned(_) => "self_signed",
            CertificateOrigin::Acme(_) => "acme",
        }
    }

    /// Returns the files of the pair, with the settings that ask for them.
    pub(super) fn pair_files(&self) -> PairFiles<'_> {
        match &self.origin {
            CertificateOrigin::Files { certificate, key } => {
                PairFiles { certificate: ("TLS_CERT", certificate), key: ("TLS_KEY", key) }
            }
            CertificateOrigin::SelfSigned(own) => own.files(),
            CertificateOrigin::Acme(acme) => acme.files(),
        }
    }

    /// Checks the files that the settings name, and returns what the certificate says of itself, unless the service makes
    /// it or a CA issues it; then one that is kept must be readable. Writes nothing. Blocks on the disk.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn check(&self) -> Result<Option<LeafFacts>, CertificateError> {
        let contents = self.read()?;
        match &self.origin {
            CertificateOrigin::Files { .. } => Ok(Some(self.load(contents, Timestamp::now())?.leaf)),
            CertificateOrigin::SelfSigned(own) => {
                self.authorities(&contents)?;
                own.kept(Timestamp::now())?;
                Ok(None)
            }
            CertificateOrigin::Acme(acme) => {
                acme.check_ca_file()?;
                self.authorities(&contents)?;
                let kept = self.load_kept(contents, Timestamp::now());
                Ok(kept.ok().flatten().map(|loaded| loaded.leaf))
            }
        }
    }

    /// Reads the files that the settings name.
    pub(super) fn read(&self) -> Result<FileContents, CertificateError> {
        let (pair, is_key_open) = match &self.origin {
            CertificateOrigin::Files { .. } => {
                let PairFiles { certificate, key } = self.pair_files();
                let certificate = pem_file::read(certificate.0, certificate.1)?;
                let (key, mode) = pem_file::read_with_mode(key.0, key.1)?;
                (Some((certificate, key)), mode & OPEN_TO_OTHERS != 0)
            }
            // Made with a mode of its own.
            CertificateOrigin::SelfSigned(_) => (None, false),
            CertificateOrigin::Acme(acme) => {
                let (setting, path) = acme.files().key;
                (pem_file::read_kept(setting, path)?.map(|pem| (pem.clone(), pem)), false)
            }
        };
        let authorities = self.client_authorities.as_deref();
        let client_authorities = authorities.map(|path| pem_file::read(authorities::SETTING, path)).transpose()?;
        Ok(FileContents { pair, client_authorities, is_key_open })
    }

    /// Makes the configuration of handshakes from what the files hold. A certificate of the service itself is made if none
    /// that can be used is kept, and a stand-in, which is kept nowhere, if none has come from the CA.
    pub(super) fn load(&self, contents: FileContents, now: Timestamp) -> Result<LoadedCertificate, CertificateError> {
        let authorities = self.authorities(&contents)?;
        let pair = match &self.origin {
            CertificateOrigin::Acme(acme) => {
                return match self.load_kept(contents, now) {
                    Ok(Some(loaded)) => Ok(loaded),
                    kept => {
                        if let Err(error) = kept {
                            warn!("the TLS certificate that is kept cannot be used, another one is ordered: {error}");
                        }
                        self.stand_in(acme, authorities, now)
                    }
                };
            }
            CertificateOrigin::SelfSigned(own) => own.keep_or_make(now)?,
            CertificateOrigin::Files { .. } => {
                let (certificate, key) = contents.pair.unwrap_or_default();
                CertificatePair::parse(self.pair_files(), &certificate, &key)?
            }
        };
        self.configure(pair, authorities)
    }

    /// Makes a certificate for clients of the time before the first one of the CA. Commands on this machine know it by its
    /// fingerprint; others should refuse it.
    fn stand_in(
        &self,
        acme: &AcmeOrigin,
        authorities: Option<Arc<RootCertStore>>,
        now: Timestamp,
    ) -> Result<LoadedCertificate, CertificateError> {
        let (certificate, key) = make_pair(acme.files(), &OWN_NAMES.map(str::to_owned), now)?;
        let pair = CertificatePair::parse(acme.files(), certificate.as_bytes(), key.as_bytes())?;
        Ok(LoadedCertificate { is_stand_in: true, ..self.configure(pair, authorities)? })
    }

    /// Does what [`Self::load`] does, but makes no certificate: `None` if the service would have to make one.
    pub(super) fn load_kept(
        &self,
        contents: FileContents,
        now: Timestamp,
    ) -> Result<Option<LoadedCertificate>, CertificateError> {
        match &self.origin {
            CertificateOrigin::Files { .. } => self.load(contents, now).map(Some),
            CertificateOrigin::SelfSigned(own) => {
                let authorities = self.authorities(&contents)?;
                own.kept(now)?.map(|pair| self.configure(pair, authorities)).transpose()
            }
            CertificateOrigin::Acme(acme) => {
                let authorities = self.authorities(&contents)?;
                let Some((certificate, key)) = contents.pair else { return Ok(None) };
                let pair = CertificatePair::parse(acme.files(), &certificate, &key)?;
                self.configure(pair, authorities).map(Some)
            }
        }
    }

    fn configure(
        &self,
        pair: CertificatePair,
        authorities: Option<Arc<RootCertStore>>,
    ) -> Result<LoadedCertificate, CertificateError> {
        let (config, leaf) = pair.configuration(self.pair_files(), authorities)?;
        Ok(LoadedCertificate { config, leaf, is_stand_in: false })
    }

    fn authorities(&self, contents: &FileContents) -> Result<Option<Arc<RootCertStore>>, CertificateError> {
        let given = self.client_authorities.as_deref().zip(contents.client_authorities.as_deref());
        given.map(|(path, pem)| authorities::parse(authorities::SETTING, path, pem)).transpose()
    }

    /// Whether the service must make its certificate again at `now`.
    pub(super) fn must_renew(&self, leaf: &LeafFacts, now: Timestamp) -> bool {
        self.is_self_signed() && leaf.has_fewer_days(RENEWED_DAYS_BEFORE, now)
    }
}

/// Returns the names and addresses under which clients reach this machine.
fn names(settings: &Settings, public_address: Option<IpAddr>) -> Vec<String> {
    let host = Some(settings.listen.host).filter(|host| !host.is_unspecified());
    let addresses = host.into_iter().chain(public_address).map(|address| address.to_canonical().to_string());
    // A name that begins with a dot stands for others.
    let given = settings.ui.ui_hosts.names().filter(|name| !name.starts_with('.')).map(str::to_owned);
    let mut names: Vec<String> = OWN_NAMES.map(str::to_owned).to_vec();
    for name in addresses.chain(given) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    /// An order to reload may fail after this step, and must then have written nothing.
    #[test]
    fn a_certificate_is_made_only_where_it_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("tls");
        let source = CertificateSource::self_signed_in(&folder);
        let kept = || source.load_kept(source.read().unwrap(), Timestamp::now()).unwrap();
        assert!(source.check().unwrap().is_none());
        assert!(kept().is_none() && !folder.exists());
        let made = source.load(source.read().unwrap(), Timestamp::now()).unwrap().leaf;
        assert!(kept().is_some_and(|loaded| loaded.leaf == made));
    }

    #[test]
    fn a_key_may_be_read_by_its_group_and_by_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        for file in [&certificate, &key] {
            fs::write(file, "").unwrap();
        }
        let source = CertificateSource::of_files(certificate, key.clone(), None);
        for (mode, is_open) in [(0o600, false), (0o440, false), (0o644, true), (0o660, true), (0o602, true)] {
            fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
            assert_eq!(source.read().unwrap().is_key_open, is_open, "{mode:o}");
        }
    }
}
