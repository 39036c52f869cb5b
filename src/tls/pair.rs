//! A certificate with its chain and its key: read from PEM, and made into the configuration of handshakes.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};

use super::bounds::CHAIN_LENGTH;
use super::error::{CertificateError, CertificateFault};
use super::leaf::LeafFacts;

/// The protocols that are offered (RFC 7301), the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A certificate, its chain and its key.
#[derive(Debug)]
pub(super) struct CertificatePair {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pub(super) leaf: LeafFacts,
}

/// The two files of a pair, and the settings that name them.
#[derive(Debug, Clone, Copy)]
pub(super) struct PairFiles<'a> {
    pub(super) certificate: (&'static str, &'a Path),
    pub(super) key: (&'static str, &'a Path),
}

impl PairFiles<'_> {
    fn of_certificate(&self, fault: CertificateFault) -> CertificateError {
        CertificateError::new(self.certificate.0, self.certificate.1, fault)
    }

    fn of_key(&self, fault: CertificateFault) -> CertificateError {
        CertificateError::new(self.key.0, self.key.1, fault)
    }
}

impl CertificatePair {
    /// Reads a pair from the contents of its files. Whether the two belong together is found out by
    /// [`Self::configuration`].
    ///
    /// # Errors
    /// One of the files has not what it should have.
    pub(super) fn parse(files: PairFiles<'_>, certificate: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain = parse_certificates(certificate).map_err(|fault| files.of_certificate(fault))?;
        if chain.len() > CHAIN_LENGTH {
            return Err(files.of_certificate(CertificateFault::LongChain));
        }
        let leaf = chain
            .first()
            .ok_or(CertificateFault::NoCertificate)
            .and_then(|leaf| LeafFacts::read(leaf).ok_or(CertificateFault::BrokenCertificate));
        let leaf = leaf.map_err(|fault| files.of_certificate(fault))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| files.of_key(key_fault(&error, key)))?;
        Ok(Self { chain, key, leaf })
    }

    /// Makes the configuration of handshakes with this pair, in which clients must have a certificate of `authorities`, if
    /// there are any.
    ///
    /// # Errors
    /// The key cannot be used, or belongs to another certificate.
    pub(super) fn configuration(
        self,
        files: PairFiles<'_>,
        authorities: Option<Arc<RootCertStore>>,
    ) -> Result<(Arc<ServerConfig>, LeafFacts), CertificateError> {
        let provider = Arc::new(ring::default_provider());
        let unusable = |error| files.of_certificate(CertificateFault::Unusable(error));
        // TLS 1.2 and 1.3.
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(unusable)?;
        let asks_clients = authorities.is_some();
        let verifier: Arc<dyn ClientCertVerifier> = match authorities {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(roots) => WebPkiClientVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| unusable(rustls::Error::General(error.to_string())))?,
        };
        let with_pair = builder.with_client_cert_verifier(verifier).with_single_cert(self.chain, self.key);
        let mut config = with_pair.map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => files.of_key(CertificateFault::OtherKey),
            rustls::Error::InvalidCertificate(_) => files.of_certificate(CertificateFault::BrokenCertificate),
            rustls::Error::General(_) => files.of_key(CertificateFault::UnusableKey),
            error => unusable(error),
        })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        if asks_clients {
            // A session that goes on shows no certificate: one that has expired meanwhile would go unnoticed.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok((Arc::new(config), self.leaf))
    }
}

/// Reads all certificates of a text in PEM. Anything else in it is passed over.
pub(super) fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateFault> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Err(_) => Err(CertificateFault::BrokenCertificate),
        Ok(certificates) if certificates.is_empty() => Err(CertificateFault::NoCertificate),
        Ok(certificates) => Ok(certificates),
    }
}

/// Returns all certificates of a text in PEM, for fuzzing.
#[cfg(feature = "test-support")]
pub(crate) fn certificates_in(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    parse_certificates(pem).ok()
}

fn key_fault(error: &PemError, pem: &[u8]) -> CertificateFault {
    let is_encrypted = pem.windows(b"ENCRYPTED".len()).any(|words| words == b"ENCRYPTED");
    match error {
        _ if is_encrypted => CertificateFault::EncryptedKey,
        PemError::NoItemsFound => CertificateFault::NoKey,
        _ => CertificateFault::UnusableKey,
    }
}
