//! A certificate that the service makes for itself (`TLS_SELF_SIGNED`), and keeps in `DATA_DIR`, so that what clients have
//! been told of it stays true over restarts.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use super::bounds::{RENEWED_DAYS_BEFORE, SELF_SIGNED_DAYS};
use super::error::{CertificateError, CertificateFault};
use super::pair::{CertificatePair, PairFiles};
use super::pem_file;
use crate::file_replacement::remove_leftovers;

/// The setting that asks for it.
const SETTING: &str = "TLS_SELF_SIGNED";

/// The common name of its subject.
const COMMON_NAME: &str = "llamagate";

/// Where the certificate is kept, and the names that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SelfSigned {
    certificate: PathBuf,
    key: PathBuf,
    names: Vec<String>,
}

impl SelfSigned {
    /// Describes the certificate for these names and addresses, whose files are in this folder.
    pub(super) fn new(folder: &Path, names: Vec<String>) -> Self {
        Self { certificate: folder.join("self-signed.pem"), key: folder.join("self-signed.key"), names }
    }

    /// Returns the file of the certificate, which clients may trust.
    pub(super) fn certificate_file(&self) -> &Path {
        &self.certificate
    }

    pub(super) fn files(&self) -> PairFiles<'_> {
        PairFiles { certificate: (SETTING, &self.certificate), key: (SETTING, &self.key) }
    }

    /// Returns the certificate that is kept, if it is for all the names and not about to expire; else makes a new one and
    /// keeps it.
    ///
    /// # Errors
    /// Whether one is kept cannot be read, or none can be made or written.
    pub(super) fn keep_or_make(&self, now: Timestamp) -> Result<CertificatePair, CertificateError> {
        // A pair that is kept is not written for years, and a service that was killed may have left a key beside it.
        [&self.certificate, &self.key].into_iter().for_each(|path| remove_leftovers(path));
        match self.kept(now)? {
            Some(pair) => Ok(pair),
            None => self.make(now),
        }
    }

    /// Returns the certificate that is kept, if it is for all the names and not about to expire.
    ///
    /// # Errors
    /// One of its files cannot be read. Clients may trust the certificate, so it must not be replaced then.
    pub(super) fn kept(&self, now: Timestamp) -> Result<Option<CertificatePair>, CertificateError> {
        let (certificate, key) =
            (pem_file::read_kept(SETTING, &self.certificate)?, pem_file::read_kept(SETTING, &self.key)?);
        Ok(certificate.zip(key).and_then(|(certificate, key)| self.usable(&certificate, &key, now)))
    }

    /// Returns the pair that these contents are, if it belongs together, is for all the names and not about to expire.
    fn usable(&self, certificate: &[u8], key: &[u8], now: Timestamp) -> Option<CertificatePair> {
        let parse = || CertificatePair::parse(self.files(), certificate, key).ok();
        let pair = parse()?;
        let has_all = self.names.iter().all(|name| pair.leaf.names.contains(name));
        let is_lasting = !pair.leaf.has_fewer_days(RENEWED_DAYS_BEFORE, now);
        // A service that was killed between the two files leaves a pair that does not belong together.
        let is_whole = parse()?.configuration(self.files(), None).is_ok();
        (has_all && is_lasting && is_whole).then_some(pair)
    }

    fn make(&self, now: Timestamp) -> Result<CertificatePair, CertificateError> {
        let failed = |path: &Path, fault| CertificateError::new(SETTING, path, fault);
        let (certificate, key) = make_pair(self.files(), &self.names, now)?;
        if let Some(folder) = self.certificate.parent() {
            fs::create_dir_all(folder).map_err(|error| failed(folder, CertificateFault::Unwritable(error)))?;
        }
        for (path, text, mode) in [(&self.key, &key, 0o600), (&self.certificate, &certificate, 0o644)] {
            pem_file::replace(path, text, mode).map_err(|error| failed(path, CertificateFault::Unwritable(error)))?;
        }
        CertificatePair::parse(self.files(), certificate.as_bytes(), key.as_bytes())
    }
}

/// Makes a certificate for these names that is signed by its own key. Returns both in PEM.
///
/// # Errors
/// The cryptography fails. The error names the files.
pub(super) fn make_pair(
    files: PairFiles<'_>,
    names: &[String],
    now: Timestamp,
) -> Result<(String, String), CertificateError> {
    let not_made = |error: rcgen::Error| {
        CertificateError::new(files.certificate.0, files.certificate.1, CertificateFault::NotMade(error.to_string()))
    };
    let key = KeyPair::generate().map_err(not_made)?;
    let certificate = params(names, now).and_then(|params| params.self_signed(&key)).map_err(not_made)?;
    let certificate = pem_file::encode("CERTIFICATE", certificate.der());
    Ok((certificate, pem_file::encode("PRIVATE KEY", key.serialized_der())))
}

