//! Files that belong to a model and are no models of their own, as far as their names tell.
//!
//! What a header tells is in `check.rs`: projectors, adapters and importance matrices say so themselves.

use std::path::Path;

use super::split::is_gguf;

/// Parts of the names, in lower case, of GGUF files that belong to a model but are not models themselves; llama.cpp
/// excludes the same ones.
const COMPANION_FILES: [&str; 6] = ["mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-"];
/// Parts of [`COMPANION_FILES`] that mean a draft model, at the beginning of a name. No key of a header says so.
const DRAFT_BEGINNINGS: [&str; 4] = ["mtp-", "eagle3-", "dflash-", "dspark-"];
/// The word of a name that means a draft model.
const DRAFT_WORD: &str = "draft";

/// Whether the name is that of a file that belongs to a model. For repositories, whose files are named by convention.
pub(super) fn has_companion_name(path: &Path) -> bool {
    let name = lower_name(path);
    COMPANION_FILES.iter().any(|word| name.contains(word))
}

/// Whether the name is that of a draft model for speculative decoding: `draft` is one of its words, or it begins as
/// llama.cpp names such files.
#[must_use]
pub fn has_draft_name(path: &Path) -> bool {
    let name = lower_name(path);
    words(&name).any(|word| word == DRAFT_WORD) || DRAFT_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
}

/// Returns the words of a name in lower case: runs of letters and digits.
pub(super) fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// Returns the file name without `.gguf`, in lower case.
pub(super) fn lower_name(path: &Path) -> String {
    let stem = if is_gguf(path) { path.file_stem() } else { path.file_name() };
    stem.unwrap_or_default().to_string_lossy().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_model_is_told_by_a_whole_word_of_its_name() {
        for name in ["qwen2.5-0.5b-draft.gguf", "Draft_Llama.Q8_0.gguf", "x.draft.GGUF", "mtp-glm.gguf", "draft"] {
            assert!(has_draft_name(Path::new(name)), "{name}");
        }
        for name in ["overdraft-7b.gguf", "drafting.gguf", "smtp-helper.gguf", "draft/llama.gguf", "draughts.gguf"] {
            assert!(!has_draft_name(Path::new(name)), "{name}");
        }
    }
}
