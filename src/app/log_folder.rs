//! Names of the folders for the logs of workers.

use std::fmt::Write as _;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::bounds::LOG_FOLDER_NAME;
use crate::hex::hex;
use crate::settings::options::Logs;

/// Returns the log folder of llama-server; the folders of further workers are inside it.
pub(super) fn service_log_dir(logs: &Logs) -> PathBuf {
    logs.log_dir.join(match &logs.worker_type {
        Some(kind) => format!("llama-{kind}"),
        None => logs.log_name.clone(),
    })
}

/// Returns the name of a worker's log folder: the id of its model, with `%XX` for bytes that a file name should not
/// have, and `@NUMBER` appended unless the number is 0. Two workers never share a folder.
pub(super) fn worker_log_dir_name(id: &str, number: u32) -> String {
    let mut name = String::new();
    for (at, byte) in id.bytes().enumerate() {
        match byte.is_ascii_alphanumeric() || b"_-".contains(&byte) || byte == b'.' && at > 0 {
            true => name.push(byte.into()),
            // Writing to a string cannot fail.
            false => _ = write!(name, "%{byte:02X}"),
        }
    }
    if name.len() > LOG_FOLDER_NAME {
        let digest = Sha256::digest(id);
        name.truncate(LOG_FOLDER_NAME - 1 - 2 * DIGEST_SHOWN);
        name.push('~');
        name.push_str(&hex(&digest[..DIGEST_SHOWN]));
    }
    if number == 0 { name } else { format!("{name}@{number}") }
}

/// Bytes of the digest that tells apart long ids which are cut.
const DIGEST_SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_log_folder_is_named_after_its_model_with_unsafe_bytes_escaped() {
        for (id, number, folder) in [
            ("qwen2.5-7b", 0, "qwen2.5-7b"),
            ("qwen2.5-7b", 1, "qwen2.5-7b@1"),
            ("org/model", 0, "org%2Fmodel"),
            ("..", 0, "%2E."),
        ] {
            assert_eq!(worker_log_dir_name(id, number), folder);
        }
    }

    proptest! {
        #[test]
        fn models_with_similar_ids_have_separate_log_folders(
            ids in prop::collection::btree_set("[a_/.%@~1]{1,4}|/{120,122}|[^\\x00-\\x1f]{1,256}", 1..20),
        ) {
            let mut folders = std::collections::BTreeSet::new();
            for (id, number) in ids.iter().flat_map(|id| (0..3).map(move |number| (id, number))) {
                let folder = worker_log_dir_name(id, number);
                prop_assert!(folder.len() <= 255 && !folder.contains('/') && !folder.starts_with('.'), "{}", folder);
                prop_assert!(folders.insert(folder), "{} {}", id, number);
            }
        }
    }
}