fn params(names: &[String], now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
    // Trusted by itself, it vouches for no other certificate.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let day = |after: i64| now.checked_add(SignedDuration::from_hours(24 * after)).unwrap_or(now);
    let date = |at: Timestamp| at.to_zoned(TimeZone::UTC).date();
    // From the day before, for clients whose clocks are slow.
    let (first, last) = (date(day(-1)), date(day(SELF_SIGNED_DAYS - 1)));
    params.not_before = date_time_ymd(first.year().into(), month(first), day_of_month(first));
    params.not_after = date_time_ymd(last.year().into(), month(last), day_of_month(last));
    Ok(params)
}

fn month(date: Date) -> u8 {
    date.month().unsigned_abs()
}

fn day_of_month(date: Date) -> u8 {
    date.day().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_certificate_is_kept_until_it_expires_soon_or_lacks_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("tls");
        let ours = SelfSigned::new(&folder, names(&["localhost", "127.0.0.1"]));
        let start = at("2026-01-10T12:00:00Z");
        let made = ours.keep_or_make(start).unwrap().leaf;
        assert_eq!(made.names, ["localhost", "127.0.0.1"]);
        assert_eq!(made.expiry_day(), "2027-02-10");
        assert_eq!(fs::metadata(&ours.key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(ours.keep_or_make(at("2026-12-31T00:00:00Z")).unwrap().leaf, made);
        let fewer = SelfSigned::new(&folder, names(&["127.0.0.1"]));
        assert_eq!(fewer.keep_or_make(start).unwrap().leaf, made);

        let renewed = ours.keep_or_make(at("2027-01-20T00:00:00Z")).unwrap().leaf;
        assert_ne!(renewed.fingerprint, made.fingerprint);
        let more = SelfSigned::new(&folder, names(&["localhost", "192.0.2.7"]));
        assert_eq!(more.keep_or_make(start).unwrap().leaf.names, ["localhost", "192.0.2.7"]);
    }

    #[test]
    fn a_pair_that_does_not_belong_together_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let ours = SelfSigned::new(folder.path(), names(&["localhost"]));
        let now = Timestamp::now();
        let made = ours.keep_or_make(now).unwrap().leaf;
        let other = pem_file::encode("PRIVATE KEY", KeyPair::generate().unwrap().serialized_der());
        pem_file::replace(&ours.key, &other, 0o600).unwrap();
        let pair = ours.keep_or_make(now).unwrap();
        assert_ne!(pair.leaf.fingerprint, made.fingerprint);
        assert!(pair.configuration(ours.files(), None).is_ok());
    }

    #[test]
    fn a_key_that_a_killed_service_left_half_written_is_removed_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let ours = SelfSigned::new(folder.path(), names(&["localhost"]));
        let made = ours.keep_or_make(Timestamp::now()).unwrap().leaf;
        let left = folder.path().join(".self-signed.key.0011223344556677.new");
        fs::write(&left, "-----BEGIN PRIVATE KEY-----").unwrap();
        assert_eq!(ours.keep_or_make(Timestamp::now()).unwrap().leaf, made);
        assert!(!left.exists());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("link");
        symlink(folder.path().join("none"), &nowhere).unwrap();
        let error = SelfSigned::new(&nowhere, names(&["localhost"])).keep_or_make(Timestamp::now()).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("TLS_SELF_SIGNED=\"") && text.contains("cannot be written"), "{text}");
        assert!(error.hint().contains("DATA_DIR"));
    }

    /// A key that only root could read was once taken for none, and the pair that clients trusted was replaced.
    #[test]
    fn a_pair_that_cannot_be_read_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let ours = SelfSigned::new(folder.path(), names(&["localhost"]));
        let now = Timestamp::now();
        let made = ours.keep_or_make(now).unwrap().leaf;
        let aside = folder.path().join("aside");
        for unreadable in [&ours.key, &ours.certificate] {
            fs::rename(unreadable, &aside).unwrap();
            // Read by no user, root included.
            fs::create_dir(unreadable).unwrap();
            let error = ours.keep_or_make(now).unwrap_err();
            assert!(error.to_string().contains("the certificate that is kept cannot be read"), "{error}");
            assert!(error.hint().contains("remove it from DATA_DIR"));
            fs::remove_dir(unreadable).unwrap();
            fs::rename(&aside, unreadable).unwrap();
        }
        assert_eq!(ours.keep_or_make(now).unwrap().leaf, made);
        // One without the other is no pair.
        fs::remove_file(&ours.key).unwrap();
        assert_ne!(ours.keep_or_make(now).unwrap().leaf, made);
    }
}
