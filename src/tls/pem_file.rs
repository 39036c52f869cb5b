//! Files in PEM: read within a bound, and written so that no reader sees a part of one.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::bounds::PEM_SIZE;
use super::error::{CertificateError, CertificateFault};
use crate::file_replacement;

/// Characters of a line of Base64 (RFC 7468, section 2).
const LINE_LENGTH: usize = 64;

/// Reads the file that `setting` names.
///
/// # Errors
/// It cannot be read, or is larger than [`PEM_SIZE`].
pub(super) fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, CertificateError> {
    read_with_mode(setting, path).map(|(bytes, _)| bytes)
}

/// Does what [`read`] does. Also returns the mode of the file.
///
/// # Errors
/// As [`read`].
pub(super) fn read_with_mode(setting: &'static str, path: &Path) -> Result<(Vec<u8>, u32), CertificateError> {
    let failed = |fault| CertificateError::new(setting, path, fault);
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| {
        let mode = file.metadata()?.mode();
        file.take(PEM_SIZE + 1).read_to_end(&mut bytes)?;
        Ok(mode)
    });
    let mode = read.map_err(|error| failed(CertificateFault::Unreadable(error)))?;
    if bytes.len() as u64 > PEM_SIZE { Err(failed(CertificateFault::TooLarge)) } else { Ok((bytes, mode)) }
}

/// Reads a file that the service has written itself; `None` if there is none, or if it is larger than any that is written.
///
/// # Errors
/// It is there and cannot be read. Clients may trust what it holds, so it must not be replaced then.
pub(super) fn read_kept(setting: &'static str, path: &Path) -> Result<Option<Vec<u8>>, CertificateError> {
    read(setting, path).map(Some).or_else(|error| match error.fault {
        CertificateFault::Unreadable(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        CertificateFault::Unreadable(source) => {
            Err(CertificateError::new(setting, path, CertificateFault::KeptUnreadable(source)))
        }
        _ => Ok(None),
    })
}

/// Returns the text form of DER under this label, such as `CERTIFICATE`.
pub(super) fn encode(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(LINE_LENGTH.min(rest.len()));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem + &format!("-----END {label}-----\n")
}

/// Replaces the file by rename.
///
/// # Errors
/// The system's.
pub(super) fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    file_replacement::replace(path, text.as_bytes(), mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use proptest::prelude::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    use std::os::unix::fs::PermissionsExt as _;

    proptest! {
        #[test]
        fn what_is_written_in_pem_is_read_again(der in prop::collection::vec(any::<u8>(), 1..400)) {
            let pem = encode("CERTIFICATE", &der);
            let read = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            prop_assert_eq!(read.as_ref(), der.as_slice());
            prop_assert!(pem.lines().all(|line| line.len() <= LINE_LENGTH));
        }
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_read_within_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        for text in ["one", "two"] {
            replace(&path, text, 0o600).unwrap();
            assert_eq!(read("TLS_KEY", &path).unwrap(), text.as_bytes());
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no other file is left");
        File::create(&path).unwrap().set_len(PEM_SIZE + 1).unwrap();
        assert!(read("TLS_KEY", &path).unwrap_err().to_string().ends_with("it has more than 1048576 bytes"));
        fs::remove_file(&path).unwrap();
        assert!(read("TLS_KEY", &path).unwrap_err().to_string().starts_with("TLS_KEY=\""));
    }
}
