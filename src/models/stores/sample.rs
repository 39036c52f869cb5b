//! Small stores of Ollama for tests.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Writes a blob. Returns the JSON of its layer, and its path.
pub(in crate::models) fn blob(store: &Path, kind: &str, bytes: &[u8]) -> (String, PathBuf) {
    let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let path = store.join("blobs").join(format!("sha256-{hash}"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    let (size, media) = (bytes.len(), "application/vnd.ollama.image");
    (format!("{{\"mediaType\":\"{media}.{kind}\",\"digest\":\"sha256:{hash}\",\"size\":{size}}}"), path)
}

/// Writes the manifest of a model with these layers at this path below `manifests`.
pub(in crate::models) fn manifest(store: &Path, name: &str, layers: &[&str]) -> PathBuf {
    let path = store.join("manifests").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("{{\"schemaVersion\":2,\"layers\":[{}]}}", layers.join(","))).unwrap();
    path
}
