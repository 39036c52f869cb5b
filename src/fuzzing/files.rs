//! Invariants of files that others write: variables, headers of models, certificates.

use std::io::Cursor;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use crate::models::gguf;
use crate::models::gguf::MAX_LAYERS;
use crate::settings::env_file_parts;
use crate::tls::{LeafFacts, certificates_in, client_name};

/// Bytes of a client's name in the access log.
const LONGEST_CLIENT_NAME: usize = 128;

/// A time after which few certificates are valid.
const FAR_FUTURE: &str = "9999-01-01T00:00:00Z";

/// Checks a file of variables: no bytes make the parser panic, each line is at most one variable or one fault, names have
/// plain characters, and a value that is written in double quotes is read back.
pub fn env_file(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n').count();
    let (variables, faults) = env_file_parts(data);
    assert!(variables.len() + faults.len() <= lines, "a line is one thing at most");
    assert!(faults.is_sorted() && faults.iter().all(|line| (1..=lines).contains(line)), "{faults:?} of {lines}");
    for (name, value) in &variables {
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)), "{name:?}");
        assert!(!name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()), "{name:?}");
        assert!(!value.contains('\0'), "the environment holds no NUL");
        let is_one_line = !value.contains('\n');
        if is_one_line && !value.contains('\r') {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let again = env_file_parts(format!("export {name} = \"{quoted}\" # a comment\r\n").as_bytes());
            assert_eq!(again, (vec![(name.clone(), value.clone())], Vec::new()), "a value in quotes is read back");
        }
    }
}

/// Checks the header of a model file: no bytes make the reader panic, what it returns is within its bounds, and does not
/// depend on how many bytes a read brings. A file that is as long as its tensors need is whole.
pub fn gguf_header(data: &[u8]) {
    let whole = gguf::parse(Cursor::new(data), None);
    let in_bytes = gguf::parse(OneByte(data), None);
    assert_eq!(format!("{whole:?}"), format!("{in_bytes:?}"), "pieces do not matter");
    let sized = gguf::parse(Cursor::new(data), Some(data.len() as u64));
    match whole {
        Ok(metadata) => {
            assert!(metadata.special_tokens.is_sorted() && metadata.special_tokens.len() <= 8);
            let layers = [&metadata.head_count, &metadata.head_count_kv];
            for count in layers.into_iter().flatten() {
                assert!(format!("{count:?}").len() <= 32 * MAX_LAYERS as usize, "a list is as long as a model is deep");
            }
            if let Ok(sized) = sized {
                assert_eq!(format!("{sized:?}"), format!("{metadata:?}"));
            }
        }
        Err(error) => {
            assert!(!error.to_string().is_empty() && !error.hint().is_empty());
            assert!(!error.to_string().chars().any(char::is_control), "{error}");
            assert!(sized.is_err(), "a size mends nothing");
        }
    }
}

/// Brings one byte with each read.
struct OneByte<'a>(&'a [u8]);

impl std::io::Read for OneByte<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(1);
        self.0.read(&mut buffer[..most])
    }
}

/// Checks certificates: neither a text in PEM nor bytes in DER make the readers panic, and the name of a client is short and
/// has no control characters. The input is read as both.
pub fn certificates(data: &[u8]) {
    let ders = certificates_in(data).into_iter().flatten();
    for der in ders.chain([CertificateDer::from(data)]) {
        let name = client_name(&der);
        assert!(!name.is_empty() && name.len() <= LONGEST_CLIENT_NAME, "{name:?}");
        assert!(!name.chars().any(char::is_control), "{name:?}");
        let Some(facts) = LeafFacts::read(&der) else { continue };
        assert_eq!(facts.shown_fingerprint().len(), 32 * 3 - 1);
        assert!(!facts.expiry_day().is_empty());
        for now in [Timestamp::UNIX_EPOCH, Timestamp::MIN, Timestamp::MAX] {
            let _ = facts.expiry_warning(now);
        }
        let far: Option<Timestamp> = FAR_FUTURE.parse().ok();
        assert!(far.is_none_or(|far| facts.expires >= far || facts.expiry_warning(far).is_some()));
    }
}
