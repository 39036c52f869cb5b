//! Names of the folders that workers' logs are in.

use super::bounds::LOG_FOLDER_NAME;
use crate::settings::options::Logs;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::path::PathBuf;

/// Returns the folder of the logs of llama-server; those of further workers are inside it.
pub(super) fn of_service(logs: &Logs) -> PathBuf {
    logs.log_dir.join(match &logs.worker_type {
        Some(kind) => format!("llama-{kind}"),
        None => logs.log_name.clone(),
    })
}

/// The folder of a worker's logs among those of others: its model's id, written as in a URL where a file may not be
/// called so, and behind an `@` its number where it is not the first. No two workers have the same.
pub(super) fn of_worker(id: &str, number: u32) -> String {
    let mut name = String::new();
    for (at, byte) in id.bytes().enumerate() {
        match byte.is_ascii_alphanumeric() || b"_-".contains(&byte) || byte == b'.' && at > 0 {
            true => name.push(byte.into()),
            // Writing to a string cannot fail.
            false => _ = write!(name, "%{byte:02X}"),
        }
    }
    if name.len() > LOG_FOLDER_NAME {
        let whole = Sha256::digest(id);
        name.truncate(LOG_FOLDER_NAME - 1 - 2 * DIGEST_SHOWN);
        name.push('~');
        whole[..DIGEST_SHOWN].iter().for_each(|byte| _ = write!(name, "{byte:02x}"));
    }
    if number == 0 { name } else { format!("{name}@{number}") }
}

/// Bytes of a digest that tell long ids apart.
const DIGEST_SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_log_folder_is_called_as_its_model_where_a_file_may_be() {
        for (id, number, folder) in [
            ("qwen2.5-7b", 0, "qwen2.5-7b"),
            ("qwen2.5-7b", 1, "qwen2.5-7b@1"),
            ("org/model", 0, "org%2Fmodel"),
            ("..", 0, "%2E."),
        ] {
            assert_eq!(of_worker(id, number), folder);
        }
    }

    proptest! {
        #[test]
        fn models_whose_ids_are_alike_have_log_folders_of_their_own(
            ids in prop::collection::btree_set("[a_/.%@~1]{1,4}|/{120,122}|[^\\x00-\\x1f]{1,256}", 1..20),
        ) {
            let mut folders = std::collections::BTreeSet::new();
            for (id, number) in ids.iter().flat_map(|id| (0..3).map(move |number| (id, number))) {
                let folder = of_worker(id, number);
                prop_assert!(folder.len() <= 255 && !folder.contains('/') && !folder.starts_with('.'), "{}", folder);
                prop_assert!(folders.insert(folder), "{} {}", id, number);
            }
        }
    }
}
