//! Invariants of the stores of other programs: names and manifests.

use crate::models::stores::manifest::ManifestDocument;
use crate::models::stores::ollama_name::OllamaName;

/// Checks a name and a manifest of Ollama's store: neither leads out of the store. The first line is the name, the rest the
/// manifest.
pub fn ollama_manifest(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let name = String::from_utf8_lossy(parts.next().unwrap_or_default());
    if let Some(name) = OllamaName::parse(&name) {
        for path in name.manifests() {
            assert!(path.is_relative() && path.components().count() == 5, "{} lies in the store", path.display());
            assert!(path.iter().all(|part| !part.as_encoded_bytes().starts_with(b".")));
        }
        for text in name.texts() {
            assert_eq!(OllamaName::parse(&text).as_ref(), Some(&name), "{text} is read back");
        }
    }
    let is_hash = |hash: &str| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    match ManifestDocument::parse(parts.next().unwrap_or_default()) {
        Ok(ManifestDocument::Listed(sha256)) => assert!(is_hash(&sha256), "{sha256}"),
        Ok(ManifestDocument::Model(manifest)) => {
            for blob in manifest.projectors.iter().chain([&manifest.model]) {
                let name = blob.file_name();
                let hash = name.strip_prefix("sha256-").unwrap_or_default();
                assert!(is_hash(hash), "{name}");
            }
        }
        Err(fault) => assert!(!fault.to_string().is_empty() && !fault.hint().is_empty()),
    }
}
