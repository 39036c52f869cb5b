//! Certificates of tests, their files, and clients that look at what a server shows.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use llamagate::dial::Trust;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, SanType, SerialNumber, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
};

use super::client::RawClient;

/// An authority that issues certificates.
pub(crate) struct TestIssuer {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in DER.
pub(crate) struct IssuedPair {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl TestIssuer {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no name is wrong");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key can be made");
        let root = params.self_signed(&key).expect("a certificate can be made").der().clone();
        Self { root, issuer: Issuer::new(params, key) }
    }

    /// Returns its own certificate.
    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.root.clone()
    }

    /// Issues a certificate for 127.0.0.1 and localhost that shows its subject as this.
    pub(crate) fn issue(&self, subject: &str) -> IssuedPair {
        self.issue_until(subject, 2099)
    }

    /// Issues one that is valid until the begin of this year.
    pub(crate) fn issue_until(&self, subject: &str, year: i32) -> IssuedPair {
        let names = ["127.0.0.1", "localhost"].map(str::to_owned).to_vec();
        let mut params = CertificateParams::new(names).expect("the names are good");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject);
        params.not_after = date_time_ymd(year, 1, 1);
        params.serial_number = Some(SerialNumber::from_slice(subject.as_bytes()));
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be made");
        IssuedPair { certificate: certificate.der().to_vec(), key: key.serialize_der() }
    }

    /// Issues a certificate for a request (PKCS#10) whose names must be these, with `others` in their place if there are any.
    /// `life` is from when and until when it is valid, in seconds from now.
    pub(crate) fn sign_request(
        &self,
        request: &[u8],
        names: &[String],
        others: Option<&[String]>,
        life: (i64, i64),
    ) -> Result<Vec<u8>, String> {
        let request = CertificateSigningRequestParams::from_der(&request.into()).map_err(|error| error.to_string())?;
        let CertificateSigningRequestParams { mut params, public_key } = request;
        let asked: BTreeSet<String> = params
            .subject_alt_names
            .iter()
            .map(|name| match name {
                SanType::DnsName(name) => name.to_string(),
                other => format!("{other:?}"),
            })
            .collect();
        if asked != names.iter().cloned().collect() {
            return Err(format!("the request is for {asked:?}"));
        }
        if let Some(others) = others {
            params.subject_alt_names =
                CertificateParams::new(others).map_err(|error| error.to_string())?.subject_alt_names;
        }
        let moment = |seconds: i64| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs() as i64;
            date_time_ymd(1970, 1, 1) + Duration::from_secs((since + seconds) as u64)
        };
        (params.not_before, params.not_after) = (moment(life.0), moment(life.1));
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&public_key, &self.issuer).map_err(|error| error.to_string())?;
        Ok(certificate.der().to_vec())
    }

    /// Writes its own certificate to a file in this folder.
    pub(crate) fn write_root(&self, folder: &Path) -> PathBuf {
        let path = folder.join("authority.pem");
        fs::write(&path, pem("CERTIFICATE", &self.root)).expect("the file can be written");
        path
    }

    /// Returns the configuration of a client that trusts this authority alone, and shows `certificate`, if there is one.
    pub(crate) fn client_config(&self, certificate: Option<&IssuedPair>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("the root is a certificate");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder =
            builder.with_safe_default_protocol_versions().expect("TLS can be set up").with_root_certificates(roots);
        Arc::new(match certificate {
            None => builder.with_no_client_auth(),
            Some(IssuedPair { certificate, key }) => {
                let key = PrivateKeyDer::try_from(key.clone()).expect("the key is one");
                builder.with_client_auth_cert(vec![certificate.clone().into()], key).expect("the two belong together")
            }
        })
    }
}

impl IssuedPair {
    /// Writes both files into this folder, each by rename. Returns their paths.
    pub(crate) fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        replace(&key, &pem("PRIVATE KEY", &self.key));
        replace(&certificate, &pem("CERTIFICATE", &self.certificate));
        (certificate, key)
    }
}

/// Replaces a file by rename.
pub(crate) fn replace(path: &Path, text: &str) {
    fs::write(path.with_extension("new"), text).expect("the file can be written");
    fs::rename(path.with_extension("new"), path).expect("the file can be replaced");
}

/// Returns DER in PEM.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| str::from_utf8(line).expect("Base64 is text")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Returns the certificate that this server shows.
#[track_caller]
pub(crate) fn shown_certificate(url: &str) -> Vec<u8> {
    let config = Trust::of_any_certificate().and_then(|trust| trust.config()).expect("TLS can be set up");
    let mut client = RawClient::over(url, config).expect("the server takes connections");
    client.finish_handshake().expect("the handshake succeeds");
    client.shown_certificate().expect("a server shows a certificate")
}

/// Runs `openssl`; panics with its output if it fails.
#[track_caller]
pub(crate) fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
