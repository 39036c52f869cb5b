//! The look at a challenge: a handshake with the gateway, as RFC 8737 (section 3) describes it.

use std::{io::Read as _, net::TcpStream, sync::Arc};

use ring::signature;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring::default_provider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::*;

use super::{Shared, jws::thumbprint};
use crate::support::wait::{ANSWERS, patient};

/// The extension that holds the digest (RFC 8737, section 6.1).
const ACME_IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";

impl Shared {
    /// Looks at the challenge of an authorization and notes what is found there.
    pub(super) fn look(&self, nth: usize, key: &(String, String)) {
        let port = self.wait_for(|state| state.faults.looks_at.or(state.port));
        let Some(port) = port else { return };
        let authorization = self.state().authorizations[nth].clone();
        let expected = Sha256::digest(format!("{}.{}", authorization.token, thumbprint(key)));
        let outcome = look(port, &authorization.name, &expected);
        self.state().authorizations[nth].outcome = Some(outcome);
        self.changed.notify_all();
    }
}

/// Looks whether this name leads to a server at this port that shows the digest.
pub(crate) fn look(port: u16, name: &str, digest: &[u8]) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let server = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
    let connection = ClientConnection::new(taking_any(&["acme-tls/1"]), server).map_err(|error| error.to_string())?;
    let stream = TcpStream::connect(("127.0.0.1", port)).map_err(text)?;
    stream.set_read_timeout(Some(patient(ANSWERS))).map_err(text)?;
    let mut stream = StreamOwned::new(connection, stream);
    stream.conn.complete_io(&mut stream.sock).map_err(text)?;
    if stream.conn.alpn_protocol() != Some(b"acme-tls/1") {
        return Err("the protocol acme-tls/1 was not agreed on".to_owned());
    }
    let shown = stream.conn.peer_certificates().and_then(|chain| chain.first()).ok_or("no certificate")?;
    let (_, shown) = X509Certificate::from_der(shown).map_err(|error| error.to_string())?;
    let names = shown.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = names.map(|names| names.value.general_names.clone()).unwrap_or_default();
    if !matches!(names.as_slice(), [GeneralName::DNSName(only)] if only.eq_ignore_ascii_case(name)) {
        return Err(format!("the certificate is for {names:?}"));
    }
    let extension = shown.extensions().iter().find(|extension| extension.oid.to_id_string() == ACME_IDENTIFIER);
    let extension = extension.ok_or("the certificate has no acmeIdentifier")?;
    if !extension.critical || extension.value != [&[4, 32], digest].concat() {
        return Err("the acmeIdentifier is another one".to_owned());
    }
    // No application data follows.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).map_err(|error| format!("the connection is not closed: {error}"))?;
    if rest.is_empty() { Ok(()) } else { Err("something is sent after the handshake".to_owned()) }
}

/// Returns a configuration that takes any certificate and offers these protocols. rustls reads no certificate with a critical
/// extension that it does not know, so that signatures are checked here.
pub(crate) fn taking_any(protocols: &[&str]) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("TLS can be set up");
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate));
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| Error::General(error.to_string()))?;
        let key = parsed.public_key().subject_public_key.data.as_ref();
        let algorithm: &dyn signature::VerificationAlgorithm = match signed.scheme {
            SignatureScheme::RSA_PSS_SHA256 => &signature::RSA_PSS_2048_8192_SHA256,
            _ => &signature::ECDSA_P256_SHA256_ASN1,
        };
        let key = signature::UnparsedPublicKey::new(algorithm, key);
        let verified = key.verify(message, signed.signature());
        verified.map_err(|_| Error::General("the signature of the handshake is wrong".to_owned()))?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_tls12_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256]
    }
}
